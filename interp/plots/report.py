"""One HTML page with everything a comparison found: it opens offline, on a phone too, and asks no host for anything."""

from __future__ import annotations

import html
import json
from collections.abc import Sequence
from pathlib import Path

from interp.plots.chapter import chapter
from interp.plots.gallery import Drawn
from interp.plots.page import contents, page, plot
from interp.plots.table import PLANTED, html_tables, judge_note, notes
from interp.plots.text import fixed, label, ns, verdicts
from interp.plots.tokens import TokenView, token_views
from interp.records import Comparison, Finding
from interp.runs import write_text


def write_report(
    comparison: Comparison,
    figures: Sequence[Drawn],
    path: Path,
    *,
    findings: Sequence[Finding] = (),
    not_done: Sequence[str] = (),
    token_view: Sequence[TokenView] = (),
) -> Path:
    """Write the report, atomically; plotly.js is embedded once (4.9 MB).

    Args:
        comparison: all the numbers.
        figures: what `gallery.draw` gave, in order, and after it what `findings.draw_findings` gave.
        path: the .html file.
        findings: the chapter of the laboratory; its token views add 1.3 MB.
        not_done: one line for each analysis that could not be done.
        token_view: tokens coloured by a value, shown after the figures (adds 1.3 MB, once).

    Raises:
        InputError: the file cannot be written.
    """
    write_text(Path(path), report(comparison, figures, findings=findings, not_done=not_done, token_view=token_view))
    return Path(path)


def report(
    comparison: Comparison,
    figures: Sequence[Drawn],
    *,
    findings: Sequence[Finding] = (),
    not_done: Sequence[str] = (),
    token_view: Sequence[TokenView] = (),
) -> str:
    """The page as text; arguments as `write_report`."""
    names = [label(row.name) for row in comparison.rows if row.name != "vanilla"]
    title = f"Erased or bypassed? {', '.join(names) or 'vanilla'} on {comparison.model}"
    deep = {f"deep_{f.name}" for f in findings}
    main = [d for d in figures if d.name not in deep]
    chapters = [
        ("conclusions", "Conclusions", _conclusions(comparison)),
        ("how", "How to read this", _how_to_read(comparison)),
        ("numbers", "Numbers", _numbers(comparison)),
        ("figures", "Figures", f'<p class="narrow">Figures scroll sideways.</p>{_figures(main)}'),
    ]
    if findings or not_done:
        drawn = {d.name: d for d in figures if d.name in deep}
        text = chapter(findings, drawn, not_done, plotly=not main, bundled=True)
        chapters.append(("deep", "Mechanism", text))
    if token_view:
        bundled = not any(f.tokens for f in findings)
        chapters.append(("tokens", "Tokens", token_views(token_view, bundled=bundled)))
    chapters.append(("origin", "Origin", _origin(comparison)))
    sections = [("deep-" + f.name, f.title) for f in findings]
    parts = [
        f"<h1>{_e(title)}</h1>",
        f'<p class="lead">{_e(_lead(comparison))}</p>',
        f'<div class="box warn"><p>{_e(PLANTED)}</p></div>' if comparison.planted else "",
        contents([(ident, name, sections if ident == "deep" else []) for ident, name, _ in chapters]),
        *(f'<h2 id="{ident}">{name}</h2>{text}' for ident, name, text in chapters),
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


def _numbers(c: Comparison) -> str:
    return (
        f'<p class="narrow">Tables scroll sideways.</p>{html_tables(c)}<h3>Notes</h3>'
        f'<ul class="notes">{"".join(f"<li>{_e(line)}</li>" for line in notes(c))}</ul>'
    )


def _conclusions(c: Comparison) -> str:
    parts = []
    for row in c.rows:
        if row.conclusion.verdict == "reference":
            continue
        said = {f"{asked}: {word}" if asked else word: word for asked, word in verdicts(row).items()}
        marks = "".join(f'<span class="verdict {_e(word)}">{_e(text)}</span>' for text, word in said.items())
        parts.append(f"<h3>{_e(label(row.name))}{marks}</h3><p>{_e(row.conclusion.evidence)}</p>")
    return "".join(parts) or "<p>Only the vanilla model was measured: there is nothing to compare it with.</p>"


def _how_to_read(c: Comparison) -> str:
    probe = c.probe
    control = "" if probe.shuffled_auroc is None else f" (shuffled labels: {fixed(probe.shuffled_auroc.value, 2)})"
    lines = [
        "<b>Erased</b>: the change of behaviour passes through the toxic region's own weights. <b>Bypassed</b>: it "
        "passes through what flows into the region. <b>Parallel</b>: around the region; <b>upstream</b>: in front of "
        "it, by which route is open; <b>masked</b>: after it, the region still does what it did; <b>mixed</b>: no "
        "route carries it alone; <b>no effect</b>: no change of behaviour beyond chance; <b>undecided</b>: too small "
        "a change or too few prompts to ask, or algebra. "
        "<b>Undecided</b>: the evidence does not tell.",
        "Brackets hold 95 % intervals; n is the number of independent units. A number beside its <b>null</b> is only "
        "as good as its distance from what random directions give.",
        "<b>S</b> is a suffix system prompt. Numbers with it mix prompt and method; compare methods without it first.",
        f"The toxic direction comes from a probe with {_e(fixed(probe.accuracy.value, 1))} % accuracy on "
        f"{_e(probe.n_test)} held-out texts (always naming the larger class: {_e(fixed(probe.majority, 1))} %), AUROC "
        f"{_e(fixed(probe.auroc.value, 3))}{_e(control)}; source of the texts: {_e(probe.source)}.",
        _e(judge_note(c)[:1].upper() + judge_note(c)[1:]),
    ]
    items = "".join(f"<li>{line}</li>" for line in lines)
    return f'<div class="box"><ul>{items}</ul></div>'


def _figures(figures: Sequence[Drawn]) -> str:
    parts = []
    for i, drawn in enumerate(figures):
        limits = drawn.limits[:1].upper() + drawn.limits[1:]
        parts.append(
            f'<section class="figure"><h3>{i + 1}. {_e(drawn.title)}</h3><figure>{plot(drawn, plotly=i == 0)}'
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
