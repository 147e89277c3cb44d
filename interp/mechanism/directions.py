"""Does a model refuse because it is pushed along vanilla's refusal direction? Projections, shifts, own directions.

The direction is a difference of means (Arditi et al. 2024, arXiv 2406.11717; how it is learnt: `refusal_axis`). Every
model's prompts are put on vanilla's axis, where 0 is vanilla on attacked prompts that it complies with and 1 vanilla on
bare questions that it refuses. A shift along it is compared with random directions, with shuffled labels, and with what
happens to harmless requests: a model that sits higher on the axis whatever it is asked is a refusal booster. It is a
reading, not a cause.
"""

from __future__ import annotations

import math
import time

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from interp.mechanism.intervals import of_means
from interp.mechanism.lab import Analysis, Subject
from interp.mechanism.neurons import between
from interp.mechanism.refusal_axis import (
    HARM,
    Axis,
    Sides,
    correlations,
    direction_cosines,
    harm_axis,
    last_of,
    shift_cosines,
    shuffled_directions,
    sides,
)
from interp.mechanism.region import shaped_directions
from interp.records import Bars, Curve, Curves, Estimate, Finding

DRAWS = 200
"""Random directions, and shuffles of the labels."""
UNIT = "of vanilla's gap"
POSITION, SHIFT, ALONG, WITHIN, OWN = (
    "Attacked prompts on vanilla's refusal axis",
    "Shift towards refusal",
    "Cosine of the mean shift with vanilla's direction",
    "Within attacked prompts: does the axis follow the refusal margin?",
    "Cosine of the model's own direction with vanilla's",
)
RANDOM, SHUFFLED, HALVES, BARE = (
    "random directions",
    "shuffled labels",
    "vanilla, two halves of the prompts",
    "vanilla, bare questions",
)
ATTACKED, HARMFUL, HARMLESS, WRAPPED = "attacked", "bare harmful", "bare harmless", "attacked harmless"


def measure(subject: Subject, vanilla: Subject) -> Finding:
    """Where `subject` puts prompts on vanilla's refusal axis, and its own axis beside it."""
    started, lab, name = time.perf_counter(), vanilla.lab, subject.name
    found = sides(vanilla)
    theirs = last_of(vanilla, found.refused), last_of(vanilla, found.complied)
    mine = last_of(subject, found.refused), last_of(subject, found.complied)
    axis = Axis.between(*theirs)
    new, old = subject.last("resid_post"), vanilla.last("resid_post")
    x = tuple(float(i) for i in range(new.shape[1]))
    position = _means(axis.position(new), lab.seed)
    shaped = _shaped(vanilla)
    followed = [
        Curve(name, x, tuple(correlations(axis.position(new), subject.margins(), lab.seed))),
        Curve(f"{RANDOM}, {name}", x, _null_correlations(shaped, new, subject.margins()), control=True),
    ]
    if subject is vanilla and (rival := harm_axis(vanilla, found)) is not None:
        along = tuple(correlations(rival.position(old), vanilla.margins(), lab.seed))
        followed.append(Curve(f"{HARM}, {name}", x, along, control=True))
    panels = [
        Curves(POSITION, "layer", UNIT, (
            Curve(name, x, position),
            Curve(BARE, x, _means(axis.position(vanilla.last("resid_post", "onlyQ")), lab.seed), control=True),
        )),
        Curves(WITHIN, "layer", "correlation with the margin", tuple(followed)),
    ]  # fmt: skip
    bars = ()
    if subject is not vanilla:
        panels += _compared(name, x, axis, new - old, (shaped, shuffled_directions(*theirs, DRAWS, lab.seed)), lab.seed)
        ceiling = Curve(HALVES, x, _halves(theirs, lab.seed), control=True)
        cosines = Curve(name, x, tuple(direction_cosines(mine, theirs, lab.seed)))
        panels.append(Curves(OWN, "layer", "cosine", (cosines, ceiling)))
        layers = dict.fromkeys((lab.toxic_layer, lab.layer))
        bars = tuple(_by_prompt(subject, vanilla, axis, found, layer) for layer in layers)
    return Finding(
        name="refusal_direction",
        title="Refusal direction",
        question="Does a model refuse because attacked prompts are pushed along vanilla's refusal direction?",
        reading="",
        how_to_read="On the axis, 0 is vanilla on attacked prompts that it complies with and 1 vanilla on bare "
        "questions that it refuses. Where the axis does not follow the margin within attacked prompts, it shows the "
        "attack and not refusal. The cosine says how much of the whole shift lies along it; grey is what other "
        "directions get. An edit cannot show below its layer.",
        limits="At the last layers the direction is close to what names the first token, so that a model that refuses "
        "must move along it there. A projection is not a cause. The axis is linear and of the last prompt token.",
        n=len(lab.instances),
        seed=lab.seed,
        source="Arditi et al. 2024 (arXiv 2406.11717), Sec. 2.3 and 5",
        curves=tuple(panels),
        bars=bars,
        facts={"learnt from": found.said},
        seconds=time.perf_counter() - started,
    )


