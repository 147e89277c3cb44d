"""The laboratory's chapter of the report: one section a finding, with how to read it and what it does not say."""

from __future__ import annotations

import html
from collections.abc import Iterator, Mapping, Sequence

from interp.plots.gallery import Drawn
from interp.plots.page import plot
from interp.plots.text import label, relabelled
from interp.plots.tokens import TokenView, token_views
from interp.records import Finding


def chapter(
    findings: Sequence[Finding],
    drawn: Mapping[str, Drawn],
    not_done: Sequence[str] = (),
    *,
    plotly: bool,
    bundled: bool,
) -> str:
    """The chapter as HTML; every text is escaped.

    Args:
        findings: in their order.
        drawn: their figures by name, `deep_<finding>`; a finding without one has none.
        not_done: one line for each analysis that could not be done.
        plotly: whether plotly.js must be embedded here: nothing before it on the page did.
        bundled: the same for CircuitsVis.
    """
    parts = []
    for number, finding in enumerate(findings, start=1):
        figure = drawn.get(f"deep_{finding.name}")
        parts.append(_section(number, finding, figure, plotly=plotly, bundled=bundled))
        plotly = plotly and figure is None
        bundled = bundled and not finding.tokens
    if not_done:
        items = "".join(f"<li>{_e(line)}</li>" for line in not_done)
        parts.append(f"<h3>Not done</h3><ul>{items}</ul>")
    return "\n".join(parts)


def _e(text: object) -> str:
    return html.escape(str(text))


def _section(number: int, finding: Finding, figure: Drawn | None, *, plotly: bool, bundled: bool) -> str:
    limits = finding.limits[:1].upper() + finding.limits[1:]
    parts = [
        f'<section class="figure" id="deep-{_e(finding.name)}"><h3>{number}. {_e(finding.title)}</h3>',
        f'<p class="lead">{_e(finding.question)}</p><p class="reading">{_e(relabelled(finding.reading))}</p>',
        "" if figure is None else f"<figure>{plot(figure, plotly=plotly)}</figure>",
        f'<div class="box"><h4>How to read this</h4><p>{_e(finding.how_to_read)}</p><h4>Limits</h4><p>{_e(limits)}</p>'
        "</div>",
        _facts(finding),
    ]
    if finding.tokens:
        views = token_views(list(_views(finding)), f"tokens-{finding.name}", bundled=bundled)
        parts.append(f"<h4>Token by token</h4>{views}")
    return "".join(parts) + "</section>"


def _facts(finding: Finding) -> str:
    facts = {
        **{label(name): said for name, said in finding.facts.items()},
        "n": finding.n,
        "seed": finding.seed,
        "after": finding.source,
        "measured in": f"{finding.seconds:.1f} s",
    }
    items = "".join(f"<dt>{_e(name)}</dt><dd>{_e(said)}</dd>" for name, said in facts.items() if said != "")
    return f"<dl>{items}</dl>"


def _views(finding: Finding) -> Iterator[TokenView]:
    """One view for each text and measure; views of one measure share the depth of their colours."""
    reach: dict[str, float] = {}
    for view in finding.tokens:
        for name, values in view.values.items():
            reach[name] = max([reach.get(name, 0.0), *(abs(v) for v in values)])
    for name in reach:
        for view in finding.tokens:
            if name in view.values:
                yield TokenView(
                    view.tokens, view.values[name], f"{relabelled(view.title)}: {name}", reach[name] or None
                )
