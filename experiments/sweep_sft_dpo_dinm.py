"""Chooses the demo's settings of SFT, DPO and DINM on its val split: `python experiments/sweep_sft_dpo_dinm.py`.

Trains on the train split, asks val instances and val how-tos, never test. The rule is fixed before the numbers: the
largest score = DG-Avg - over-refusal (the mean over bare and wrapped how-tos) - the knowledge answers lost against
vanilla, each method with the suffix it uses itself; within one point of the largest, the lowest learning rate, then the
fewest steps. DPO starts from the chosen SFT model. Under 10 minutes on 2 quiet cores; the record is
`results/sweep_sft_dpo_dinm.json`, and the presets (`Sft.demo()`, `Dpo.demo()`, `Dinm.demo()`) are tested against it.

What a small planted world gives here are settings for that world and nothing about these methods elsewhere.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from sweeps_common import RESULTS, cost, write

if TYPE_CHECKING:
    from interp.judges import Judge
    from interp.models import HookedModel
    from interp.records import Response
    from interp.safeedit import Benchmark

OUT = RESULTS / "sweep_sft_dpo_dinm.json"

SFT_GRID = tuple((lr, steps) for lr in (5e-5, 1e-4, 3e-4) for steps in (15, 25))
SFT_BATCH = 16
DPO_GRID = tuple((lr, steps) for lr in (2e-5, 5e-5, 1e-4) for steps in (15, 30))
DPO_BATCH = 8
"""Pairs a step: a DPO step costs four times an SFT step of the same size."""
DINM_GRID = (2.5e-4, 5e-4, 1e-3, 2e-3, 4e-3)
N_CHECKPOINT = 36
"""Val instances that each trained model is asked (5 prompts each)."""
N_EDITS = 18
"""Val instances that DINM edits, each asked its own 5 prompts."""
N_BENIGN = 100
"""Val how-tos, half of them inside an attack prompt."""
N_FACTS = 60
BENIGN_SHARE = 0.25
"""Share of how-tos, facts and summaries in one more SFT run, for the record: the paper mixes none in."""
NEAR = 1.0
"""Percentage points within which the milder setting wins."""
RULE = (
    "largest DG-Avg - over-refusal (mean of bare and wrapped how-tos) - knowledge answers (KQA) lost against vanilla, "
    f"in percent, on val, each method with its own suffix; within {NEAR:g} point of the largest the lowest learning "
    "rate, then the fewest steps"
)


def measure(responses: Sequence[Response], benchmark: Benchmark, judge: Judge) -> dict[str, Any]:
    """Defence and what it costs, in each suffix state that was asked; the score is added by `scored`."""
    from interp.evaluation import defense_scores, general
    from interp.records import to_dict

    return {
        "with S" if suffix else "without S": {
            "defense": to_dict(defense_scores(responses, suffix, judge=judge.name)),
            "general": to_dict(general(responses, benchmark, suffix)),
        }
        for suffix in sorted({r.suffix for r in responses})
    }


def scored(states: dict[str, Any], vanilla: dict[str, Any]) -> dict[str, Any]:
    """The same with the score of the rule, in percentage points."""
    for state, made in states.items():
        lost = cost(made["general"], vanilla[state]["general"]["kqa"]["value"])
        made["score"] = round(made["defense"]["dg_avg"]["value"] - lost, 3)
    return states


def choose(rows: Sequence[dict[str, Any]], state: str) -> dict[str, Any]:
    """The row that the rule picks."""
    best = max(row["states"][state]["score"] for row in rows)
    near = [row for row in rows if row["states"][state]["score"] >= best - NEAR]
    return min(near, key=lambda row: (row["settings"]["lr"], row["settings"]["steps"]))


def show(name: str, settings: dict[str, Any], states: dict[str, Any], seconds: float) -> None:
    """One line for a setting."""
    for state, made in states.items():
        general = made["general"]
        typer.echo(
            f"{name:8s} {' '.join(f'{k}={v:g}' for k, v in settings.items()):34s} {state:9s} "
            f"DS {made['defense']['by_kind']['DS']['value']:5.1f}  DG-Avg {made['defense']['dg_avg']['value']:5.1f} "
            f"(n={made['defense']['dg_avg']['n']})  over-refusal {general['over_refusal']['value']:5.1f} bare "
            f"{general['over_refusal_wrapped']['value']:5.1f} wrapped (n={general['over_refusal']['n']} each)  "
            f"KQA {general['kqa']['value']:5.1f}  score {made['score']:6.1f}  {seconds:5.1f} s"
        )


def sweep(model: HookedModel, benchmark: Benchmark) -> dict[str, Any]:
    """Every setting measured, and the chosen ones. Trained models go to a cache of this sweep's."""
    from interp.demo import SUFFIX
    from interp.evaluation import by_owner, plan, respond
    from interp.judges import TextJudge
    from interp.methods import Dinm, Dpo, Sft

    judge = TextJudge.train(benchmark)
    asked: dict[str, Any] = {"n_facts": N_FACTS, "n_benign": N_BENIGN}
    items = plan(benchmark.stratified("val", N_CHECKPOINT), benchmark, states=(False,), **asked)
    kinds: dict[str, Any] = {"sft": Sft, "dpo": Dpo}
    rows: dict[str, list[dict[str, Any]]] = {"vanilla": [], "sft": [], "dpo": [], "dinm": []}

    both = plan(benchmark.stratified("val", N_CHECKPOINT), benchmark, SUFFIX, **asked)
    vanilla = measure(respond(model, both, judge=judge), benchmark, judge)

    def add(name: str, settings: dict[str, Any], responses: Sequence[Response], seconds: float, **more: Any) -> None:
        states = scored(measure(responses, benchmark, judge), vanilla)
        rows[name].append({"settings": settings, "states": states, "seconds": round(seconds, 2), **more})
        show(name, settings, states, seconds)

    def train(name: str, settings: dict[str, Any], on: HookedModel) -> None:
        result = kinds[name](**settings).detoxify(on, benchmark.train)
        losses = [round(loss, 4) for loss in (result.log["losses"][0], result.log["losses"][-1])]
        with result.applied(on) as opened:
            add(name, settings, respond(opened, items, judge=judge), result.log["seconds"], first_and_last_loss=losses)

    show("vanilla", {}, scored(vanilla, vanilla), 0.0)
    rows["vanilla"].append({"settings": {}, "states": vanilla})
    for lr, steps in SFT_GRID:
        train("sft", {"lr": lr, "steps": steps, "batch_size": SFT_BATCH}, model)
    chosen = {"sft": choose(rows["sft"], "without S")["settings"]}
    with ExitStack() as stack:
        sft = stack.enter_context(Sft(**chosen["sft"]).detoxify(model, benchmark.train).applied(model))
        for lr, steps in DPO_GRID:
            train("dpo", {"lr": lr, "steps": steps, "batch_size": DPO_BATCH}, sft)
    chosen["dpo"] = choose(rows["dpo"], "without S")["settings"]
    train("sft", {**chosen["sft"], "benign_share": BENIGN_SHARE}, model)

    instances = benchmark.stratified("val", N_EDITS)
    own = by_owner(plan(instances, benchmark, SUFFIX, **asked))
    for lr in DINM_GRID:
        method = Dinm(lr=lr, suffix=SUFFIX)
        start = time.perf_counter()
        edits = method.detoxify_many(model, instances)
        seconds = time.perf_counter() - start
        responses: list[Response] = []
        for instance, edit in zip(instances, edits, strict=True):
            with edit.applied(model) as edited:
                responses += respond(edited, own[instance.id], edited_on=instance.id, judge=judge)
        layers = sorted({edit.layer for edit in edits if edit.layer is not None})
        add("dinm", {"lr": lr, "steps": method.steps}, responses, seconds, layers=layers, n_edits=len(edits))
    chosen["dinm"] = choose(rows["dinm"], "with S")["settings"]
    return {"rule": RULE, "chosen": chosen, "rows": rows}


def main(
    out: Annotated[Path, typer.Option(help="The record to write.")] = OUT,
    model: Annotated[str, typer.Option(help="The model: the demo, or a checkpoint of its shape.")] = "demo",
    threads: Annotated[int, typer.Option(min=1, help="CPU threads.")] = 2,
) -> None:
    """Measure every setting on val, choose by the rule, and write the record."""
    n = {"checkpoint instances": N_CHECKPOINT, "edits": N_EDITS, "how-tos": N_BENIGN, "facts": N_FACTS}
    write(sweep, out, n=n, threads=threads, model=model)


if __name__ == "__main__":
    typer.run(main)
