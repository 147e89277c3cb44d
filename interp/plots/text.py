"""Numbers and names as people read them: the same in tables, captions and figures."""

from __future__ import annotations

import html
import math
import re
import textwrap
from collections.abc import Iterable

from interp.records import Comparison, ComparisonRow, DefenseScores, Estimate, GeneralPerformance, SwapShares

KNOWN = {"vanilla": "vanilla", "sft": "SFT", "dpo": "DPO", "dinm": "DINM"}
NOT_ABOVE_CHANCE = "not above chance"


def label(name: str) -> str:
    """A row's name as tables and figures print it."""
    return KNOWN.get(name, name)


def relabelled(text: str) -> str:
    """A text of the laboratory with the methods' names as tables and figures print them."""
    return re.sub(r"\b(?:sft|dpo|dinm)\b", lambda m: KNOWN[m[0]], text)


def algebraic(swap: SwapShares | None) -> bool:
    """Whether shares follow from where the change was made alone, and there was a change of behaviour to divide."""
    return swap is not None and not swap.gated and (swap.identity or bool(swap.by_algebra))


def verdicts(row: ComparisonRow) -> dict[str, str]:
    """What was asked ("" or "with S") -> the row's verdict, marked where it is algebra."""
    found = {"": (row.conclusion.verdict, row.causal or row.swap)}
    if row.conclusion.with_suffix is not None:
        found["with S"] = (row.conclusion.with_suffix, row.causal_with_suffix)
    return {
        asked: f"{word} by algebra" if algebraic(swap) and word != "undecided" else word
        for asked, (word, swap) in found.items()
    }


def short(text: str, limit: int = 20) -> str:
    """A long name cut in its middle, for places that cannot grow."""
    keep = (limit - 1) // 2
    return text if len(text) <= limit else f"{text[:keep]}…{text[-keep:]}"


def number(x: float, digits: int = 2) -> str:
    """`digits` significant digits, no exponent where it can be avoided: -0.00081, 12, 1234; NaN is "n/a"."""
    if not math.isfinite(x):
        return "n/a"
    if abs(x) >= 10**digits:
        return f"{x:.0f}"
    text = f"{x:.{digits}g}"
    return "0" if text in ("-0", "0") else text


def signed(x: float, digits: int = 2) -> str:
    """`number` with its sign; zero has none."""
    text = number(x, digits)
    return text if text.startswith("-") or text in ("0", "n/a") else f"+{text}"


def fixed(x: float, decimals: int = 1) -> str:
    """A number with so many decimals; NaN is "n/a", and zero has no sign."""
    if not math.isfinite(x):
        return "n/a"
    text = f"{x:.{decimals}f}"
    return text.lstrip("-") if float(text) == 0.0 else text


def has_interval(e: Estimate) -> bool:
    """Whether the interval is wider than its value."""
    return math.isfinite(e.value) and e.low < e.high


def rate(e: Estimate | None, decimals: int = 1) -> str:
    """`92.6 [76.6, 97.9]`; the value alone where the number is exact; "n/a" where it was not measured."""
    if e is None or not math.isfinite(e.value):
        return "n/a"
    if not has_interval(e):
        return fixed(e.value, decimals)
    return f"{fixed(e.value, decimals)} [{fixed(e.low, decimals)}, {fixed(e.high, decimals)}]"


def span(e: Estimate, digits: int = 2) -> str:
    """As `rate` with significant digits and signs: for changes of small numbers."""
    if not has_interval(e):
        return signed(e.value, digits)
    return f"{signed(e.value, digits)} [{signed(e.low, digits)}, {signed(e.high, digits)}]"


def ns(estimates: Iterable[Estimate | None]) -> str:
    """`27`, or `25-27` where the n differ; "0" where nothing was measured."""
    return ns_of(e.n for e in estimates if e is not None and math.isfinite(e.value))


def ns_of(counts: Iterable[int]) -> str:
    """As `ns`, of plain counts."""
    found = sorted(set(counts))
    if not found:
        return "0"
    return f"{found[0]}" if len(found) == 1 else f"{found[0]}-{found[-1]}"


def layers(counts: dict[int, int]) -> str:
    """Where instances located the toxic layer: `4` where all agree, else `4 (25), 3 (2)`, most frequent first."""
    order = sorted(counts, key=lambda layer: (-counts[layer], layer))
    if len(order) <= 1:
        return "".join(str(layer) for layer in order) or "n/a"
    shown = [f"{layer} ({counts[layer]})" for layer in order[:3]]
    return ", ".join(shown) + (f", {len(order) - 3} more" if len(order) > 3 else "")


def states(comparison: Comparison) -> tuple[bool, ...]:
    """The suffix states that were measured: without S, with S."""
    found = {d.suffix for row in comparison.rows for d in row.defense}
    return tuple(s for s in (False, True) if s in found)


def in_state(records: tuple, suffix: bool) -> DefenseScores | GeneralPerformance | None:
    """The record of one suffix state, or None."""
    return next((r for r in records if r.suffix == suffix), None)


def safe(text: str) -> str:
    """A text of unknown origin for plotly, which reads labels as HTML."""
    return html.escape(text, quote=False)


def minus(text: str) -> str:
    """Real minus signs in front of numbers, for figures."""
    return "".join(
        "\u2212" if c == "-" and (i + 1 < len(text) and text[i + 1].isdigit()) and not text[i - 1 : i].isalnum() else c
        for i, c in enumerate(text)
    )


def wrapped(text: str, width: int) -> str:
    """Broken into lines with <br>, escaped."""
    return "<br>".join(safe(line) for line in textwrap.wrap(text, width)) or ""
