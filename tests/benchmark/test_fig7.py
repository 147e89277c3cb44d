from __future__ import annotations

from pathlib import Path

import pytest
import torch

from benchmark.test_files import table
from interp.benchmark.__main__ import run
from interp.benchmark.fig7 import Measurements
from interp.benchmark.footprint import BACKWARD, CONTROLS, FORWARD, Footprint, measure, methods, peak_of, rows
from interp.benchmark.settings import Settings
from interp.errors import InputError
from interp.plots.tables import table_figure

MIB = 2**20


def invented(self: Measurements, row: str, repeat: int, cache: str) -> Footprint:
    """A measurement that took no process."""
    return Footprint(row, repeat, (repeat + 1) * MIB, 2 * MIB, 10.0**repeat, "process", 1)


def test_the_peak_is_what_a_call_holds_at_most_and_not_what_was_there() -> None:
    before = torch.ones(32 * MIB // 4)  # there already

    def call() -> torch.Tensor:
        passing = torch.ones(64 * MIB // 4)
        del passing
        return torch.ones(16 * MIB // 4)

    peak, seconds = peak_of(call, torch.device("cpu"))
    assert before[0] == 1
    assert 62 * MIB <= peak < 76 * MIB  # the kernel counts pages in batches
    assert seconds > 0


def test_every_method_that_computes_has_a_row_behind_the_controls() -> None:
    found = rows(demo=True)
    assert tuple(found[:2]) == CONTROLS
    assert {"MEND, training", "MEND, one edit", "SFT", "DPO", "DINM", "Ext-Sub"} <= set(found)
    assert "Self-Reminder" not in found
    assert not hasattr(methods(demo=True)["DPO"], "sft")  # DPO alone


def test_an_edit_is_measured_against_the_loaded_model() -> None:
    found = measure("DINM", 1, Settings("fig7"))
    assert (found.row, found.repeat, found.of) == ("DINM", 1, "process")
    assert found.seconds > 0
    assert MIB < found.weights < 8 * MIB


def test_each_row_is_measured_in_a_process_of_its_own(tmp_path: Path) -> None:
    out = tmp_path / "run"
    command = ["fig7", "--row", FORWARD, "--repeats", "1", "--no-figures", "--out", str(out)]
    assert run(command) == 0
    cells = {row.name: row.cells for row in table(out, "fig7").rows}
    assert tuple(cells) == CONTROLS
    assert cells[BACKWARD]["peak memory"].value >= 1.0  # gradients of all parameters: at least their size
    assert cells[BACKWARD]["of the weights"].value >= 1.0
    assert cells[FORWARD]["seconds"].n == 1


def test_a_killed_series_measures_only_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    command = ["fig7", "--row", "DINM", "--no-figures", "--out", str(out)]
    done: list[tuple[str, int]] = []

    def dies(self: Measurements, row: str, repeat: int, cache: str) -> Footprint:
        if len(done) == 4:
            raise InputError("killed")
        done.append((row, repeat))
        return invented(self, row, repeat, cache)

    monkeypatch.setattr(Measurements, "measured", dies)
    assert run(command) == 2
    assert run([*command, "--merge"]) == 2
    assert "5 measurements are missing" in capsys.readouterr().err
    assert run([*command, "--dry-run"]) == 0
    assert "DINM: 2 to measure" in capsys.readouterr().out

    def goes_on(self: Measurements, row: str, repeat: int, cache: str) -> Footprint:
        done.append((row, repeat))
        return invented(self, row, repeat, cache)

    monkeypatch.setattr(Measurements, "measured", goes_on)
    assert run(command) == 0
    assert sorted(done) == sorted((row, repeat) for row in (*CONTROLS, "DINM") for repeat in range(3))
    cell = table(out, "fig7").rows[-1].cells["of the weights"]
    assert (cell.value, cell.low, cell.high, cell.n) == (1.0, 0.5, 1.5, 3)
    assert table_figure(table(out, "fig7")).data


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--shard", "1/2"], "without a launcher and without --shard"),
        (["--row", "DINN"], "did you mean 'DINM'?"),
        (["--repeats", "0"], "--repeats"),
    ],
)
def test_bad_input_is_refused(
    options: list[str], expected: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["fig7", *options, "--out", str(tmp_path / "run")]) == 2
    assert expected in capsys.readouterr().err


def test_what_a_measuring_process_says_reaches_the_user(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["fig7", "--row", "DINM", "--data", str(tmp_path / "none"), "--out", str(tmp_path / "run")]) == 2
    assert "plain forward: " in capsys.readouterr().err
