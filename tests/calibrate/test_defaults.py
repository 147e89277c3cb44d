"""The defaults that rest on the committed calibration follow from its half for choices, and from nothing else."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from interp.calibrate.output import by_construction, measured_alone
from interp.mechanism.localise import DEFAULT_LOCATOR
from interp.mechanism.shares import CALIBRATED
from interp.records import loads
from interp.records.calibration import Calibration

RECORD = Path(__file__).parents[2] / "figures" / "calibration" / "calibration.json"


def test_the_threshold_and_the_default_locator_are_those_of_the_committed_record() -> None:
    found = loads(Calibration, RECORD.read_text(encoding="utf-8"))
    assert found.threshold == CALIBRATED.share
    chosen = [s for s in found.locators if s.half == "set" and not (s.needs_reference or s.control)]
    best = min(chosen, key=lambda s: (-s.hits.value, s.seconds))  # of equally good ones the cheapest
    assert best.locator == DEFAULT_LOCATOR == found.config["default locator"]


def test_what_algebra_and_the_gate_decide_is_counted_apart() -> None:
    found = loads(Calibration, RECORD.read_text(encoding="utf-8"))
    alone = " ".join(measured_alone(found))
    for half in ("held-out", "fresh"):
        members = [o for o in found.organisms if o.half == half and o.truth != "none"]
        algebra = [o for o in members if by_construction(o)]
        assert {o.kind for o in algebra} <= {"erased", "erased-half", "suppressed", "bypassed", "masked"}
        assert not any(o.drifted for o in algebra)
        assert f"{len(members) - len(algebra)} {half} ones (without {len(algebra)} by algebra" in alone
    assert measured_alone(replace(found, organisms=())) == []
