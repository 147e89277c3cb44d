"""`--dry-run`: it writes nothing, and the run then takes what it said."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from small_run import SMALL

from interp.benchmark.__main__ import run as run_table
from interp.compare import run
from interp.costs.counting import counting
from interp.demo import MODEL_DIR
from interp.methods.sft import Sft
from interp.models import HookedModel
from interp.safeedit import load

DEPTH = 6
"""Blocks of the demo's model."""
TABLE = ["table2", "--limit", "4", "--block", "2", "--row", "DINM", "--row", "wo/Tune", "--facts", "2", "--benign", "2"]
TABLE += ["--summaries", "2", "--max-new-tokens", "8", "--no-figures"]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def numbers(text: str, row: str) -> tuple[float, float]:
    """Forwards and tokens that a plan names for a row."""
    found = re.search(rf"^ *{row} +([\d,]+) forwards +([\d,]+) tokens", text, re.MULTILINE)
    assert found is not None, text
    forwards, tokens = (float(n.replace(",", "")) for n in found.groups())
    return forwards, tokens


def test_a_dry_run_of_a_comparison_writes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["sft", "dpo", "dinm", *SMALL, "--dry-run"]) == 0
    assert not list(tmp_path.iterdir())
    said = capsys.readouterr().out
    for row in ("sft: training", "dpo: training", "dinm: edits", "at most"):
        numbers(said, row)
    assert "memory" in said
    assert "nothing yet" in said


@pytest.mark.parametrize(
    ("started", "arguments", "left"),
    [
        (run, ["dinm", *SMALL], r"^run .*vanilla, dinm(.|\n)*^left +0 forwards, 0 tokens"),
        (run_table, TABLE, r"^ *in all +0 forwards +0 tokens"),
    ],
    ids=["comparison", "table"],
)
def test_a_run_takes_the_forwards_and_tokens_that_were_planned(
    started: Callable[[list[str]], int],
    arguments: list[str],
    left: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    command = [*arguments, "--out", str(tmp_path / "run")]
    assert started([*command, "--dry-run"]) == 0
    forwards, tokens = numbers(capsys.readouterr().out, "in all")
    with counting() as counted:
        assert started(command) == 0
    assert forwards == pytest.approx(counted.passes / DEPTH, rel=0.2)
    assert tokens == pytest.approx(counted.positions / DEPTH, rel=0.2)
    capsys.readouterr()
    assert started([*command, "--dry-run"]) == 0
    assert re.search(left, capsys.readouterr().out, re.MULTILINE)


def test_a_training_in_the_cache_is_named_and_not_left_to_do(capsys: pytest.CaptureFixture[str]) -> None:
    command = ["sft", *SMALL, "--set", "sft.steps=1", "--set", "sft.batch_size=2", "--dry-run"]
    assert run(command) == 0
    assert "trained: nothing" in capsys.readouterr().out
    Sft(lr=Sft.demo().lr, steps=1, batch_size=2).detoxify(HookedModel.from_pretrained("demo"), load("demo").train)
    assert run(command) == 0
    assert "trained: sft" in capsys.readouterr().out
    assert run([*command, "--set", "sft.lr=1e-3"]) == 0
    assert "trained: nothing" in capsys.readouterr().out


def test_the_weights_of_a_model_in_a_folder_are_not_opened(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "model"
    shutil.copytree(MODEL_DIR, folder, ignore=shutil.ignore_patterns("*.safetensors"))
    command = ["dinm", *SMALL, "--batch-size", "8", "--dry-run"]
    assert run([*command, "--model", str(folder)]) == 0
    said = capsys.readouterr().out
    assert "weights were not opened" in said
    assert run(command) == 0
    assert numbers(said, "in all") == numbers(capsys.readouterr().out, "in all")


@pytest.mark.parametrize("wrong", [["--layer", "6"], ["--set", "dinm.nothing=1"], ["--instances", "1"]])
def test_what_the_run_would_refuse_is_refused(wrong: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["dinm", *SMALL, *wrong, "--dry-run"]) == 2
    assert len(capsys.readouterr().err.strip().splitlines()) >= 1


@pytest.mark.parametrize("text", ["{}", "{", '{"model_type": "nothing-of-the-kind"}', "[]"])
def test_a_damaged_configuration_is_told_in_one_line(
    text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(MODEL_DIR, folder, ignore=shutil.ignore_patterns("*.safetensors"))
    (folder / "config.json").write_text(text)
    assert run(["dinm", *SMALL, "--model", str(folder), "--dry-run"]) == 2
    [line] = capsys.readouterr().err.strip().splitlines()
    assert "config.json" in line
