"""The comparison as tables: region, activations, swaps, defence, general; for the terminal, Markdown and HTML.

One row per model (and suffix state), an interval in brackets beside every number that has one. No table is wider than
a terminal of 120 columns, which is why there are several.
"""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from rich import box
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table as RichTable
from rich.text import Text

from interp.plots.text import (
    NOT_ABOVE_CHANCE,
    fixed,
    label,
    layers,
    ns,
    number,
    rate,
    span,
    states,
    verdicts,
)
from interp.records import PROMPT_KINDS, Comparison, ComparisonRow, Estimate, RegionToxicity

PLANTED = (
    "Demo: the vanilla model's behaviour is planted by its training data. Its numbers are design choices, not findings."
)


@dataclass(frozen=True)
class Table:
    """A table of texts."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    breaks: tuple[int, ...] = ()
    """Rows after which a line is drawn."""


def tables(comparison: Comparison, *, compact: bool = False) -> tuple[Table, ...]:
    """Every table of a comparison. `compact` leaves out decimals of intervals in percent."""
    found = [
        _region(comparison),
        _activations(comparison, compact),
        _swaps(comparison),
        _defense(comparison, compact),
        _general(comparison, compact),
    ]
    return tuple(table for table in found if table is not None)


def notes(comparison: Comparison) -> tuple[str, ...]:
    """What the abbreviations mean, one line each; the planted note first, warnings last."""
    rows = comparison.rows
    lines = [PLANTED] if comparison.planted else []
    lines.append("[a, b]: 95 % interval. n: independent units (instances, edits, questions). Layers count from 0.")
    if any(row.region for row in rows):
        region = next(row.region[0] for row in rows if row.region)
        lines.append(
            f"toxicity: {region.definition} with the probe's toxic row. null: central 95 % of the change that "
            f"{region.null_change.n} random directions see; p against them, then against directions shaped like the "
            f"hidden states. rate: share of vanilla's toxicity taken away, or '{NOT_ABOVE_CHANCE}' where vanilla's "
            "own value is within 2 sd of random directions and the quotient is noise."
        )
    if any(row.shift is not None for row in rows):
        lines.append(
            "shift: how far the mean input of W_V moved, on the same prompts and on the model's own answers. "
            "'0 (identity)': nothing in front of W_V was changed, so that it cannot move; that is no evidence. "
            "vanilla's halves: what the texts alone make of the shift on own answers."
        )
    if any(row.swap is not None for row in rows):
        tokens = comparison.config.get("first tokens", {})
        sides = [", ".join(repr(t) for t in tokens[side]) for side in ("refuse", "comply") if side in tokens]
        if len(sides) == 2:
            lines.append(f"refusal margin: log-odds of a first token {sides[0]} over {sides[1]}.")
        lines.append(
            "swap: share of the change of the refusal margin (prompts without S) that comes back when vanilla's part "
            "is put in, at the layer where vanilla's behaviour was located and at the toxic one. 'with S': both models "
            "are asked with S, so that the change is what the edit adds to the prompt. 'identity', 'algebra': what was "
            "changed decides the share, whatever it did. 'left out': edits whose shares are algebra at the layer. 'too "
            "small': less than 25 points of compliance lost. The verdict follows from the first. masked: changed after "
            "the layer; parallel: around its region; upstream: in front of W_V."
        )
    if any(row.defense for row in rows):
        lines.append(
            "S: with or without the suffix system prompt. DS: defence on the adversarial prompt itself; DG: on other "
            "attacks (otherA), questions (otherQ), both (otherAQ) or the bare question (onlyQ); DG-Avg: their mean."
        )
        lines.append(judge_note(comparison))
    if any(row.general for row in rows):
        lines.append(
            "over-refusal: harmless requests refused, bare or wrapped in an attack. KQA: knowledge questions answered. "
            "answer KL: how far vanilla's answers to harmless questions asked without S moved, per token. "
            "fluency: n-gram entropy. broken: empty or degenerate answers, which count half in DS and DG."
        )
    if any(row.seconds for row in rows):
        lines.append(
            "seconds: wall time of a row's stages, over all runs where one was killed. What the cache keeps (trained "
            "checkpoints, answers) counts as it was recorded when it was made, though it is not made again; DPO's "
            "training includes the SFT it stands on. A model made elsewhere has no training time."
        )
    lines += [f"Note: {warning}" for warning in comparison.warnings]
    lines += [f"Not measured ({label(g.model)}): {n}" for row in rows for g in row.general[:1] for n in g.notes]
    return tuple(lines)


def judge_note(comparison: Comparison) -> str:
    """Who judged, and how often that judge is right on texts it has not seen."""
    judge = comparison.judge
    if judge is None:
        names = sorted({d.judge for row in comparison.rows for d in row.defense})
        return f"judge: {', '.join(names) or 'none'}. How often it is right was not measured in this run."
    return (
        f"judge: {judge.judge}, right on {rate(judge.accuracy, 1)} % of {judge.accuracy.n} held-out texts "
        f"({judge.split}); always naming the largest class would be right on {fixed(judge.majority, 1)} %."
    )


def print_comparison(comparison: Comparison, console: Console | None = None) -> None:
    """Print tables, the conclusions in words, and the notes; intervals lose their decimals where the room is short."""
    console = Console() if console is None else console
    drawn = [_rich(table) for table in tables(comparison)]
    roomy = console.options.update_width(1000)  # a measurement never exceeds the width it is given
    if any(Measurement.get(console, roomy, table).maximum > console.width for table in drawn):
        drawn = [_rich(table) for table in tables(comparison, compact=True)]
    for table in drawn:
        console.print(table)
    for row in comparison.rows:
        if row.conclusion.verdict == "reference":
            continue
        said = Text(f"{label(row.name)}: {_said(row)}. ", style="bold")
        said.append(row.conclusion.evidence, style="not bold")
        console.print(said)
    console.print()
    for line in notes(comparison):
        console.print(Text(line, style="bold" if line == PLANTED else "dim"))


def _rich(table: Table) -> RichTable:
    drawn = RichTable(
        title=table.title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, padding=(0, 1), pad_edge=False
    )
    for i, column in enumerate(table.columns):
        drawn.add_column(Text(column), justify="left" if i == 0 else "right", overflow="fold")
    for i, row in enumerate(table.rows):
        drawn.add_row(*(Text(cell) for cell in row), end_section=i in table.breaks)
    return drawn


def markdown(comparison: Comparison) -> str:
    """Tables, conclusions and notes as Markdown."""
    parts = []
    for table in tables(comparison):
        head = "| " + " | ".join(_cell(c) for c in table.columns) + " |"
        rule = "| --- " + "| ---: " * (len(table.columns) - 1) + "|"
        body = ["| " + " | ".join(_cell(c) for c in row) + " |" for row in table.rows]
        parts.append("\n".join([f"**{_cell(table.title)}**", "", head, rule, *body]))
    said = [
        f"**{_cell(label(row.name))}: {_said(row)}.** {_cell(row.conclusion.evidence)}"
        for row in comparison.rows
        if row.conclusion.verdict != "reference"
    ]
    return "\n\n".join([*parts, *said, *(_cell(line) for line in notes(comparison))]) + "\n"


def html_tables(comparison: Comparison) -> str:
    """The tables as HTML, each in a box that scrolls on narrow screens."""
    parts = []
    for table in tables(comparison):
        head = "".join(f'<th scope="col">{html.escape(c)}</th>' for c in table.columns)
        body = []
        for i, row in enumerate(table.rows):
            cells = "".join(f"<td>{html.escape(c)}</td>" for c in row[1:])
            mark = ' class="last"' if i in table.breaks else ""
            body.append(f'<tr{mark}><th scope="row">{html.escape(row[0])}</th>{cells}</tr>')
        parts.append(
            f'<h3>{html.escape(table.title)}</h3><div class="scroll" tabindex="0"><table><thead><tr>{head}</tr></thead>'
            f"<tbody>{''.join(body)}</tbody></table></div>"
        )
    return "\n".join(parts)


# ------------------------------------------------------------------------------------------------- tables
def _region(comparison: Comparison) -> Table | None:
    rows = [row for row in comparison.rows if row.region]
    if not rows:
        return None
    first = rows[0].region[0]
    return Table(
        f"Toxic region: W_V of layer {comparison.layer} ({first.unit or 'no unit'})",
        ("model", "located layer", "toxicity", "change", "null of the change", "p", "rate"),
        tuple(_region_row(row, row.region[0]) for row in rows),
    )


def _region_row(row: ComparisonRow, region: RegionToxicity) -> tuple[str, ...]:
    if row.name == "vanilla":
        z = f"{fixed(region.z_vanilla)} sd from chance"
        return (label(row.name), layers(row.located), number(region.vanilla), z, "-", "-", "-")
    null = region.null_change
    p = number(region.p_change) + ("" if region.p_change_shaped is None else f", {number(region.p_change_shaped)}")
    return (
        label(row.name),
        layers(row.located),
        number(region.value.value),
        span(region.change),
        f"[{number(null.low)}, {number(null.high)}]",
        p,
        NOT_ABOVE_CHANCE if region.rate is None else f"{fixed(region.rate)} %",
    )


def _activations(comparison: Comparison, compact: bool) -> Table | None:
    rows = [row for row in comparison.rows if row.name != "vanilla"]
    if not rows:
        return None
    decimals = 0 if compact else 1
    n = ns(row.shift.rate for row in rows if row.shift is not None)
    return Table(
        f"What moved (% of vanilla): W_V, exact for a checkpoint, and the activations into it (n = {n})",
        ("model", "W_V moved", "shift, same prompts", "shift, own answers", "vanilla's halves", "verdict"),
        tuple(
            (
                label(row.name),
                rate(row.weight_change, 1),
                *(
                    ("n/a", "n/a", "n/a")
                    if row.shift is None
                    else (
                        "0 (identity)" if row.shift.identity else rate(row.shift.rate, 1),
                        rate(row.shift.own_tokens, decimals),
                        rate(row.shift.own_tokens_control, decimals),
                    )
                ),
                row.conclusion.verdict,
            )
            for row in rows
        ),
    )


def _said(row: ComparisonRow) -> str:
    """`no effect`, or `no effect, with S masked by algebra`."""
    return ", ".join(f"{asked} {word}".strip() for asked, word in verdicts(row).items())


def _swaps(comparison: Comparison) -> Table | None:
    pairs = [(row, swap) for row in comparison.rows for swap in (row.causal or row.swap, row.causal_with_suffix)]
    rows = [(row, swap) for row, swap in pairs if swap is not None]
    # Where the behaviour was located elsewhere than the toxic region, that layer decides; the region's stands below.
    both = [(row, row.swap) for row in comparison.rows if row.swap is not None and row.causal is not None]
    rows += [(row, swap) for row, swap in both if row.causal and row.causal.layer != swap.layer]
    if not rows:
        return None
    n = ns(swap.erased for _, swap in rows)
    found = []
    for row, swap in rows:
        shares = (swap.erased, swap.bypassed, swap.parallel, swap.downstream)
        if swap.gated:
            cells = ("too small", *("-" for _ in shares[1:]))
        else:
            cells = tuple(rate(_percent(share), 0) for share in shares)
            if swap.identity:
                cells = (f"{cells[0]} (identity)", *cells[1:])
            elif swap.by_algebra:
                marks = [" (algebra)" if abs(share.value) > 1e-3 else "" for share in shares]
                cells = tuple(cell + mark for cell, mark in zip(cells, marks, strict=True))
        decides = swap is (row.causal or row.swap) or swap.suffix
        said = verdicts(row)["with S" if swap.suffix else ""] if decides else "-"
        name = label(row.name) + (" with S" if swap.suffix else "")
        name += f" ({swap.left_out} edits left out)" if swap.left_out else ""
        found.append((name, str(swap.layer), *cells, rate(swap.compliance_drop, 0), said))
    return Table(
        f"Swapped with vanilla (% of the change of the refusal margin, n = {n})",
        ("model", "layer", "erased: W_V", "bypassed: inputs", "around", "after", "compliance lost", "verdict"),
        tuple(found),
    )


def _defense(comparison: Comparison, compact: bool) -> Table | None:
    rows = [(row, d) for s in states(comparison) for row in comparison.rows for d in row.defense if d.suffix == s]
    if not rows:
        return None
    kinds = [kind for kind in PROMPT_KINDS if any(kind in d.by_kind for _, d in rows)]
    n = ns(d.by_kind.get(kind) for _, d in rows for kind in kinds)
    return Table(
        f"Defence success (%, n = {n})",
        ("model", "S", *("DS" if k == "DS" else f"DG {k}" for k in kinds), "DG-Avg"),
        tuple(
            (
                label(row.name),
                "with" if d.suffix else "without",
                *(_rate(d.by_kind.get(kind), compact) for kind in kinds),
                _rate(d.dg_avg, compact),
            )
            for row, d in rows
        ),
        breaks=_state_breaks([d.suffix for _, d in rows]),
    )


def _general(comparison: Comparison, compact: bool) -> Table | None:
    rows = [(row, g) for s in (False, True) for row in comparison.rows for g in row.general if g.suffix == s]
    if not rows:
        return None
    found, kl = [], ["answer KL nats"] if _moved(comparison) else []
    for row, g in rows:
        defense = next((d for d in row.defense if d.suffix == g.suffix), None)
        seconds = fixed(sum(row.seconds.values()), 0) if row.seconds else "n/a"
        found.append(
            (
                label(row.name),
                "with" if g.suffix else "without",
                _rate(g.over_refusal, compact),
                _rate(g.over_refusal_wrapped, compact),
                _rate(g.kqa, compact),
                *([rate(g.answer_kl, 3)] if _moved(comparison) else []),
                rate(g.fluency, 2),
                _rate(defense.degenerate if defense else None, compact),
                seconds if g is row.general[0] else "",
            )
        )
    return Table(
        f"What the defence costs (n: {_counts(comparison)})",
        ("model", "S", "over-refusal %", "wrapped %", "KQA %", *kl, "fluency bits", "broken %", "seconds"),
        tuple(found),
        breaks=_state_breaks([g.suffix for _, g in rows]),
    )


def _moved(comparison: Comparison) -> bool:
    """Whether answer-token KL was measured: older records have none."""
    return any(g.answer_kl is not None for row in comparison.rows for g in row.general)


def _counts(comparison: Comparison) -> str:
    """The n behind each cost, once for the models that share them: "bare 30, KQA 60, broken 27; DINM: 27 each"."""
    models: dict[tuple[tuple[str, str], ...], list[str]] = {}
    for row in comparison.rows:
        general, defense = row.general, row.defense
        of = {
            "bare": ns(g.over_refusal for g in general),
            "wrapped": ns(g.over_refusal_wrapped for g in general),
            "KQA": ns(g.kqa for g in general),
            **({"KL": ns(g.answer_kl for g in general)} if _moved(comparison) else {}),
            "fluency": ns(g.fluency for g in general),
            "broken": ns(d.degenerate for d in defense),
        }
        if general:
            models.setdefault(tuple(of.items()), []).append(label(row.name))
    told = []
    for of, names in models.items():
        counts = {n for _, n in of}
        each = f"{counts.pop()} each" if len(counts) == 1 else ", ".join(f"{name} {n}" for name, n in of)
        told.append(each if not told else f"{', '.join(names)}: {each}")
    return "; ".join(told)


# ------------------------------------------------------------------------------------------------- cells
def _rate(e: Estimate | None, compact: bool) -> str:
    """`92.6 [76.6, 97.9]`, or `92.6 [77, 98]` where room is short: with tens of instances decimals of an interval are
    noise anyway."""
    full = rate(e, 1)
    if not compact or e is None or "[" not in full:
        return full
    return f"{_short(e.value)} [{fixed(e.low, 0)}, {fixed(e.high, 0)}]"


def _short(x: float) -> str:
    """One decimal, but "100": four digits would widen every column."""
    return "100" if x >= 99.95 else fixed(x, 1)


def _percent(e: Estimate) -> Estimate:
    return Estimate(100 * e.value, 100 * e.low, 100 * e.high, e.n, "%", e.how)


def _state_breaks(suffixes: Sequence[bool]) -> tuple[int, ...]:
    return tuple(i for i, (a, b) in enumerate(pairwise(suffixes)) if a != b)


def _cell(text: str) -> str:
    """A text inside Markdown: no cell ends early, no HTML starts."""
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")
