"""A calibration to files and to the screen: the record, the page that says what to trust, the figures."""

from __future__ import annotations

from pathlib import Path

from interp.plots.text import fixed, rate
from interp.records import dumps
from interp.records.calibration import Calibration, LocatorScore, RuleScore
from interp.runs import write_text

RECORD = "calibration.json"
PAGE = "CALIBRATION.md"
GOAL = 95.0
"""Percent right on held-out plants that a measure should reach."""


def write(calibration: Calibration, folder: Path, figures: bool = True) -> list[str]:
    """Write the record, the page and the figures; returns what to tell the user, a line each."""
    write_text(folder / RECORD, dumps(calibration) + "\n")
    write_text(folder / PAGE, page(calibration))
    told = [f"record       {folder / RECORD}", f"page         {folder / PAGE}"]
    if figures:
        from interp.plots.calibration import draw_calibration
        from interp.plots.save import save_figures

        saved = save_figures({d.name: d.figure for d in draw_calibration(calibration)}, folder)
        told += [f"figures      {folder}"] if not saved.note else [saved.note]
    return told


def page(calibration: Calibration) -> str:
    """The calibration page as Markdown: what can be trusted for what, the paper's measures included."""
    from interp.plots.calibration import draw_calibration

    c = calibration
    plants = {shape: len({r.plant for r in c.results if r.shape == shape}) for shape in {r.shape for r in c.results}}
    lines = [
        "# Calibration: which measures can be trusted for what",
        "",
        f"{len(c.organisms)} organisms with a truth known by construction, made from "
        + " and ".join(f"{n} plants in the {shape} shape" for shape, n in sorted(plants.items()))
        + f" of the demo model; {len(c.refused)} were refused because their recipe did not make what it should. "
        f"{c.n_prompts} test prompts each, seed {c.seed}. Thresholds were chosen on one half of the plants and are "
        "reported on the other. Organisms calibrate a measure; they say nothing about where real models keep anything.",
        "",
        "Organisms are selected on val by what they do, not by what a measure says of them, with two exceptions: a "
        "mixed one is kept only where each of its two parts alone moves the refusal margin, and a drifted one only "
        "where the drift alone does no more than 15 % of the effect. Each plant's drifted copy is no independent "
        "plant. Where every answer is alike, the interval counts plants. “At the located layer” equals “at the plant” "
        "where the locator finds every plant; what a wrong layer does is in a table of its own.",
        "",
        "The default locator was first logit-lens push. It was replaced after both halves had been seen, when push "
        "missed the goal on the held-out half (80 %, and 87 % right verdicts at the layer it names). The half “set” "
        "alone would have chosen the same locator, but its held-out numbers were not unseen, and fresh plants have to "
        "confirm them.",
        "",
        f"`python -m interp.calibrate` makes and scores them ({fixed(c.seconds / 60, 0)} minutes with the organisms in "
        "the cache).",
        "",
        "## In short",
        "",
        *(f"- {line}" for line in summary(c)),
        "",
        "## Verdicts",
        "",
        "| rule | right, held-out % | right, other half % | erased or not, held-out % | false positives % | CPU s |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for held, other in _pairs(c.rules):
        chosen = "" if held.threshold is None else f" (threshold {held.threshold:g})"
        lines.append(
            f"| {held.rule}{chosen} | {rate(held.right, 0)} | {rate(other.right, 0)} | {rate(held.coarse, 0)} | "
            f"{rate(held.false_positive, 0)} | {fixed(held.seconds, 1)} |"
        )
    lines += [
        "",
        "## Locators",
        "",
        "| locator | needs a second model | found, held-out % | found, other half % | where it said another layer "
        "before % | mean rank | CPU s |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    found = {s.locator: s for s in c.locators if s.half == "set"}
    for s in sorted((s for s in c.locators if s.half == "held-out"), key=lambda s: (-s.hits.value, s.rank)):
        other = found.get(s.locator)
        lines.append(
            f"| {_named(s)} | {'yes' if s.needs_reference else 'no'} | {rate(s.hits, 0)} | "
            f"{rate(other.hits, 0) if other else 'n/a'} | {rate(s.hits_elsewhere, 0)} | {fixed(s.rank, 1)} | "
            f"{fixed(s.seconds, 2)} |"
        )
    lines += ["", "## An erasure seen from the wrong layer", "", "| layer | verdicts |", "| --- | --- |"]
    for where, counts in c.wrong_layer.items():
        lines.append(f"| {where} the plant | {', '.join(f'{v} {n}' for v, n in counts.items()) or 'none'} |")
    lines += ["", "## Refused", ""]
    lines += [f"- {r.organism}: {r.why}" for r in c.refused] or ["None."]
    lines += ["", "## Figures", ""]
    for d in draw_calibration(c):
        lines += [f"![{d.title}]({d.name}.png)", "", d.caption, ""]
    return "\n".join(lines)


def summary(c: Calibration) -> list[str]:
    """What the calibration says, one sentence each."""
    rules = {(r.rule, r.half): r for r in c.rules}
    shares = rules["four shares, at the plant", "held-out"]
    paper = rules["the paper's, best threshold", "held-out"]
    located = rules["four shares, at the located layer", "held-out"]
    default = c.config.get("default locator", "")
    mine = next((s for s in c.locators if s.locator == default and s.half == "held-out"), None)
    said = [
        f"The four shares at the plant's layer are right for {rate(shares.right, 0)} % of {shares.right.n} held-out "
        f"organisms ({_goal(shares.right.value)}), at the layer that the default locator names for "
        f"{rate(located.right, 0)} %.",
        f"The paper's two measures are right for {rate(paper.right, 0)} %, and for {rate(paper.coarse, 0)} % where "
        "only erased, not erased and no effect are told apart.",
        f"Of organisms without an effect the shares call {rate(shares.false_positive, 0)} % something, the paper's "
        f"measures {rate(paper.false_positive, 0)} %.",
    ]
    if mine is not None:
        said.append(
            f"The default locator ({default}) names {rate(mine.hits, 0)} % of {mine.hits.n} held-out planted models' "
            f"layers ({_goal(mine.hits.value)})."
        )
    never = [s.locator for s in c.locators if s.half == "held-out" and s.hits.high < 50.0 and not s.control]
    if never:
        said.append(f"Not to be used to find where a behaviour sits (under half found, surely): {', '.join(never)}.")
    return said


def show(calibration: Calibration, told: list[str]) -> None:
    """Print both tables, the sentences and where everything is."""
    from rich.console import Console
    from rich.table import Table

    console = Console()
    console = console if console.is_terminal else Console(width=150)
    table = Table(title="Verdicts, held-out plants", title_justify="left")
    for head in ("rule", "right, %", "erased or not, %", "false positives, %", "threshold"):
        table.add_column(head, justify="left" if head == "rule" else "right")
    for r in calibration.rules:
        if r.half == "held-out":
            shown = "" if r.threshold is None else f"{r.threshold:g}"
            table.add_row(r.rule, rate(r.right, 0), rate(r.coarse, 0), rate(r.false_positive, 0), shown)
    console.print(table)
    table = Table(title="Locators, held-out plants", title_justify="left")
    for head in ("locator", "second model", "found, %", "rank", "CPU s"):
        table.add_column(head, justify="left" if head == "locator" else "right")
    for s in sorted((s for s in calibration.locators if s.half == "held-out"), key=_order):
        yes = "yes" if s.needs_reference else ""
        table.add_row(_named(s), yes, rate(s.hits, 0), fixed(s.rank, 1), fixed(s.seconds, 2))
    console.print(table)
    print("", *summary(calibration), "", *told, sep="\n")


def _pairs(rules: tuple[RuleScore, ...]) -> list[tuple[RuleScore, RuleScore]]:
    other = {r.rule: r for r in rules if r.half == "set"}
    return [(r, other[r.rule]) for r in rules if r.half == "held-out"]


def _order(score: LocatorScore) -> tuple[float, float]:
    return -score.hits.value, score.rank


def _named(score: LocatorScore) -> str:
    return f"{score.locator} (control)" if score.control else score.locator


def _goal(value: float) -> str:
    return f"goal {GOAL:.0f} % {'met' if value >= GOAL else 'missed'}"
