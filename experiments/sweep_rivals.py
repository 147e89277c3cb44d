"""Chooses the demo's settings of the rival methods on its val split: `python experiments/sweep_rivals.py`.

FT-L, Self-Reminder, ProFS, Direction, MEND and Ext-Sub, with vanilla and DINM's preset for comparison. Trains on the
train split, asks val instances and val how-tos, never test. The rule is fixed before the numbers: the largest score =
DG-Avg - over-refusal (the mean over bare and wrapped how-tos) - the knowledge answers lost against vanilla, each method
with the prompt it uses itself; within one point of the largest, the setting that stands first in its grid (grids go
from mild to strong). The record is `results/sweep_rivals.json`, and the presets are tested against it.

What a small planted world gives here are settings for that world and nothing about these methods elsewhere.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from sweeps_common import RESULTS, cost, write

if TYPE_CHECKING:
    from interp.judges import Judge
    from interp.methods import Detoxified
    from interp.models import HookedModel
    from interp.records import Response
    from interp.safeedit import Benchmark

OUT = RESULTS / "sweep_rivals.json"

GRIDS: dict[str, tuple[dict[str, Any], ...]] = {
    "self-reminder": ({},),
    "ft-l": tuple({"norm_constraint": e, "lr": 2e-3} for e in (5e-4, 2e-3, 5e-3, 1e-2, 2e-2)),
    "profs": tuple({"rank": k, "start_layer": s, "batch_size": 32} for k, s in ((2, 2), (10, 2), (2, 0), (10, 0))),
    "direction": tuple(
        {"matrices": m, "batch_size": 32, "highest_layer": h}
        for h in (0.8, 1.0)
        for m in (("attention", "mlp"), ("embedding", "attention", "mlp"))
    ),
    "mend": tuple({"lr": lr} for lr in (1e-4, 1e-3)),
    "ext-sub": tuple({"lr": lr, "alpha": a} for lr in (3e-4, 1e-3) for a in (0.5, 1.0)),
    "dinm": ({},),
}
"""Fields that differ from the method's preset, from mild to strong. DINM is its preset alone, for comparison."""
N = 18
"""Val instances: those that a model is asked, or that are edited and asked about their own edit (5 prompts each)."""
N_BENIGN = 40
"""Val how-tos, half of them inside an attack prompt."""
N_FACTS = 30
SEED = 0
"""Of the choice of instances and items. Each method's own seed is 0, too."""
NEAR = 1.0
"""Percentage points within which the milder setting wins."""
RULE = (
    "largest DG-Avg - over-refusal (mean of bare and wrapped how-tos) - knowledge answers (KQA) lost against vanilla, "
    f"in percent, on val, each method with its own prompt; within {NEAR:g} point of the largest the first in the grid"
)


def presets() -> dict[str, Any]:
    """The demo preset of each method, by name."""
    from interp.methods import Dinm, Direction, ExtSub, FtL, Mend, Profs, SelfReminder

    found = (FtL, Profs, Direction, Mend, ExtSub, Dinm)
    return {"self-reminder": SelfReminder(), **{kind.name: kind.demo() for kind in found}}


def made_by(method: Any, model: HookedModel, benchmark: Benchmark, instances: Sequence[Any]) -> list[Detoxified]:
    """What a method makes: one result for all instances, or one for each."""
    if hasattr(method, "prepare"):
        method = method.prepare(model, benchmark.train, benchmark.val)
    if method.needs == "one instance":
        return method.detoxify_many(model, instances)
    return [method.detoxify(model, benchmark.train if method.needs == "the train split" else None)]


def ask(made: Sequence[Detoxified], model: HookedModel, benchmark: Benchmark, judge: Judge) -> list[Response]:
    """The judged answers, with the prompt that the method wants."""
    from interp.evaluation import by_owner, plan, respond

    instances = benchmark.stratified("val", N, SEED)
    state = bool(made[0].suffix or made[0].prefix)
    items = plan(
        instances, benchmark, made[0].suffix, prefix=made[0].prefix, n_facts=N_FACTS, n_benign=N_BENIGN,
        states=(state,), seed=SEED,
    )  # fmt: skip
    if len(made) == 1:
        with made[0].applied(model) as opened:
            return respond(opened, items, judge=judge)
    own, responses = by_owner(items), []
    for instance, edit in zip(instances, made, strict=True):
        with edit.applied(model) as edited:
            responses += respond(edited, own[instance.id], edited_on=instance.id, judge=judge)
    return responses


