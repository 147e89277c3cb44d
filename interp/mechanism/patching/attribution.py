"""Attribution patching: gradient times activation difference as the fast estimate of every patch at once.

Two forward-backward passes per batch, one through each model, give all layers, places and positions. It is a linear
estimate, so its correlation with true patches stands beside it; nothing here replaces those.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from interp.mechanism.intervals import of_means
from interp.mechanism.lab import Analysis, Subject
from interp.mechanism.margin import MarginTokens
from interp.mechanism.patching.activations import GRIDS, LAST, PLACES, Patched, all_patches, effects
from interp.mechanism.patching.maps import NAMES, NO_EFFECT, SHARE, divisible, grid_of, undivided
from interp.mechanism.patching.places import Clean, places_of, read
from interp.mechanism.several import of_edits
from interp.models import HookedModel, Tokens
from interp.records import Bars, Curve, Curves, Estimate, Finding, Grid

SIZE = "control: size of the difference alone"
PASSES = 2
"""Forward-backward passes per batch, for all layers, places and positions, in both directions."""


@dataclass(frozen=True)
class Attribution:
    """Estimated margins of a receiver with the donor's activations, minus its own, nats."""

    all_positions: dict[str, Float[np.ndarray, "prompt layer"]]
    last: dict[str, Float[np.ndarray, "prompt layer back"]]
    """Single positions from the end."""
    size: dict[str, Float[np.ndarray, "prompt layer back"]]
    """|| donor's activation - own || there: what can be known without a gradient."""
    size_all: dict[str, Float[np.ndarray, "prompt layer"]]


def attribute(
    model: HookedModel,
    donor: HookedModel,
    prompts: Sequence[Tokens],
    tokens: MarginTokens,
    *,
    places: Sequence[str] | None = None,
    last: int = LAST,
) -> tuple[Attribution, Attribution]:
    """Linear estimates of every patch: from the donor into the model, and from the model into the donor.

    sum over the width of the receiver's gradient x (other's activation - own), the gradient taken at the receiver's own
    activations. The two directions need the gradients of two functions, as the models' weights differ.

    Args:
        model: the receiver of the first estimate.
        donor: a model of the same shape that reads the same tokens; the receiver of the second.
        prompts: batches padded on the left.
        tokens: first tokens of refusing and complying answers.
        places: as `places_of`; all by default.
        last: positions from the end that are kept one by one.

    Raises:
        InputError: a place that the architecture does not have.
    """
    chosen = tuple(places_of(model) if places is None else places)
    found: list[tuple[dict, dict, dict, dict]] = [({}, {}, {}, {}), ({}, {}, {}, {})]
    for batch in prompts:
        (mine, slope), (theirs, other) = (_with_gradients(m, batch, tokens, chosen) for m in (model, donor))
        for place in chosen:
            for store, own, there, gradient in zip(
                found, (mine, theirs), (theirs, mine), (slope, other), strict=True
            ):  # fmt: skip
                for kept, x in zip(store, _estimates(own, there, gradient, place, model.n_layers, last), strict=True):
                    kept.setdefault(place, []).append(x)
    into_model, into_donor = (
        Attribution(*({p: torch.cat(x).cpu().double().numpy() for p, x in kept.items()} for kept in store))
        for store in found
    )
    return into_model, into_donor


