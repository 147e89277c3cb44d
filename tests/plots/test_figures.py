from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest

from interp.errors import InputError
from interp.plots.defense import defense_rates, side_effects
from interp.plots.flow import PLACES, ROOM, toxic_flow
from interp.plots.gallery import Drawn, draw
from interp.plots.layers import layer_heatmap, layer_histogram, located_by_model, logit_lens_heatmap
from interp.plots.mechanism import by_layer, stacked_shares, swap_shares
from interp.plots.region import region_and_shift, region_definitions
from interp.plots.source import shift_source
from interp.records import Comparison, LayerScores
from plots.synthetic import asked_with_s, comparison, layer_scores


def words(figure) -> list[str]:
    """Every text that is drawn on a figure."""
    layout = figure.layout
    axes = [axis for kind in ("xaxis", "yaxis") for axis in layout if str(axis).startswith(kind)]
    titles = [layout[axis].title.text for axis in axes]
    ticks = [text for axis in axes for text in layout[axis].ticktext or ()]
    return [str(t) for t in (*titles, *ticks, *(a.text for a in layout.annotations)) if t]


def said(figure) -> str:
    return " ".join(words(figure))


@pytest.fixture(scope="module")
def all_drawn(usual: Comparison) -> tuple[Drawn, ...]:
    return draw(usual)


# --------------------------------------------------------------------------------------------- every figure
def test_every_hard_case_is_drawn(case: Comparison) -> None:
    drawn = draw(case)
    assert len({d.name for d in drawn}) == len(drawn)
    for d in drawn:
        assert len(d.figure.data) > 0, d.name


def test_a_whole_comparison_gives_every_figure(all_drawn: tuple[Drawn, ...]) -> None:
    names = [d.name for d in all_drawn]
    assert names == [
        "fig4_flow", "fig5_region_and_shift", "region_definitions", "swap_shares", "stacked_shares", "defense_rates",
        "side_effects", "layer_heatmap", "toxic_layers", "located_by_model", "by_layer", "fig8_shift_source",
    ]  # fmt: skip


def test_every_figure_follows_the_house_style(all_drawn: tuple[Drawn, ...]) -> None:
    for d in all_drawn:
        layout = d.figure.layout
        assert layout.title.text is None, f"{d.name}: the title belongs in the caption"
        assert layout.template.layout.font.family.startswith("Liberation Sans"), d.name
        assert len({trace.uid for trace in d.figure.data}) == len(d.figure.data), d.name
        assert layout.width <= 720, f"{d.name} is wider than a column"


def test_every_caption_says_what_how_and_what_not(all_drawn: tuple[Drawn, ...]) -> None:
    for d in all_drawn:
        assert min(len(d.shows), len(d.read), len(d.limits)) > 20, d.name
        assert d.shows in d.caption
        assert d.limits in d.caption


def test_axes_carry_the_number_of_inputs(usual: Comparison) -> None:
    for figure in (
        layer_heatmap(usual.layer_scores[0]), layer_histogram(usual.layer_scores), region_and_shift(usual),
        by_layer(usual), swap_shares(usual), stacked_shares(usual), defense_rates(usual), side_effects(usual),
    ):  # fmt: skip
        assert re.search(r"n = 27", said(figure))
    assert "n = 27" in shift_source(usual.sources).layout.coloraxis.colorbar.title.text


# --------------------------------------------------------------------------------------------- layers
def test_heatmap_marks_the_located_layer_of_each_column() -> None:
    scores = layer_scores(20, 6)
    figure = layer_heatmap(scores)
    heat, marks = figure.data
    shown = np.array(heat.z)
    assert shown.shape == (6, 20)
    assert list(marks.y) == list(shown.argmax(axis=0))
    assert heat.customdata[0][3][0] == scores.instance_ids[int(np.flatnonzero(scores.values[:, 0] == shown[0, 3])[0])]
    assert tuple(figure.layout.xaxis.range) == (-0.5, 19.5)
    assert tuple(figure.layout.yaxis.range) == (-0.5, 5.5)


def test_heatmap_groups_instances_by_category_whatever_the_file_calls_them() -> None:
    scores = replace(layer_scores(4, 3), categories=("Political Sensitivity", "offensiveness", "mine", "Offensiveness"))
    assert list(layer_heatmap(scores).layout.xaxis.ticktext) == ["offensiveness", "political", "mine"]


