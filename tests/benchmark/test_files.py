from __future__ import annotations

import csv
import json
import statistics
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmark.conftest import QUICK, RESULTS, ROWS, SMALL, UNITS, same_bytes
from interp.benchmark import design, output, work
from interp.benchmark.__main__ import run
from interp.plots import save as plots
from interp.plots.tables import table_figure
from interp.records import Response, Table, loads
from interp.runs import Run, read_json


def table(folder: Path, artefact: str = "table2") -> Table:
    return loads(Table, (folder / f"{artefact}.json").read_text())


def answers(folder: Path) -> list[Response]:
    return Run(folder, read_json(folder / "config.json")).load_all("responses", Response)


def test_csv_markdown_and_latex_say_what_the_json_says(finished: Path) -> None:
    made = table(finished)
    assert tuple(row.name for row in made.rows) == ROWS
    with (finished / "table2.csv").open() as file:
        lines = list(csv.DictReader(file))
    read = {(x["row"], x["column"]): (float(x["value"]), int(x["n"])) for x in lines if x["source"] == "ours"}
    assert read == {(row.name, c): (e.value, e.n) for row in made.rows for c, e in row.cells.items()}
    stated = {(x["row"], x["source"]) for x in lines if x["source"] != "ours"}
    assert stated == {(p.name, f"paper, {p.model}") for p in made.paper}
    assert stated
    markdown = [line for line in (finished / "table2.md").read_text().splitlines() if line.startswith("|")]
    assert len(markdown) == 2 + len(made.rows) + len(made.paper)
    assert {line.count("|") for line in markdown} == {len(made.columns) + 2}
    latex = [line for line in (finished / "table2.tex").read_text().splitlines() if line.endswith("\\\\")]
    assert len(latex) == 1 + len(made.rows) + len(made.paper)
    assert {line.count("&") for line in latex} == {len(made.columns)}


def test_every_rate_is_what_the_responses_give(finished: Path) -> None:
    by_row = {row.name: row.cells for row in table(finished).rows}
    for name in ROWS:
        for kind in ("DS", "onlyQ", "otherAQ"):
            scores = [r.verdict.score for r in answers(finished) if r.model == name and r.kind == kind and r.verdict]
            assert by_row[name][kind].value == pytest.approx(100 * sum(scores) / len(scores))
            assert by_row[name][kind].n == len(scores) == 4


def test_every_row_has_a_control_and_every_number_an_interval_and_n(finished: Path) -> None:
    made = table(finished)
    assert made.rows[0].name == "vanilla"
    for row in made.rows:
        for estimate in row.cells.values():
            assert estimate.low <= estimate.value <= estimate.high
            assert estimate.n > 0
            assert estimate.how
    assert {"model", "data", "seed", "judge", "source"} <= set(made.facts)


