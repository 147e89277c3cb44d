"""DINM at every layer against where the behaviour is located: what an edit gains and costs, located layers marked.

    python experiments/edit_every_layer.py           # locates, writes figures/every_layer/ from table13.json
    python experiments/edit_every_layer.py --check   # do the committed finding, figure and table agree?

Edits are not made here: `experiments/table13.py` makes them. Locators run on vanilla, on instances of the test split.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from tables_common import TABLES, read

from interp.errors import InputError
from interp.plots.canonical import differences, dumps
from interp.plots.findings import draw_finding
from interp.plots.save import save_figure
from interp.records import Curve, Curves, Finding, Table, loads
from interp.records import dumps as record
from interp.runs import read_json, write_text

FOLDER = Path(__file__).parents[1] / "figures" / "every_layer"
NAME = "edit_every_layer"
INSTANCES, SEED = 27, 0
PAPER = "Eq. 6, paper"
PANELS = {
    "DS": "Defended, edited prompt (DS, %)",
    "DG-Avg": "Defended, other prompts (DG-Avg, %)",
    "KQA": "Knowledge (KQA, %)",
    "answer KL": "Answers moved (KL, nats per token)",
    "over-refusal": "Refused harmless requests (%)",
    "over-refusal, wrapped": "Refused, inside attacks (%)",
    "weight change": "Relative change of W_V (%)",
}
"""Column of the table -> its axis; one panel each, columns that the table lacks are left out."""
CONTROL = "vanilla + S"
"""The prompt without the edit."""


def located() -> dict[str, tuple[int, str]]:
    """Locator -> the layer that most test instances name on vanilla, and how many do: all that need no reference."""
    from interp.mechanism.localise import LOCATORS, locate_behaviour
    from interp.mechanism.shares import MarginTokens
    from interp.models import HookedModel
    from interp.safeedit import load

    model, data = HookedModel.from_pretrained("demo"), load("demo")
    instances = data.stratified("test", INSTANCES, SEED)
    tokens = MarginTokens.of(model, data.val)
    found = {}
    for name, locator in LOCATORS.items():
        if not locator.needs_reference:
            scores = locate_behaviour(model, instances, tokens, locator=name)
            found[name] = (scores.toxic_layer, f"layer {scores.toxic_layer} ({scores.counts[scores.toxic_layer]})")
    return found


def curves(table: Table, marked: tuple[float, ...]) -> tuple[Curves, ...]:
    """One panel per column: a line over layers, and the control as a level line."""
    rows = {int(r.name.removeprefix("layer ")): r.cells for r in table.rows if r.name.startswith("layer ")}
    x = tuple(float(layer) for layer in sorted(rows))
    control = next(r.cells for r in table.rows if r.name == CONTROL)
    panels = []
    for column, axis in PANELS.items():
        if all(column in cells for cells in rows.values()):
            lines = [Curve("DINM at that layer", x, tuple(rows[layer][column] for layer in sorted(rows)))]
            if column in control:
                lines.append(Curve(CONTROL, x, (control[column],) * len(x), control=True))
            panels.append(Curves(column, "Edited layer (0-based)", axis, tuple(lines), marked))
    return tuple(panels)


def words(table: Table, layers: dict[str, int]) -> str:
    """What each marked layer gains against the best layer, and how much layers differ at all."""
    means = {r.name: r.cells["DS and DG"] for r in table.rows if r.name.startswith("layer ")}
    best = max(means, key=lambda name: means[name].value)
    low = min(e.value for e in means.values())
    said = [
        f"{who} names layer {at} ({means[f'layer {at}'].value:.1f} % [{means[f'layer {at}'].low:.1f}, "
        f"{means[f'layer {at}'].high:.1f}])"
        for who, at in layers.items()
    ]
    return (
        f"Mean of DS and DG, by edited layer: {low:.1f} to {means[best].value:.1f} %, best at {best}; "
        f"{'; '.join(said)}. Every layer can be edited, so that the best one to edit says nothing about where it sits."
    )


def finding(table: Table) -> Finding:
    """The table's rows as curves with the located layers marked."""
    from interp.mechanism.localise import DEFAULT_LOCATOR

    found = located()
    marks = {name: found[name][0] for name in (PAPER, DEFAULT_LOCATOR)}
    return Finding(
        name=NAME,
        title="DINM at every layer",
        question="Does an edit of the located layer gain more, or cost less, than an edit of another one?",
        reading=words(table, marks),
        how_to_read="One point per edited layer; vertical lines mark what locators name on vanilla: "
        f"{', '.join(f'layer {at} ({name})' for name, at in marks.items())}. "
        f"Dashed: {CONTROL}, the prompt without an edit.",
        limits="which layer edits best measures how editable it is, not where the behaviour sits.",
        n=int(table.facts["edits"]),
        seed=int(table.facts["seed"]),
        source="Wang et al. 2024, Table 13",
        curves=curves(table, tuple(sorted({float(layer) for layer in marks.values()}))),
        facts={f"{name} ({INSTANCES} test instances)": told for name, (_, told) in found.items()},
    )


def check(table: Table) -> list[str]:
    """Where the committed finding, figure and table do not agree."""
    kept = loads(Finding, (FOLDER / "finding.json").read_text(encoding="utf-8"))
    lines = [] if curves(table, kept.curves[0].marked) == kept.curves else ["finding.json: not table13.json's numbers"]
    drawn = draw_finding(kept)
    assert drawn is not None
    scratch = FOLDER / ".check.json"
    try:
        write_text(scratch, dumps(drawn.figure))
        return [*lines, *differences(read_json(scratch), read_json(FOLDER / f"{NAME}.json"))]
    finally:
        scratch.unlink(missing_ok=True)


def main() -> int:
    """Write or check; 1 where something differs."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--check", action="store_true", help="compare with the committed files, write nothing")
    given = parser.parse_args()
    try:
        table = read(TABLES, "table13")
        lines = check(table) if given.check else []
    except (InputError, OSError) as error:
        print(f"edit_every_layer: {error}", file=sys.stderr)
        return 2
    if given.check:
        print("\n".join(lines) or "edit_every_layer: as committed")
        return 1 if lines else 0
    made = finding(table)
    drawn = draw_finding(made)
    assert drawn is not None
    FOLDER.mkdir(exist_ok=True)
    write_text(FOLDER / "finding.json", record(made))
    print(made.reading, save_figure(drawn.figure, FOLDER, NAME).note, sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
