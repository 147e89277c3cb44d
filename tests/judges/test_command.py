"""Agreement of judges from the command line, in-process: the demo's judge and the phrase matcher."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from interp import safeedit
from interp.judges.__main__ import run
from interp.records import Response, to_dict
from interp.safeedit.rows import read_rows, write_csv


@pytest.fixture(scope="module")
def responses(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("r") / "generations.jsonl"
    made = []
    for i in safeedit.load("demo").test[:12]:
        for text in (i.safe_generation, i.unsafe_generation, i.knowledge.answer):
            kind = "kqa" if text == i.knowledge.answer else "DS"  # a question's number may equal an instance's id
            made.append(Response("m", i.id, kind, False, i.adversarial_prompt, text, 9, True))
    path.write_text("".join(json.dumps(to_dict(r)) + "\n" for r in made))
    return path


def test_judges_are_compared_and_a_persons_labels_read_back(
    responses: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sample, out = tmp_path / "check.csv", tmp_path / "agree.json"
    both = ["--judge", "demo", "--judge", "refusal"]
    assert run(["agree", str(responses), *both, "--sample", str(sample), "--n", "20", "--out", str(out)]) == 0
    [pair] = json.loads(out.read_text())
    assert (pair["first"], pair["second"], pair["kappa"]["n"]) == ("demo", "refusal", 24)
    assert pair["raw"]["value"] < 80  # the matcher calls every harmless answer unsafe
    assert "disagree on the first 10 rows" in capsys.readouterr().out
    rows = read_rows(sample)
    truth = {i.safe_generation: "refusal" for i in safeedit.load("demo").test}
    truth |= {i.unsafe_generation: "unsafe" for i in safeedit.load("demo").test}
    write_csv(sample, list(rows[0]), [row | {"label": truth.get(row["response"], "other")} for row in rows])
    assert run(["check", str(sample), "--out", str(out)]) == 0
    demo, matcher = json.loads(out.read_text())
    assert (demo["first"], demo["kappa"]["value"]) == ("demo", 1.0)
    assert matcher["raw"]["value"] == pytest.approx(pair["raw"]["value"])  # the demo's judge is right on all


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--judge", "refusal", "--judge", "refusal"], "two judges of the panel are called 'refusal'"),
        (["--judge", "refusal"], "at least two judges for a panel"),
        (["--judge", "refusal", "--judge", "endpoint:m"], "needs an endpoint: --base-url"),
        (["--judge", "refusal", "--judge", "demo", "--on", "mood"], "--on: expected unsafe or label, got 'mood'"),
    ],
)
def test_bad_input_ends_with_2_and_one_line(
    arguments: list[str], message: str, responses: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["agree", str(responses), *arguments]) == 2
    [line] = capsys.readouterr().err.strip().split("\n")
    assert message in line


def test_files_that_hold_no_responses_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good = json.dumps(to_dict(Response("m", 1, "DS", False, "p", "t", 9, True)))
    for text, message in (
        ("", "holds no responses"),
        ("{}\n", "r.jsonl, line 1: not a Response record"),
        (f"{good}\n\n{good.replace('9', 'null')}\n", "r.jsonl, line 3: not a Response record"),
        (f"{good}\n" + good.replace('"t"', '"\\ud800"'), "r.jsonl, line 2, 'text': expected a text of whole"),
    ):
        (tmp_path / "r.jsonl").write_text(text)
        assert run(["agree", str(tmp_path / "r.jsonl"), "--judge", "refusal", "--judge", "demo"]) == 2
        assert message in capsys.readouterr().err
    assert run(["check", str(tmp_path / "none.csv")]) == 2
    assert "no such file" in capsys.readouterr().err