def test_heatmap_scale_is_in_the_template_and_not_in_the_layout(usual: Comparison) -> None:
    figure = layer_heatmap(usual.layer_scores[0])
    assert figure.layout.template.data.heatmap[0].colorscale[0][1].lower() == "#00224e"  # Cividis


def test_logit_lens_is_centred_on_zero() -> None:
    scores = layer_scores(9, 6)
    figure = logit_lens_heatmap(replace(scores, values=scores.values - 3.0, unit="logits"), located=4)
    heat = figure.data[0]
    assert (heat.zmid, heat.zmin) == (0, -heat.zmax)
    assert heat.zmax == pytest.approx(np.abs(scores.values - 3.0).max())
    assert heat.colorscale[0][1] == "rgb(5,48,97)"  # RdBu_r: blue below zero
    assert "toxic layer 4" in figure.layout.yaxis.ticktext


def test_logit_lens_of_nothing_but_zeros_or_nan_is_drawn() -> None:
    scores = layer_scores(3, 4)
    for value in (0.0, np.nan):
        assert logit_lens_heatmap(replace(scores, values=np.full((3, 4), value))).data[0].zmax == 1.0


def test_histogram_counts_every_instance_once(usual: Comparison) -> None:
    for trace, scores in zip(layer_histogram(usual.layer_scores).data, usual.layer_scores, strict=True):
        assert sum(trace.y) == len(scores.instance_ids)
        assert trace.y[scores.toxic_layer] == max(trace.y)


def test_histogram_refuses_models_of_different_depth() -> None:
    with pytest.raises(InputError, match="of one model"):
        layer_histogram([layer_scores(3, 4), layer_scores(3, 5)])
    with pytest.raises(InputError, match="of one model"):
        layer_histogram([])


def test_located_by_model_has_a_row_per_model(usual: Comparison) -> None:
    assert np.array(located_by_model(usual).data[0].z).sum(axis=1).tolist() == [27] * 4


# --------------------------------------------------------------------------------------------- Fig. 5
def test_a_rate_that_is_not_above_chance_is_written_and_never_drawn(usual: Comparison) -> None:
    figure = region_and_shift(usual)
    assert said(figure).count("not above chance") == 3
    assert not [t for t in figure.data if t.type == "bar" and t.xaxis == "x"]


def test_a_rate_whose_quotient_rounds_past_its_exact_change_is_drawn() -> None:
    # -100 / v * change and -100 * change / v differ in the last bit here, and the interval has no width.
    base = comparison(above_chance=True)
    row = next(row for row in base.rows if row.name == "sft")
    change = replace(
        row.region[0].change, value=-0.0005112747213686085, low=-0.0005112747213686085, high=-0.0005112747213686085
    )
    record = replace(row.region[0], vanilla=0.020246706872520715, change=change)
    assert record.rate is not None
    assert record.rate != -100.0 / record.vanilla * change.value
    rows = tuple(replace(r, region=(record, *r.region[1:])) if r is row else r for r in base.rows)
    region_and_shift(replace(base, rows=rows))


def test_a_rate_above_chance_is_a_bar_with_the_null_behind_it() -> None:
    figure = region_and_shift(comparison(above_chance=True))
    drawn = {t.name: t for t in figure.data if t.type == "bar" and t.xaxis == "x"}
    record = comparison(above_chance=True).rows[3].region[0]
    assert drawn["DINM"].x[0] == pytest.approx(record.rate)
    bands = [s for s in figure.layout.shapes if s.xref == "x" and s.type == "rect"]
    null = record.null_change
    assert sorted((bands[2].x0, bands[2].x1)) == pytest.approx(
        sorted((-100 * null.low / record.vanilla, -100 * null.high / record.vanilla))
    )
    assert "not above chance" not in said(figure)


def test_a_change_is_drawn_in_standard_deviations_of_its_null(usual: Comparison) -> None:
    figure = region_and_shift(usual)
    dinm = next(t for t in figure.data if t.type == "bar" and t.xaxis == "x2" and t.name == "DINM")
    record = usual.rows[3].region[0]
    assert dinm.x[0] == pytest.approx(-record.change.value / record.null_change.std)
    spread = (record.change.high - record.change.low) / record.null_change.std
    assert dinm.error_x.array[0] + dinm.error_x.arrayminus[0] == pytest.approx(spread)


