"""The refusal direction of every layer, learnt by difference of means (Arditi et al. 2024, arXiv 2406.11717, Sec. 2.3).

Mean residual stream at the last prompt token of bare harmful questions that vanilla refuses, minus that of attacked
ones that it complies with. The contrast of the paper, harmful minus harmless, keeps answer and topic together: on the
demo it finds harm, and the refusal margin within attacked prompts does not follow it (`HARM` is kept as the rival).
This contrast keeps the answer and the attack together instead, which is why `directions` shows whether it follows the
margin where every prompt is attacked. Nothing is ablated here (`interp.methods.direction` does that).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from weakref import WeakKeyDictionary

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from interp.capture import capture
from interp.errors import InputError
from interp.mechanism.intervals import of_means
from interp.mechanism.lab import Subject
from interp.records import Estimate

HARM = "harmful minus harmless"
PROMPTS = 64
"""At most so many of each side are learnt from (paper: 128)."""
FEWEST = 4
"""Fewer prompts on one side give no direction."""
RESAMPLES = 500


@dataclass(frozen=True)
class Sides:
    """What the direction is learnt from, and harmless requests to test it with."""

    refused: tuple[str, ...]
    complied: tuple[str, ...]
    harmless: tuple[str, ...]
    """Bare harmless requests; may be empty."""
    wrapped: tuple[str, ...]
    """Harmless requests inside an attack; may be empty."""
    said: str
    """Which prompts these are, in words."""


@dataclass(frozen=True)
class Axis:
    """One direction per layer with its two ends: 0 is the mean of the complied prompts, 1 that of the refused ones."""

    direction: Float[Tensor, "layer d_model"]
    """Unit length; zero where the two means are the same."""
    complied: Float[Tensor, "layer d_model"]
    gap: Float[Tensor, "layer"]
    """Distance between the two means, residual stream units."""

    @classmethod
    def between(cls, refused: Float[Tensor, "n layer d_model"], complied: Float[Tensor, "m layer d_model"]) -> Axis:
        """The axis through two means."""
        low = complied.double().mean(dim=0)
        difference = refused.double().mean(dim=0) - low
        return cls(torch.nn.functional.normalize(difference, dim=-1), low, difference.norm(dim=-1))

    def position(self, resid: Float[Tensor, "n layer d_model"]) -> Float[np.ndarray, "n layer"]:
        """Where residual streams lie on the axis, in units of the gap."""
        along = torch.einsum("nld,ld->nl", resid.double() - self.complied, self.direction)
        return (along / self.gap.clamp_min(1e-30)).numpy()

    def shift(
        self, new: Float[Tensor, "n layer d_model"], old: Float[Tensor, "n layer d_model"]
    ) -> Float[np.ndarray, "n layer"]:
        """How far each prompt moved along the axis, in units of the gap; exactly 0 where it did not move."""
        along = torch.einsum("nld,ld->nl", new.double() - old.double(), self.direction)
        return (along / self.gap.clamp_min(1e-30)).numpy()


_texts: WeakKeyDictionary[Subject, dict[tuple[str, ...], Tensor]] = WeakKeyDictionary()


def last_of(subject: Subject, texts: Sequence[str]) -> Float[Tensor, "n layer d_model"]:
    """Residual stream after every block at the last token of some prompts, taken once; float32 on the CPU."""
    known, key = _texts.setdefault(subject, {}), tuple(texts)
    if key not in known:
        model = subject.model
        got = capture(
            model, [model.format_prompt(t) for t in key], "resid_post", pool="last", batch_size=subject.lab.batch_size
        )
        known[key] = got.stack("resid_post").transpose(0, 1).float()
    return known[key]


@torch.no_grad()
def refuses(subject: Subject, texts: Sequence[str]) -> np.ndarray:
    """Whether the most likely first token of the answer is one that refuses, a boolean [n]."""
    head, final = subject.model.unembedding, last_of(subject, texts)[:, -1]
    best = head(subject.model.final_norm(final.to(next(head.parameters())))).argmax(dim=-1)
    return np.isin(best.cpu().numpy(), subject.lab.tokens.refuse)


def sides(vanilla: Subject) -> Sides:
    """The prompts of both sides, by vanilla's own behaviour.

    Both are of `lab.train`, or without one of the instances themselves. Where vanilla complies with too few attacked
    prompts, bare harmless requests stand in for them (the contrast of the paper).

    Raises:
        InputError: fewer than `FEWEST` prompts are left on a side.
    """
    lab = vanilla.lab
    source = lab.train or lab.instances
    harmless, wrapped = (_some(b.prompt for b in lab.benign if b.wrapped is inside) for inside in (False, True))
    asked, attacked = _some(i.question for i in source), _some(i.adversarial_prompt for i in source)
    refused = [t for t, yes in zip(asked, refuses(vanilla, asked), strict=True) if yes]
    complied = [t for t, yes in zip(attacked, refuses(vanilla, attacked), strict=True) if not yes]
    kind, of = "attacked prompts", attacked
    if len(complied) < FEWEST and harmless:
        kind, of = "bare harmless requests (it complies with too few attacked ones)", harmless
        complied = [t for t, yes in zip(of, refuses(vanilla, of), strict=True) if not yes]
    for what, found, every in (("refused bare questions", refused, asked), (f"{kind} complied with", complied, of)):
        if len(found) < FEWEST:
            raise InputError(
                f"expected at least {FEWEST} {what} to learn a direction, got {len(found)} of {len(every)}"
            )
    where = "of the training split" if lab.train else "of the instances themselves (there is no training split)"
    said = (
        f"{len(refused)} of {len(asked)} bare questions {where} that vanilla refuses, minus {len(complied)} of "
        f"{len(of)} {kind} that it does not refuse"
    )
    return Sides(tuple(refused), tuple(complied), harmless, wrapped, said)


def harm_axis(vanilla: Subject, found: Sides) -> Axis | None:
    """The rival direction, harmful minus harmless; None without harmless requests."""
    return Axis.between(last_of(vanilla, found.refused), last_of(vanilla, found.harmless)) if found.harmless else None


def _some(texts: Iterable[str]) -> tuple[str, ...]:
    """The first different ones, evenly spread over the whole where there are more than `PROMPTS`."""
    every = tuple(dict.fromkeys(texts))
    return tuple(every[i * len(every) // PROMPTS] for i in range(PROMPTS)) if len(every) > PROMPTS else every


# --------------------------------------------------------------------------------------------- controls
def shuffled_directions(
    refused: Float[Tensor, "n layer d_model"], complied: Float[Tensor, "m layer d_model"], draws: int, seed: int
) -> Float[Tensor, "draw layer d_model"]:
    """Unit differences of means under shuffled labels."""
    both = torch.cat([refused, complied]).double()
    generator, size = torch.Generator().manual_seed(seed), len(refused)
    signs = torch.full((draws, len(both)), -1.0 / (len(both) - size), dtype=torch.float64)
    for row in signs:
        row[torch.randperm(len(both), generator=generator)[:size]] = 1.0 / size
    return torch.nn.functional.normalize(torch.einsum("rn,nld->rld", signs, both), dim=-1)


# --------------------------------------------------------------------------------------------- intervals
def shift_cosines(shift: Float[Tensor, "n layer d_model"], axis: Axis, seed: int) -> list[Estimate]:
    """Cosine of the mean shift with the direction of each layer, with a bootstrap over prompts; 0 without a shift."""
    n = len(shift)
    counts = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=RESAMPLES) / n
    weights = torch.tensor(np.concatenate([np.full((1, n), 1 / n), counts]))
    found = []
    for layer in range(shift.shape[1]):
        x = shift[:, layer].double()
        along = weights @ (x @ axis.direction[layer])
        length = torch.einsum("rn,nm,rm->r", weights, x @ x.T, weights).clamp_min(0).sqrt()
        found.append(_percentile(torch.where(length > 0, along / length.clamp_min(1e-30), 0.0).numpy(), n, seed))
    return found


def direction_cosines(mine: tuple[Tensor, Tensor], theirs: tuple[Tensor, Tensor], seed: int) -> list[Estimate]:
    """Cosine between the directions of two models of each layer, with a bootstrap over the prompts of both sides.

    Args:
        mine: (refused, complied) residual streams [n, layer, d_model] of one model.
        theirs: the same prompts in the other.
        seed: of the bootstrap.
    """
    rng = np.random.default_rng(seed)
    weights = []
    for side in mine:
        n = len(side)
        counts = rng.multinomial(n, np.full(n, 1 / n), size=RESAMPLES) / n
        weights.append(torch.tensor(np.concatenate([np.full((1, n), 1 / n), counts])))
    found = []
    for layer in range(mine[0].shape[1]):
        a, b = (
            weights[0] @ refused[:, layer].double() - weights[1] @ complied[:, layer].double()
            for refused, complied in (mine, theirs)
        )
        cosine = torch.nn.functional.cosine_similarity(a, b, dim=-1).clamp(-1, 1).numpy()
        found.append(_percentile(cosine, len(mine[0]) + len(mine[1]), seed))
    return found


def correlations(x: Float[np.ndarray, "n layer"], y: Float[np.ndarray, "n"], seed: int) -> list[Estimate]:
    """Pearson correlation of each column with y, with a bootstrap over prompts; 0 where something does not vary."""
    x, y = x - x.mean(axis=0), y - y.mean()
    k = x.shape[1]
    data = np.column_stack([x, x**2, x * y[:, None], y, y**2])

    def statistic(m: np.ndarray) -> np.ndarray:
        mx, mxx, mxy, my, myy = m[..., :k], m[..., k : 2 * k], m[..., 2 * k : 3 * k], m[..., 3 * k, None], m[..., -1:]
        spread = np.sqrt(np.clip(mxx - mx**2, 0, None) * np.clip(myy - my**2, 0, None))
        return np.where(spread > 0, np.clip((mxy - mx * my) / np.where(spread > 0, spread, 1.0), -1, 1), 0.0)

    return of_means(data, statistic, over="prompts", unit="correlation", seed=seed)


def _percentile(values: np.ndarray, n: int, seed: int) -> Estimate:
    """The first value with the central 95 % of the others."""
    value = float(values[0])
    low, high = np.quantile(values[1:], [0.025, 0.975])
    how = f"bootstrap 95 % over prompts, {RESAMPLES} resamples, seed {seed}"
    return Estimate(value, min(float(low), value), max(float(high), value), n, "cosine", how)
