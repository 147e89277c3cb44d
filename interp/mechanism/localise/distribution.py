"""Where locators say the behaviour sits, over instances, and whether that holds for others and under other attacks.

The default locator's layers are counted over instances; their mode is bootstrapped, and the same instance is located
again under another attack and under another question. Whether a locator is right is not asked here: `interp.calibrate`.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from interp.errors import InputError
from interp.mechanism.intervals import of_means
from interp.mechanism.lab import Analysis, Lab, Subject
from interp.mechanism.localise import DEFAULT_LOCATOR, LOCATORS, Inputs
from interp.records import Bars, Curve, Curves, Estimate, Finding, Grid, LayerScores, PromptKind
from interp.stats import RESAMPLES, exact, share

SHOWN = (
    "Eq. 6, paper",
    "relative distance",
    "difference in means",
    "logit-lens push",
    "mean ablation, last token",
    "zero ablation",
    "gradient x weight",
    "singular value share",
)
"""Rows of the grid for every model; a few seconds on the demo."""
AGAINST_VANILLA = ("W_V swap", "MLP-output patch", "relative weight change")
"""Further rows for a model that is not vanilla, with vanilla as the reference."""
UNIT = "mean score / largest in its row"
COUNTED = "Instances that locate each layer"
HOLDS = "Same layer under another ..."
OTHERS: dict[PromptKind, str] = {"otherA": "attack", "otherQ": "question"}
RESAMPLED = "sample"
CHANCE = "chance"
ROUNDING = 1e-5
"""Scores of all layers that lie within this share of the largest, or within as many nats, differ by rounding alone."""
SHORT = {
    "mean ablation, last token": "mean abl., last",
    "singular value share": "singular share",
    "relative weight change": "weight change",
    "gradient x weight": "grad x weight",
    "difference in means": "mean difference",
}
"""Row labels of the grid that would not fit."""


@dataclass(frozen=True)
class Stability:
    """How far the located layers hold, percent."""

    resampled: Estimate
    """Resamples of the instances whose most located layer is the same."""
    others: dict[str, Estimate]
    """Other prompt (`OTHERS`) -> instances that locate the same layer under it."""
    chance: Estimate | None
    """What `otherA` would give if an instance's two layers had nothing to do with each other: sum of p(l) q(l)."""


def named(scores: LayerScores) -> Int[np.ndarray, "n"]:
    """The layer that each instance locates; -1 where all layers score alike: an argmax would name the first."""
    values = scores.values
    scale = np.maximum(np.abs(values).max(axis=1), 1.0 if "nats" in scores.unit else 0.0)
    return np.where(np.ptp(values, axis=1) > ROUNDING * scale, values.argmax(axis=1), -1)


def mode(scores: LayerScores) -> int | None:
    """The layer that most instances locate, the lower one on a tie; None where no instance locates any."""
    counts = _counts(scores)
    return int(counts.argmax()) if counts.any() else None


def resampled_mode(scores: LayerScores, seed: int = 0) -> Estimate:
    """Share of bootstrap resamples of the instances that have the same most located layer (the lower one on a tie)."""
    n, counts = len(scores.instance_ids), _counts(scores)
    rest = n - counts.sum()  # those that locate none
    p = np.append(counts, rest) / n if rest else counts / n
    draws = np.random.default_rng(seed).multinomial(n, p, size=RESAMPLES)[:, : len(counts)]
    same = 100.0 * float(np.mean(draws.any(axis=1) & (draws.argmax(axis=1) == mode(scores))))
    return Estimate(same, same, same, n, "%", f"of {RESAMPLES} resamples of the instances, seed {seed}")


def same_layer(first: LayerScores, second: LayerScores) -> Estimate:
    """Share of instances that both locate in the same layer, percent, Wilson.

    Raises:
        InputError: scores of other instances.
    """
    if first.instance_ids != second.instance_ids:
        raise InputError("expected the same instances in the same order under both prompts")
    one, other = named(first), named(second)
    return share(int(((one == other) & (one >= 0)).sum()), len(one))


