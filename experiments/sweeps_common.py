"""What the sweeps share: open the demo's val split, let one be measured, write the record, say what was chosen."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from interp.errors import InputError
from interp.runs import git_commit, versions, write_json

if TYPE_CHECKING:
    from interp.models import HookedModel
    from interp.safeedit import Benchmark

RESULTS = Path(__file__).parent / "results"


def write(
    sweep: Callable[[HookedModel, Benchmark], dict[str, Any]],
    out: Path,
    *,
    n: dict[str, int],
    threads: int,
    model: str = "demo",
    **more: Any,
) -> None:
    """Measure a sweep and write its record; exit with 2 and one line for bad input.

    Args:
        sweep: (model, benchmark without its test splits) -> rule, chosen settings, rows; its cache is its own.
        n: what was asked of each setting.
        model: the demo, or a checkpoint of its shape.
        more: goes into the record.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        import torch

        from interp import safeedit
        from interp.demo import world
        from interp.models import HookedModel

        torch.set_num_threads(threads)
        started, cpu = time.perf_counter(), time.process_time()
        opened = HookedModel.from_pretrained(model, device="cpu", name="demo")
        benchmark = replace(safeedit.load("demo"), benign=world.benign("val"), test=(), test_all=())
        with tempfile.TemporaryDirectory() as folder:
            os.environ["INTERP_CACHE"] = folder  # cached seconds would be another day's, and the cache is the user's
            found = sweep(opened, benchmark)
        record = {
            "model": opened.name,
            "weight_hash": opened.weight_hash(),
            "data": "demo, train and val splits, benign how-tos of val",
            "planted": True,
            "n": n,
            **more,
            **found,
            "versions": versions(),
            "commit": git_commit(),
            "threads": threads,
            "minutes": round((time.perf_counter() - started) / 60, 2),
            "cpu_minutes": round((time.process_time() - cpu) / 60, 2),
        }
        write_json(out, record)
    except InputError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(2) from None
    for name, settings in record["chosen"].items():
        typer.echo(f"chosen: {name} {settings}")
    typer.echo(f"{out}: {record['minutes']} minutes, {record['cpu_minutes']} of a CPU")


def cost(general: dict[str, Any], vanilla_kqa: float) -> float:
    """What the rule of both sweeps takes off DG-Avg: over-refusal (mean of bare and wrapped) and lost knowledge, in
    percentage points."""
    over = (general["over_refusal"]["value"] + general["over_refusal_wrapped"]["value"]) / 2
    return over + max(0.0, vanilla_kqa - general["kqa"]["value"])
