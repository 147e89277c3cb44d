"""The command line of the calibration: what it lists, and what it refuses in one line."""

from __future__ import annotations

import pytest

from interp.calibrate.__main__ import run
from interp.demo.organisms import SMALL, organisms


def test_list_names_every_organism_with_its_truth_and_half(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == [o.name for o in organisms()]
    assert run(["--list", "--small"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == len(SMALL)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (["--shape", "bert"], "expected --shape gpt2, llama, both, got 'bert'"),
        (["--small", "--shape", "llama"], "--small holds organisms of the GPT-2 shape only"),
        (["--prompts", "4"], "expected at least 12 prompts, got 4"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(given: list[str], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(given) == 2
    said = capsys.readouterr().err.strip()
    assert told in said
    assert "\n" not in said