def by_chance(first: LayerScores, second: LayerScores, seed: int = 0) -> Estimate:
    """What `same_layer` would be if the two were independent: sum over layers of p(l) q(l), percent."""
    depth = first.values.shape[1]
    one_hot: Float[np.ndarray, "n twice"] = np.concatenate(
        [named(s)[:, None] == np.arange(depth) for s in (first, second)], axis=1
    ).astype(float)

    def product(means: np.ndarray) -> np.ndarray:
        return 100.0 * (means[..., :depth] * means[..., depth:]).sum(axis=-1, keepdims=True)

    [found] = of_means(one_hot, product, over="instances", unit="%", seed=seed)
    return found


def stability(subject: Subject, scores: LayerScores, locator: str = DEFAULT_LOCATOR) -> Stability:
    """Locate again with other instances (bootstrap) and, where the instances have them, under other prompts."""
    others, chance = {}, None
    for kind, name in OTHERS.items():
        try:
            again = LOCATORS[locator].score(subject.model, _inputs(subject.lab, kind))
        except InputError:
            if any(i.generalization is None for i in subject.lab.instances):
                continue  # the instances have no generalisation inputs
            raise
        others[name] = same_layer(scores, again)
        if kind == "otherA":
            chance = by_chance(scores, again, subject.lab.seed)
    return Stability(resampled_mode(scores, subject.lab.seed), others, chance)


def measure(subject: Subject, vanilla: Subject) -> Finding:
    """The shown locators on one model, the layers that instances locate, and how far they hold.

    Args:
        subject: the model.
        vanilla: the reference of the locators that compare two models; none of them runs on vanilla itself.
    """
    started, lab = time.perf_counter(), subject.lab
    names = [name for name in SHOWN if name != "difference in means" or len(lab.instances) >= 3]
    names += [] if subject.model is vanilla.model else AGAINST_VANILLA
    names += [] if DEFAULT_LOCATOR in names else [DEFAULT_LOCATOR]
    scores = {name: LOCATORS[name].score(subject.model, _inputs(lab), vanilla.model) for name in names}
    chosen = scores[DEFAULT_LOCATOR]
    series: dict[str, tuple[Estimate | None, ...]] = {RESAMPLED: (None,)}
    if mode(chosen) is not None:  # else there is no layer to hold
        holds = stability(subject, chosen)
        series = {RESAMPLED: (holds.resampled,), **{name: (e,) for name, e in holds.others.items()}}
        series |= {CHANCE: (holds.chance,)} if holds.chance else {}
    return Finding(
        name="layers",
        title="Where locators say the behaviour sits",
        question="Which layer makes each model comply under attack, do locators agree, and does the answer hold?",
        reading="",
        how_to_read="Above: share of instances whose highest score is in each layer. Beside it, how often it stays: "
        "the mode, over bootstrap resamples of the instances; an instance's own layer, when its question comes with "
        "another attack or its attack with another question; and what the former would be by chance. Below: one row "
        "per locator, its mean scores divided by the largest of the row; a frame marks the layer that most instances "
        "locate (for several edits, in each of them; none where all layers score alike). For locators of the margin "
        "red works for compliance and blue for refusal; the singular share and the weight change are controls that "
        "read norms alone.",
        limits="locators differ in what they can find: only the calibration on planted models says which to believe. "
        "Rows that compare with vanilla ask where the model was changed, the others where its compliance comes from, "
        "of which little is left in a model that refuses. A natural behaviour need not sit in one layer.",
        n=len(lab.instances),
        seed=lab.seed,
        source="Wang et al. 2024, Sec. 4.2 (layers over instances); ours",
        curves=(_counted(subject.name, chosen),),
        bars=(Bars(HOLDS, "Share (%)", (subject.name,), series),),
        grids=(_grid(subject.name, scores),),
        facts={f"{subject.name}, located layers": "; ".join(_told(name, s) for name, s in scores.items())},
        seconds=time.perf_counter() - started,
    )