def _compared(
    name: str, x: tuple[float, ...], axis: Axis, shift: Tensor, nulls: tuple[Tensor, Tensor], seed: int
) -> list[Curves]:
    """The shift of the attacked prompts, and how much of it lies along the direction."""
    mean = torch.nn.functional.normalize(shift.double().mean(dim=0), dim=-1)
    controls = [
        Curve(f"{kind}, {name}", x, tuple(between(c, "cosine") for c in torch.einsum("rld,ld->lr", null, mean).numpy()),
              control=True)
        for kind, null in zip((RANDOM, SHUFFLED), nulls, strict=True)
    ]  # fmt: skip
    moved = _means(axis.shift(shift, torch.zeros_like(shift)), seed)
    return [
        Curves(SHIFT, "layer", UNIT, (Curve(name, x, moved),)),
        Curves(ALONG, "layer", "cosine", (Curve(name, x, tuple(shift_cosines(shift, axis, seed))), *controls)),
    ]


def _by_prompt(subject: Subject, vanilla: Subject, axis: Axis, found: Sides, layer: int) -> Bars:
    """The shift after one layer by what was asked."""
    lab = vanilla.lab
    pairs: dict[str, tuple[Tensor, Tensor]] = {
        ATTACKED: (subject.last("resid_post"), vanilla.last("resid_post")),
        HARMFUL: (subject.last("resid_post", "onlyQ"), vanilla.last("resid_post", "onlyQ")),
    }
    for kind, texts in ((HARMLESS, found.harmless), (WRAPPED, found.wrapped)):
        if texts:
            pairs[kind] = last_of(subject, texts), last_of(vanilla, texts)
    series: dict[str, tuple[Estimate | None, ...]] = {
        kind: (_means(axis.shift(new, old)[:, [layer]], lab.seed)[0],) for kind, (new, old) in pairs.items()
    }
    return Bars(f"{SHIFT} after layer {layer}, by prompt", UNIT, (subject.name,), series)


def _means(data: Float[np.ndarray, "n layer"], seed: int) -> tuple[Estimate, ...]:
    return tuple(of_means(data, lambda m: m, over="prompts", unit=UNIT, seed=seed))


def _shaped(vanilla: Subject) -> Float[Tensor, "draw layer d_model"]:
    """Random directions with the covariance of vanilla's residual stream on attacked prompts, layer by layer."""
    resid, seed = vanilla.last("resid_post"), vanilla.lab.seed
    return torch.stack([shaped_directions(resid[:, i], DRAWS, seed + i) for i in range(resid.shape[1])], 1).double()


def _null_correlations(directions: Tensor, resid: Tensor, margins: np.ndarray) -> tuple[Estimate, ...]:
    """Correlation with the margin of projections on random directions."""
    along = torch.einsum("rld,nld->lrn", directions, resid.double() - resid.double().mean(dim=0)).numpy()
    y = margins - margins.mean()
    spread = np.sqrt((along**2).sum(-1) * (y**2).sum())
    found = np.where(spread > 0, (along @ y) / np.where(spread > 0, spread, 1.0), 0.0)
    return tuple(between(row, "correlation") for row in found)


