"""A calibration to files and to the screen: the record, the page that says what to trust, the figures."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TypeVar

from interp.calibrate.rules import accepted
from interp.calibrate.tally import clustered
from interp.plots.text import fixed, rate
from interp.records import Estimate, dumps
from interp.records.calibration import Calibration, LocatorScore, OrganismLine, RuleScore
from interp.runs import write_text

RECORD = "calibration.json"
PAGE = "CALIBRATION.md"
LOCATED = "four shares, at the located layer"
EXACT = 5e-4
"""Shares are recorded with four digits."""
GOAL = 95.0
"""Percent right on plants that nothing was chosen on that a measure should reach."""
SHOWN = ("fresh", "held-out", "set")
"""The parts in the order in which tables show them."""
FRESH = " and on fresh plants, whose seeds were first used after thresholds, default locator and recipe had been fixed"
S = TypeVar("S", RuleScore, LocatorScore)


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
    fresh = any(o.half == "fresh" for o in c.organisms)
    plants = {shape: len({r.plant for r in c.results if r.shape == shape}) for shape in {r.shape for r in c.results}}
    lines = [
        "# Calibration: which measures can be trusted for what",
        "",
        f"{len(c.organisms)} organisms with a truth known by construction, made from "
        + " and ".join(f"{n} plants in the {shape} shape" for shape, n in sorted(plants.items()))
        + " of the demo (in the gpt2 shape `demo-replica`, another training than the demo that figures and tables "
        f"look into); {len(c.refused)} were refused because their recipe did not make what it should. "
        f"{c.n_prompts} test prompts each, seed {c.seed}. Thresholds were chosen on one half of the plants (“set”) and "
        f"are reported on the other (“held-out”){FRESH if fresh else ''}. "
        "Organisms calibrate a measure; they say nothing about where real models keep anything.",
        "",
        "Organisms are selected on val by what they do, not by what a measure says of them, with two exceptions: a "
        "mixed one is kept only where each of its two parts alone moves the refusal margin, and a drifted one only "
        "where the drift alone does no more than 15 % of the effect. Each plant's drifted copy is no independent "
        "plant. Where every answer is alike, the interval counts plants. “At the located layer” equals “at the plant” "
        "where the locator finds every plant; what a wrong layer does is in a table of its own.",
        "",
        "The default locator was first logit-lens push. It was replaced after both halves had been seen, when push "
        "missed the goal on the held-out half (80 %, and 87 % right verdicts at the layer it names). The half “set” "
        "alone would have chosen the same locator, but its held-out numbers were not unseen: only fresh plants can "
        "confirm them.",
        "",
        f"`python -m interp.calibrate` makes and scores them; the run that made this page took "
        f"{fixed(c.seconds / 60, 0)} minutes.",
        "",
        "## In short",
        "",
        *(f"- {line}" for line in summary(c)),
        "",
        "## Verdicts",
        "",
        "| rule | right, % | erased or not, % | false positives, % | CPU s |",
        "| --- | --- | --- | --- | --- |",
    ]
    for mine in _by_part(c.rules, lambda r: r.rule).values():
        held = mine["held-out"]
        chosen = "" if held.threshold is None else f" (threshold {held.threshold:g})"
        cells = (_parts({p: get(r) for p, r in mine.items()}) for get in (_right, _coarse, _false_positive))
        lines.append(f"| {held.rule}{chosen} | {' | '.join(cells)} | {fixed(held.seconds, 1)} |")
    lines += [
        "",
        "## Locators",
        "",
        "| locator | needs a second model | found, % | where it said another layer before, % | mean rank | CPU s |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for mine in sorted(_by_part(c.locators, lambda s: s.locator).values(), key=lambda m: _order(m["held-out"])):
        s = mine["held-out"]
        found, elsewhere = (_parts({p: get(x) for p, x in mine.items()}) for get in (_hits, _elsewhere))
        lines.append(
            f"| {_named(s)} | {'yes' if s.needs_reference else 'no'} | {found} | {elsewhere} | {fixed(s.rank, 1)} | "
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
    """What the calibration says, one sentence each; the last numbers in each are those of fresh plants, if any."""
    rules = _by_part(c.rules, lambda r: r.rule)
    shares, located = rules["four shares, at the plant"], rules[LOCATED]
    paper = rules["the paper's, best threshold"]
    default = c.config.get("default locator", "")
    mine = _by_part(c.locators, lambda s: s.locator).get(default)
    said = [
        f"The four shares at the plant's layer are right for {_told(shares, _right)} ({_goal(shares, _right)}), at the "
        f"layer that the default locator names for {_told(located, _right)} ({_goal(located, _right)}).",
        *measured_alone(c),
        f"The paper's two measures are right for {_told(paper, _right)}, and for {_told(paper, _coarse)} where only "
        "erased, not erased and no effect are told apart.",
        f"Of organisms without an effect the shares call {_told(shares, _false_positive)} something, the paper's "
        f"measures {_told(paper, _false_positive)}.",
    ]
    if mine is not None:
        said.append(
            f"The default locator ({default}) names the planted layer of {_told(mine, _hits)} ({_goal(mine, _hits)})."
        )
    never = [s.locator for s in c.locators if s.half == "held-out" and s.hits.high < 50.0 and not s.control]
    if never:
        said.append(f"Not to be used to find where a behaviour sits (under half found, surely): {', '.join(never)}.")
    return said


def by_construction(organism: OrganismLine) -> bool:
    """Whether its shares follow from which weights were changed: every one is 0 or 1, without an interval."""
    return organism.truth != "none" and all(
        abs(x - round(x)) < EXACT and round(x) in (0, 1) for found in organism.shares.values() for x in found
    )


def measured_alone(c: Calibration) -> list[str]:
    """Right verdicts of the shares without what algebra or the gate decides, in one sentence."""
    said = []
    for part in ("held-out", "fresh"):
        members = [o for o in c.organisms if o.half == part]
        rest = [o for o in members if o.truth != "none" and not by_construction(o)]
        if rest:
            plants = [o.organism.removesuffix("-drifted").removesuffix(f"-{o.kind}") for o in rest]
            right = clustered(plants, [o.says[LOCATED] in accepted(o) for o in rest], c.seed)
            fixed_by = sum(by_construction(o) for o in members)
            said.append(
                f"{rate(right, 0)} % of {right.n} {part} ones (without {fixed_by} by algebra and "
                f"{len(members) - len(rest) - fixed_by} without effect)"
            )
    if not said:
        return []
    return [
        "Of some organisms the shares follow from which weights were changed (a matrix put back is erased by algebra, "
        "which a comparison says and calls undecided), and of those without effect the gate decides. Of the others the "
        f"shares are right, at the layer that the default locator names, for {' and '.join(said)}."
    ]


def show(calibration: Calibration, told: list[str]) -> None:
    """Print both tables, the sentences and where everything is."""
    from rich.console import Console
    from rich.table import Table

    console = Console()
    console = console if console.is_terminal else Console(width=150)
    rules = _by_part(calibration.rules, lambda r: r.rule)
    parts = [part for part in SHOWN if part in next(iter(rules.values()))]
    table = Table(title="Verdicts", title_justify="left")
    for head in ("rule", *(f"right, {p}, %" for p in parts), "erased or not, held-out, %", "false positives, %"):
        table.add_column(head, justify="left" if head == "rule" else "right")
    for name, mine in rules.items():
        held = mine["held-out"]
        table.add_row(
            name, *(rate(mine[p].right, 0) for p in parts), rate(held.coarse, 0), rate(held.false_positive, 0)
        )
    console.print(table)
    table = Table(title="Locators", title_justify="left")
    for head in ("locator", "second model", *(f"found, {p}, %" for p in parts), "rank", "CPU s"):
        table.add_column(head, justify="left" if head == "locator" else "right")
    locators = _by_part(calibration.locators, lambda s: s.locator)
    for mine in sorted(locators.values(), key=lambda m: _order(m["held-out"])):
        s = mine["held-out"]
        found = [rate(mine[p].hits, 0) if p in mine else "" for p in parts]
        table.add_row(_named(s), "yes" if s.needs_reference else "", *found, fixed(s.rank, 1), fixed(s.seconds, 2))
    console.print(table)
    print("", *summary(calibration), "", *told, sep="\n")


def _by_part(scores: Iterable[S], name: Callable[[S], str]) -> dict[str, dict[str, S]]:
    """Rule or locator -> part -> score, for those that were scored on the held-out half."""
    found: dict[str, dict[str, S]] = {}
    for score in scores:
        found.setdefault(name(score), {})[score.half] = score
    return {key: parts for key, parts in found.items() if "held-out" in parts}


def _right(score: RuleScore) -> Estimate:
    return score.right


def _coarse(score: RuleScore) -> Estimate:
    return score.coarse


def _false_positive(score: RuleScore) -> Estimate:
    return score.false_positive


def _hits(score: LocatorScore) -> Estimate:
    return score.hits


def _elsewhere(score: LocatorScore) -> Estimate | None:
    return score.hits_elsewhere


def _parts(estimates: Mapping[str, Estimate | None]) -> str:
    """A cell: each part's number, the untouched ones first, e.g. "held-out 99 [96, 100], set 98 [93, 100]"."""
    return ", ".join(f"{part} {rate(estimates[part], 0)}" for part in SHOWN if part in estimates)


def _told(scores: Mapping[str, S], get: Callable[[S], Estimate]) -> str:
    """E.g. "99 [96, 100] % of 134 held-out organisms and 98 [94, 100] % of 120 fresh ones"."""
    said = []
    for part in ("held-out", "fresh"):
        if part in scores:
            estimate = get(scores[part])
            what = f"{estimate.n} {part} ones" if said else f"{estimate.n} {part} models"
            said.append(f"{rate(estimate, 0)} % of {what}")
    return " and ".join(said)


def _goal(scores: Mapping[str, S], get: Callable[[S], Estimate]) -> str:
    """The goal against the part that nothing was chosen on or after seeing: fresh plants where there are some."""
    part = "fresh" if "fresh" in scores else "held-out"
    met = "met" if get(scores[part]).value >= GOAL else "missed"
    return f"goal {GOAL:.0f} % {met} on {part} plants"


def _order(score: LocatorScore) -> tuple[float, float]:
    return -score.hits.value, score.rank


def _named(score: LocatorScore) -> str:
    return f"{score.locator} (control)" if score.control else score.locator
