"""The defaults that rest on the committed calibration follow from its half for choices, and from nothing else."""

from __future__ import annotations

from pathlib import Path

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