def test_panels_hold_their_bands_and_intervals(usual: Comparison) -> None:
    figure = region_and_shift(usual)
    for axis in ("x2", "x3"):
        low, high = figure.layout[axis.replace("x", "xaxis")].range
        ends = [x for s in figure.layout.shapes if s.xref == axis for x in (s.x0, s.x1)]
        assert low <= min(ends)
        assert max(ends) < high


def test_a_shift_that_is_zero_by_construction_is_written(usual: Comparison) -> None:
    figure = region_and_shift(usual)
    assert said(figure).count("0 by construction") == 1
    bars = [t.name for t in figure.data if t.type == "bar" and t.xaxis == "x3"]
    assert bars == ["SFT", "DPO"]


def test_a_measured_zero_shift_is_a_bar_and_not_an_identity(usual: Comparison) -> None:
    rows = list(usual.rows)
    rows[3] = replace(rows[3], shift=replace(rows[3].shift, identity=False))
    figure = region_and_shift(replace(usual, rows=tuple(rows)))
    assert "0 by construction" not in said(figure)
    assert [t.name for t in figure.data if t.type == "bar" and t.xaxis == "x3"] == ["SFT", "DPO", "DINM"]


def test_only_what_is_beyond_both_nulls_is_filled(usual: Comparison) -> None:
    rows = list(usual.rows)
    first, second, *rest = rows[1].region
    sure, split = (
        replace(first, p_change=0.01, p_change_shaped=0.02),
        replace(second, p_change=0.01, p_change_shaped=0.5),
    )
    rows[1] = replace(rows[1], region=(sure, split, *rest))
    figure = region_definitions(replace(usual, rows=tuple(rows)))
    sft = next(t for t in figure.data if t.name == "SFT")
    assert sft.marker.symbol[:2] == ("square", "square-open")


# --------------------------------------------------------------------------------------------- Fig. 4 and 8
def test_flow_moves_the_dots_by_the_measured_shift(usual: Comparison) -> None:
    figure = toxic_flow(usual)
    dots = np.array(next(t for t in figure.data if t.name == "activation").x).reshape(4, len(PLACES))
    moved = dots - np.arange(4)[:, None] - np.array(PLACES)
    assert moved[0] == pytest.approx(0.0)
    assert moved[3] == pytest.approx(0.0)  # DINM
    assert moved[1] == pytest.approx(ROOM * 21.3 / 25.0)
    assert moved[2] == pytest.approx(ROOM * 14.2 / 25.0)


def test_flow_prints_the_numbers_and_colours_by_toxicity(usual: Comparison) -> None:
    figure = toxic_flow(usual)
    text = said(figure)
    for number in (
        "toxicity 0.0075",
        "shift 21.3 %",
        "shift 0 by construction",
        "weights moved 15 %",
        "safe answers 81 %",
    ):
        assert number in text
    paler = toxic_flow(usual).layout.shapes[0].fillcolor
    darker = toxic_flow(comparison(above_chance=True)).layout.shapes[0].fillcolor
    assert paler != darker


def test_flow_colours_follow_activation(usual: Comparison) -> None:
    dots = next(t for t in toxic_flow(usual).data if t.name == "activation")
    levels = np.array(dots.marker.color).reshape(4, len(PLACES))
    assert (np.diff(levels, axis=1) >= 0).all()
    assert levels[1].mean() < levels[0].mean()  # SFT activates the region less, as its record says


def test_pairs_of_a_method_are_one_dotted_trace_with_gaps(usual: Comparison) -> None:
    figure = shift_source(usual.sources)
    lines = [t for t in figure.data if t.mode == "lines"]
    assert len(lines) == 3
    source = usual.sources[0]
    assert lines[0].line.dash == "dot"
    assert len(lines[0].x) == 3 * len(source.vanilla)
    assert lines[0].x[2] is None
    assert (lines[0].x[3], lines[0].x[4]) == (source.vanilla[1, 0], source.shifted[1, 0])


def test_points_share_one_colour_scale_that_holds_every_level(usual: Comparison) -> None:
    figure = shift_source(usual.sources)
    points = [t for t in figure.data if t.marker.coloraxis]
    assert len(points) == 6
    levels = np.concatenate([np.array(t.marker.color) for t in points])
    axis = figure.layout.coloraxis
    assert (axis.cmin, axis.cmax) == (levels.min(), levels.max())


