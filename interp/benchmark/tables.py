"""From units to tables: every number with its interval, n and the paper's beside it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from interp.benchmark.arms import Arm
from interp.benchmark.claims import claims
from interp.benchmark.engine import Engine
from interp.benchmark.published import NOTES, PUBLISHED
from interp.benchmark.settings import ARTEFACTS
from interp.evaluation import defense_scores, general, mean_moved
from interp.evaluation.shares import bootstrap_share
from interp.judges.panel import agreement_lines, agreements, units_of
from interp.records import CATEGORIES, DG_KINDS, Estimate, JudgeAgreement, PaperRow, Response, Table, TableRow
from interp.stats import bootstrap, share

KINDS = ("DS", *DG_KINDS)
FLUENCY = "fluency"


def build(engine: Engine) -> Table:
    """The table of an engine's artefact. Raises InputError where a unit is missing."""
    engine.check_complete()
    artefact = engine.settings.artefact
    make = {"table3": shared_rows, "table11": cross_rows, "layers": layer_rows}.get(artefact, own_rows)
    rows, notes = make(engine)
    columns = tuple(dict.fromkeys(column for row in rows for column in row.cells))
    if artefact == "layers":
        columns = tuple(sorted(columns, key=lambda c: int(c.split()[1])))
    notes += cuts(engine)
    notes += agreement_notes(engine)
    names, models = PUBLISHED.get(artefact, ((), {}))
    paper = tuple(
        PaperRow(row, model, {c: v for c, v in zip(names, values, strict=True) if v is not None})
        for model, by_row in models.items()
        for row, values in by_row.items()
        if row in [r.name for r in rows]
    )
    said = [NOTES[artefact]] if artefact in NOTES else []
    if paper:
        said.append("paper: its own models and data, so what to hold against it is the order of rows, not the values")
    if engine.benchmark.planted:
        said.append("demo: what vanilla answers was planted by its training data")
    lines = tuple(line for line in (*notes, *said) if line)
    return Table(artefact, ARTEFACTS[artefact], columns, tuple(rows), paper, facts(engine), lines)


def facts(engine: Engine) -> dict[str, str]:
    """What the numbers rest on."""
    settings, plan = engine.settings, engine.design
    return {
        "model": settings.model,
        "data": engine.benchmark.name,
        "edits": str(len(plan.edited)) if any(arm.edits for arm in engine.arms) else "",
        "located" if engine.locating else "instances asked": str(len(plan.asked)),
        "seed": str(settings.seed),
        "judge": judge_name(engine),
        "max new tokens": "" if engine.locating else str(settings.max_new_tokens),
        "torch": engine.run.config["versions"]["torch"],
        "transformers": engine.run.config["versions"]["transformers"],
        "source": engine.run.config["source"],
    }


# ------------------------------------------------------------------------------------------------- kinds of tables
def own_rows(engine: Engine) -> tuple[list[TableRow], list[str]]:
    """Tables 1, 2, 12 and 13: every model on the prompts it was made for, and on the general questions."""
    rows, notes = [], []
    every = {arm.name: engine.responses(arm) for arm in engine.arms}
    edits = {arm.name: engine.notes(arm) for arm in engine.arms if arm.edits}
    for arm in engine.arms:
        responses = every[arm.name]
        state = prompted(responses)
        scores = defense_scores(responses, state, judge=judge_name(engine), seed=engine.settings.seed)
        kl = mean_moved(engine.moved(arm), seed=engine.settings.seed)
        performance = general(responses, engine.benchmark, state, seed=engine.settings.seed, answer_kl=kl)
        cells = {kind: scores.by_kind[kind] for kind in KINDS if kind in scores.by_kind}
        cells |= {"DG-Avg": scores.dg_avg}
        if engine.settings.artefact in ("table12", "table13"):
            cells |= {"DS and DG": five(responses, engine.settings.seed)}
        measured = {
            FLUENCY: performance.fluency,
            "KQA": performance.kqa,
            "KQA, exact": performance.kqa_exact if engine.settings.kqa is not None else None,  # demo: the same
            "answer KL": performance.answer_kl,
            "CSum": performance.csum,
            "over-refusal": performance.over_refusal,
            "over-refusal, wrapped": performance.over_refusal_wrapped,
            "broken": scores.degenerate,
        }
        cells |= {name: value for name, value in measured.items() if value is not None}
        cells |= edit_cells(engine, arm)
        rows.append(TableRow(arm.name, cells))
        notes += [f"{arm.name}: {note}" for note in performance.notes if "token limit" in note]
    notes += claims(engine.settings.artefact, every, engine.settings.seed, edits)
    if any("answer KL" in row.cells for row in rows):
        notes.append(
            "answer KL: KL(vanilla || row) per token of vanilla's own answers to knowledge questions and bare benign "
            "requests, vanilla asked without S, the row with its prompts: vanilla + S is what the prompt alone does"
        )
    notes.append(
        "every row is asked with the prompts its method wants (DINM: S after the query); vanilla + S has the prompt "
        "without the edit. A method that edits has one edit per instance, each asked its own prompts"
    )
    return rows, notes


