"""What a user can hand over that does not work: each is one line and exit code 2, and nothing is left half-written."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from small_run import SMALL

from interp import runs, safeedit
from interp.compare import run
from interp.demo import MODEL_DIR


def told(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> str:
    """The one line that a refused command prints."""
    assert run(arguments) == 2
    printed = capsys.readouterr().err
    [line] = [line for line in printed.splitlines() if line.startswith("interp.compare: ")]
    assert "Traceback" not in printed
    return line


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """Three records as the released files hold them."""
    file = tmp_path_factory.mktemp("data") / "SafeEdit_test.json"
    safeedit.save(safeedit.load("demo").test[:3], file)
    return json.loads(file.read_text())


def without(key: str) -> Callable[[list[dict[str, Any]]], str]:
    return lambda data: json.dumps([data[0], {k: v for k, v in data[1].items() if k != key}])


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (lambda data: "id,question\n1,x", "is not JSON"),
        (lambda data: json.dumps(data)[:-100], "is truncated: the JSON stops at line"),
        (without("question"), "record 1 (id 6751) lacks the key 'question'"),
        (lambda data: json.dumps([{**data[0], "unsafety category": "weather"}]), "weather"),
        (lambda data: "[]", "holds no records"),
    ],
    ids=["not JSON", "truncated", "a record without a key", "an unknown category", "an empty split"],
)
def test_data_that_cannot_be_used_is_one_line(
    content: Callable[[Any], str],
    said: str,
    records: list[dict[str, Any]],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    file = tmp_path / "SafeEdit_test.json"
    file.write_text(content(records))
    assert said in told(capsys, ["dinm", *SMALL, "--data", str(file), "--out", str(tmp_path / "run")])
    assert not (tmp_path / "run").exists()


def empty(folder: Path) -> None:
    folder.mkdir()
    (folder / "notes.txt").write_text("no model here")


def broken_weights(folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    shutil.copytree(MODEL_DIR, folder)
    weights = load_file(folder / "model.safetensors")
    next(iter(weights.values())).view(-1)[0] = float("nan")
    save_file(weights, folder / "model.safetensors", {"format": "pt"})


def no_special_tokens(folder: Path) -> None:
    shutil.copytree(MODEL_DIR, folder)
    file = folder / "tokenizer_config.json"
    said = json.loads(file.read_text())
    file.write_text(json.dumps({k: v for k, v in said.items() if k not in ("eos_token", "pad_token")}))


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (empty, "is not a model: expected a config.json or adapter_config.json in it, found notes.txt"),
        (broken_weights, "has NaN weights in transformer."),
        (no_special_tokens, "has neither a padding nor an EOS token; set one"),
    ],
)
def test_a_model_that_cannot_be_used_is_one_line_as_vanilla_and_as_a_row(
    make: Callable[[Path], None], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make(tmp_path / "model")
    for given in (["dinm", "--model", str(tmp_path / "model")], [f"mine={tmp_path / 'model'}"]):
        if make is broken_weights and given[0] != "dinm":
            continue  # found when the row is measured, see test_given
        assert said in told(capsys, [*given, *SMALL, "--out", str(tmp_path / "run")])
        assert not (tmp_path / "run").exists()


def test_an_output_folder_that_cannot_be_written_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("in the way")
    assert "expected a folder for the run, got a file" in told(
        capsys, ["dinm", *SMALL, "--out", str(tmp_path / "file")]
    )
    assert "cannot write" in told(capsys, ["dinm", *SMALL, "--out", str(tmp_path / "file" / "run")])
    assert (tmp_path / "file").read_text() == "in the way"


def test_a_disk_that_fills_up_is_one_line_and_leaves_nothing_half_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out, fsync, written = tmp_path / "run", os.fsync, []

    def full(handle: int) -> None:
        written.append(handle)
        if len(written) > 4:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        fsync(handle)

    monkeypatch.setattr(runs.os, "fsync", full)
    assert "No space left on device" in told(capsys, ["dinm", *SMALL, "--out", str(out)])
    assert len(written) == 5
    files = [file for file in out.rglob("*") if file.is_file()]
    assert files
    assert not [file for file in files if file.name.startswith(".")]  # no remains of the failed write
    assert not (out / "comparison.json").exists()