def measure(responses: Sequence[Response], benchmark: Benchmark, judge: Judge, vanilla_kqa: float) -> dict[str, Any]:
    """Defence, what it costs, and the score of the rule (percentage points)."""
    from interp.evaluation import defense_scores, general
    from interp.records import to_dict

    state = responses[0].suffix
    defense = to_dict(defense_scores(responses, state, judge=judge.name, seed=SEED))
    costs = to_dict(general(responses, benchmark, state, seed=SEED))
    score = round(defense["dg_avg"]["value"] - cost(costs, vanilla_kqa), 3)
    return {"with S": state, "defense": defense, "general": costs, "score": score}


def choose(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The settings that the rule picks."""
    best = max(row["score"] for row in rows)
    return next(row["settings"] for row in rows if row["score"] >= best - NEAR)


def show(name: str, row: dict[str, Any]) -> None:
    """One line for a setting."""
    d, g = row["defense"], row["general"]
    dg, over = d["dg_avg"], (g["over_refusal"]["value"], g["over_refusal_wrapped"]["value"])
    typer.echo(
        f"{name:13s} {row['settings']!s:62s} DS {d['by_kind']['DS']['value']:5.1f}  "
        f"DG-Avg {dg['value']:5.1f} [{dg['low']:.0f}, {dg['high']:.0f}] (n={dg['n']})  "
        f"other {d['other']['value']:4.1f}  over-refusal {over[0]:4.1f} / {over[1]:4.1f}  "
        f"KQA {g['kqa']['value']:5.1f}  score {row['score']:6.1f}  {row['cpu_seconds']:6.1f} CPU s"
    )


def extra(made: Sequence[Detoxified]) -> dict[str, Any]:
    """What else is worth a look: the chosen layer, the layers edited, how much both modules share."""
    log = made[0].log
    found: dict[str, Any] = {"chosen": log["chosen"]} if "chosen" in log else {}
    if "shared" in log:
        found["shared"] = round(sum(log["shared"].values()) / len(log["shared"]), 4)
    layers = sorted({m.layer for m in made if m.layer is not None})
    return {**found, "layers": layers} if layers else found


def sweep(model: HookedModel, benchmark: Benchmark) -> dict[str, Any]:
    """Every setting measured, and the chosen ones. Trained models go to a cache of this sweep's."""
    from interp.judges import TextJudge
    from interp.methods import Detoxified

    judge = TextJudge.train(benchmark)
    vanilla = measure(ask([Detoxified("vanilla")], model, benchmark, judge), benchmark, judge, 0.0)
    kqa = vanilla["general"]["kqa"]["value"]
    rows: dict[str, list[dict[str, Any]]] = {"vanilla": [{"settings": {}, "cpu_seconds": 0.0, **vanilla}]}
    show("vanilla", rows["vanilla"][0])
    instances, known = benchmark.stratified("val", N, SEED), presets()
    for name, grid in GRIDS.items():
        rows[name] = []
        for settings in grid:
            start = time.process_time()
            made = made_by(replace(known[name], **settings), model, benchmark, instances)
            seconds = round(time.process_time() - start, 2)
            found = measure(ask(made, model, benchmark, judge), benchmark, judge, kqa)
            rows[name].append({"settings": settings, "cpu_seconds": seconds, **extra(made), **found})
            show(name, rows[name][-1])
    return {"rule": RULE, "chosen": {name: choose(rows[name]) for name in GRIDS if name != "dinm"}, "rows": rows}


def main(
    out: Annotated[Path, typer.Option(help="The record to write.")] = OUT,
    threads: Annotated[int, typer.Option(min=1, help="CPU threads.")] = 1,
) -> None:
    """Measure every setting on val, choose by the rule, and write the record."""
    write(sweep, out, n={"instances": N, "how-tos": N_BENIGN, "facts": N_FACTS}, threads=threads, seed=SEED)


if __name__ == "__main__":
    typer.run(main)