def _halves(theirs: tuple[Tensor, Tensor], seed: int, splits: int = 20) -> tuple[Estimate, ...]:
    """Cosine between the directions of two random halves of the prompts: what the choice of prompts alone costs."""
    rng, rows = np.random.default_rng(seed), []
    for _ in range(splits):
        orders = [torch.tensor(rng.permutation(len(side))) for side in theirs]
        first, second = (
            Axis.between(*(side[order[start::2]] for side, order in zip(theirs, orders, strict=True)))
            for start in (0, 1)
        )
        rows.append((first.direction * second.direction).sum(-1).numpy())
    return tuple(between(column, "cosine", "splits of the prompts") for column in np.stack(rows, axis=1))


def read(finding: Finding) -> str:
    """Per model: how far towards refusal, whether that is more than chance, and whether harmless prompts go along."""
    if not finding.bars:
        return "There is no model to compare with vanilla."
    return " ".join(_after(finding, bars) for bars in finding.bars)


def _after(finding: Finding, bars: Bars) -> str:
    """What is seen after the layer of one panel: the toxic one, and the one where the behaviour was located."""
    along = {c.name: c for p in finding.curves if p.title == ALONG for c in p.curves}
    layer = int(bars.title.removeprefix(f"{SHIFT} after layer ").split(",")[0])
    followed = next(p for p in finding.curves if p.title == WITHIN).curves
    base = next(c for c in followed if not c.control).y[layer]
    said = [f"the axis follows vanilla's margin within attacked prompts with r = {_interval(base)}"]
    for i, name in enumerate(bars.groups):
        moved = {kind: values[i] for kind, values in bars.series.items()}
        attacked, harmless = moved[ATTACKED], moved.get(HARMLESS)
        if attacked is None:
            continue
        if _is_zero(attacked) and (harmless is None or _is_zero(harmless)):
            said.append(f"{name} changes nothing up to there: its shift is exactly 0 by construction")
            continue
        cosine = along[name].y[layer]
        nulls = {kind: along[f"{kind}, {name}"].y[layer] for kind in (RANDOM, SHUFFLED)}
        chance = " and ".join(
            f"{'within' if null.low <= cosine.value <= null.high else 'outside'} the {null.low:.2f} to {null.high:.2f} "
            f"of {kind}"
            for kind, null in nulls.items()
        )
        text = (
            f"{name} moves attacked prompts by {_interval(attacked)} of the gap ({_way(attacked)}); the shift has "
            f"cosine {cosine.value:.2f} with the direction, {chance}"
        )
        if harmless is not None:
            text += f"; harmless requests move by {_interval(harmless)}{_verdict(attacked, harmless)}"
        said.append(text)
    return f"After layer {layer}: " + ". ".join(said) + "."


def _interval(e: Estimate) -> str:
    return f"{e.value:+.2f} [{e.low:+.2f}, {e.high:+.2f}]"


def _way(e: Estimate) -> str:
    return "towards refusal" if e.low > 0 else "away from it" if e.high < 0 else "no direction is sure"


def _is_zero(e: Estimate) -> bool:
    """No prompt moved at all: what was changed lies above the layer. A measured zero has a spread."""
    return e.value == e.low == e.high == 0


def _verdict(attacked: Estimate, harmless: Estimate) -> str:
    """What the two shifts say together; an interval that holds 0 does not say that there is none."""
    if attacked.low <= 0:
        return ""
    if harmless.low > 0:
        return ", so it boosts refusal on both" + (", less on harmless ones" if _less(harmless, attacked) else "")
    if harmless.high <= 0:
        return ", so the boost is not on harmless ones"
    if _less(harmless, attacked):
        return ", so the boost is smaller on harmless ones, if there is any"
    return "; it is not clear whether it boosts refusal on harmless ones too"


def _less(a: Estimate, b: Estimate) -> bool:
    """Whether a lies below b beyond chance. They are of different prompts, so that nothing can be paired: the interval
    of the difference is made of theirs (Zou and Donner 2008)."""
    return b.value - a.value > math.hypot(b.value - b.low, a.high - a.value)


REFUSAL_DIRECTION = Analysis("refusal_direction", measure, read)
"""Projections on vanilla's refusal direction: is a model a refusal booster?"""
