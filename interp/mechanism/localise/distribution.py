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


def resampled_mode(scores: LayerScores, seed: int = 0) -> Estimate:
    """Share of bootstrap resamples of the instances that have the same most located layer (the lower one on a tie)."""
    n = len(scores.instance_ids)
    p = np.bincount(scores.located, minlength=scores.values.shape[1]) / n
    draws = np.random.default_rng(seed).multinomial(n, p, size=RESAMPLES)
    same = 100.0 * float(np.mean(draws.argmax(axis=1) == scores.toxic_layer))
    return Estimate(same, same, same, n, "%", f"of {RESAMPLES} resamples of the instances, seed {seed}")


def same_layer(first: LayerScores, second: LayerScores) -> Estimate:
    """Share of instances that both locate in the same layer, percent, Wilson.

    Raises:
        InputError: scores of other instances.
    """
    if first.instance_ids != second.instance_ids:
        raise InputError("expected the same instances in the same order under both prompts")
    equal = sum(a == b for a, b in zip(first.located, second.located, strict=True))
    return share(equal, len(first.instance_ids))


def by_chance(first: LayerScores, second: LayerScores, seed: int = 0) -> Estimate:
    """What `same_layer` would be if the two were independent: sum over layers of p(l) q(l), percent."""
    depth = first.values.shape[1]
    one_hot: Float[np.ndarray, "n twice"] = np.concatenate([np.eye(depth)[_column(s)] for s in (first, second)], axis=1)

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
    holds = stability(subject, chosen)
    series = {RESAMPLED: holds.resampled, **holds.others, **({CHANCE: holds.chance} if holds.chance else {})}
    return Finding(
        name="layers",
        title="Where locators say the behaviour sits",
        question="Which layer makes each model comply under attack, do locators agree, and does the answer hold?",
        reading="",
        how_to_read="Above: share of instances whose highest score is in each layer. Beside it, how often it stays: "
        "the mode, over bootstrap resamples of the instances; an instance's own layer, when its question comes with "
        "another attack or its attack with another question; and what the former would be by chance. Below: one row "
        "per locator, its mean scores divided by the largest of the row; a frame marks the layer that most instances "
        "locate. For locators of the margin red works for compliance and blue for refusal; the singular share and the "
        "weight change are controls that read norms alone.",
        limits="locators differ in what they can find: only the calibration on planted models says which to believe. "
        "Rows that compare with vanilla ask where the model was changed, the others where its compliance comes from, "
        "of which little is left in a model that refuses. A natural behaviour need not sit in one layer.",
        n=len(lab.instances),
        seed=lab.seed,
        source="Wang et al. 2024, Sec. 4.2 (layers over instances); ours",
        curves=(_counted(subject.name, chosen),),
        bars=(Bars(HOLDS, "Share (%)", (subject.name,), {name: (value,) for name, value in series.items()}),),
        grids=(_grid(subject.name, scores),),
        facts={f"{subject.name}, located layers": "; ".join(_told(name, s) for name, s in scores.items())},
        seconds=time.perf_counter() - started,
    )


def read(finding: Finding) -> str:
    """Per model: the layer of the default locator, how many instances and resamples name it, and who else does."""
    holds, said = finding.bars[0], []
    for curve in (c for c in finding.curves[0].curves if not c.control):
        top = max(range(len(curve.y)), key=lambda at: (curve.y[at].value, -at))
        e, at = curve.y[top], holds.groups.index(curve.name)
        words = f"{curve.name}: layer {top} for {e.value:.0f} % [{e.low:.0f}, {e.high:.0f}] of instances"
        resampled = holds.series[RESAMPLED][at]
        words += f", the mode of {resampled.value:.0f} % of resamples" if resampled else ""
        other, chance = (holds.series.get(name, (None,) * (at + 1))[at] for name in (OTHERS["otherA"], CHANCE))
        if other and chance:
            words += f"; under another attack {other.value:.0f} % keep their layer (chance {chance.value:.0f} %)"
        grid = next(g for g in finding.grids if g.title.startswith(f"{curve.name}:"))
        long = {SHORT.get(name, name): name for name in LOCATORS}
        rows = [(row, column) for row, column in grid.marked if not LOCATORS[long[grid.y[row]]].control]
        agree = sum(column == top for _, column in rows)
        said.append(f"{words}; {agree} of {len(rows)} locators name it")
    return f"By {DEFAULT_LOCATOR}, {'. '.join(said)}."


# --------------------------------------------------------------------------------------------- parts
def _inputs(lab: Lab, kind: PromptKind = "DS") -> Inputs:
    return Inputs(lab.instances, lab.tokens, kind=kind, batch_size=lab.batch_size)


def _column(scores: LayerScores) -> Int[np.ndarray, "n"]:
    return np.array(scores.located)


def _told(name: str, scores: LayerScores) -> str:
    return f"{name}: layer {scores.toxic_layer} ({scores.counts[scores.toxic_layer]} of {len(scores.located)})"


def _counted(model: str, scores: LayerScores) -> Curves:
    n, depth = scores.values.shape
    x = tuple(float(layer) for layer in range(depth))
    own = Curve(model, x, tuple(share(scores.counts.get(layer, 0), n) for layer in range(depth)))
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
        marked=tuple((row, s.toxic_layer) for row, s in enumerate(scores.values())),
    )


LAYERS = Analysis("layers", measure, read)