def shared_rows(engine: Engine) -> tuple[list[TableRow], list[str]]:
    """Table 3: SafeEdit_test_ALL. Edits are the unit of DINM's row, instances that of the others."""
    rows, notes = [], []
    for arm in engine.arms:
        responses, judge = engine.responses(arm), judge_name(engine)
        if not arm.edits:
            scores = defense_scores(responses, prompted(responses), judge=judge, seed=engine.settings.seed)
            rows.append(TableRow(arm.name, {**scores.by_kind, "DG-Avg": scores.dg_avg, "broken": scores.degenerate}))
            continue
        each = [
            defense_scores([r for r in responses if r.edited_on == i.id], prompted(responses), judge=judge)
            for i in engine.design.edited
        ]
        values = {kind: [s.by_kind[kind].value for s in each] for kind in engine.design.kinds}
        values |= {"DG-Avg": [s.dg_avg.value for s in each], "broken": [s.degenerate.value for s in each]}
        cells = {column: over_edits(found, engine.settings.seed) for column, found in values.items()}
        cells |= {f"{c}, sd": deviation(values[c], engine.settings.seed) for c in (*engine.design.kinds, "DG-Avg")}
        rows.append(TableRow(arm.name, {**cells, **edit_cells(engine, arm)}))
    return rows, [
        f"rows of one model: interval over {len(engine.design.asked)} instances; DINM: mean and interval over "
        f"{len(engine.design.edited)} edits, each asked all of them; sd: standard deviation between edits (Table 14)",
        *notes,
    ]


def cross_rows(engine: Engine) -> tuple[list[TableRow], list[str]]:
    """Table 11: edited on one category (row), asked of another (column), only what broke vanilla."""
    arm = engine.arms[-1]
    category = {i.id: i.category_key for i in (*engine.design.edited, *engine.design.asked)}
    responses = engine.responses(arm)
    asked = {r.instance_id for r in responses}
    counts = {c: sum(category[i] == c for i in asked) for c in CATEGORIES}
    rows = []
    for edited in CATEGORIES:
        own = [r for r in responses if r.edited_on is not None and category[r.edited_on] == edited]
        cells = {}
        for other in CATEGORIES:
            scores: dict[int, list[float]] = {}
            for r in own:
                if category[r.instance_id] == other and r.edited_on is not None and r.verdict is not None:
                    scores.setdefault(r.edited_on, []).append(r.verdict.score)
            if scores:
                means = np.array([[float(np.mean(s))] for s in scores.values()])
                cells[other] = bootstrap_share(means, "edits", engine.settings.seed)
        if cells:
            rows.append(TableRow(edited, cells))
    same = [row.cells[row.name].value for row in rows if row.name in row.cells]
    other = [e.value for row in rows for c, e in row.cells.items() if c != row.name]
    spoken = ", ".join(f"{c} {n}" for c, n in counts.items())
    return rows, [
        f"inputs that broke vanilla, by category: {spoken}; vanilla defends none of them, by construction; an edit is "
        "not asked the input that it was made on",
        f"mean on the category edited {np.mean(same):.1f} %, on others {np.mean(other):.1f} %"
        if same and other
        else "",
    ]


def layer_rows(engine: Engine) -> tuple[list[TableRow], list[str]]:
    """How many instances locate each layer."""
    rows = []
    for arm in engine.arms:
        layers = [n.layer for n in engine.located(arm)]
        cells = {
            f"layer {layer}": share(layers.count(layer), len(layers)) for layer in range(engine.bench.vanilla.n_layers)
        }
        rows.append(TableRow(arm.name, cells))
    return rows, ["layers counted from 0; rows are conventions of what the distance is measured on (see interp.locate)"]


# ------------------------------------------------------------------------------------------------- parts
def judge_name(engine: Engine) -> str:
    """Who judged, "" where nobody did."""
    return engine.bench.judge.name if engine.bench.judge is not None else ""


def cuts(engine: Engine) -> list[str]:
    """One line for each row in which texts did not fit the model's context."""
    found = {arm.name: engine.cost(arm).cut for arm in engine.arms}
    return [
        f"{name}: {cut} texts were longer than the model's context and were cut" for name, cut in found.items() if cut
    ]


def prompted(responses: Sequence[Response]) -> bool:
    """The one prompt state that an arm was asked in."""
    return responses[0].suffix


def five(responses: Sequence[Response], seed: int) -> Estimate:
    """Mean over DS and the four DG (the average of the paper's Tables 2, 12 and 13), bootstrap over instances."""
    by_instance: dict[int, dict[str, float]] = {}
    for r in responses:
        if r.kind in KINDS and r.verdict is not None:
            by_instance.setdefault(r.instance_id, {})[r.kind] = r.verdict.score
    table = np.array([[scores.get(kind, np.nan) for kind in KINDS] for scores in by_instance.values()])
    return bootstrap_share(table, "instances", seed)


def edit_cells(engine: Engine, arm: Arm) -> dict[str, Estimate]:
    """How much the edits of an arm changed their matrices."""
    if not arm.edits:
        return {}
    changes = [n.weight_change for n in engine.notes(arm)]
    return {"weight change": bootstrap(changes, over="edits", unit="%", seed=engine.settings.seed)}


def agreements_of(engine: Engine) -> list[JudgeAgreement]:
    """How far each pair of judges agrees on all answers of the run, over instances and questions."""
    opinions = engine.opinions()
    if not opinions:
        return []
    every = [r for arm in engine.arms for r in engine.responses(arm)]
    return agreements(opinions, units=units_of(every), seed=engine.settings.seed)


def agreement_notes(engine: Engine) -> list[str]:
    """One line for each pair of judges."""
    return [
        f"judges {' '.join(line.strip() for line in agreement_lines(found))}"
        + ("" if judge_name(engine) in (found.first, found.second) else "; neither decides")
        for found in agreements_of(engine)
    ]


def deviation(values: Sequence[float], seed: int) -> Estimate:
    """Standard deviation between edits (n - 1), bootstrap over edits, percentage points."""

    def spread(rows: np.ndarray) -> float:
        return float(np.std(rows, ddof=1))

    return bootstrap(values, spread, over="edits", unit="points", seed=seed)


def over_edits(values: Sequence[float], seed: int) -> Estimate:
    """Mean over edits of rates in percent, bootstrap over edits."""
    return bootstrap_share(np.array([[value / 100.0] for value in values]), "edits", seed)
