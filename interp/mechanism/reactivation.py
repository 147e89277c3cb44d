"""Re-activation: push what flows into W_V back along the shift that a method made, and see whether compliance returns.

h_down(model) -> h_down(model) - alpha * shift, with the shift the mean of h_down(model) - h_down(vanilla) over the real
tokens of the attack prompts; or each token's own shift, whose alpha = 1 puts exactly vanilla's inputs into the model.
Random directions of the same length are the control: drawn with the covariance that vanilla's inputs have over prompts
(directions in which nothing ever varies are no rival), and isotropic ones beside them. Where nothing shifted there is
nothing to push, and that is said.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from interp.errors import InputError
from interp.mechanism.intervals import of_means
from interp.mechanism.intervene import fed
from interp.mechanism.lab import Analysis, Subject
from interp.mechanism.readout import compliance, mean_margin, percent, read
from interp.mechanism.region import shaped_directions
from interp.models import HookedModel, Tokens
from interp.records import Bars, Curve, Curves, Estimate, Finding

ALPHAS = (0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5)
RANDOM = 3
"""Random directions, each of the mean shift's length."""
BACK = "margin brought back at alpha = 1"
MIN_CHANGE = 0.25
"""Nats of the mean margin that a method must have moved before a share of it is given."""

TOO_LITTLE = "moved the mean margin too little for shares of it"


@dataclass(frozen=True)
class Shift:
    """How far a method moved what flows into W_V of one layer."""

    layer: int
    own: tuple[Float[Tensor, "_ _ d_mlp"], ...]
    """One tensor [batch, seq, d_mlp] per batch: h_down(model) - h_down(vanilla), zero at padding."""
    mean: Float[Tensor, "d_mlp"]
    """Over the real tokens of all prompts."""
    relative: float
    """Length of the mean shift over that of vanilla's mean h_down."""

    @property
    def zero(self) -> bool:
        """Whether no input of any neuron at any token differs."""
        return not any(bool(own.any()) for own in self.own)


@torch.no_grad()
def shift(vanilla: HookedModel, model: HookedModel, prompts: Sequence[Tokens], layer: int) -> Shift:
    """Run both models on the same batches. Memory: prompts x tokens x d_mlp numbers.

    Raises:
        InputError: a vanilla model of another shape or without that layer.
    """
    if (vanilla.d_mlp, vanilla.n_layers) != (model.d_mlp, model.n_layers):
        raise InputError(
            f"expected a vanilla model of the shape of {model.name} ({model.n_layers} layers, {model.d_mlp} neurons), "
            f"got {vanilla.n_layers} layers, {vanilla.d_mlp} neurons"
        )
    own, total, base, n = [], torch.zeros(model.d_mlp), torch.zeros(model.d_mlp), 0
    for batch in prompts:
        mine, theirs = _h_down(model, batch, layer), _h_down(vanilla, batch.to(vanilla.device), layer)
        real = batch.attention_mask.bool()[..., None]
        own.append((mine - theirs.to(mine)).masked_fill(~real, 0.0))
        total += own[-1].float().sum(dim=(0, 1)).cpu()
        base += theirs.masked_fill(~real.to(theirs.device), 0.0).float().sum(dim=(0, 1)).cpu()
        n += int(batch.lengths.sum())
    length = float(base.norm())
    return Shift(layer, tuple(own), total / n, float(total.norm()) / length if length > 0 else 0.0)


def _h_down(model: HookedModel, batch: Tokens, layer: int) -> Float[Tensor, "batch seq d_mlp"]:
    seen: list[Tensor] = []
    with fed(model, layer, lambda h: seen.append(h.detach())):
        model.logits(batch)
    return seen[0]


def pushed(
    subject: Subject, layer: int, moves: Sequence[Float[Tensor, "..."]], alpha: float
) -> Float[np.ndarray, "prompt"]:
    """Refusal margins with h_down - alpha * move at every position; one move per batch of prompts, or one for all."""
    prompts, margins = subject.prompts(), []
    for i, batch in enumerate(prompts):
        move = moves[i] if len(moves) == len(prompts) else moves[0]
        with fed(subject.model, layer, lambda h, move=move: h - alpha * move.to(h)):
            margins.append(read(subject.model, [batch], subject.lab.tokens).margin)
    return np.concatenate(margins)


def measure(subject: Subject, vanilla: Subject) -> Finding:
    """One model at the located and at the toxic layer."""
    started, lab = time.perf_counter(), subject.lab
    panels: list[Curves] = []
    bars: dict[str, tuple[Estimate | None, ...]] = {}
    facts: dict[str, str] = {}
    for layer in dict.fromkeys((lab.layer, lab.toxic_layer)):
        if subject is vanilla:
            curves = [_reference(subject)]
        else:
            moved = shift(vanilla.model, subject.model, subject.prompts(), layer)
            facts[f"{subject.name}, layer {layer}"] = _describe(subject, vanilla, moved)
            curves, back = ([], {}) if moved.zero else _doses(subject, vanilla, moved)
            bars |= {f"{kind}, layer {layer}": (value,) for kind, value in back.items()}
        for what, of in (("refusal margin", 0), ("compliance", 1)):
            panels.append(
                Curves(
                    f"{what}, inputs of layer {layer} pushed back",
                    "alpha (share of the mean shift taken back)",
                    "nats" if of == 0 else "% of prompts",
                    tuple(Curve(name, ALPHAS, values[of], control) for name, values, control in curves),
                )
            )
    return Finding(
        name="reactivation",
        title="Re-activation: the inputs of the region pushed back",
        question="Does unsafe behaviour return when what flows into the region is pushed back to where vanilla has it?",
        reading="",
        how_to_read="The mean shift of h_down over the tokens of the attack prompts is taken back by a share alpha, at "
        f"every position. Dashed: {RANDOM} random directions of the same length (mean), drawn with the covariance of "
        "vanilla's inputs over prompts, and vanilla's own level. The "
        "bars give the share of the change of the mean margin that comes back at alpha = 1, for the mean shift, for "
        "each token's own shift (vanilla's inputs exactly), and for random directions of both kinds.",
        limits="Only what passes through this layer's MLP is pushed. Own shifts bring back what the swap of h_down "
        "does; a mean shift that does less means that the shift differs from token to token.",
        n=len(lab.instances),
        seed=lab.seed,
        source="paper, Sec. 4.3 (the shift); the push is ours",
        curves=tuple(panels),
        bars=(Bars(BACK, "% of the change", (subject.name,), bars),) if bars else (),
        facts=facts,
        seconds=time.perf_counter() - started,
    )


