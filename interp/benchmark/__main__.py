"""`python -m interp.benchmark table1`: a table of the paper on the demo, or on any model and data.

This file is the command line; `interp.benchmark.engine` does the work.
"""

from __future__ import annotations

import os
from typing import Annotated

import typer

from interp.benchmark.settings import ALIASES, ARTEFACTS, Settings, parse_shard
from interp.commands import run_app, run_as_process
from interp.errors import InputError
from interp.options import Shared, takes_shared

app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
WHAT = "What to make: " + "; ".join(f"{name} ({what})" for name, what in ARTEFACTS.items()) + "; table14 is table3."


@app.command(context_settings={"help_option_names": ["-h", "--help"]})
@takes_shared
def main(
    artefact: Annotated[str, typer.Argument(help=WHAT, show_default=False)],
    shared: Shared,
    limit: Annotated[
        int | None, typer.Option("--limit", min=2, help="Test instances [default: all; on the demo some, see README].")
    ] = None,
    row: Annotated[list[str] | None, typer.Option("--row", help="Only this row besides vanilla; repeat.")] = None,
    block: Annotated[int, typer.Option(min=1, help="Instances in a unit of work.")] = 18,
    repeats: Annotated[int, typer.Option(min=1, help="Processes that measure each row of fig7.")] = 3,
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
        ALIASES.get(artefact, artefact),
        instances=limit,
        methods=tuple(row or ()),
        block=block,
        repeats=repeats,
        shard=parse_shard(shard),
        merge=merge,
        **vars(shared),
    )
    if settings.artefact == "fig7":
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
    run_as_process(run)
