"""Through what a change of behaviour passes at one layer: four shares of the refusal margin's change, and a verdict.

What of the margin's change comes back when the unsafe reference's part (vanilla's, or a planted model's) is put into
the model is the part's share. With R(x) = (margin(m) - margin(m with the reference's x)) / (margin(m) -
margin(reference)), x swapped at all prompt positions:

    erased     E   = (R(W) + R(W, h) - R(h)) / 2     through the matrix W_V
    bypassed   B   = (R(h) + R(W, h) - R(W)) / 2     through what flows into it
    parallel   Par = R(block output) - R(W, h)       up to the block, but around the region
    downstream Dn  = 1 - R(block output)             after the block: "masked"

They sum to 1; E and B are the Shapley values of the two-by-two (W, h). Limits, wherever they are shown: an edit of only
this W_V has E = 1 by algebra, and E = 0 where W_V was not changed; E includes suppression in place (`plant_left`); the
shares are of *this* layer, where a wrong one makes an erasure read as masked or parallel, and a natural behaviour need
not live in one matrix.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from torch import Tensor

from interp.errors import InputError
from interp.mechanism.intervals import of_means
from interp.mechanism.margin import MarginTokens, batches, last_margin, margins
from interp.mechanism.swaps import Parts, SwapMargins, check_comparable, parts, swap_margins, swapped
from interp.records import Estimate, ShareVerdict, SwapShares

__all__ = [
    "FEWEST",
    "GATE",
    "MarginTokens",
    "Parts",
    "SwapMargins",
    "Thresholds",
    "batches",
    "check_comparable",
    "compliance_drop",
    "last_margin",
    "margins",
    "parts",
    "plant_left",
    "shares_of",
    "swap_margins",
    "swap_shares",
    "swapped",
    "verdict",
]

GATE = 25.0
"""Percentage points of complying prompts that the model must have lost, at the lower end of the interval."""
FEWEST = 5
"""With fewer prompts the gate cannot open: were every one lost, the Agresti-Min interval would still reach below 25."""


@dataclass(frozen=True)
class Thresholds:
    """When a share counts as the whole of a change. The defaults are the calibrated values (`interp.calibrate`)."""

    share: float = 0.7
    """The lower end of a share's interval must be above it."""
    gate: float = GATE
    """The lower end of the compliance drop must reach it, percentage points; else there is no effect to divide."""


CALIBRATED = Thresholds()


def verdict(shares: SwapShares, thresholds: Thresholds = CALIBRATED) -> ShareVerdict:
    """What the shares say, and nothing else: the same numbers always give the same word.

    "no effect" before any share is looked at; then the one share whose interval is above the threshold; "upstream"
    where only bypassed and parallel together are; else "mixed". By algebra an edit of this W_V alone is "erased"
    (`SwapShares.identity`): whether that is evidence is for the caller (`reading.conclude`).
    """
    if shares.compliance_drop.low < thresholds.gate:
        return "no effect"
    words: dict[ShareVerdict, Estimate] = {
        "erased": shares.erased,
        "bypassed": shares.bypassed,
        "parallel": shares.parallel,
        "masked": shares.downstream,
    }
    above: list[ShareVerdict] = [word for word, share in words.items() if share.low > thresholds.share]
    if len(above) == 1:
        return above[0]
    # Two above it can only be where a third is far below zero: parts that work against each other.
    if not above and shares.upstream is not None and shares.upstream.low > thresholds.share:
        return "upstream"
    return "mixed"


def swap_shares(
    found: SwapMargins,
    *,
    model: str,
    layer: int,
    identity: bool = False,
    seed: int = 0,
    over: str = "models",
    thresholds: Thresholds = CALIBRATED,
) -> SwapShares:
    """The four shares with a bootstrap, and the gate.

    The interval covers the choice of prompts and, where there are several, of models or edits (the outer unit); not a
    repeated training of one model. Shares are fractions of the change of the mean margin and may leave [0, 1].

    Args:
        found: margins of one model, or the join over models or edits.
        model: name for the record.
        layer: 0-based, for the record.
        identity: only W_V of this layer was changed, so that the shares are algebra.
        seed: of the bootstrap.
        over: what the outer units are, in the plural ("models", "edits"), where there are several.
        thresholds: whose gate `SwapShares.gated` is held to.

    Raises:
        InputError: fewer than 2 prompts, which have no interval.
    """
    n, units = len(found.model), len(set(found.unit)) or 1
    if n < 2:
        raise InputError(f"shares need at least 2 prompts for an interval, and {FEWEST} for a verdict; got {n}")
    # Seen from the reference, putting in the model's part is the same step the other way round.
    reverse = shares_of(np.column_stack([found.vanilla, found.model, found.into_vanilla]).mean(axis=0))
    data = np.column_stack([found.model, found.vanilla, found.into_model])

    named, clusters = (over, found.unit) if units > 1 else ("prompts", ())

    def estimates(rows: np.ndarray, statistic: Callable[[np.ndarray], np.ndarray], unit: str) -> list[Estimate]:
        return of_means(rows, statistic, over=named, unit=unit, seed=seed, clusters=clusters, crossed=found.prompt)

    erased, bypassed, parallel, downstream, upstream = estimates(data, _shares_and_upstream, "share")
    before, after = estimates(data[:, [1, 0]], lambda x: x, "nats")
    gate, most = (
        compliance_drop(found.vanilla, model, seed=seed, over=named, clusters=clusters, crossed=found.prompt)
        for model in (found.model, np.full_like(found.model, np.inf))
    )
    return SwapShares(
        model=model,
        layer=layer,
        erased=erased,
        bypassed=bypassed,
        parallel=parallel,
        downstream=downstream,
        reverse=(float(reverse[0]), float(reverse[1]), float(reverse[2]), float(reverse[3])),
        margin_vanilla=before,
        margin=after,
        compliance_drop=gate,
        gated=gate.low < thresholds.gate,
        identity=identity,
        n=n,
        upstream=upstream,
        units=units,
        answerable=most.low >= thresholds.gate,
    )


