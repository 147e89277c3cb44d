"""The calibration from organisms to scores: each organism measured once and written down, then everything tallied.

A killed run continues: what an organism or a planted model gave is a record in the run folder. One plant is in memory
at a time, with its reference and one organism beside it.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from jaxtyping import Float

from interp.calibrate.evidence import Inputs, Reference, evidence, plants_of
from interp.calibrate.organisms import Nursery
from interp.calibrate.rules import RULES, SHARES
from interp.calibrate.tally import by_threshold, score_locators, score_rules, wrong_layer
from interp.demo.organisms import Organism, Shape
from interp.errors import InputError
from interp.mechanism.localise import DEFAULT_LOCATOR, LOCATORS, Locator
from interp.mechanism.localise import Inputs as LocatorInputs
from interp.models import HookedModel
from interp.pipeline.progress import Report, Stages
from interp.records import Estimate
from interp.records.calibration import (
    Calibration,
    LocatorResult,
    OrganismEvidence,
    OrganismLine,
    Refused,
)
from interp.runs import Run, source_hash, versions

LOCATED = "locators-"


FEWEST = 12
"""Prompts: so few that eight lost ones open the gate."""


@dataclass(frozen=True)
class Settings:
    """What a calibration depends on."""

    organisms: tuple[Organism, ...]
    prompts: int = 27
    seed: int = 0

    def __post_init__(self) -> None:
        if self.prompts < FEWEST:
            raise InputError(
                f"expected at least {FEWEST} prompts, got {self.prompts}: with fewer the shares' gate hardly opens"
            )
        if not self.organisms:
            raise InputError("expected at least one organism to score, got none")


@dataclass(frozen=True)
class LocatorResults:
    """All locators on one planted model."""

    results: tuple[LocatorResult, ...]


def calibrate(settings: Settings, out: Path, stages: Stages) -> Calibration:
    """Make (or read from the cache), measure and score every organism.

    Raises:
        InputError: the run folder cannot be used, or no organism of a half could be made.
    """
    start = time.perf_counter()
    config = {
        "organisms": [o.name for o in settings.organisms],
        "prompts": settings.prompts,
        "seed": settings.seed,
        "source": source_hash(),
        "versions": versions(),
    }
    run = Run(out, config)
    refused: list[Refused] = []
    wanted: set[Shape] = {o.plant.shape for o in settings.organisms}
    for shape in sorted(wanted):
        mine = [o for o in settings.organisms if o.plant.shape == shape]
        with stages.stage(f"{shape}: aligned model"):
            nursery = Nursery(shape)
            aligned = nursery.aligned()
            scoring = Scoring(run, nursery, aligned, Inputs.of(aligned, settings.prompts, settings.seed))
        for planted in plants_of(mine):
            with stages.stage(planted.plant.name) as report:
                refused += scoring.plant(planted, [o for o in mine if o.plant == planted.plant], report)
    names = [o.name for o in settings.organisms]
    evidences = [run.load(name, OrganismEvidence) for name in names if run.has(name)]
    held = [run.load(LOCATED + name, LocatorResults) for name in names if run.has(LOCATED + name)]
    located = [result for results in held for result in results.results]
    return tally(settings, evidences, located, refused, time.perf_counter() - start)


def tally(
    settings: Settings,
    evidences: Sequence[OrganismEvidence],
    located: Sequence[LocatorResult],
    refused: Sequence[Refused],
    seconds: float,
) -> Calibration:
    """The scores of what was measured. Raises InputError where one half holds no organism."""
    named = {r.plant: r.located for r in located if r.locator == DEFAULT_LOCATOR and not r.drifted}
    evidences = [replace(e, located=named[e.plant]) for e in evidences if e.plant in named]
    rules, chosen = score_rules(evidences, settings.seed)
    threshold = chosen[SHARES.name]
    return Calibration(
        rules=tuple(rules),
        locators=tuple(score_locators(located, settings.seed)),
        threshold=threshold,
        by_threshold=by_threshold(evidences),
        wrong_layer=wrong_layer(evidences, threshold),
        organisms=tuple(_line(e, chosen) for e in evidences),
        results=tuple(located),
        refused=tuple(refused),
        seed=settings.seed,
        n_prompts=settings.prompts,
        seconds=round(seconds, 1),
        config={"source": source_hash(), "default locator": DEFAULT_LOCATOR},
        versions=versions(),
    )


# ------------------------------------------------------------------------------------------------- one plant
@dataclass(frozen=True)
class Scoring:
    """One shape's organisms being measured."""

    run: Run
    nursery: Nursery
    aligned: HookedModel
    inputs: Inputs
    baselines: dict[str, int] = field(default_factory=dict)
    """Locator -> the layer it names on the aligned model, filled when first asked for."""

    def plant(self, planted: Organism, variants: Sequence[Organism], report: Report) -> list[Refused]:
        """Measure all variants of one plant; what could not be made is returned with its reason."""
        check = self.nursery.check(planted)
        if not check.made:
            return [Refused(o.name, f"its plant was not made: {check.why}") for o in variants]
        reference: Reference | None = None
        refused = []
        for done, organism in enumerate(variants, start=1):
            check = self.nursery.check(organism)
            if not check.made:
                refused.append(Refused(organism.name, check.why))
            elif organism.kind == "planted":
                self.locators(organism)
            elif not self.run.has(organism.name):
                if reference is None:
                    reference = Reference(self.nursery.open(planted), planted.plant.layer, self.inputs)
                self.run.save(organism.name, evidence(organism, self.nursery.open(organism), reference))
            report(done, len(variants))
        return refused

    def locators(self, organism: Organism) -> None:
        """Every locator on a planted model, with its answer on the aligned model that nothing was planted in."""
        name = LOCATED + organism.name
        if self.run.has(name):
            return
        planted, plant = self.nursery.open(organism), organism.plant
        found = []
        for locator in LOCATORS.values():
            start = time.process_time()
            scores = locator.score(planted, _given(self.inputs), self.aligned if locator.needs_reference else None)
            seconds = time.process_time() - start
            mean = scores.values.mean(axis=0)
            found.append(
                LocatorResult(
                    locator=locator.name,
                    needs_reference=locator.needs_reference,
                    organism=organism.name,
                    plant=plant.name,
                    shape=plant.shape,
                    half=organism.half,
                    drifted=organism.drifted,
                    layer=plant.layer,
                    decoy=plant.decoy,
                    located=scores.toxic_layer,
                    rank=rank_of(mean, plant.layer),
                    share=float(np.mean(np.array(scores.located) == plant.layer)),
                    baseline=self.baseline(locator),
                    seconds=round(seconds, 3),
                )
            )
        self.run.save(name, LocatorResults(tuple(found)))

    def baseline(self, locator: Locator) -> int:
        """What the locator says of the aligned model; -1 where it compares with exactly that model."""
        if locator.needs_reference:
            return -1
        if locator.name not in self.baselines:
            self.baselines[locator.name] = _modal(locator, self.aligned, self.inputs)
        return self.baselines[locator.name]


