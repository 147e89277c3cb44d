"""Fig. 7: peak memory and seconds of every method, each measured in fresh processes of its own, one after another."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from interp.benchmark.arms import check_rows
from interp.benchmark.footprint import CONTROLS, Footprint, rows
from interp.benchmark.settings import ARTEFACTS, Settings
from interp.benchmark.work import slug
from interp.errors import InputError
from interp.pipeline.progress import Stages
from interp.pipeline.study import is_demo, source_stamp
from interp.records import Estimate, Table, TableRow
from interp.runs import Run, fingerprint, source_hash, versions

MIB = 2**20


class Measurements:
    """A run of Fig. 7 that is open: one file for each measurement, so that a killed run keeps them."""

    def __init__(self, settings: Settings, stages: Stages) -> None:
        """Open the run folder.

        Raises:
            InputError: an unknown row, a run folder of other settings.
        """
        self.settings, self.stages = settings, stages
        demo = is_demo(settings)
        check_rows(settings.artefact, settings.methods, rows(demo))
        self.rows = [r for r in rows(demo) if not settings.methods or r in settings.methods or r in CONTROLS]
        config = {
            "settings": settings.identity(),
            "model": source_stamp(settings.model),
            "data": source_stamp(settings.data),
            "versions": versions(),
            "source": source_hash(),
        }
        name = f"{Path(settings.model).name or 'model'}-{settings.artefact}-{fingerprint(config)[:8]}"
        self.run = Run(settings.out if settings.out is not None else Path("runs") / name, config)

    def file(self, row: str, repeat: int) -> str:
        """Where a measurement stands, without ending."""
        return f"units/{slug(row)}/{repeat:04d}"

    def missing(self) -> list[tuple[str, int]]:
        """(row, repeat) still to be measured. The rows take turns: a change of the machine's mood meets all of them."""
        every = [(row, repeat) for repeat in range(self.settings.repeats) for row in self.rows]
        return [(row, n) for row, n in every if not (self.run.path / f"{self.file(row, n)}.jsonl").exists()]

    def work(self) -> None:
        """Measure what is missing. Raises InputError where a method does, or its process dies."""
        missing = self.missing()
        with self.stages.stage("measurements") as report:
            for repeat in range(self.settings.repeats):
                # Nothing trained before counts as free, but an editor is trained once for its two rows.
                with tempfile.TemporaryDirectory(prefix="interp-fig7-") as cache:
                    for row, own in missing:
                        if own == repeat:
                            self.run.save_all(self.file(row, repeat), [self.measured(row, repeat, cache)])
                            report(missing.index((row, own)) + 1, len(missing))

    def measured(self, row: str, repeat: int, cache: str) -> Footprint:
        """One measurement in a fresh process. Raises InputError with what the process said."""
        given = {**vars(self.settings), "out": None, "methods": ()}
        command = [sys.executable, "-m", "interp.benchmark.footprint", row, str(repeat), json.dumps(given)]
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, env={**os.environ, "INTERP_CACHE": cache}
        )
        if done.returncode:
            killed = "killed: out of memory?" if done.returncode < 0 else f"exit code {done.returncode}"
            said = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
            raise InputError(f"{row}: {said}" if done.returncode == 2 else f"{row}: {killed}: {said}")
        return Footprint(**json.loads(done.stdout.splitlines()[-1]))

    def records(self) -> dict[str, list[Footprint]]:
        """Row -> its measurements. Raises InputError, naming them, where some are missing."""
        missing = self.missing()
        if missing:
            named = ", ".join(f"{row} {repeat + 1}" for row, repeat in missing[:6])
            raise InputError(f"{len(missing)} measurements are missing in {self.run.path}: {named}")
        return {
            row: [m for n in range(self.settings.repeats) for m in self.run.load_all(self.file(row, n), Footprint)]
            for row in self.rows
        }

    def plan(self) -> list[str]:
        """What is going to be measured, one line each."""
        missing = self.missing()
        lines = [f"plan of {self.settings.artefact} in {self.run.path}: {self.settings.repeats} processes for each row"]
        for row in self.rows:
            todo = sum(name == row for name, _ in missing)
            lines.append(f"  {row}: {f'{todo} to measure' if todo else 'all done'}")
        return lines

    def build(self) -> Table:
        """The table. Raises InputError where a measurement is missing."""
        found = self.records()
        lines = tuple(
            TableRow(
                row,
                {
                    "peak memory": over([m.peak / MIB for m in ms], "MiB"),
                    "of the weights": over([m.peak / m.weights for m in ms], "x"),
                    "seconds": over([m.seconds for m in ms], "s"),
                },
            )
            for row, ms in found.items()
        )
        any_one = next(iter(found.values()))[0]
        facts = {
            "model": self.settings.model,
            "weights": f"{any_one.weights / MIB:.1f} MiB",
            "data": self.settings.data,
            "processes a row": str(self.settings.repeats),
            "memory of": f"the {any_one.of}",
            "threads": str(any_one.threads),
            "seed": str(self.settings.seed),
            "torch": self.run.config["versions"]["torch"],
            "source": self.run.config["source"],
        }
        notes = (
            "median, smallest, largest of fresh processes; peak above a process that holds the model and ran it once",
            "SFT, DPO, Ext-Sub, ProFS, direction ablation and MEND's training are done once, other rows are an edit",
            "DPO is without the SFT before it",
            "with a small model it is mostly what Python and its libraries allocate: multiples of the weights say "
            "something from some hundred MiB on"
            if any_one.weights < 256 * MIB
            else "",
        )
        columns = tuple(lines[0].cells)
        name = self.settings.artefact
        return Table(name, ARTEFACTS[name], columns, lines, (), facts, tuple(n for n in notes if n))


def over(values: Sequence[float], unit: str) -> Estimate:
    """Median, with the smallest and the largest."""
    return Estimate(
        statistics.median(values), min(values), max(values), len(values), unit, "median, smallest to largest"
    )