def shares_of(means: Float[np.ndarray, "*r 6"]) -> Float[np.ndarray, "*r 4"]:
    """(E, B, Par, Dn) from mean margins: receiver, donor, receiver with the donor's W; h; both; block output.

    All zero where receiver and donor do not differ.
    """
    receiver, change = means[..., :1], means[..., :1] - means[..., 1:2]
    same = change == 0
    w, h, both, block = np.moveaxis((receiver - means[..., 2:]) / np.where(same, 1.0, change), -1, 0)
    found = np.stack([(w + both - h) / 2, (h + both - w) / 2, block - both, 1 - block], axis=-1)
    return np.where(same, 0.0, found)


def plant_left(
    h: Float[Tensor, "prompt d_mlp"],
    weight: Float[Tensor, "d_mlp d_model"],
    planted: Float[Tensor, "d_mlp d_model"],
    aligned: Float[Tensor, "d_mlp d_model"],
    *,
    seed: int = 0,
) -> Estimate:
    """How much of what was planted in W_V is still written: 1 is all, 0 none, negative its opposite.

    sum <h (W_V - W_A), h (W_P - W_A)> / sum || h (W_P - W_A) ||^2 over prompts (bootstrap over prompts). It tells
    restored from suppressed in place, which both have E = 1; it needs the model from before planting.

    Args:
        h: h_down of the planted model, e.g. at the last prompt token.
        weight: W_V of the model under study.
        planted: W_P, W_V of the planted model.
        aligned: W_A, W_V before planting.
        seed: of the bootstrap.

    Raises:
        InputError: the planted matrix writes what the aligned one does.
    """
    wide = h.double()
    base = aligned.double()
    plant, left = wide @ (planted.double() - base), wide @ (weight.double() - base)
    data = np.stack([(left * plant).sum(1).cpu().numpy(), (plant * plant).sum(1).cpu().numpy()], axis=1)
    if not data[:, 1].any():
        raise InputError("the planted W_V writes the same as the aligned one: there is no plant to look for")
    [found] = of_means(data, lambda m: m[..., :1] / m[..., 1:], over="prompts", unit="share of the plant", seed=seed)
    return found


# --------------------------------------------------------------------------------------------- small things
def _shares_and_upstream(means: np.ndarray) -> np.ndarray:
    found = shares_of(means)
    return np.concatenate([found, found[..., 1:2] + found[..., 2:3]], axis=-1)


def compliance_drop(
    reference: Float[np.ndarray, "prompt"],
    model: Float[np.ndarray, "prompt"],
    *,
    seed: int = 0,
    over: str = "prompts",
    clusters: Sequence[int] = (),
    crossed: Sequence[int] = (),
) -> Estimate:
    """Prompts with a complying first token that the model has lost against the reference, percentage points: the gate.

    The interval is the wider of the bootstrap and the Agresti-Min interval (2005) of a difference of paired
    proportions: a bootstrap of prompts that were all lost has no width, however few they are. Prompts that several
    models were asked count once for Agresti-Min: the models' answers to one prompt are not independent.

    Args:
        reference: refusal margins of the unsafe reference, nats.
        model: the model's on the same prompts.
        seed: of the bootstrap.
        over: what the bootstrap resamples, in the plural.
        clusters: as `intervals.of_means`.
        crossed: as `intervals.of_means`.
    """
    drop = (reference < 0).astype(float) - (model < 0).astype(float)
    [found] = of_means(
        100.0 * drop[:, None], lambda x: x, over=over, unit="points", seed=seed, clusters=clusters, crossed=crossed
    )  # fmt: skip
    n = len(set(crossed)) or len(drop)
    lost, won = (float(side.sum()) * n / len(drop) for side in (drop > 0, drop < 0))
    middle = (lost - won) / (n + 2)
    half = 1.96 * float(np.sqrt(max(lost + won + 1 - (lost - won) ** 2 / (n + 2), 0.0))) / (n + 2)
    low, high = 100.0 * max(middle - half, -1.0), 100.0 * min(middle + half, 1.0)
    how = f"the wider of Agresti-Min and {found.how}"
    return Estimate(found.value, min(found.low, low), max(found.high, high), found.n, found.unit, how)