def _modal(locator: Locator, model: HookedModel, inputs: Inputs) -> int:
    return locator.score(model, _given(inputs)).toxic_layer


def _given(inputs: Inputs) -> LocatorInputs:
    return LocatorInputs(inputs.instances, inputs.tokens)


# ------------------------------------------------------------------------------------------------- small things
def rank_of(scores: Sequence[float] | Float[np.ndarray, "layer"], layer: int) -> int:
    """The place of a layer among the scores, 1 the highest; of equal scores the middle place, rounded up.

    A locator that saturates (a probe's AUROC is 1 at every layer) has not found what it cannot tell from the rest.
    """
    values = np.asarray(scores)
    above, equal = int((values > values[layer]).sum()), int((values == values[layer]).sum())
    return above + 1 + equal // 2


def _line(e: OrganismEvidence, chosen: dict[str, float]) -> OrganismLine:
    """One organism in short."""
    at, first = e.shares[e.layer], e.region[0]

    def three(x: Estimate) -> tuple[float, float, float]:
        return round(x.value, 4), round(x.low, 4), round(x.high, 4)

    return OrganismLine(
        organism=e.organism,
        shape=e.shape,
        kind=e.kind,
        truth=e.kind if e.kind == "upstream" else e.truth,
        half=e.half,
        drifted=e.drifted,
        layer=e.layer,
        located=e.located,
        shares={name: three(getattr(at, name)) for name in ("erased", "bypassed", "parallel", "downstream")},
        compliance_drop=three(at.compliance_drop),
        toxicity=(round(first.vanilla, 6), round(first.value.value, 6), round(first.p_change, 4)),
        shift=round(e.shift.rate.value, 3),
        says={rule.name: rule.says(e, chosen[rule.name]) for rule in RULES},
    )


def shapes(name: str) -> tuple[Shape, ...]:
    """The shapes that `--shape` names. Raises InputError for an unknown one."""
    known: dict[str, tuple[Shape, ...]] = {"gpt2": ("gpt2",), "llama": ("llama",), "both": ("gpt2", "llama")}
    if name not in known:
        raise InputError(f"expected --shape {', '.join(known)}, got {name!r}")
    return known[name]
