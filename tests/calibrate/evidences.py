"""Evidence made up for tests: an organism of a given truth, with shares as asked."""

from __future__ import annotations

from interp.records import ActivationShift, Estimate, NullDistribution, RegionToxicity, SwapShares
from interp.records.calibration import LocatorResult, OrganismEvidence

NULL = NullDistribution(0.0, 0.01, -0.02, 0.02, 100, 0)


def estimate(value: float, half: float = 0.05, n: int = 27) -> Estimate:
    return Estimate(value, value - half, value + half, n)


def shares(layer: int, e: float, b: float, par: float, dn: float, drop: float = 80.0) -> SwapShares:
    zero = estimate(0.0)
    return SwapShares(
        "m", layer, estimate(e), estimate(b), estimate(par), estimate(dn), (e, b, par, dn), zero, zero,
        estimate(drop, 10.0), drop - 10.0 < 25.0, False, 27, upstream=estimate(b + par),
    )  # fmt: skip


def toxicity(change: float, p: float = 0.5, vanilla: float = 0.05) -> RegionToxicity:
    return RegionToxicity(
        "m", 2, "mean cosine, all value vectors", vanilla, estimate(vanilla + change, 0), estimate(change, 0),
        NULL, NULL, p,
    )  # fmt: skip


def shift(rate: float) -> ActivationShift:
    return ActivationShift("m", 2, estimate(rate, 0.0), (rate,), (rate,), None, None, False, 27)


def organism(
    truth: str,
    at: tuple[float, float, float, float] = (1.0, 0.0, 0.0, 0.0),
    *,
    kind: str | None = None,
    plant: str = "p0",
    half: str = "set",
    drop: float = 80.0,
    change: float = 0.0,
    p: float = 0.5,
    moved: float = 0.0,
    located: int = 2,
) -> OrganismEvidence:
    """An organism planted at layer 2 of 4, whose shares there are `at`; masked seen from below, parallel from above."""
    by_layer = (
        shares(0, 0, 0, 0, 1, drop), shares(1, 0, 0, 0, 1, drop), shares(2, *at, drop), shares(3, 0, 0, 1, 0, drop),
    )  # fmt: skip
    return OrganismEvidence(
        organism=f"{plant}-{kind or truth}", plant=plant, shape="gpt2", kind=kind or truth, truth=truth, half=half,
        drifted=False, layer=2, located=located, shares=by_layer, region=(toxicity(change, p),), shift=shift(moved),
        weights={"W_V": 1.0, "inputs": 0.0, "around": 0.0, "above": 0.0}, weight_change=(0.0,) * 4, n=27,
        seconds={"shares, all layers": 4.0, "shift": 1.0, "region toxicity": 0.5, "weights": 0.1},
    )  # fmt: skip


def located(locator: str, layer: int, said: int, *, plant: str = "p0", half: str = "held-out", baseline: int = 0):
    return LocatorResult(
        locator, False, f"{plant}-planted", plant, "gpt2", half, False, layer, None, said, 1 if said == layer else 3,
        1.0, baseline, 0.1,
    )  # fmt: skip
