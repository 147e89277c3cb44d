from __future__ import annotations

import subprocess
import sys

import plotly.graph_objects as go
import plotly.io as pio
import pytest

from interp.plots.text import fixed, label, layers, minus, ns, number, rate, short, signed, wrapped
from interp.plots.theme import CONFIG, PAPER, errors, finish, legend_height, styles
from interp.records import Estimate
from interp.stats import exact, share


def test_each_known_method_keeps_its_colour_whatever_stands_beside_it() -> None:
    few, many = styles(["vanilla", "dinm"]), styles(["a", "vanilla", "b", "sft", "dinm", "dpo"])
    assert few["dinm"] == many["dinm"]
    assert (many["sft"].color, many["sft"].pattern) == ("#E69F00", "/")
    assert len({style.color for style in many.values()}) == 6


def test_more_models_than_colours_still_get_a_style() -> None:
    assert len(styles([f"m{i}" for i in range(12)])) == 12


def test_finish_changes_no_global_default_and_fixes_every_uid() -> None:
    before = pio.templates.default
    fig = finish(go.Figure([go.Bar(y=[1]), go.Bar(y=[2])]), 400, 300)
    assert pio.templates.default == before
    assert [trace.uid for trace in fig.data] == ["trace0", "trace1"]
    assert fig.layout.template == PAPER


def test_no_figure_offers_to_upload_itself() -> None:
    assert "sendChartToCloud" in CONFIG["modeBarButtonsToRemove"]


def test_intervals_are_drawn_from_the_value_and_swap_with_the_sign() -> None:
    e = Estimate(2.0, 1.0, 5.0, 3)
    assert (errors([e])["array"], errors([e])["arrayminus"]) == ([3.0], [1.0])
    assert (errors([e], -2.0)["array"], errors([e], -2.0)["arrayminus"]) == ([2.0], [6.0])
    assert not errors([exact(2.0, 1)])["visible"]


def test_a_legend_of_many_long_names_takes_more_lines() -> None:
    assert legend_height(["a", "b"], 700) == 20
    assert legend_height(["a-name-of-some-length"] * 9, 700) == 60


@pytest.mark.parametrize(
    ("x", "text"),
    [(0.00081234, "0.00081"), (-0.0, "0"), (12.34, "12"), (1234.5, "1234"), (float("nan"), "n/a"), (0.1, "0.1")],
)
def test_number(x: float, text: str) -> None:
    assert number(x) == text


def test_numbers_in_words() -> None:
    assert (signed(0.5), signed(-0.5), signed(0.0)) == ("+0.5", "-0.5", "0")
    assert (fixed(-0.04), fixed(-0.06)) == ("0.0", "-0.1")
    assert rate(share(25, 27)) == "92.6 [76.6, 97.9]"
    assert (rate(exact(3.0, 1)), rate(None)) == ("3.0", "n/a")
    assert ns([share(1, 27), share(1, 25), None]) == "25-27"
    assert layers({4: 25, 3: 2}) == "4 (25), 3 (2)"
    assert (layers({4: 27}), layers({}), layers({i: 5 - i for i in range(5)})) == (
        "4", "n/a", "0 (5), 1 (4), 2 (3), 2 more",
    )  # fmt: skip


def test_texts_for_labels() -> None:
    assert minus("a-b -3 [-1, 2] e-5") == "a-b −3 [−1, 2] e-5"
    assert wrapped("a <b> c", 3) == "a<br>&lt;b&gt;<br>c"
    assert (label("dinm"), label("mine")) == ("DINM", "mine")
    assert short("a-very-long-name-of-a-model") == "a-very-lo…f-a-model"


def test_plots_import_neither_torch_nor_circuitsvis() -> None:
    code = (
        "import sys, pkgutil, importlib, interp.plots as p\n"
        "for m in pkgutil.iter_modules(p.__path__): importlib.import_module(f'interp.plots.{m.name}')\n"
        "from interp.plots.tokens import bundle; bundle()\n"
        "print([m for m in ('torch', 'transformers', 'circuitsvis') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