def _reference(vanilla: Subject) -> tuple[str, tuple[tuple[Estimate, ...], ...], bool]:
    level, rate = mean_margin(vanilla.margins(), vanilla.lab.seed), compliance(vanilla.margins())
    return vanilla.name, ((level,) * len(ALPHAS), (rate,) * len(ALPHAS)), True


def _doses(subject: Subject, vanilla: Subject, moved: Shift) -> tuple[list, dict[str, Estimate | None]]:
    """Curves (margin and compliance) of the mean shift and of random directions, and what each brings back."""
    seed, generator = subject.lab.seed, torch.Generator().manual_seed(subject.lab.seed)
    plain = torch.randn(RANDOM, len(moved.mean), generator=generator)
    shaped = shaped_directions(vanilla.last("h_down")[:, moved.layer], RANDOM, seed)
    random, plain = (moved.mean.norm() * x / x.norm(dim=1, keepdim=True).clamp_min(1e-30) for x in (shaped, plain))
    clean = subject.margins()

    def margins(direction: Tensor) -> np.ndarray:
        return np.stack([clean if a == 0 else pushed(subject, moved.layer, [direction], a) for a in ALPHAS])

    along, astray = margins(moved.mean), np.stack([margins(r) for r in random])
    own, one = pushed(subject, moved.layer, moved.own, 1.0), ALPHAS.index(1.0)
    isotropic = np.mean([pushed(subject, moved.layer, [direction], 1.0) for direction in plain], axis=0)
    curves = [
        (
            name,
            (tuple(mean_margin(m, seed) for m in rows), tuple(compliance(m) for m in rows)),
            control,
        )
        for name, rows, control in (
            (subject.name, along, False),
            (f"{subject.name}, random direction", astray.swapaxes(0, 1), True),
        )
    ]
    kinds = {"mean shift": along[one], "own shifts": own, "random direction": astray[:, one].mean(axis=0),
             "isotropic direction": isotropic}  # fmt: skip
    return curves, {kind: _back(clean, vanilla.margins(), m, seed) for kind, m in kinds.items()}


def _back(clean: np.ndarray, base: np.ndarray, margins: np.ndarray, seed: int) -> Estimate | None:
    """(clean - pushed) / (clean - vanilla) of the mean margins, percent; None where the method moved next to nothing.

    The gate keeps the mean denominator away from zero, not that of every resample: one near zero widens the interval.
    """
    if abs(clean.mean() - base.mean()) < MIN_CHANGE:
        return None

    def ratio(means: np.ndarray) -> np.ndarray:
        return 100.0 * (means[..., :1] - means[..., 1:2]) / (means[..., :1] - means[..., 2:3])

    [found] = of_means(np.column_stack([clean, margins, base]), ratio, over="prompts", unit="%", seed=seed)
    return found


def _describe(subject: Subject, vanilla: Subject, moved: Shift) -> str:
    if moved.zero:
        return (
            f"{subject.name} leaves the inputs of layer {moved.layer} as vanilla has them, on every token: the shift "
            "is exactly 0, and there is nothing to push back"
        )
    said = f"the mean shift is {100 * moved.relative:.1f} % as long as vanilla's mean h_down"
    change = float(subject.margins().mean() - vanilla.margins().mean())
    if abs(change) < MIN_CHANGE:
        said += f"; {subject.name} {TOO_LITTLE} ({change:+.2f} nats)"
    return said


def words(finding: Finding) -> str:
    """Per model what the push brings back, beside the random direction; and who had nothing to push."""
    said = []
    for panel in finding.bars:
        for i, model in enumerate(panel.groups):
            for key in (k for k in panel.series if k.startswith("mean shift")):
                layer, along = key.removeprefix("mean shift, "), panel.series[key][i]
                own, astray = panel.series[f"own shifts, {layer}"][i], panel.series[f"random direction, {layer}"][i]
                if along is None or own is None or astray is None:
                    continue
                said.append(
                    f"at {layer} the mean shift brings back {percent(along)} of {model}'s change of the margin, every "
                    f"token's own {percent(own)}, random directions {percent(astray)}"
                )
    still = [text for text in finding.facts.values() if "exactly 0" in text or TOO_LITTLE in text]
    text = "; ".join(said) or "no method moved both the margin and the inputs of the region"
    return ". ".join([text[0].upper() + text[1:], *still]) + "."


REACTIVATION = Analysis("reactivation", measure, words)