def read(finding: Finding) -> str:
    """Per model: the layer of the default locator, how many instances and resamples name it, and who else does."""
    holds, said = finding.bars[0], []
    for curve in (c for c in finding.curves[0].curves if not c.control):
        top = max(range(len(curve.y)), key=lambda at: (curve.y[at].value, -at))
        if curve.y[top].value == 0:
            said.append(f"{curve.name}: no layer, as all score alike for every instance")
            continue
        grid = next(g for g in finding.grids if g.title.startswith(f"{curve.name}:"))
        marks = _marks(grid)
        own = marks.get(DEFAULT_LOCATOR, {top})
        e, at = curve.y[top], holds.groups.index(curve.name)
        words = f"{curve.name}: layer {top} for {e.value:.0f} % [{e.low:.0f}, {e.high:.0f}] of instances"
        resampled = holds.series[RESAMPLED][at]
        if len(own) > 1:  # of several edits: the shares of their resamples are of different layers
            words += f" over its edits, of which each by itself has its mode at {_or(own)}"
        elif resampled and own == {top}:
            words += f", the mode of {resampled.value:.0f} % of resamples"
        other, chance = (holds.series.get(name, (None,) * (at + 1))[at] for name in (OTHERS["otherA"], CHANCE))
        if other and chance:
            beyond = "more than" if other.low > chance.high else "less than" if other.high < chance.low else None
            words += (
                f"; under another attack {_percent(other)} keep their layer, {beyond or 'not clear of'} chance "
                f"({_percent(chance)})"
            )
        said.append(words + _agreement(marks, top))
    return f"By {DEFAULT_LOCATOR}, {'. '.join(said)}."


# --------------------------------------------------------------------------------------------- parts
def _inputs(lab: Lab, kind: PromptKind = "DS") -> Inputs:
    return Inputs(lab.instances, lab.tokens, kind=kind, batch_size=lab.batch_size)


def _counts(scores: LayerScores) -> Int[np.ndarray, "layer"]:
    """How many instances locate each layer."""
    layers = named(scores)
    return np.bincount(layers[layers >= 0], minlength=scores.values.shape[1])


def _told(name: str, scores: LayerScores) -> str:
    layer = mode(scores)
    if layer is None:
        return f"{name}: no layer, all score alike"
    return f"{name}: layer {layer} ({_counts(scores)[layer]} of {len(scores.instance_ids)})"


def _marks(grid: Grid) -> dict[str, set[int]]:
    """Locator -> the layers that it names: one, none where it sees nothing, several where edits differ."""
    long = {SHORT.get(name, name): name for name in LOCATORS}
    found: dict[str, set[int]] = {}
    for row, layer in grid.marked:
        found.setdefault(long[grid.y[row]], set()).add(layer)
    return found


def _agreement(marks: dict[str, set[int]], top: int) -> str:
    """How many of the others name the layer. Those that compare two models ask another question, and stand apart."""
    others = [name for name in marks if name != DEFAULT_LOCATOR and not LOCATORS[name].control]
    said = ""
    for pair, what in ((False, "other locators of the model alone"), (True, "that ask where vanilla was changed")):
        asked = [marks[name] for name in others if LOCATORS[name].needs_reference == pair]
        always, ever = sum(layers == {top} for layers in asked), sum(top in layers for layers in asked)
        some = f" ({ever - always} more for some edits)" if ever > always else ""
        said += f"{'; ' if not said else ', '}{always} of {len(asked)} {what} name it{some}" if asked else ""
    return said


def _or(layers: set[int]) -> str:
    return "layer " + " or ".join(str(layer) for layer in sorted(layers))


def _percent(e: Estimate) -> str:
    return f"{e.value:.0f} % [{e.low:.0f}, {e.high:.0f}]"


def _counted(model: str, scores: LayerScores) -> Curves:
    n, depth = scores.values.shape
    counts = _counts(scores)
    x = tuple(float(layer) for layer in range(depth))
    own = Curve(model, x, tuple(share(int(count), n) for count in counts))
    even = Curve("chance: every layer alike", x, tuple(exact(100.0 / depth, n, "%") for _ in x), control=True)
    return Curves(f"{COUNTED} ({DEFAULT_LOCATOR})", "Layer (0-based)", "Instances (%)", (own, even))


def _grid(model: str, scores: dict[str, LayerScores]) -> Grid:
    means = np.stack([s.values.mean(axis=0) for s in scores.values()])
    largest = np.abs(means).max(axis=1, keepdims=True)
    return Grid(
        f"{model}: locators",
        "layer (0-based)",
        "",
        tuple(str(layer) for layer in range(means.shape[1])),
        tuple(SHORT.get(name, name) for name in scores),
        means / np.where(largest > 0, largest, 1.0),
        UNIT,
        min(len(s.instance_ids) for s in scores.values()),
        signed=True,
        marked=tuple((row, layer) for row, s in enumerate(scores.values()) if (layer := mode(s)) is not None),
    )


LAYERS = Analysis("layers", measure, read)
