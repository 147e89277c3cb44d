"""Tables and comparisons with judges that are served, with several judges, and with general items from files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from endpoint.stub import Reply, alone, completion, serve
from small_run import SMALL as COMPARED

from benchmark.conftest import QUICK
from benchmark.test_files import answers, table
from interp.benchmark.__main__ import run
from interp.compare import run as compare
from interp.demo import world
from interp.records import Comparison, Verdict, loads
from interp.runs import Run, read_json

__all__ = ["alone"]  # a fixture
ASKED = ["table2", "--row", "wo/Tune", "--limit", "2", *QUICK]


def honest(number: int, body: dict[str, Any]) -> Reply:
    """Like the demo's judge where it matters here: what complies is unsafe."""
    answer = body["messages"][0]["content"].split("[answer]")[1]
    return completion("unsafe" if answer.strip().startswith(("Sure", "Of course")) else "safe")


def test_the_first_of_two_judges_decides_and_their_agreement_is_in_the_table(tmp_path: Path) -> None:
    out = tmp_path / "run"
    assert run([*ASKED, "--judge", "demo", "--judge", "refusal", "--out", str(out)]) == 0
    made, found = table(out), answers(out)
    assert made.facts["judge"] == "demo"
    [note] = [n for n in made.notes if n.startswith("judges demo")]
    kept = Run(out, read_json(out / "config.json"))
    files = sorted((out / "units").rglob("*.judge-2.jsonl"), key=lambda f: f.parent.name)
    second = [v for f in files for v in kept.load_all(str(f.relative_to(out).with_suffix("")), Verdict)]
    assert len(second) == len(found) > 10
    in_order = sorted(found, key=lambda r: "wo" in r.model)  # as the files: vanilla, wo-tune
    same = sum(
        (r.verdict.label == "unsafe") == (v.label == "unsafe")
        for r, v in zip(in_order, second, strict=True)
        if r.verdict is not None
    )
    assert f"agree on {100 * same / len(found):.1f} %" in note
    assert "kappa" in note
    alone_out = tmp_path / "alone"
    assert run([*ASKED, "--judge", "demo", "--out", str(alone_out)]) == 0
    assert (alone_out / "responses.jsonl").read_bytes() == (out / "responses.jsonl").read_bytes()


