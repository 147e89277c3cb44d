"""The demo presets of the rival methods are what the recorded sweep chose on val."""

import json
from dataclasses import asdict
from pathlib import Path

import pytest

from interp.methods import Direction, ExtSub, FtL, Mend, Profs

RECORD = Path(__file__).parents[2] / "experiments" / "results" / "sweep_rivals.json"


@pytest.mark.parametrize("kind", [FtL, Profs, Direction, Mend, ExtSub], ids=lambda kind: kind.name)
def test_the_demo_settings_are_those_the_sweep_chose_on_val(kind):
    chosen = json.loads(RECORD.read_text())["chosen"][kind.name]
    preset = json.loads(json.dumps(asdict(kind.demo())))
    speed = {"batch_size"} if kind in (Profs, Direction) else set()  # texts a forward: no number depends on it
    assert {name: preset[name] for name in chosen if name not in speed} == {
        name: value for name, value in chosen.items() if name not in speed
    }