def test_a_figure_takes_no_file_of_the_table(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = {("table2_figure", "png"): b"png", ("table2_figure", "svg"): b"svg"}
    monkeypatch.setattr(plots, "_images", lambda figures, formats: (drawn, ""))  # the browser is tested elsewhere
    output.write(table(finished), tmp_path)
    assert table(tmp_path) == table(finished)
    assert {"data", "layout"} <= set(read_json(tmp_path / "table2_figure.json"))
    assert sorted(f.name for f in tmp_path.iterdir()) == sorted(
        [*RESULTS[1:], *(f"table2_figure.{kind}" for kind in ("json", "png", "svg"))]
    )


def test_the_figure_shows_every_row_of_ours_in_every_panel(finished: Path) -> None:
    made = table(finished)
    ours = [trace for trace in table_figure(made).data if trace.name == "ours"]  # type: ignore[union-attr]
    assert [list(trace.y) for trace in ours[:2]] == [list(ROWS)] * 2  # type: ignore[union-attr]
    assert list(ours[0].x) == [row.cells["DS"].value for row in made.rows]  # type: ignore[union-attr]


def test_a_finished_run_is_read_back_and_nothing_is_answered_twice(
    finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {name: (finished / name).read_bytes() for name in RESULTS}

    def again(*_: object, **__: object) -> None:
        raise AssertionError("a finished unit was done again")

    monkeypatch.setattr(work, "respond", again)
    monkeypatch.setattr(work, "respond_edited", again)
    for name in RESULTS:
        (finished / name).unlink()
    assert run([*SMALL, "--out", str(finished)]) == 0
    assert {name: (finished / name).read_bytes() for name in RESULTS} == before


def test_vanilla_is_asked_once_and_each_edit_only_its_own_prompts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    respond = work.respond

    def counting(*args: Any, **kwargs: Any) -> Any:
        asked.append(kwargs["name"])
        return respond(*args, **kwargs)

    monkeypatch.setattr(work, "respond", counting)
    assert run([*SMALL, "--out", str(tmp_path / "run")]) == 0
    assert asked == ["vanilla"] * UNITS + ["wo/Tune"] * UNITS
    edited = [r for r in answers(tmp_path / "run") if r.model == "DINM"]
    assert all(r.instance_id == r.edited_on for r in edited if r.kind in ("DS", "otherAQ"))


def test_shards_and_merge_give_the_bytes_of_one_process(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = ["--out", str(tmp_path / "run")]
    assert run([*SMALL, "--shard", "2/2", *out]) == 0
    assert not (tmp_path / "run" / "table2.json").exists()
    assert run([*SMALL, "--merge", *out]) == 2
    said = capsys.readouterr().err
    assert "3 units are missing" in said
    assert all(f"{name} block 0" in said for name in ROWS)
    assert "; run --shard 1/2, or the same command without --merge" in said
    assert run([*SMALL, "--shard", "1/2", *out]) == 0
    assert run([*SMALL, "--merge", *out]) == 0
    same_bytes(finished, tmp_path / "run")


def test_a_merge_names_every_shard_that_is_missing_and_makes_no_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    assert run([*SMALL, "--merge", "--out", str(out)]) == 2
    assert f"--merge: expected a run folder, got {out}, which holds no run" in capsys.readouterr().err
    assert not out.exists()
    assert run([*SMALL, "--dry-run", "--out", str(out)]) == 0
    assert run([*SMALL, "--merge", "--out", str(out)]) == 2
    assert "; run the same command without --merge" in capsys.readouterr().err
    assert run([*SMALL, "--shard", "3/3", "--out", str(out)]) == 0  # two blocks of each row: nothing to do
    assert run([*SMALL, "--merge", "--out", str(out)]) == 2
    assert "; run --shard 1/3, 2/3, or the same" in capsys.readouterr().err


def planned(text: str) -> dict[str, tuple[int, int]]:
    """Row -> (units, answers) that a plan names."""
    found = {}
    for line in text.splitlines():
        if line.startswith("  ") and " units" in line:
            name, _, rest = line.strip().partition(": ")
            parts = {
                words.split()[1]: int(words.split()[0].replace(",", "")) for words in rest.split(" (")[0].split(", ")
            }
            found[name] = (parts["units"], parts["answers"])
    return found


def test_a_dry_run_writes_no_result_and_counts_what_is_then_done(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = [*SMALL, "--out", str(tmp_path / "run")]
    assert run([*command, "--dry-run"]) == 0
    plan = planned(capsys.readouterr().out)
    assert not list((tmp_path / "run").rglob("*.jsonl"))
    assert not (tmp_path / "run" / "table2.json").exists()
    assert run(command) == 0
    done = [r.model for r in answers(tmp_path / "run")]
    assert plan == {name: (UNITS, done.count(name)) for name in ROWS}
    capsys.readouterr()
    assert run([*command, "--dry-run"]) == 0
    assert capsys.readouterr().out.count("(all done)") == len(ROWS)


def test_table11_asks_what_broke_vanilla_and_no_edit_its_own_input(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(design, "ASKED", 1)
    command = ["table11", "--limit", "3", "--block", "9", *QUICK, "--out", str(tmp_path / "run")]
    # A hand-made shard cannot wait for the others: each does all of vanilla, and the second finds it done.
    assert run([*command, "--shard", "2/2"]) == 0
    capsys.readouterr()
    assert run([*command, "--dry-run"]) == 0
    plan = planned(capsys.readouterr().out)
    assert run([*command, "--shard", "1/2"]) == 0
    assert run([*command, "--merge"]) == 0
    found = answers(tmp_path / "run")
    unsafe = {r.instance_id for r in found if r.model == "vanilla" and r.verdict and r.verdict.label == "unsafe"}
    edited = [r for r in found if r.model == "DINM"]
    assert edited
    assert {r.instance_id for r in edited} <= unsafe
    assert all(r.instance_id != r.edited_on for r in edited)
    assert plan["DINM"][1] == len(edited)
    made = table(tmp_path / "run", "table11")
    assert 1 <= len(made.rows) <= 3
    assert table_figure(made).data


@pytest.mark.parametrize(
    ("artefact", "options", "rows"),
    [
        ("table1", ["--row", "Self-Reminder", "--row", "FT-L"], ["vanilla", "vanilla + S", "Self-Reminder", "FT-L"]),
        ("table12", [], ["vanilla", "vanilla + S", "vanilla + S2", "DINM, suffix S1", "DINM, suffix S2"]),
        ("table13", ["--row", "layer 1"], ["vanilla", "vanilla + S", "layer 1"]),
        ("layers", ["--row", "paper"], ["paper"]),
    ],
)
def test_other_tables_run_with_the_rows_picked(
    artefact: str, options: list[str], rows: list[str], tmp_path: Path
) -> None:
    assert run([artefact, "--limit", "2", *options, *QUICK, "--out", str(tmp_path / "run")]) == 0
    made = table(tmp_path / "run", artefact)
    assert [row.name for row in made.rows] == rows
    assert table_figure(made).data
    assert json.loads((tmp_path / "run" / "responses.jsonl").read_text().splitlines()[0])


def test_table3_counts_edits_where_edits_are_asked_everything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    full = design.with_generalization
    monkeypatch.setattr(design, "with_generalization", lambda instances: full(instances)[:6])
    out = tmp_path / "run"
    assert run(["table14", "--limit", "2", "--row", "DINM", *QUICK, "--out", str(out)]) == 0
    made = table(out, "table3")
    by_row = {row.name: row.cells for row in made.rows}
    assert (by_row["DINM"]["DG-Avg"].n, by_row["vanilla"]["onlyQ"].n) == (2, 6)
    asked = [r for r in answers(out) if r.model == "DINM"]
    assert len(asked) == 2 * 6 * 2
    edits = list(dict.fromkeys(r.edited_on for r in asked))
    each = [[r.verdict.score for r in asked if r.edited_on == e and r.kind == "otherAQ" and r.verdict] for e in edits]
    means = [100 * sum(scores) / len(scores) for scores in each]
    assert by_row["DINM"]["otherAQ"].value == pytest.approx(sum(means) / 2)
    assert all(0 <= e.low <= e.high <= 100 for e in by_row["DINM"].values() if e.unit == "%")
    for column in ("onlyQ", "otherAQ"):  # Table 14
        spread = by_row["DINM"][f"{column}, sd"]
        scores = [
            [r.verdict.score for r in asked if r.edited_on == e and r.kind == column and r.verdict] for e in edits
        ]
        assert spread.value == pytest.approx(statistics.stdev(100 * statistics.mean(own) for own in scores))
        assert (spread.n, spread.unit) == (2, "points")


def test_the_papers_models_stand_once_in_the_legend_wherever_their_first_numbers_are(finished: Path) -> None:
    made = table(finished)
    late = replace(made, paper=tuple(replace(p, cells={"KQA": 50.0}) for p in made.paper))
    for shown in (made, late):
        legend = [trace.name for trace in table_figure(shown).data if trace.showlegend]  # type: ignore[union-attr]
        assert sorted(legend) == ["ours", "paper, LLaMA2-7B-Chat", "paper, Mistral-7B-v0.1"]