def _estimates(
    own: Clean, there: Clean, gradient: dict[tuple[str, int], Tensor], place: str, layers: int, last: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """All positions; the last ones; sizes of the last ones' differences; sizes over all positions."""
    real = own.tokens.attention_mask
    keys = [(place, at) for at in range(layers)]
    delta = [there.acts[key].detach().to(gradient[key]) - own.acts[key].detach() for key in keys]
    each = torch.stack([(gradient[k] * d).sum(-1) * real for k, d in zip(keys, delta, strict=True)], dim=1)
    size = torch.stack([d.norm(dim=-1) * real for d in delta], dim=1)
    return each.sum(-1), _tail(each, last), _tail(size, last), size.sum(-1)


def _with_gradients(
    model: HookedModel, batch: Tokens, tokens: MarginTokens, places: Sequence[str]
) -> tuple[Clean, dict[tuple[str, int], Tensor]]:
    clean = read(model, batch, tokens, places, gradients=True)
    keys = list(clean.acts)
    # Each prompt's margin depends on its own row alone, so that one backward gives every prompt's gradient.
    return clean, dict(zip(keys, torch.autograd.grad(clean.margin.sum(), [clean.acts[k] for k in keys]), strict=True))


def _tail(x: Float[Tensor, "batch layer seq"], last: int) -> Float[Tensor, "batch layer back"]:
    """The last positions, the very last first; zeros where the batch is shorter."""
    shown = x[..., -last:].flip(-1)
    return torch.nn.functional.pad(shown, (0, last - shown.shape[-1]))


# --------------------------------------------------------------------------------------------- against the truth
def agreement(
    estimate: Float[np.ndarray, "prompt cell"], truth: Float[np.ndarray, "prompt cell"], seed: int = 0
) -> Estimate:
    """Pearson correlation over cells of the mean estimate and the mean true change; bootstrap over prompts.

    0 where one of them is the same in all cells.
    """
    k = estimate.shape[1]

    def pearson(means: np.ndarray) -> np.ndarray:
        a, b = (x - x.mean(axis=-1, keepdims=True) for x in (means[..., :k], means[..., k:]))
        norm = np.sqrt((a * a).sum(-1) * (b * b).sum(-1))
        return (np.where(norm > 0, (a * b).sum(-1), 0.0) / np.where(norm > 0, norm, 1.0))[..., None]

    data = np.concatenate([estimate, truth], axis=1)
    return of_means(data, pearson, over="prompts", unit="correlation", seed=seed)[0]


def measure(subject: Subject, vanilla: Subject) -> Finding:
    """Two forward-backward passes per batch; the true patches are those of the patching analysis, measured once."""
    started, lab = time.perf_counter(), subject.lab
    curves: list[Curves] = []
    bars: list[Bars] = []
    grids: list[Grid] = []
    facts: dict[str, str] = {}
    wide, said = divisible(subject, vanilla)
    if subject is not vanilla and not wide:
        facts[subject.name] = f"{NO_EFFECT}: {said}"
    elif subject is not vanilla:
        truth = all_patches(subject, vanilla)
        began = time.perf_counter()
        into_model, into_vanilla = attribute(subject.model, vanilla.model, subject.prompts(), lab.tokens)
        took = time.perf_counter() - began
        facts[subject.name] = (
            f"{took:.2g} s for all layers, places and positions; true patches of some {truth.seconds:.2g} s"
        )
        own = truth.model[:, None]
        layers = tuple(float(at) for at in range(subject.model.n_layers))
        for place in PLACES:
            estimated = own + into_model.all_positions[place]
            curve = Curve(subject.name, layers, tuple(effects(truth.model, truth.vanilla, estimated, lab.seed)))
            curves.append(Curves(f"{NAMES[place]}, estimated", "layer (0-based)", SHARE, (curve,), (float(lab.layer),)))
        bars = [_bars(subject, into_model, into_vanilla, truth)]
        for place in GRIDS:
            flat = into_model.last[place].reshape(len(own), -1)
            values = [e.value for e in effects(truth.model, truth.vanilla, own + flat, lab.seed)]
            shape = into_model.last[place].shape[1:]
            grids.append(grid_of(subject, f"{NAMES[place]}, one position, estimated", np.array(values).reshape(shape)))
    return Finding(
        name="attribution",
        title="Attribution patching, and how far it can be trusted",
        question="Does the linear estimate of every patch, for two passes a batch, agree with the true patches?",
        reading="",
        how_to_read="Bars: correlation of estimated and true effects over cells: all layers of residual stream, "
        "attention and MLP with every position patched, and layer x single position. The control is what the size of "
        "the activations' difference alone would give. Curves and grids: the estimate in the units of the patching "
        "analysis. Bootstrap 95 % over prompts.",
        limits="A correlation over cells says that the map is right, not that its values are: the estimate misses what "
        "is not linear, most of all where whole streams are replaced.",
        n=len(lab.instances),
        seed=lab.seed,
        source="Nanda 2023 (attribution patching)",
        curves=tuple(curves),
        bars=tuple(bars),
        grids=tuple(grids),
        facts=facts,
        seconds=time.perf_counter() - started,
    )


ALL, ONE, BACK = "all positions", "single positions", "all positions, the model's into vanilla"


def _bars(subject: Subject, into_model: Attribution, into_vanilla: Attribution, truth: Patched) -> Bars:
    """Correlations over cells of estimated and true changes of the margin, signed as the patches are."""
    seed, n = subject.lab.seed, len(truth.model)

    def flat(x: dict[str, np.ndarray], places: Sequence[str]) -> np.ndarray:
        return np.concatenate([x[p].reshape(n, -1) for p in places], axis=1)

    true = flat(truth.into_model, PLACES) - truth.model[:, None]
    true_one = flat(truth.last, GRIDS) - truth.model[:, None]
    true_back = flat(truth.into_vanilla, PLACES) - truth.vanilla[:, None]
    pairs = {
        ALL: (flat(into_model.all_positions, PLACES), true),
        ONE: (flat(into_model.last, GRIDS), true_one),
        BACK: (flat(into_vanilla.all_positions, PLACES), true_back),
        # A size has no sign: it is held against how much the margin moves.
        f"{SIZE}, {ALL}": (flat(into_model.size_all, PLACES), np.abs(true)),
        f"{SIZE}, {ONE}": (flat(into_model.size, GRIDS), np.abs(true_one)),
    }
    series: dict[str, tuple[Estimate | None, ...]] = {
        name: (agreement(guess, real, seed),) for name, (guess, real) in pairs.items()
    }
    return Bars("correlation with true patches", "Pearson correlation over cells", (subject.name,), series)


def words(finding: Finding) -> str:
    """Per model: the correlation for both kinds of patches beside the control's."""
    said = undivided(finding)
    if not finding.bars:
        return f"{'; '.join(said) or 'Only vanilla was measured'}."
    panel = finding.bars[0]
    for i, name in enumerate(panel.groups):
        parts, who = [], name
        for cells in (ALL, ONE):
            found, chance = panel.series[cells][i], panel.series[f"{SIZE}, {cells}"][i]
            if found is not None and chance is not None:
                who = of_edits(name, found)
                parts.append(
                    f"{found.value:.2f} [{found.low:.2f}, {found.high:.2f}] for {cells} (size alone {chance.value:.2f})"
                )
        said.append(f"{who}: {', '.join(parts)}")
    return f"Correlation of the estimate with the true patches, {'; '.join(said)}."


ATTRIBUTION = Analysis("attribution", measure, words)