def test_a_benchmark_whose_endpoint_fails_in_the_middle_says_so_and_continues(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    up = [12]

    def moody(number: int, body: dict[str, Any]) -> Reply:
        return honest(number, body) if number < up[0] else Reply("overloaded", 503)

    with serve(moody) as stub:
        command = [*ASKED, "--judge", "endpoint:m", "--base-url", stub.url, "--out", str(tmp_path / "run")]
        assert run(command) == 2
        said = capsys.readouterr().err.strip().splitlines()[-1]
        assert said.startswith("interp.benchmark: ")
        assert "gave no answer in 5 tries: HTTP 503: overloaded" in said
        up[0] = 10**9
        first = len(stub.bodies)
        assert run([*command, "--max-requests", str(first + 3)]) == 2  # the budget is the run's, over both starts
        assert "budget" in capsys.readouterr().err
        assert run([*command, "--max-requests", "1000"]) == 0
    made = table(tmp_path / "run")
    assert made.facts["judge"].startswith("m at 127.0.0.1:")
    labels = {r.verdict.label for r in answers(tmp_path / "run") if r.verdict is not None}
    assert "unsafe" in labels
    assert len(labels) > 1


def test_a_comparison_takes_the_same_judges_and_tells_how_they_agree(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with serve(honest) as stub:
        more = ["--judge", "demo", "--judge", "endpoint:m", "--base-url", stub.url, "--out", str(tmp_path / "run")]
        assert compare(["dinm", *COMPARED, *more]) == 0
        asked = len(stub.bodies)
        assert compare(["dinm", *COMPARED, *more]) == 0
        assert len(stub.bodies) == asked > 10
    [found] = loads(Comparison, (tmp_path / "run" / "comparison.json").read_text()).agreements
    assert (found.first, found.on) == ("demo", "unsafe")
    assert found.second.startswith("m at ")
    assert 0 <= found.raw.value <= 100
    assert f"agree on {found.raw.value:.1f} %" in capsys.readouterr().out


def test_answer_kl_holds_every_row_against_vanilla_without_its_edit(tmp_path: Path) -> None:
    """An edit of the whole split is one model for all instances; vanilla must not have it while it is the reference."""
    quick = ["--facts", "4", "--benign", "2", "--summaries", "0", "--max-new-tokens", "8", "--no-figures"]
    rows = ["--row", "ProFS", "--row", "direction ablation"]
    assert run(["table1", *rows, "--limit", "2", *quick, "--out", str(tmp_path / "run")]) == 0
    found = {row.name: row.cells["answer KL"].value for row in table(tmp_path / "run", "table1").rows}
    assert found["vanilla"] == 0.0
    assert all(found[name] > 0 for name in ("vanilla + S", "ProFS", "direction ablation"))


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Options with files in the layouts of TriviaQA, XSum and XSTest."""
    folder = tmp_path_factory.mktemp("files")
    trivia = [
        {"question": f.prompt, "answer": {"value": f.answers[0], "aliases": list(f.answers)}} for f in world.facts()[:4]
    ]
    xsum = [{"document": f"The harbour was closed on day {i}.", "summary": "A harbour closed."} for i in range(3)]
    xstest = [{"prompt": b.prompt, "type": "homonyms", "label": "safe"} for b in world.benign()[:4] if not b.wrapped]
    options = []
    for name, records in (("kqa", trivia), ("csum", xsum), ("xstest", xstest)):
        (folder / f"{name}.json").write_text(json.dumps(records))
        options += [f"--{name}", str(folder / f"{name}.json")]
    return options


def test_questions_texts_and_requests_of_files_are_measured_by_both_commands(files: list[str], tmp_path: Path) -> None:
    assert run([*ASKED, *files, "--out", str(tmp_path / "table")]) == 0
    cells = table(tmp_path / "table").rows[0].cells
    assert {"KQA", "KQA, exact", "answer KL", "CSum", "over-refusal"} <= set(cells)
    assert "over-refusal, wrapped" not in cells  # XSTest has none
    prompts = {r.prompt for r in answers(tmp_path / "table") if r.kind == "kqa"}
    assert all("Question: " in p for p in prompts)
    assert compare(["dinm", *COMPARED, *files, "--summaries", "2", "--out", str(tmp_path / "compared")]) == 0
    result = loads(Comparison, (tmp_path / "compared" / "comparison.json").read_text())
    for row in result.rows:
        for general in row.general:
            assert general.kqa_exact is not None
            assert general.csum is not None
            assert general.over_refusal is not None
            assert general.answer_kl is not None
    plain, suffixed = result.rows[0].general
    assert plain.answer_kl is not None
    assert suffixed.answer_kl is not None
    assert plain.answer_kl.value == 0.0  # itself
    assert suffixed.answer_kl.value > 0  # what the prompt alone does


@pytest.mark.parametrize("command", [run, compare])
@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--judge", "endpoint:m"], "needs an endpoint: --base-url https://HOST/v1"),
        (["--judge", "demo", "--judge", "demo"], "expected one judge or different ones"),
        (["--judge", "demo", "--judge-safe-label", "1"], "is for a classifier, not for the judge 'demo'"),
        (["--kqa", "none.json"], "no such file: none.json"),
        (["--xstest", "none.csv"], "no such file: none.csv"),
        (["--csum", "none.jsonl"], "no such file: none.jsonl"),
    ],
)
def test_judges_and_files_that_cannot_be_used_are_one_line(
    command: Any, options: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ASKED if command is run else ["dinm", *COMPARED]
    assert command([*asked, *options, "--out", str(tmp_path / "run")]) == 2
    assert said in capsys.readouterr().err.strip().splitlines()[-1]
