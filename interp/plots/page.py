# ruff: noqa: E501 (style sheets have long lines)
"""The frame of a report page: typography, contents, plots, and a policy under which it can ask no host for anything."""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import plotly.graph_objects as go

from interp.plots.theme import CONFIG

if TYPE_CHECKING:
    from interp.plots.gallery import Drawn

POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:; base-uri 'none'"
)
"""Enforced by the browser: no request leaves the page, whatever is in it."""

CSS = """
:root { --ink: #1f2328; --muted: #59636e; --line: #d8dee4; --ground: #f6f8fa; --accent: #0072b2; }
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; scroll-behavior: smooth; }
body { margin: 0; background: #fff; color: var(--ink); font: 16px/1.55 "Liberation Sans", Arial, Helvetica, sans-serif; }
main { max-width: 1080px; margin: 0 auto; padding: 32px 24px 64px; }
h1 { font-size: 1.9rem; line-height: 1.2; margin: 0 0 .3em; }
h2 { font-size: 1.35rem; margin: 2.4em 0 .6em; padding-bottom: .25em; border-bottom: 1px solid var(--line); }
h3 { font-size: 1rem; margin: 1.6em 0 .4em; }
p, .box li, .notes li, figcaption, dd { max-width: 74ch; overflow-wrap: anywhere; }
a { color: var(--accent); }
.lead, .muted { color: var(--muted); }
.box { background: var(--ground); border-left: 4px solid var(--accent); padding: 12px 18px; margin: 1.4em 0; border-radius: 0 6px 6px 0; }
.box.warn { border-color: #d55e00; background: #fff6f0; }
.box > :first-child { margin-top: 0; } .box > :last-child { margin-bottom: 0; }
nav ul { list-style: none; max-width: none; padding: 0; display: flex; flex-wrap: wrap; gap: 4px 18px; margin: 1em 0; font-size: .92rem; }
nav ul ul { margin: .2em 0 .6em 1.2em; display: block; columns: 2 300px; column-gap: 28px; font-size: .9rem; }
nav li:has(ul) { flex-basis: 100%; }
nav li { break-inside: avoid; }
.reading { font-weight: 600; max-width: 74ch; }
h4 { font-size: .95rem; margin: 1.2em 0 .3em; }
.scroll { overflow-x: auto; border: 1px solid var(--line); border-radius: 6px; -webkit-overflow-scrolling: touch; }
.scroll:focus-visible { outline: 2px solid var(--accent); }
table { border-collapse: collapse; width: 100%; font-size: .84rem; font-variant-numeric: tabular-nums; }
th, td { padding: 7px 11px; text-align: right; white-space: nowrap; border-bottom: 1px solid var(--line); }
thead th { background: var(--ground); font-weight: 600; vertical-align: bottom; }
th:first-child { text-align: left; position: sticky; left: 0; background: #fff; }
thead th:first-child { background: var(--ground); }
tr.last > * { border-bottom: 2px solid var(--ink); }
tbody tr:last-child > * { border-bottom: 0; }
.verdict { display: inline-block; font-weight: 600; font-size: .82rem; padding: 1px 9px; border-radius: 99px; border: 1px solid; margin-left: .4em; }
.verdict.erased { color: #005a8c; background: #e8f3fa; } .verdict.bypassed { color: #8a4a00; background: #fdf1df; }
.verdict.undecided, .verdict.mixed, .verdict.no { color: #50575f; background: #f0f2f4; }
.verdict.parallel, .verdict.upstream { color: #8a4a00; background: #fdf1df; } .verdict.masked { color: #00664b; background: #e6f5f0; }
section.figure { margin: 0 0 2.6em; }
figure { margin: 0; } figure.tokens { margin: 0 0 1.1em; } figure.tokens figcaption { margin-top: .2em; }
.plot { overflow-x: auto; border: 1px solid var(--line); border-radius: 6px; padding: 6px; }
.plot > div { margin: 0 auto; }
figcaption { font-size: .92rem; margin-top: .7em; }
dl { display: grid; grid-template-columns: max-content minmax(0, 1fr); gap: 3px 18px; font-size: .92rem; }
dt { color: var(--muted); } dd { margin: 0; }
pre { background: var(--ground); padding: 12px; overflow-x: auto; font-size: .8rem; line-height: 1.45; border-radius: 6px; }
.notes { font-size: .88rem; color: var(--muted); padding-left: 1.2em; }
.narrow { display: none; }
@media (max-width: 760px) {
  main { padding: 20px 14px 48px; } h1 { font-size: 1.5rem; } h2 { font-size: 1.2rem; }
  .narrow { display: block; font-size: .84rem; color: var(--muted); margin: .3em 0; }
  dl { grid-template-columns: 1fr; } dd { margin-bottom: .5em; }
  th, td { padding: 6px 8px; }
}
@media print { .plot, .scroll { overflow: visible; border: 0; } nav, .narrow { display: none; } section.figure { break-inside: avoid; } }
""".strip()


def page(title: str, body: str) -> str:
    """A whole HTML page. `title` is escaped, `body` is taken as it is."""
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<title>{html.escape(title)}</title>\n<link rel="icon" href="data:,">\n<style>\n{CSS}\n</style>\n</head>\n'
        f"<body>\n<main>\n{body}\n</main>\n</body>\n</html>\n"
    )


def contents(entries: Sequence[tuple[str, str, Sequence[tuple[str, str]]]]) -> str:
    """A table of contents: (id, name, sections) per chapter, the sections as (id, name). Everything is escaped."""

    def link(ident: str, name: str) -> str:
        return f'<a href="#{html.escape(ident)}">{html.escape(name)}</a>'

    items = []
    for ident, name, sections in entries:
        below = "".join(f"<li>{link(*section)}</li>" for section in sections)
        items.append(f"<li>{link(ident, name)}{f'<ul>{below}</ul>' if below else ''}</li>")
    return f'<nav aria-label="Contents"><ul>{"".join(items)}</ul></nav>'


def plot(drawn: Drawn, *, plotly: bool) -> str:
    """A figure in a box that scrolls sideways.

    Args:
        drawn: the figure.
        plotly: embed plotly.js (4.9 MB): for the first figure of a page, and no other.
    """
    layout: Any = drawn.figure.layout
    width, height = layout.width or 720, layout.height or 360
    # Dragging scrolls the page on a touch screen; zooming stays in the tool bar.
    figure = go.Figure(drawn.figure).update_layout(dragmode=False)
    text = figure.to_html(
        full_html=False, include_plotlyjs=plotly, include_mathjax=False, div_id=f"figure-{drawn.name}", config=CONFIG,
        default_width=f"{width}px", default_height=f"{height}px",
    )  # fmt: skip
    return f'<div class="plot" tabindex="0" role="group" aria-label="{html.escape(drawn.title)}">{text}</div>'
