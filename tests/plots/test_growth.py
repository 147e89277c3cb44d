"""The growth benchmark: ratios and exponents by hand, one point measured, and the committed files."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from interp.plots.canonical import dumps
from interp.plots.growth import figures, markdown

FOLDER = Path(__file__).parents[2] / "experiments" / "benchmarks"


@pytest.fixture(scope="module")
def growth() -> ModuleType:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(FOLDER))
        patch.setenv("OMP_NUM_THREADS", "1")
        spec = importlib.util.spec_from_file_location("growth_measure", FOLDER / "growth_measure.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module  # dataclasses look their module up
        spec.loader.exec_module(module)
    return module


def raw_of(growth: ModuleType, power: float) -> dict[str, Any]:
    """Seconds that grow as a power of every size: the n-th operation takes n + 1 times the baseline."""
    seconds = {
        axis: {
            str(v): {
                name: [(n + 1) * f * (v / getattr(growth.BASE, axis)) ** power for f in (0.9, 1.0, 1.2)]
                for n, name in enumerate(growth.OPERATIONS)
            }
            for v in values
        }
        for axis, (_, values) in growth.AXES.items()
    }
    return {"seconds": seconds, "base": vars(growth.BASE), "repeats": 3, "facts": {"model": "made up"}}


def test_a_power_law_has_its_exponent_and_no_interval(growth: ModuleType) -> None:
    found = growth.exponent((2, 4, 8, 16), [4.0, 16.0, 64.0, 256.0])
    assert (found.value, found.low, found.high) == pytest.approx((2, 2, 2), abs=1e-6)


def test_a_bent_line_has_a_wide_interval_and_two_sizes_none(growth: ModuleType) -> None:
    bent = growth.exponent((1, 2, 4, 8), [1.0, 1.0, 1.0, 8.0])
    assert bent.low < 0 < bent.value < bent.high
    two = growth.exponent((1, 2), [1.0, 8.0])
    assert two.value == two.low == two.high == pytest.approx(3)


def test_the_unit_is_the_plain_forward_of_the_base_point(growth: ModuleType) -> None:
    record = growth.growth_of(raw_of(growth, 1.0))
    for axis in record.axes:
        plain = axis.costs[growth.PLAIN][axis.values.index(axis.base)]
        assert (plain.value, plain.low, plain.high, plain.n) == pytest.approx((1.0, 0.9, 1.2, 3))
        last = list(growth.OPERATIONS)[-1]
        assert axis.against_plain[last] == pytest.approx([len(growth.OPERATIONS)] * len(axis.values))
        assert axis.exponents[last].value == pytest.approx(1.0)


def test_every_operation_is_drawn_on_every_axis_and_the_same_each_time(growth: ModuleType) -> None:
    record = growth.growth_of(raw_of(growth, 1.5))
    drawn = figures(record)
    grouped = [name for names in growth.GROUPS.values() for name in names]
    assert {growth.PLAIN, *grouped} == set(growth.OPERATIONS)
    assert len(drawn["growth"].data) == len(record.axes) * (len(grouped) + len(growth.GROUPS))  # type: ignore[arg-type]
    assert {name: dumps(fig) for name, fig in drawn.items()} == {n: dumps(f) for n, f in figures(record).items()}


def test_the_table_has_ratios_and_exponents_and_no_seconds(growth: ModuleType) -> None:
    text = markdown(growth.growth_of(raw_of(growth, 1.0)))
    assert "| locate | 2.0 [1.8, 2.4] | 1.00" in text
    assert " s |" not in text


def test_one_point_measures_every_operation(growth: ModuleType) -> None:
    bench = growth.Bench(growth.Point(layers=1, width=96, prompt=8, instances=2))
    bench.measure()
    assert all(len(s) == 1 and s[0] > 0 for s in bench.seconds.values())


def test_committed_table_and_figures_follow_from_the_measurements(growth: ModuleType) -> None:
    from interp.runs import read_json

    assert growth.check(growth.growth_of(read_json(FOLDER / "results" / "growth.json"))) == []
