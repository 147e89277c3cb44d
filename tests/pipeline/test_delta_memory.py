"""A comparison within a budget of memory for its edits says what one without says."""

from __future__ import annotations

from pathlib import Path

import pytest
from small_run import SMALL

from interp.compare import run
from interp.multi import EditStore


def test_edits_over_the_budget_are_read_from_the_run_folder_and_answer_the_same(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spilled: list[int] = []
    close = EditStore.close

    def counted(store: EditStore) -> None:
        spilled.append(store.spilled)
        close(store)

    monkeypatch.setattr(EditStore, "close", counted)
    out = tmp_path / "run"
    assert run(["dinm", *SMALL, "--delta-memory", "1KiB", "--out", str(out)]) == 0
    assert spilled == [3]
    assert (out / "generations.jsonl").read_text() == (finished / "generations.jsonl").read_text()
    assert len(list((out / "parts" / "dinm").glob("*.edit.safetensors"))) == 3  # read from there, and still there
