"""A comparison within a budget of memory for its edits says what one without says."""

from __future__ import annotations

from pathlib import Path

from small_run import SMALL

from interp.compare import run


def test_edits_over_the_budget_are_read_from_the_run_folder_and_answer_the_same(
    finished: Path, tmp_path: Path, spilled: list[int]
) -> None:
    out = tmp_path / "run"
    assert run(["dinm", *SMALL, "--delta-memory", "1KiB", "--out", str(out)]) == 0
    assert spilled == [3]
    assert (out / "generations.jsonl").read_text() == (finished / "generations.jsonl").read_text()
    assert len(list((out / "parts" / "dinm").glob("*.edit.safetensors"))) == 3  # read from there, and still there
