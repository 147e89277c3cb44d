"""`python -m interp.benchmark table1`: a table of the paper on the demo, or on any model and data.

This file is the command line; `interp.benchmark.engine` does the work.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from interp.benchmark.settings import ARTEFACTS, Settings, parse_shard
from interp.commands import run_app
from interp.errors import InputError

app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
WHAT = "What to make: " + "; ".join(f"{name} ({what})" for name, what in ARTEFACTS.items()) + "."


@app.command(context_settings={"help_option_names": ["-h", "--help"]})
def main(
    artefact: Annotated[str, typer.Argument(help=WHAT, show_default=False)],
    model: Annotated[str, typer.Option(help="Vanilla model: demo, a hub id, a folder or a state dict.")] = "demo",
    data: Annotated[
        str, typer.Option(help="SafeEdit data: demo, a JSON file, a folder of SafeEdit_<split>.json, or a hub id.")
    ] = "demo",
    out: Annotated[Path | None, typer.Option(help="Run folder [default: runs/<model>-<artefact>-<hash>].")] = None,
    limit: Annotated[
        int | None, typer.Option("--limit", min=2, help="Test instances [default: all; on the demo some, see README].")
    ] = None,
    row: Annotated[list[str] | None, typer.Option("--row", help="Only this row besides vanilla; repeat.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of every random choice.")] = 0,
    judge: Annotated[
        str, typer.Option(help="Safety judge: auto, demo, safeedit, or a hub id or folder of a classifier.")
    ] = "auto",
    judge_safe_label: Annotated[
        str | None, typer.Option(help="Label of a classifier that means safe, where its config does not tell.")
    ] = None,
    facts: Annotated[int, typer.Option(min=0, help="Knowledge questions asked of each row.")] = 60,
    benign: Annotated[int, typer.Option(min=0, help="Benign requests asked of each row, half of them wrapped.")] = 60,
    summaries: Annotated[int, typer.Option(min=0, help="Texts that each row is asked to summarise.")] = 30,
    summaries_data: Annotated[
        str | None, typer.Option(help="Those texts in XSum's layout, a file or hub id [default: demo has some].")
    ] = None,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Longest answer, in tokens.")] = 64,
    batch_size: Annotated[
        int | None, typer.Option(min=1, help="Prompts decoded at a time [default: 128 on the demo, else 16].")
    ] = None,
    block: Annotated[int, typer.Option(min=1, help="Instances in a unit of work.")] = 18,
    repeats: Annotated[int, typer.Option(min=1, help="Processes that measure each row of fig7.")] = 3,
    dtype: Annotated[str, typer.Option(help="auto, float32, bfloat16 or float16.")] = "auto",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps ...")] = "auto",
    device_map: Annotated[str | None, typer.Option(help="Passed to transformers, e.g. auto, for several GPUs.")] = None,
    chat_template: Annotated[
        str, typer.Option(help="default (what the checkpoint says), auto (the tokenizer's template), or none.")
    ] = "default",
    shard: Annotated[str | None, typer.Option(help="Do only share I of N, e.g. 2/4, and merge nothing.")] = None,
    merge: Annotated[bool, typer.Option("--merge", help="Compute nothing: make the table of what is there.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan and what is done of it.")] = False,
    figures: Annotated[bool, typer.Option(help="Draw the figure.")] = True,
) -> None:
    """Make a table of the paper, with intervals and the paper's numbers beside ours.

    A killed run continues where it stopped when the same command is given again. Several processes (accelerate launch,
    torchrun, or --shard by hand) share one run folder and give the same bytes. Exit code 2 means bad input.
    """
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    settings = Settings(
        artefact=artefact,
        model=model,
        data=data,
        out=out,
        instances=limit,
        methods=tuple(row or ()),
        seed=seed,
        judge=judge,
        judge_safe_label=judge_safe_label,
        facts=facts,
        benign=benign,
        summaries=summaries,
        summaries_data=summaries_data,
        max_new_tokens=max_new_tokens,
        batch_size=batch_size,
        block=block,
        repeats=repeats,
        dtype=dtype,
        device=device,
        device_map=device_map,
        chat_template=chat_template,
        shard=parse_shard(shard),
        merge=merge,
    )
    if artefact == "fig7":
        footprints(settings, dry_run, figures)
        return
    from interp.benchmark import output
    from interp.benchmark.engine import Engine, share
    from interp.benchmark.plan import costs, plan
    from interp.benchmark.tables import build
    from interp.pipeline.progress import Stages

    mine = share(settings)
    with Stages(quiet=not mine.first) as stages:
        engine = Engine(settings, mine, stages)
        if not (dry_run or merge):
            engine.work()
            mine.wait()
    path = engine.run.path
    if not mine.first:
        return
    if dry_run:
        print("\n".join(plan(engine)))
    elif settings.shard is not None:
        index, count = settings.shard
        print(f"shard {index + 1} of {count} is done in {path}; when all are, the same command with --merge")
    else:
        table = build(engine)
        engine.run.save_all("responses", [r for arm in engine.arms for r in engine.records(arm)])
        told = output.write(table, path, figures)
        output.show(table, [costs(engine), *told, f"run          {path}"])


def footprints(settings: Settings, dry_run: bool, figures: bool) -> None:
    """Fig. 7: measurements in processes of their own."""
    from interp.benchmark import output
    from interp.benchmark.engine import share
    from interp.benchmark.fig7 import Measurements
    from interp.pipeline.progress import Stages

    if share(settings).count > 1:
        raise InputError("fig7 measures one process after another: start it without a launcher and without --shard")
    with Stages() as stages:
        measurements = Measurements(settings, stages)
        if not (dry_run or settings.merge):
            measurements.work()
    if dry_run:
        print("\n".join(measurements.plan()))
    else:
        table, path = measurements.build(), measurements.run.path
        output.show(table, [*output.write(table, path, figures), f"run          {path}"])


def run(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit code (0 done, 2 bad input, 130 interrupted)."""
    return run_app(app, "interp.benchmark", arguments)


if __name__ == "__main__":
    sys.exit(run())
