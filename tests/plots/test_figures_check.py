"""CI's check of a fresh run against the committed record: agreement passes, each kind of disagreement is named."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from interp.records import Comparison, ComparisonRow, Conclusion, Estimate


@pytest.fixture(scope="module")
def script() -> ModuleType:
    file = Path(__file__).parents[2] / "experiments" / "figures.py"
    spec = importlib.util.spec_from_file_location("experiments_figures", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def moved(estimate: Estimate, by: float) -> Estimate:
    return replace(estimate, value=estimate.value + by, low=estimate.low + by, high=estimate.high + by)


def sft(comparison: Comparison, change: Callable[[ComparisonRow], dict[str, Any]]) -> Comparison:
    rows = [replace(row, **change(row)) if row.name == "sft" else row for row in comparison.rows]
    return replace(comparison, rows=tuple(rows))


def test_a_run_agrees_with_itself_and_within_its_intervals(script: ModuleType, usual: Comparison) -> None:
    assert script.disagreements(usual, usual) == []
    near = sft(usual, lambda row: {"shift": replace(row.shift, rate=moved(row.shift.rate, 5.0))})
    assert script.disagreements(usual, near) == []


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda row: {"shift": replace(row.shift, rate=moved(row.shift.rate, 30.0))}, "sft shift rate"),
        (lambda row: {"swap": replace(row.swap, bypassed=moved(row.swap.bypassed, -0.4))}, "sft swap share bypassed"),
        (lambda row: {"swap": replace(row.swap, gated=True)}, "sft: the effect is too small"),
        (
            lambda row: {"region": (replace(row.region[0], change=moved(row.region[0].change, 0.01)), *row.region[1:])},
            "sft change of mean cosine, all value vectors",
        ),
        (lambda row: {"conclusion": Conclusion("erased", "x")}, "sft: committed as bypassed, now erased"),
    ],
)
def test_each_disagreement_inside_is_named(
    script: ModuleType, usual: Comparison, change: Callable[[ComparisonRow], dict[str, Any]], said: str
) -> None:
    assert any(line.startswith(said) for line in script.disagreements(usual, sft(usual, change)))


def test_other_words_for_the_same_verdict_agree(script: ModuleType, usual: Comparison) -> None:
    again = sft(usual, lambda row: {"conclusion": Conclusion(row.conclusion.verdict, "in other words")})
    assert script.disagreements(usual, again) == []