def test_a_shift_of_zero_names_its_axis_honestly(usual: Comparison) -> None:
    figure = shift_source(usual.sources)
    titles = [figure.layout[axis].title.text for axis in ("xaxis", "xaxis2", "xaxis3")]
    assert titles == ["Shift component", "Shift component", "PC2 (no mean shift)"]
    assert figure.layout.xaxis.range == figure.layout.xaxis3.range


# --------------------------------------------------------------------------------------------- behaviour
def test_states_of_the_suffix_are_never_in_one_panel(usual: Comparison) -> None:
    figure = defense_rates(usual)
    rows = {t.yaxis for t in figure.data}
    assert len(rows) == 2
    without = next(t for t in figure.data if t.name == "DINM")
    assert without.y[0] == usual.rows[3].defense[0].by_kind["DS"].value
    assert "without the suffix S" in said(figure)
    alone = defense_rates(comparison(suffix="", swaps=False))
    assert "with the suffix S" not in said(alone)


def test_every_rate_has_its_interval(usual: Comparison) -> None:
    figure = defense_rates(usual)
    for trace in figure.data:
        row = next(r for r in usual.rows if r.name.lower() == trace.name.lower())
        scores = row.defense[0 if trace.yaxis == "y" else 1]
        estimates = [*scores.by_kind.values(), scores.dg_avg]
        assert list(trace.y) == [e.value for e in estimates]
        assert list(trace.error_y.array) == [e.high - e.value for e in estimates]


def test_fluency_has_an_axis_of_its_own(usual: Comparison) -> None:
    figure = side_effects(usual)
    fluency = [t for t in figure.data if list(t.x) == ["fluency ↑"]]
    assert {t.yaxis for t in fluency} == {"y2", "y4"}
    assert figure.layout.yaxis2.title.text == "Bits"


def test_what_was_not_measured_has_no_place_on_the_axis(usual: Comparison) -> None:
    rows = tuple(
        replace(r, general=tuple(replace(g, over_refusal_wrapped=None, fluency=None) for g in r.general))
        for r in usual.rows
    )
    figure = side_effects(replace(usual, rows=rows))
    assert not [x for t in figure.data for x in t.x if "wrapped" in x or "fluency" in x]


def test_gated_swaps_are_told_and_not_drawn(usual: Comparison) -> None:
    figure = swap_shares(usual)
    assert "too small a change of behaviour" in said(figure)
    assert "by algebra" in said(figure)
    assert {len(t.y) for t in figure.data if t.mode == "markers"} == {2}  # SFT and DINM of three


def test_what_was_asked_with_s_is_drawn_apart_and_algebra_is_marked(usual: Comparison) -> None:
    given = asked_with_s(usual)
    stacked, lanes = stacked_shares(given), swap_shares(given)
    assert any(bar.startswith("DINM with S, layer") for trace in stacked.data for bar in trace.y)
    assert {shape for trace in stacked.data for shape in trace.marker.pattern.shape} == {"", "/"}
    names = lanes.layout.yaxis.ticktext
    assert "DINM with S" in names[-1]
    assert "masked by algebra" in names[-1]
    assert "2 edits left out" in names[-1]
    assert len(names) == 4


def test_stacked_shares_add_up_and_a_gated_method_has_no_bar(usual: Comparison) -> None:
    figure = stacked_shares(usual)
    bars = {bar for trace in figure.data for bar in trace.y}
    assert said(figure).count("too small to divide") == 1  # the interval is above 0
    assert len(bars) == 2  # SFT and DINM of three
    for bar in bars:
        total = sum(x for trace in figure.data for x, y in zip(trace.x, trace.y, strict=True) if y == bar)
        assert total == pytest.approx(100.0, abs=1.0)


def test_a_name_is_text_and_never_markup() -> None:
    odd = comparison(("vanilla", "sft"))
    rows = (odd.rows[0], replace(odd.rows[1], name="<b>x</b>"))
    for d in draw(replace(odd, rows=rows)):
        assert "<b>x</b>" not in said(d.figure), d.name
        assert not [t for t in d.figure.data if "<b>x</b>" in (t.name or "")], d.name


def test_scores_of_any_unit_are_taken() -> None:
    scores = LayerScores(
        "m", "lens", "a unit <with> markup & a long name that has to be wrapped", (1,), ("x",), np.ones((1, 2))
    )
    title = layer_heatmap(scores).data[0].colorbar.title.text
    assert "&lt;with&gt;" in title
    assert "<br>" in title
