from __future__ import annotations

import io
import re
from dataclasses import replace

import pytest
from rich.console import Console

from interp.plots.table import PLANTED, Table, html_tables, markdown, notes, print_comparison, tables
from interp.records import Comparison
from interp.stats import share
from plots.synthetic import asked_with_s, comparison


def printed(comparison: Comparison, width: int) -> str:
    out = io.StringIO()
    print_comparison(comparison, Console(file=out, width=width, color_system=None))
    return out.getvalue()


def column(table: Table, name: str) -> list[str]:
    return [row[table.columns.index(name)] for row in table.rows]


@pytest.fixture(scope="module")
def usual_tables(usual: Comparison) -> dict[str, Table]:
    return {" ".join(table.title.split()[:2]): table for table in tables(usual)}


def test_region_table_never_prints_a_rate_that_is_noise(usual_tables: dict[str, Table]) -> None:
    assert column(usual_tables["Toxic region:"], "rate") == ["-", *["not above chance"] * 3]
    assert column(usual_tables["Toxic region:"], "change")[0] == "1.7 sd from chance"
    assert column(usual_tables["Toxic region:"], "p")[1] == "0.2, 0.32"


def test_region_table_prints_a_rate_above_chance() -> None:
    table = tables(comparison(above_chance=True))[0]
    assert all(re.fullmatch(r"-?\d+\.\d %", cell) for cell in column(table, "rate")[1:])


def test_a_shift_of_zero_by_construction_says_so(usual_tables: dict[str, Table]) -> None:
    assert column(usual_tables["What moved"], "shift, same prompts")[-1] == "0 (identity)"
    assert column(usual_tables["What moved"], "verdict") == ["bypassed", "undecided", "undecided"]


def test_swap_table_gates_and_names_algebra(usual_tables: dict[str, Table]) -> None:
    assert column(usual_tables["Swapped with"], "erased: W_V") == ["5 [-1, 11]", "too small", "100 (identity)"]


def test_shares_asked_with_s_have_a_row_of_their_own_and_algebra_is_marked(usual: Comparison) -> None:
    found = next(t for t in tables(asked_with_s(usual)) if "Swapped with" in t.title)
    assert column(found, "model") == ["SFT", "DPO", "DINM", "DINM with S (2 edits left out)"]
    assert column(found, "after")[-1] == "100 (algebra)"
    assert column(found, "verdict")[-1] == "masked by algebra"
    assert "DINM: undecided, with S masked by algebra." in markdown(asked_with_s(usual))


def test_defence_table_keeps_the_suffix_apart(usual_tables: dict[str, Table]) -> None:
    table = usual_tables["Defence success"]
    assert column(table, "S") == ["without"] * 4 + ["with"] * 4
    assert table.breaks == (3,)
    assert "n = 27" in table.title
    assert column(table, "DS")[0] == "7.4 [2.1, 23.4]"


def test_seconds_are_told_once_per_model(usual: Comparison) -> None:
    table = next(t for t in tables(usual) if "costs" in t.title)
    assert column(table, "seconds") == ["10", "21", "21", "10", "", "", "", ""]


def test_the_costs_say_the_n_behind_every_number_and_which_model_differs(usual: Comparison) -> None:
    usual_n = "bare 30, wrapped 30, KQA 60, fluency 27, broken 27"
    dinm = usual.rows[3]
    general = tuple(
        replace(g, kqa=share(27, 27), over_refusal=share(0, 27), over_refusal_wrapped=share(0, 27))
        for g in dinm.general
    )
    odd = replace(usual, rows=(*usual.rows[:3], replace(dinm, general=general)))
    assert [t.title for t in tables(usual) if "costs" in t.title] == [f"What the defence costs (n: {usual_n})"]
    assert [t.title for t in tables(odd) if "costs" in t.title] == [
        f"What the defence costs (n: {usual_n}; DINM: 27 each)"
    ]


def test_no_n_stands_over_weights_that_are_exact(usual_tables: dict[str, Table]) -> None:
    assert "W_V, exact for a checkpoint, and the activations into it (n = 27)" in usual_tables["What moved"].title


def test_the_judges_held_out_accuracy_stands_with_its_control_or_is_said_to_be_missing(usual: Comparison) -> None:
    said = next(line for line in notes(usual) if line.startswith("judge: "))
    assert said.startswith(
        "judge: demo, right on 99.0 [98.2, 99.5] % of 1000 held-out texts (val of demo, unseen texts)"
    )
    assert said.endswith("would be right on 40.0 %.")
    assert "was not measured" in next(line for line in notes(replace(usual, judge=None)) if line.startswith("judge: "))


def test_what_training_seconds_are_is_told(usual: Comparison) -> None:
    assert any("includes the SFT it stands on" in line for line in notes(usual))


@pytest.mark.parametrize("width", [120, 140, 152, 160])
def test_terminal_tables_fit_and_keep_every_cell_on_its_line(usual: Comparison, width: int) -> None:
    text = printed(usual, width)
    assert max(len(line) for line in text.splitlines()) <= width
    assert ("92.6 [76.6, 97.9]" in text) is (width >= 152)
    for table in tables(usual, compact=width < 152):
        for row in table.rows:
            shown = [line for line in text.splitlines() if all(cell in line for cell in row)]
            assert shown, f"{row} is broken over lines at {width} columns"


def test_every_hard_case_has_tables_for_every_reader(case: Comparison) -> None:
    assert printed(case, 120)
    assert markdown(case).count("\n\n") >= len(tables(case))
    assert html_tables(case).count("<table>") == len(tables(case))


def test_planted_behaviour_is_told_on_the_demo_only(usual: Comparison) -> None:
    assert PLANTED in notes(usual)
    assert PLANTED not in notes(replace(usual, planted=False))
    assert "planted" in printed(usual, 120)


def test_conclusions_and_warnings_are_printed(usual: Comparison) -> None:
    text = " ".join(printed(usual, 120).split())
    assert "SFT: bypassed. Region toxicity" in text
    assert "1 of 27 edits are at another layer" in text


def test_cells_with_brackets_are_not_taken_for_styles(usual: Comparison) -> None:
    rows = (usual.rows[0], replace(usual.rows[1], name="[red]x"))
    assert "[red]x" in printed(replace(usual, rows=rows), 160)


def test_markdown_and_html_escape_what_they_are_given(usual: Comparison) -> None:
    rows = (usual.rows[0], replace(usual.rows[1], name="<img src=x>|y"))
    odd = replace(usual, rows=rows)
    assert "&lt;img src=x>\\|y" in markdown(odd)
    assert "<img" not in html_tables(odd)
    body = [line for line in markdown(odd).splitlines() if "img" in line and line.startswith("|")]
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in body} <= {8, 7, 9}
