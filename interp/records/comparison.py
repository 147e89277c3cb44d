"""The result of `python -m interp.compare`: one row per model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from interp.records.behaviour import DefenseScores, GeneralPerformance, JudgeAgreement, JudgeReport
from interp.records.inside import (
    ActivationShift,
    LayerScores,
    ProbeReport,
    RegionToxicity,
    ShiftSource,
    SwapShares,
)
from interp.records.numbers import Estimate

Reading = Literal[
    "erased", "bypassed", "parallel", "upstream", "masked", "mixed", "no effect", "undecided", "reference"
]
"""`ShareVerdict`, or "undecided" where the shares cannot tell (algebra, too small an effect, too few prompts, none)."""


@dataclass(frozen=True)
class Conclusion:
    """What was done to the behaviour, in one word, and on what evidence."""

    verdict: Reading
    """As asked, without the suffix S."""
    evidence: str
    with_suffix: Reading | None = None
    """The same with S on both sides; None where that was not asked."""


@dataclass(frozen=True)
class ComparisonRow:
    """Everything measured for one model."""

    name: str
    method: str
    source: str
    """Where the weights come from: "trained in this run", a path, an id, "27 edits"."""
    located: dict[int, int]
    """0-based layer -> number of instances that located it."""
    region: tuple[RegionToxicity, ...]
    """One per definition; the first is the paper's."""
    shift: ActivationShift | None
    weight_change: Estimate
    """|| W_V(m) - W_V(vanilla) ||_F / || W_V(vanilla) ||_F at the toxic layer, percent."""
    weight_change_by_layer: tuple[float, ...]
    """The same over all parameters of each block, percent."""
    defense: tuple[DefenseScores, ...]
    """Without and with the suffix S."""
    general: tuple[GeneralPerformance, ...]
    conclusion: Conclusion
    seconds: dict[str, float]
    """Wall seconds of each stage."""
    swap: SwapShares | None = None
    """Causal evidence at the toxic layer, where it was measured."""
    causal: SwapShares | None = None
    """The same at the layer where the behaviour was located independently of the edit: the verdict follows from it."""
    warnings: tuple[str, ...] = ()
    """What to know about this row's numbers, a line each."""
    causal_with_suffix: SwapShares | None = None
    """As `causal`, with S after every prompt of both models, for methods that carry a suffix."""


@dataclass(frozen=True)
class Comparison:
    """The result of `python -m interp.compare`."""

    model: str
    data: str
    layer: int
    """The toxic region's 0-based layer: most often located on vanilla."""
    suffix: str
    rows: tuple[ComparisonRow, ...]
    probe: ProbeReport
    layer_scores: tuple[LayerScores, ...]
    """Under each convention; the first is the one used."""
    sources: tuple[ShiftSource, ...]
    n_instances: int
    seed: int
    config: dict[str, Any]
    versions: dict[str, str]
    commit: str = ""
    planted: bool = False
    """True on the demo: vanilla behaviour is a design choice there, not a finding."""
    warnings: tuple[str, ...] = ()
    """All of them, those of the rows included."""
    judge: JudgeReport | None = None
    """How good the judge is on texts it has not seen, where that was measured."""
    agreements: tuple[JudgeAgreement, ...] = ()
    """Of each pair of judges, where several were asked."""
    causal_layer: int | None = None
    """0-based layer where vanilla's behaviour was located independently of any edit; a row's `causal` is read there."""
    causal_scores: LayerScores | None = None
    """What the default locator of analyses said of every instance; `causal_layer` is the layer most of them name."""
