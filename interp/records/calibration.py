"""How far the toolkit's measures can be trusted: each scored on organisms whose truth is known by construction."""

from __future__ import annotations

from dataclasses import dataclass, field

from interp.records.inside import ActivationShift, RegionToxicity, SwapShares
from interp.records.numbers import Estimate


@dataclass(frozen=True)
class OrganismEvidence:
    """Everything measured on one organism, against the planted model it was made from (its unsafe reference)."""

    organism: str
    plant: str
    shape: str
    kind: str
    """How it was made: "erased", "bypassed", "drift", ..."""
    truth: str
    half: str
    """"set": thresholds may be chosen on it; "held-out": only reported."""
    drifted: bool
    layer: int
    """0-based layer of the plant."""
    shares: tuple[SwapShares, ...]
    """The four shares at every layer, lowest first."""
    region: tuple[RegionToxicity, ...]
    """The paper's first measure at the layer of the plant, under each definition."""
    shift: ActivationShift
    """The paper's second measure."""
    weights: dict[str, float]
    """Share of the squared change of all weights that lies in W_V of the plant's layer, in the MLP's first matrix
    there, elsewhere up to that block, and above it: the control that reads weights alone."""
    weight_change: tuple[float, ...]
    """Relative change of each block's parameters, percent."""
    n: int
    """Prompts."""
    seconds: dict[str, float]
    located: int = -1
    """Layer that the default locator names on the planted model, which is all that a user could know; filled in when
    the scores are tallied."""


@dataclass(frozen=True)
class LocatorResult:
    """One locator on one planted model."""

    locator: str
    needs_reference: bool
    organism: str
    plant: str
    shape: str
    half: str
    drifted: bool
    layer: int
    """Where the plant is."""
    decoy: int | None
    """Layer whose W_V was changed at random by the same norm."""
    located: int
    rank: int
    """1: the plant's layer has the highest mean score; among equal scores the middle place."""
    share: float
    """Share of the prompts that name the plant's layer; NaN where the locator has no score per prompt."""
    baseline: int
    """What the locator says of the model before planting: a hit there is no merit."""
    seconds: float


@dataclass(frozen=True)
class LocatorScore:
    """A locator over all planted models of one half."""

    locator: str
    needs_reference: bool
    half: str
    hits: Estimate
    """Planted models whose layer it names, percent."""
    hits_elsewhere: Estimate | None
    """The same where its answer before planting was another layer, percent: what planting taught it."""
    rank: float
    """Mean rank of the plant's layer."""
    by_shape: dict[str, Estimate]
    seconds: float
    """Mean seconds per model."""
    control: bool = False
    """A control that can name the right layer for a wrong reason; never to be believed."""


@dataclass(frozen=True)
class RuleScore:
    """A rule that turns measurements into a verdict, over all organisms of one half."""

    rule: str
    half: str
    right: Estimate
    """Verdicts that are right, percent; interval from a bootstrap over plants."""
    coarse: Estimate
    """The same where bypassed, parallel, upstream and masked count as one answer (not erased), which is all that the
    paper's two measures distinguish; mixtures are left out."""
    false_positive: Estimate
    """Organisms without an effect that get a verdict all the same, percent."""
    confusion: dict[str, dict[str, int]]
    """Truth -> verdict -> organisms."""
    threshold: float | None = None
    """Chosen on the half "set"."""
    seconds: float = 0.0
    """Mean seconds per organism of what the rule reads."""


@dataclass(frozen=True)
class OrganismLine:
    """One scored organism in short: its truth, the numbers at the plant's layer, and what each rule says."""

    organism: str
    shape: str
    kind: str
    truth: str
    """"upstream": bypassed, parallel and upstream are all right (`calibrate.rules.accepted`)."""
    half: str
    drifted: bool
    layer: int
    located: int
    shares: dict[str, tuple[float, float, float]]
    """Share -> (value, low, high) at the plant's layer."""
    compliance_drop: tuple[float, float, float]
    """Percentage points (value, low, high): the gate."""
    toxicity: tuple[float, float, float]
    """The paper's region toxicity: reference, organism, p of the change against random directions."""
    shift: float
    """The paper's activation shift, percent."""
    says: dict[str, str]
    """Rule -> verdict, at the chosen threshold."""


@dataclass(frozen=True)
class Refused:
    """An organism that was not scored, because its recipe did not make what it should."""

    organism: str
    why: str


@dataclass(frozen=True)
class Calibration:
    """The result of `python -m interp.calibrate`."""

    rules: tuple[RuleScore, ...]
    locators: tuple[LocatorScore, ...]
    threshold: float
    """Of the four shares, chosen on the half "set"."""
    by_threshold: dict[str, tuple[tuple[float, float], ...]]
    """Half -> (threshold, percent right) of the shares at the plant's layer."""
    wrong_layer: dict[str, dict[str, int]]
    """"below" / "at" / "above" the plant -> verdict -> erased organisms: what an erasure looks like from elsewhere."""
    organisms: tuple[OrganismLine, ...]
    results: tuple[LocatorResult, ...]
    refused: tuple[Refused, ...]
    seed: int
    n_prompts: int
    seconds: float
    config: dict[str, str] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
