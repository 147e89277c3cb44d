"""`python -m interp.calibrate`: which measures can be trusted for what, scored on organisms with known truth.

This file is the command line; `interp.calibrate.score` does the work.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from interp.commands import run_app
from interp.errors import InputError

app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)


@app.command(context_settings={"help_option_names": ["-h", "--help"]})
def main(
    out: Annotated[Path | None, typer.Option(help="Run folder [default: runs/calibration-<shape>-<hash>].")] = None,
    shape: Annotated[str, typer.Option(help="Whose organisms: gpt2, llama or both.")] = "both",
    small: Annotated[bool, typer.Option("--small", help="A few organisms only: minutes instead of an hour.")] = False,
    prompts: Annotated[int, typer.Option(help="Test prompts that each organism is measured on, 12 or more.")] = 27,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the prompts, nulls and intervals.")] = 0,
    make: Annotated[bool, typer.Option("--make", help="Only make the organisms, score nothing.")] = False,
    list_: Annotated[bool, typer.Option("--list", help="Print the organisms and their truths, and stop.")] = False,
    figures: Annotated[bool, typer.Option(help="Draw the figures and the page.")] = True,
) -> None:
    """Score every locator and every erase-or-bypass rule on model organisms whose truth is known by construction.

    Organisms are made once and cached. Thresholds are chosen on one half of the plants and reported on the other. A
    killed run continues when the same command is given again. Exit code 2 means bad input.
    """
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    from interp.calibrate.score import Settings, calibrate, shapes
    from interp.demo.organisms import SMALL, organisms
    from interp.pipeline.progress import Stages
    from interp.runs import fingerprint, source_hash

    wanted = shapes(shape)
    chosen = tuple(o for o in (SMALL if small else organisms()) if o.plant.shape in wanted)
    if not chosen:
        raise InputError(f"--small holds organisms of the GPT-2 shape only, and --shape is {shape}")
    if list_:
        for organism in chosen:
            print(f"{organism.name:44s} {organism.truth:10s} {organism.half}")
        return
    settings = Settings(chosen, prompts, seed)
    with Stages() as stages:
        if make:
            from interp.calibrate.organisms import make_all

            with stages.stage("organisms"):
                make_all(chosen, lambda line: stages.console.print(line, highlight=False, markup=False))
            return
        name = f"calibration-{shape}-{fingerprint([[o.name for o in chosen], prompts, seed, source_hash()])[:8]}"
        folder = out or Path("runs") / name
        calibration = calibrate(settings, folder, stages)
    from interp.calibrate.output import show, write

    told = write(calibration, folder, figures)
    show(calibration, told)


def run(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit code (0 done, 2 bad input, 130 interrupted)."""
    return run_app(app, "interp.calibrate", arguments)


if __name__ == "__main__":
    sys.exit(run())
