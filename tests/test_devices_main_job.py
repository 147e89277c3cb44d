"""The main job on a pretended device. Last of all: models that the same process loads after it answer differently."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from pretend_devices import pretend_devices
from small_run import SMALL

from interp.compare import run as compare


def test_the_main_job_runs_on_a_device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("INTERP_CACHE", str(tmp_path / "cache"))
    with pretend_devices():
        assert compare(["dinm", "--device", "pretend:0", *SMALL, "--out", str(tmp_path / "run")]) == 0
    record = json.loads((tmp_path / "run" / "comparison.json").read_text())
    assert [row["name"] for row in record["rows"]] == ["vanilla", "dinm"]
