"""A budget of memory for the edits of a unit: the same table, whatever fits."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmark.conftest import RESULTS, SMALL, UNITS
from interp.benchmark.__main__ import run


def test_edits_over_the_budget_wait_on_disk_and_the_answers_are_the_same(
    finished: Path, tmp_path: Path, spilled: list[int]
) -> None:
    folder = tmp_path / "run"
    assert run([*SMALL, "--delta-memory", "1KiB", "--out", str(folder)]) == 0
    assert spilled == [2] * UNITS  # both edits of each unit
    assert (folder / RESULTS[0]).read_bytes() == (finished / RESULTS[0]).read_bytes()
    assert not list(folder.rglob("spilled-*"))


def test_a_size_that_is_none_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert run([*SMALL, "--delta-memory", "lots"]) == 2
    assert "expected a size" in capsys.readouterr().err
