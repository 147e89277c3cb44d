"""`--deep`: what the laboratory leaves in a run folder, what it does twice, and what it says when something fails."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from small_run import SMALL

from interp.compare import run
from interp.errors import InputError
from interp.mechanism.lab import Analysis, Subject
from interp.mechanism.margins import KINDS, MARGINS
from interp.models import HookedModel
from interp.pipeline import deep
from interp.plots.chapter import chapter
from interp.plots.findings import draw_findings
from interp.records import Bars, Comparison, Finding, loads

TELLS = "expected a reference model, got none"


def _refuse(subject: Subject, vanilla: Subject) -> Finding:
    if subject is vanilla:
        return MARGINS.measure(subject, vanilla)
    raise InputError(TELLS)


@pytest.fixture(scope="module", autouse=True)
def few() -> Iterator[None]:
    """Two analyses are enough to see what is done with many; the second cannot look into edited models."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(deep, "ANALYSES", (MARGINS, Analysis("picky", _renamed, MARGINS.read)))
        yield


def _renamed(subject: Subject, vanilla: Subject) -> Finding:
    from dataclasses import replace

    return replace(_refuse(subject, vanilla), name="picky", tokens=())


@pytest.fixture(scope="module")
def looked(finished: Path) -> tuple[Path, str]:
    """The finished run of `compare dinm`, given again with --deep; and what it printed."""
    import contextlib
    import io

    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        assert run(["dinm", *SMALL, "--deep", "--out", str(finished)]) == 0
    return finished, said.getvalue()


def finding(folder: Path, name: str) -> Finding:
    return loads(Finding, (folder / "deep" / f"{name}.json").read_text())


def test_a_finished_run_is_looked_into_when_it_is_given_again_with_deep(looked: tuple[Path, str]) -> None:
    folder, said = looked
    assert finding(folder, "margins-vanilla").reading == ""
    merged = finding(folder, "margins")
    assert merged.bars[0].groups == ("vanilla", "dinm")
    assert list(merged.bars[0].series)[:1] == [KINDS["DS"]]
    assert "vanilla" in merged.reading
    assert "dinm" in merged.reading
    assert str(folder / "deep") in said


def test_a_method_with_a_suffix_has_shares_with_it_beside_those_without(looked: tuple[Path, str]) -> None:
    row = loads(Comparison, (looked[0] / "comparison.json").read_text()).rows[1]
    assert row.causal is not None
    assert row.causal_with_suffix is not None
    assert (row.causal.suffix, row.causal_with_suffix.suffix) == (False, True)
    assert row.causal_with_suffix.layer == row.causal.layer
    assert row.causal_with_suffix.margin_vanilla.value != row.causal.margin_vanilla.value
    assert "nothing up to the output of layer" in row.causal_with_suffix.by_algebra  # the edit is above that layer
    assert "With S on both sides" in row.conclusion.evidence


def test_the_record_says_which_edits_stand_for_all(looked: tuple[Path, str]) -> None:
    found = finding(looked[0], "margins")
    assert "3 of 3 edits stand for all, drawn with seed 0: edit on instance" in found.facts["dinm, edits"]
    dinm = found.bars[0].series[KINDS["DS"]][1]
    assert dinm is not None
    assert "mean of 3 edits" in dinm.how


def test_an_analysis_that_cannot_be_done_is_told_in_one_line_and_the_others_go_on(looked: tuple[Path, str]) -> None:
    folder, said = looked
    lines = [line for line in said.splitlines() if TELLS in line]
    assert len(lines) == 1
    assert "picky not done on dinm" in lines[0]
    assert finding(folder, "picky").bars[0].groups == ("vanilla",)


def test_edits_are_piled_up_where_dinm_is_compared(looked: tuple[Path, str]) -> None:
    found = finding(looked[0], "sequential")
    assert found.curves
    assert max(found.curves[0].curves[0].x) == 3
    again = finding(looked[0], "repeated")
    assert max(again.curves[0].curves[0].x) == 5
    assert "Edited 5 times in a row" in again.reading


def test_nothing_is_measured_twice(looked: tuple[Path, str], monkeypatch: pytest.MonkeyPatch) -> None:
    def again(*_: Any) -> None:
        raise AssertionError("measured twice")

    monkeypatch.setattr(deep, "ANALYSES", (Analysis("margins", again, MARGINS.read),))
    monkeypatch.setattr(deep, "sequential_survival", again)
    monkeypatch.setattr(deep, "repeated_edits", again)
    before = (looked[0] / "deep" / "margins.json").read_text()
    assert run(["dinm", *SMALL, "--deep", "--out", str(looked[0])]) == 0
    assert (looked[0] / "deep" / "margins.json").read_text() == before


def test_vanilla_is_left_as_it_was(looked: tuple[Path, str]) -> None:
    config = json.loads((looked[0] / "config.json").read_text())
    assert HookedModel.from_pretrained("demo").weight_hash() == config["model"]


def test_a_damaged_record_is_named(looked: tuple[Path, str], capsys: pytest.CaptureFixture[str]) -> None:
    file = looked[0] / "deep" / "margins-dinm.json"
    whole = file.read_text()
    file.write_text("{")
    assert run(["dinm", *SMALL, "--deep", "--out", str(looked[0])]) == 2
    assert "margins-dinm.json" in capsys.readouterr().err
    file.write_text(whole)


def test_the_chapter_has_a_section_a_box_and_limits_for_every_finding(looked: tuple[Path, str]) -> None:
    findings = [finding(looked[0], name) for name in ("margins", "picky", "sequential")]
    drawn = {d.name: d for d in draw_findings(findings)}
    text = chapter(findings, drawn, ("picky not done: <b>",), plotly=True, bundled=True)
    for found in findings:
        assert f'id="deep-{found.name}"' in text
    assert text.count("How to read this") == text.count(">Limits<") == 3
    assert text.count("CircuitsVis.ColoredTokens") == 4  # two models, two measures
    assert "&lt;b&gt;" in text


def test_what_was_measured_stays_where_it_cannot_be_put_in_words() -> None:
    def stumbles(_: Finding) -> str:
        raise StopIteration

    panel = Bars("p", "nats", ("vanilla",), {"s": (None,)})
    part = Finding("odd", "t", "q", "", "h", "l", n=1, seed=0, bars=(panel,))
    failed: dict[str, str] = {}
    found = deep._read(Analysis("odd", lambda *_: part, stumbles), [part], failed)
    assert found.bars == (panel,)
    assert failed == {"odd": "odd measured, but not put in words: StopIteration"}
