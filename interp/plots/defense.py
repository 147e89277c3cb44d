"""Behaviour figures: defence rates with and without the suffix S, and what the defence costs on harmless inputs."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from interp.plots.text import ns, safe, states
from interp.plots.theme import bars, errors, finish, heading, legend_height, styles
from interp.records import PROMPT_KINDS, Comparison, ComparisonRow, DefenseScores, Estimate, GeneralPerformance

Pick = Callable[[ComparisonRow, bool], Estimate | None]

STATE = {False: "without the suffix S", True: "with the suffix S"}


def defense_rates(comparison: Comparison) -> go.Figure:
    """DS, the four DG and DG-Avg of every model with intervals; one panel without and one with the suffix S."""
    kinds = [kind for kind in PROMPT_KINDS if any(kind in d.by_kind for row in comparison.rows for d in row.defense)]
    picks: list[tuple[str, Pick]] = [("DS" if k == "DS" else f"DG<br>{k}", _kind(k)) for k in kinds]
    if kinds:
        picks.append(("DG-Avg", lambda row, s: d.dg_avg if (d := _defense(row, s)) else None))
    fig = _grouped(comparison, picks, "Defence success (%)")
    return _finish(fig, comparison)


def side_effects(comparison: Comparison) -> go.Figure:
    """Over-refusal, knowledge, broken answers (percent) and fluency (bits) of every model, without and with S."""
    picks: list[tuple[str, Pick]] = [
        ("over-refusal<br>bare ↓", lambda row, s: g.over_refusal if (g := _general(row, s)) else None),
        ("over-refusal<br>wrapped ↓", lambda row, s: g.over_refusal_wrapped if (g := _general(row, s)) else None),
        ("degenerate<br>answers ↓", lambda row, s: d.degenerate if (d := _defense(row, s)) else None),
        ("knowledge<br>KQA ↑", lambda row, s: g.kqa if (g := _general(row, s)) else None),
    ]
    fluency: list[tuple[str, Pick]] = [("fluency ↑", lambda row, s: g.fluency if (g := _general(row, s)) else None)]
    picks = [(name, pick) for name, pick in picks if _measured(comparison, pick)]
    fluency = [(name, pick) for name, pick in fluency if _measured(comparison, pick)]
    fig = _grouped(comparison, picks, "Share (%)", fluency)
    return _finish(fig, comparison)


# ------------------------------------------------------------------------------------------------- parts
def _defense(row: ComparisonRow, suffix: bool) -> DefenseScores | None:
    return next((d for d in row.defense if d.suffix == suffix), None)


def _general(row: ComparisonRow, suffix: bool) -> GeneralPerformance | None:
    return next((g for g in row.general if g.suffix == suffix), None)


def _kind(kind: str) -> Pick:
    def pick(row: ComparisonRow, suffix: bool) -> Estimate | None:
        found = _defense(row, suffix)
        return found.by_kind.get(kind) if found else None

    return pick


def _measured(comparison: Comparison, pick: Pick) -> bool:
    found = (pick(row, s) for row in comparison.rows for s in (False, True))
    return any(e is not None and e.n > 0 for e in found)


def _finish(fig: go.Figure, comparison: Comparison) -> go.Figure:
    top = 36 + legend_height([style.label for style in styles([r.name for r in comparison.rows]).values()], 720)
    height = top + 60 + 170 * max(len(states(comparison)), 1)
    return finish(fig, 720, height, margin={"t": top, "l": 60, "b": 60})


def _grouped(
    comparison: Comparison, picks: Sequence[tuple[str, Pick]], title: str, second: Sequence[tuple[str, Pick]] = ()
) -> go.Figure:
    """Grouped bars: one panel per suffix state; quantities of another unit in a narrow second column."""
    shown = states(comparison) or (False,)
    columns = 2 if second else 1
    widths = [0.84, 0.16] if second else None
    fig = make_subplots(
        rows=len(shown), cols=columns, shared_xaxes=True, vertical_spacing=0.12, horizontal_spacing=0.1,
        column_widths=widths,
    )  # fmt: skip
    style = styles([row.name for row in comparison.rows])
    for r, suffix in enumerate(shown, start=1):
        for c, group in enumerate((picks, second)[:columns], start=1):
            for row in comparison.rows:
                found = [(name, e) for name, pick in group if (e := pick(row, suffix)) is not None and e.n > 0]
                look = style[row.name]
                fig.add_trace(
                    go.Bar(
                        x=[name for name, _ in found], y=[e.value for _, e in found], marker=bars(look),
                        error_y=errors([e for _, e in found], thickness=1.1), name=safe(look.label),
                        legendgroup=row.name, showlegend=r == 1 and c == 1, offsetgroup=row.name,
                        customdata=[[e.low, e.high, e.n] for _, e in found],
                        hovertemplate="%{x}: %{y:.3g} [%{customdata[0]:.3g}, %{customdata[1]:.3g}], "
                        "n = %{customdata[2]}<extra>" + safe(look.label) + "</extra>",
                    ), row=r, col=c,
                )  # fmt: skip
        n = ns(pick(row, suffix) for row in comparison.rows for _, pick in picks)
        axis = (r - 1) * columns + 1
        ref = "" if axis == 1 else str(axis)
        heading(fig, f"{STATE[suffix]} (n = {n})", x=0, xref=f"x{ref} domain", y=1.02, yref=f"y{ref} domain")
        fig.update_yaxes(title={"text": title}, range=[0, 105], dtick=25, row=r, col=1)
        if second:
            fig.update_yaxes(title={"text": "Bits"}, rangemode="tozero", nticks=5, row=r, col=2)
    fig.update_xaxes(categoryorder="array", categoryarray=[name for name, _ in (*picks, *second)], ticks="")
    fig.update_layout(
        barmode="group", bargap=0.22, bargroupgap=0.04, legend={"y": 1, "yref": "container", "yanchor": "top"}
    )
    return fig
