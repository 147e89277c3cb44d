"""One HTML page with everything a comparison found: it opens offline, on a phone too, and asks no host for anything."""

from __future__ import annotations

import html
import json
from collections.abc import Sequence
from pathlib import Path

import plotly.graph_objects as go

from interp.plots.gallery import Drawn
from interp.plots.page import page
from interp.plots.table import PLANTED, html_tables, judge_note, notes
from interp.plots.text import fixed, label, ns
from interp.plots.theme import CONFIG
from interp.plots.tokens import TokenView, token_views
from interp.records import Comparison
from interp.runs import write_text


def write_report(
    comparison: Comparison, figures: Sequence[Drawn], path: Path, *, token_view: Sequence[TokenView] = ()
) -> Path:
    """Write the report, atomically; plotly.js is embedded once (4.9 MB).

    Args:
        comparison: all the numbers.
        figures: what `gallery.draw` gave, in order.
        path: the .html file.
        token_view: tokens coloured by a value, shown after the figures (adds 1.3 MB).

    Raises:
        InputError: the file cannot be written.
    """
    write_text(Path(path), report(comparison, figures, token_view=token_view))
    return Path(path)


def report(comparison: Comparison, figures: Sequence[Drawn], *, token_view: Sequence[TokenView] = ()) -> str:
    """The page as text."""
    names = [label(row.name) for row in comparison.rows if row.name != "vanilla"]
    title = f"Erased or bypassed? {', '.join(names) or 'vanilla'} on {comparison.model}"
    contents = [("conclusions", "Conclusions"), ("numbers", "Numbers"), ("figures", "Figures"), ("origin", "Origin")]
    if token_view:
        contents.insert(3, ("tokens", "Tokens"))
    parts = [
        f"<h1>{_e(title)}</h1>",
        f'<p class="lead">{_e(_lead(comparison))}</p>',
        f'<div class="box warn"><p>{_e(PLANTED)}</p></div>' if comparison.planted else "",
        _list("nav", contents),
        f'<h2 id="conclusions">Conclusions</h2>{_conclusions(comparison)}',
        _how_to_read(comparison),
        f'<h2 id="numbers">Numbers</h2><p class="narrow">Tables scroll sideways.</p>{html_tables(comparison)}',
        f'<h3>Notes</h3><ul class="notes">{"".join(f"<li>{_e(line)}</li>" for line in notes(comparison))}</ul>',
        f'<h2 id="figures">Figures</h2><p class="narrow">Figures scroll sideways.</p>{_figures(figures)}',
        f'<h2 id="tokens">Tokens</h2>{token_views(token_view)}' if token_view else "",
        f'<h2 id="origin">Origin</h2>{_origin(comparison)}',
    ]
    return page(title, "\n".join(part for part in parts if part))


# ------------------------------------------------------------------------------------------------- parts
def _e(text: object) -> str:
    return html.escape(str(text))


def _lead(c: Comparison) -> str:
    return (
        f"What each method did to the model's answers, and where: {len(c.rows)} models, {c.n_instances} test "
        f"instances of {c.data}, toxic region at layer {c.layer} (counted from 0)."
    )


def _list(tag: str, contents: Sequence[tuple[str, str]]) -> str:
    items = "".join(f'<li><a href="#{target}">{_e(text)}</a></li>' for target, text in contents)
    return f'<{tag} aria-label="Contents"><ul>{items}</ul></{tag}>'


def _conclusions(c: Comparison) -> str:
    parts = []
    for row in c.rows:
        verdict, evidence = row.conclusion.verdict, row.conclusion.evidence
        if verdict == "reference":
            continue
        mark = f'<span class="verdict {_e(verdict)}">{_e(verdict)}</span>'
        parts.append(f"<h3>{_e(label(row.name))}{mark}</h3><p>{_e(evidence)}</p>")
    return "".join(parts) or "<p>Only the vanilla model was measured: there is nothing to compare it with.</p>"


def _how_to_read(c: Comparison) -> str:
    probe = c.probe
    control = "" if probe.shuffled_auroc is None else f" (shuffled labels: {fixed(probe.shuffled_auroc.value, 2)})"
    lines = [
        "<b>Erased</b>: the change of behaviour passes through the toxic region's own weights. <b>Bypassed</b>: it "
        "passes through what flows into the region. <b>Undecided</b>: the evidence does not tell.",
        "Brackets hold 95 % intervals; n is the number of independent units. A number beside its <b>null</b> is only "
        "as good as its distance from what random directions give.",
        "<b>S</b> is a suffix system prompt. Numbers with it mix prompt and method; compare methods without it first.",
        f"The toxic direction comes from a probe with {_e(fixed(probe.accuracy.value, 1))} % accuracy on "
        f"{_e(probe.n_test)} held-out texts (always naming the larger class: {_e(fixed(probe.majority, 1))} %), AUROC "
        f"{_e(fixed(probe.auroc.value, 3))}{_e(control)}; source of the texts: {_e(probe.source)}.",
        _e(judge_note(c)[:1].upper() + judge_note(c)[1:]),
    ]
    items = "".join(f"<li>{line}</li>" for line in lines)
    return f'<div class="box"><h3>How to read this</h3><ul>{items}</ul></div>'


def _figures(figures: Sequence[Drawn]) -> str:
    parts = []
    for i, drawn in enumerate(figures):
        ident = f"figure-{drawn.name}"
        width, height = drawn.figure.layout.width or 720, drawn.figure.layout.height or 360
        # Dragging scrolls the page on a touch screen; zooming stays in the tool bar.
        figure = go.Figure(drawn.figure).update_layout(dragmode=False)
        plot = figure.to_html(
            full_html=False, include_plotlyjs=i == 0, include_mathjax=False, div_id=ident, config=CONFIG,
            default_width=f"{width}px", default_height=f"{height}px",
        )  # fmt: skip
        limits = drawn.limits[:1].upper() + drawn.limits[1:]
        parts.append(
            f'<section class="figure"><h3>{i + 1}. {_e(drawn.title)}</h3><figure>'
            f'<div class="plot" tabindex="0" role="group" aria-label="{_e(drawn.title)}">{plot}</div>'
            f"<figcaption>{_e(drawn.shows)} <b>Reading it:</b> {_e(drawn.read)} "
            f"<b>Limits:</b> {_e(limits)}</figcaption></figure></section>"
        )
    return "\n".join(parts) or "<p>No figures were drawn.</p>"


def _origin(c: Comparison) -> str:
    models = "; ".join(f"{label(row.name)}: {row.source}" for row in c.rows)
    facts = [
        ("model", c.model),
        ("data", c.data),
        ("rows", models),
        ("suffix S", c.suffix or "none"),
        ("seed", c.seed),
        ("instances", c.n_instances),
        ("inputs of the shift", ns(row.shift.rate for row in c.rows if row.shift is not None)),
        ("commit", c.commit or "not a checkout"),
        ("versions", ", ".join(f"{name} {version}" for name, version in sorted(c.versions.items()))),
    ]
    items = "".join(f"<dt>{_e(key)}</dt><dd>{_e(value)}</dd>" for key, value in facts)
    config = json.dumps(c.config, indent=1, ensure_ascii=False, default=str, sort_keys=True)
    return f"<dl>{items}</dl><details><summary>Configuration</summary><pre>{_e(config)}</pre></details>"
