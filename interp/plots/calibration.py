"""The calibration as figures: which rule is right how often, which locator finds a plant, how shares lie.

Records in, figures out. Held-out and fresh plants are what counts; the half that thresholds were chosen on stands
beside them, paler, so that a difference would show.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from interp.plots.gallery import Drawn
from interp.plots.text import fixed, rate, safe, wrapped
from interp.plots.theme import INK, MUTED, SMALL, errors, finish, heading
from interp.records import Estimate
from interp.records.calibration import Calibration, LocatorScore, RuleScore

HELD, SET, FRESH = "#0072B2", "#9CC7E0", "#E69F00"
PARTS = (
    ("set", SET, "dot", "half that thresholds were chosen on"),
    ("held-out", HELD, "solid", "held-out half"),
    ("fresh", FRESH, "dash", "fresh plants, made after everything was fixed"),
)
"""Part, colour, dash, what the legend calls it. A small calibration has no fresh plants."""
LAYERS = 6
"""Of both shapes of the demo, which all organisms are made from."""
TRUTHS = ("erased", "bypassed", "parallel", "upstream", "masked", "mixed", "none")
VERDICTS = ("erased", "bypassed", "parallel", "upstream", "masked", "mixed", "no effect")
COLORS = {
    "erased": "#D55E00", "bypassed": "#0072B2", "parallel": "#56B4E9", "upstream": "#009E73",
    "masked": "#CC79A7", "mixed": "#E69F00", "none": "#999999",
}  # fmt: skip
SYMBOLS = {
    "erased": "diamond", "bypassed": "circle", "parallel": "square", "upstream": "cross",
    "masked": "triangle-up", "mixed": "star", "none": "circle-open",
}  # fmt: skip
SHOWN = (
    "four shares, at the plant",
    "four shares, at the located layer",
    "the paper's, best threshold",
)
"""Rules whose confusion is drawn."""


def draw_calibration(calibration: Calibration) -> tuple[Drawn, ...]:
    """Every figure of a calibration with its caption."""
    plants = len({r.plant for r in calibration.results})
    rests = f"{len(calibration.organisms)} organisms of {plants} plants, {calibration.n_prompts} test prompts each"
    return (
        Drawn(
            "calibration_rules",
            "Which verdict can be trusted",
            rules_figure(calibration.rules),
            shows=f"Verdicts that are right, by rule ({rests}). Pale: the half that thresholds were chosen "
            "on; numbers of organisms in the order of the bars.",
            read="Left: all six truths. Right: only erased, not erased, or no effect, which is what the paper's two "
            "measures can tell apart. Whiskers: 95 %, a bootstrap over plants or Wilson's, the wider.",
            limits="truths are planted in a model of 1.5 M parameters; on models that nobody planted anything in the "
            "behaviour need not sit in one matrix.",
        ),
        Drawn(
            "calibration_confusion",
            "What is taken for what",
            confusion_figure(calibration.rules),
            shows="Truth (rows) against verdict (columns), counts of the organisms that no threshold was chosen on: "
            "held-out and fresh.",
            read="A rule that is always right fills the diagonal; for “upstream”, whose parts below the region were "
            "trained freely, the verdicts bypassed, parallel and upstream are all right.",
            limits="the paper's measures know only erased, bypassed and neither.",
        ),
        Drawn(
            "calibration_shares",
            "The four shares of every organism",
            shares_figure(calibration),
            shows="Each organism that lost its behaviour by what passes through W_V (erased) and through its inputs "
            f"(bypassed), and by parallel and downstream routes; dotted: the threshold, "
            f"{fixed(calibration.threshold, 2)}.",
            read="Erased organisms gather at the right of the left panel, bypassed ones at its top; parallel and "
            "masked ones at its origin, apart in the right panel.",
            limits="shares may leave the range from 0 to 1 where routes work against each other; organisms without an "
            "effect have no shares and are left out.",
        ),
        Drawn(
            "calibration_locators",
            "Which locator finds a planted layer",
            locators_figure(calibration.locators),
            shows=f"Planted models whose layer a locator names ({plants} plants in layers 1 and above; pale: the half "
            "that choices were made on).",
            read=f"The dotted line is chance (one layer in {LAYERS}). Hollow: only held-out plants in another layer "
            "than the locator already named before planting. “ref” needs a second model.",
            limits="a locator that reads the norm of a matrix finds plants because training makes them large: decoys "
            "of the same norm in another layer are there to show it.",
        ),
        Drawn(
            "calibration_thresholds",
            "How much hangs on the threshold",
            thresholds_figure(calibration),
            shows="Right verdicts of the four shares at the plant's layer against the threshold on the interval's end.",
            read="A flat top means that the choice hardly matters; the dotted line is the one chosen on the pale half.",
            limits="all parts hold the same kinds of organisms.",
        ),
    )  # fmt: skip


def rules_figure(rules: Sequence[RuleScore]) -> go.Figure:
    """Right verdicts of each rule, all truths and coarse, every part."""
    names = list(dict.fromkeys(r.rule for r in rules))
    fig = make_subplots(rows=1, cols=2, shared_yaxes=True, horizontal_spacing=0.04)
    labels = {name: wrapped(name, 34) for name in names}
    for half, color, _, shown in PARTS:
        mine = {r.rule: r for r in rules if r.half == half}
        if not mine:
            continue
        for c, field in enumerate(("right", "coarse"), start=1):
            estimates: list[Estimate] = [getattr(mine[name], field) for name in names]
            fig.add_trace(
                go.Bar(
                    x=[e.value for e in estimates], y=[labels[n] for n in names], orientation="h", name=shown,
                    marker={"color": color}, error_x=errors(estimates), legendgroup=half, showlegend=c == 1,
                    customdata=[[e.low, e.high, e.n] for e in estimates],
                    hovertemplate="%{x:.1f} % [%{customdata[0]:.1f}, %{customdata[1]:.1f}], n = %{customdata[2]}"
                    "<extra></extra>",
                ), row=1, col=c,
            )  # fmt: skip
    heading(fig, f"All truths (n = {_numbers({r.half: r.right.n for r in rules})})", x=0, xref="x domain")
    heading(fig, f"Erased or not (n = {_numbers({r.half: r.coarse.n for r in rules})})", x=0, xref="x2 domain")
    fig.update_xaxes(range=[0, 104], dtick=25, title={"text": "right verdicts, %"})
    fig.update_yaxes(autorange="reversed", showgrid=False)
    fig.update_layout(barmode="group", bargap=0.28, legend={"y": 1.07})
    return finish(fig, 820, 120 + 54 * len(names), margin={"t": 66, "l": 215, "b": 52})


def confusion_figure(rules: Sequence[RuleScore]) -> go.Figure:
    """Truth against verdict, counts on held-out and fresh plants, for the rules in `SHOWN`."""
    counts = [(name, [r for r in rules if r.rule == name and r.half != "set"]) for name in SHOWN]
    shown = [(name, parts, _summed(parts)) for name, parts in counts if parts]
    truths = [t for t in TRUTHS if any(t in said for _, _, said in shown)]
    fig = make_subplots(rows=1, cols=max(len(shown), 1), shared_yaxes=True, horizontal_spacing=0.03)
    top = max([1, *(max(said.values()) for _, _, confusion in shown for said in confusion.values())])
    for c, (name, parts, confusion) in enumerate(shown, start=1):
        z = [[confusion.get(t, Counter())[v] for v in VERDICTS] for t in truths]
        fig.add_trace(
            go.Heatmap(
                z=z, x=list(VERDICTS), y=truths, zmin=0, zmax=top, colorscale="Blues", showscale=False,
                text=[[str(n) if n else "" for n in row] for row in z], texttemplate="%{text}",
                textfont={"size": SMALL}, xgap=1, ygap=1, hovertemplate="truth %{y}, said %{x}: %{z}<extra></extra>",
            ), row=1, col=c,
        )  # fmt: skip
        ref = "" if c == 1 else str(c)
        n = sum(r.right.n for r in parts)
        right = sum(r.right.value * r.right.n for r in parts) / max(n, 1)
        heading(fig, f"{safe(name)}<br>{fixed(right, 0)} % of {n} right", x=0, xref=f"x{ref} domain")
    fig.update_xaxes(tickangle=-60, showgrid=False)
    fig.update_yaxes(autorange="reversed", showgrid=False)
    fig.update_yaxes(title={"text": "truth"}, row=1, col=1)
    return finish(fig, 900, 150 + 36 * len(truths), margin={"t": 46, "l": 92, "b": 92})


def shares_figure(calibration: Calibration) -> go.Figure:
    """Every organism with an effect: erased against bypassed, parallel against downstream."""
    fig = make_subplots(rows=1, cols=2, horizontal_spacing=0.11)
    pairs = (("erased", "bypassed"), ("parallel", "downstream"))
    effects = [o for o in calibration.organisms if o.says[SHOWN[0]] != "no effect"]
    for truth in TRUTHS:
        mine = [o for o in effects if o.truth == truth]
        for c, (x, y) in enumerate(pairs, start=1):
            if mine:
                fig.add_trace(
                    go.Scatter(
                        x=[o.shares[x][0] for o in mine], y=[o.shares[y][0] for o in mine], mode="markers",
                        marker={"color": COLORS[truth], "symbol": SYMBOLS[truth], "size": 8, "opacity": 0.75,
                                "line": {"color": "white", "width": 0.5}},
                        name=f"{truth} ({len(mine)})", legendgroup=truth, showlegend=c == 1,
                        text=[safe(o.organism) for o in mine],
                        hovertemplate="%{text}: %{x:.2f}, %{y:.2f}<extra></extra>",
                    ), row=1, col=c,
                )  # fmt: skip
    line = {"color": MUTED, "width": 1, "dash": "dot"}
    for c in (1, 2):
        fig.add_vline(x=calibration.threshold, line=line, row=1, col=c)  # type: ignore[arg-type]
        fig.add_hline(y=calibration.threshold, line=line, row=1, col=c)  # type: ignore[arg-type]
    names = {"erased": "erased: through W_V", "bypassed": "bypassed: through its inputs",
             "parallel": "parallel: around the region", "downstream": "masked: downstream"}  # fmt: skip
    for c, (x, y) in enumerate(pairs, start=1):
        fig.update_xaxes(title={"text": f"{names[x]} (share)"}, range=[-0.45, 1.35], dtick=0.5, row=1, col=c)
        fig.update_yaxes(title={"text": f"{names[y]} (share)"}, range=[-0.45, 1.35], dtick=0.5, row=1, col=c)
    return finish(fig, 820, 420, margin={"t": 66, "l": 66, "b": 56})


def locators_figure(locators: Sequence[LocatorScore]) -> go.Figure:
    """Hits of each locator on every part, best held-out first, those with a reference model marked."""
    held = sorted((s for s in locators if s.half == "held-out"), key=lambda s: (-s.hits.value, s.rank))
    names = [_locator(s) for s in held]
    fig = go.Figure()
    for half, color, _, shown in PARTS:
        mine = {s.locator: s for s in locators if s.half == half}
        kept = [(name, mine[s.locator]) for name, s in zip(names, held, strict=True) if s.locator in mine]
        if not kept:
            continue
        fig.add_trace(
            go.Bar(
                x=[s.hits.value for _, s in kept], y=[name for name, _ in kept], orientation="h", name=shown,
                marker={"color": color}, error_x=errors([s.hits for _, s in kept]),
                text=[rate(s.hits, 0) for _, s in kept], textposition="none",
                hovertemplate="%{y}: %{text}<extra></extra>",
            )
        )  # fmt: skip
    fresh = [(name, s.hits_elsewhere) for name, s in zip(names, held, strict=True) if s.hits_elsewhere is not None]
    fig.add_trace(
        go.Scatter(
            x=[e.value for _, e in fresh if e], y=[name for name, e in fresh if e], mode="markers",
            marker={"symbol": "diamond-open", "size": 9, "color": INK, "line": {"width": 1.4}},
            name="held-out, only where its answer before planting was another layer",
        )
    )  # fmt: skip
    fig.add_vline(x=100 / LAYERS, line={"color": MUTED, "width": 1, "dash": "dot"})
    n = _counts({s.half: s.hits.n for s in locators})
    fig.update_xaxes(range=[-2, 104], dtick=25, title={"text": f"planted layers found, % (n = {n})"})
    fig.update_yaxes(range=[len(names) - 0.4, -0.6], showgrid=False)
    fig.update_layout(barmode="group", bargap=0.3, legend={"y": 1.0})
    return finish(fig, 760, 170 + 36 * len(names), margin={"t": 104, "l": 265, "b": 52})


def thresholds_figure(calibration: Calibration) -> go.Figure:
    """Right verdicts against the threshold, every part."""
    fig = go.Figure()
    for half, color, dash, _ in PARTS:
        points = calibration.by_threshold.get(half, ())
        if not points:
            continue
        fig.add_trace(
            go.Scatter(
                x=[t for t, _ in points], y=[right for _, right in points], mode="lines+markers", name=half,
                line={"color": color, "dash": dash}, marker={"color": color, "size": 6},
            )
        )  # fmt: skip
    fig.add_vline(x=calibration.threshold, line={"color": MUTED, "width": 1, "dash": "dot"})
    fig.update_xaxes(title={"text": "threshold on the lower end of a share's interval"})
    fig.update_yaxes(title={"text": "right verdicts, %"}, range=[0, 104])
    return finish(fig, 560, 340)


def _counts(by_part: dict[str, int]) -> str:
    """E.g. "131 set, 134 held-out"."""
    return ", ".join(f"{by_part[part]} {part}" for part, *_ in PARTS if part in by_part)


def _numbers(by_part: dict[str, int]) -> str:
    """E.g. "131, 134", in the order of the bars."""
    return ", ".join(str(by_part[part]) for part, *_ in PARTS if part in by_part)


def _summed(parts: Sequence[RuleScore]) -> dict[str, Counter[str]]:
    """Truth -> verdict -> organisms, over several parts."""
    found: dict[str, Counter[str]] = {}
    for part in parts:
        for truth, said in part.confusion.items():
            found.setdefault(truth, Counter()).update(said)
    return found


def _locator(score: LocatorScore) -> str:
    marks = [m for m, on in (("ref", score.needs_reference), ("control", score.control)) if on]
    return safe(score.locator) + (f" ({', '.join(marks)})" if marks else "")
