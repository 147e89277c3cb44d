"""Do the units of a benchmark that are not done yet: alone, as a shard, or as one of several processes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from interp.benchmark.arms import Arm, arms
from interp.benchmark.design import Design, broken, design
from interp.benchmark.settings import Settings
from interp.benchmark.work import (
    Bench,
    EditNote,
    Located,
    Unit,
    answer,
    edit_and_answer,
    locate,
    opened,
    slug,
    units,
)
from interp.edits import WeightEdit
from interp.errors import InputError
from interp.methods.base import Detoxified
from interp.models import HookedModel
from interp.pipeline import Settings as Comparison
from interp.pipeline.progress import Report, Stages
from interp.pipeline.study import CONVENTIONS, digest, is_demo, judge_for, open_model
from interp.records import Instance, Response
from interp.runs import Run, fingerprint, read_json, source_hash, versions, write_json
from interp.safeedit import Benchmark, load


@dataclass(frozen=True)
class Share:
    """Which part of the work is this process's: units index, index + count, ..."""

    index: int = 0
    count: int = 1
    state: Any = None
    """accelerate's PartialState where it started several processes."""

    @property
    def first(self) -> bool:
        """Whether this process does what only one may do."""
        return self.state is None or self.index == 0

    def wait(self) -> None:
        """Until all processes are here."""
        if self.state is not None:
            self.state.wait_for_everyone()

    @contextmanager
    def first_first(self) -> Iterator[None]:
        """The first process runs the block before the others do."""
        with nullcontext() if self.state is None else self.state.main_process_first():
            yield


def share(settings: Settings) -> Share:
    """By `--shard`, or as `accelerate launch` (or torchrun) says, or all of it."""
    if settings.shard is not None:
        return Share(*settings.shard)
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        from accelerate import PartialState

        state = PartialState(cpu=settings.device == "cpu")
        return Share(state.process_index, state.num_processes, state)
    return Share()


class Engine:
    """A benchmark that is open: its data, its vanilla model, and the arms it has."""

    def __init__(self, settings: Settings, stages: Stages) -> None:
        """Open data, model and run folder.

        Raises:
            InputError: anything in the settings, data or model that cannot be used; a run folder of other settings.
        """
        self.settings, self.stages, self.share = settings, stages, share(settings)
        with stages.stage("data and model"):
            self.benchmark = load(settings.data)
            like = compare_settings(settings)
            if self.share.state is not None and settings.device == "auto":
                like = replace(like, device=str(self.share.state.device))
            vanilla = open_model(like, settings.model, "vanilla")
            demo = is_demo(like)
            self.design = design(settings, self.benchmark, demo)
            self.arms = arms(settings.artefact, demo, vanilla.n_layers, settings.seed, settings.methods)
            with self.share.first_first():
                run = open_run(settings, self.benchmark, vanilla, self.design)
        self.locating = settings.artefact == "layers"
        if self.locating:
            self.arms = [Arm(name) for name in CONVENTIONS]
        self.bench = Bench(
            run,
            self.benchmark,
            vanilla,
            judge=None if self.locating else judge_for(like, self.benchmark, vanilla),  # type: ignore[arg-type]
            design=self.design,
            batch=settings.batch,
            max_new_tokens=settings.max_new_tokens,
            seed=settings.seed,
        )

    @property
    def run(self) -> Run:
        """The run folder."""
        return self.bench.run

    def units(self, arm: Arm) -> list[Unit]:
        """Every unit of an arm."""
        return units(arm, self.design, self.settings.block)

    def missing(self, arm: Arm) -> list[Unit]:
        """Units of an arm that nobody has done yet."""
        return [unit for unit in self.units(arm) if not unit.done(self.run)]

    # ------------------------------------------------------------------------------------- working
    def work(self) -> None:
        """Do this process's share of every arm, vanilla first."""
        for arm in self.arms:
            every = self.units(arm)
            mine = [u for u in every if u.index % self.share.count == self.share.index and not u.done(self.run)]
            if self.design.broken_only and arm.edits:
                self.share.wait()  # what edits are asked depends on all that vanilla answered
                lacking = self.missing(self.arms[0])
                if mine and lacking:
                    raise InputError(
                        f"{arm.name} is asked what broke vanilla, and vanilla lacks {len(lacking)} of "
                        f"{len(self.units(self.arms[0]))} units: run the other shards first, then this one again"
                    )
            with self.stages.stage(arm.name) as report:
                self._arm(arm, mine, report)

    def _arm(self, arm: Arm, mine: list[Unit], report: Report) -> None:
        if self.locating:
            for done, unit in enumerate(mine, start=1):
                locate(self.bench, unit, CONVENTIONS[arm.name])
                report(done, len(mine))
            return
        # Whoever has nothing left to do takes part all the same: the first process makes, the others wait for it.
        with self.share.first_first():
            arm, made = self._made(arm, needed=bool(mine))
        if not mine:
            return
        if arm.edits:
            chosen = self.broken() if self.design.broken_only else []
            for done, unit in enumerate(mine, start=1):
                edit_and_answer(self.bench, replace(unit, arm=arm), chosen)
                report(done, len(mine))
            return
        with opened(self.bench, made) as model:
            for done, unit in enumerate(mine, start=1):
                answer(self.bench, unit, model, made)
                report(done, len(mine))

    def _made(self, arm: Arm, needed: bool) -> tuple[Arm, Detoxified | None]:
        """The arm ready to edit, and what its method made of vanilla: trained once, then from the cache or the run."""
        method = arm.method
        if method is None or not (needed or self.missing(arm)):
            return arm, None
        if arm.edits:
            prepare = getattr(method, "prepare", None)  # MEND trains its editor first
            if prepare is None:
                return arm, None
            ready = prepare(self.bench.vanilla, self._train(arm), self.benchmark.val)
            return replace(arm, method=ready), None
        file = self.run.path / "made" / f"{slug(arm.name)}.safetensors"
        notes = self.run.path / "made" / f"{slug(arm.name)}.json"
        if file.exists() and notes.exists():
            said = read_json(notes)
            return arm, Detoxified(
                method.name, WeightEdit.load(file), suffix=said["suffix"], prefix=said["prefix"], log=said["log"]
            )
        data = self._train(arm) if method.needs == "the train split" else None
        made = method.detoxify(self.bench.vanilla, data)
        if made.edit is not None:
            write_json(notes, {"suffix": made.suffix, "prefix": made.prefix, "log": plain(made.log)})
            made.edit.save(file)
        return arm, made

    def _train(self, arm: Arm) -> tuple[Instance, ...]:
        if not self.benchmark.train:
            raise InputError(
                f"{arm.name} needs a train split, and {self.benchmark.name} has none: leave it out (--row)"
            )
        return self.benchmark.train

    # ------------------------------------------------------------------------------------- results
    def check_complete(self) -> None:
        """Raise InputError, naming what is missing, where not every unit is done."""
        lacking = [u for arm in self.arms for u in self.missing(arm)]
        if lacking:
            named = ", ".join(f"{u.arm.name} block {u.index}" for u in lacking[:6])
            more = f" and {len(lacking) - 6} more" if len(lacking) > 6 else ""
            raise InputError(f"{len(lacking)} units are missing in {self.run.path}: {named}{more}; run their shards")

    def responses(self, arm: Arm) -> list[Response]:
        """Every response of an arm, in the order of its units."""
        return [r for unit in self.units(arm) for r in self.run.load_all(unit.file, Response)]

    def records(self, arm: Arm) -> list[Any]:
        """All that the units of an arm hold: responses, or located layers."""
        return self.located(arm) if self.locating else self.responses(arm)

    def notes(self, arm: Arm) -> list[EditNote]:
        """What the edits of an arm are."""
        return [n for unit in self.units(arm) for n in self.run.load_all(f"{unit.file}.edits", EditNote)]

    def located(self, arm: Arm) -> list[Located]:
        """The layers of a convention."""
        return [n for unit in self.units(arm) for n in self.run.load_all(unit.file, Located)]

    def seconds(self, arm: Arm) -> dict[str, float]:
        """Seconds of all units of an arm by stage."""
        total: dict[str, float] = {}
        for unit in self.units(arm):
            file = self.run.path / f"timings/{slug(arm.name)}/{unit.index:04d}.json"
            for stage, took in (read_json(file) if file.exists() else {}).items():
                total[stage] = total.get(stage, 0.0) + took
        return total

    def broken(self) -> list[int]:
        """Ids of the instances whose prompt broke vanilla (Table 11)."""
        return list(broken(self.responses(self.arms[0]), self.design.asked))


def compare_settings(settings: Settings) -> Comparison:
    """The settings that opening a model and a judge reads."""
    return Comparison(
        methods=(),
        model=settings.model,
        data=settings.data,
        seed=settings.seed,
        judge=settings.judge,
        judge_safe_label=settings.judge_safe_label,
        dtype=settings.dtype,
        device=settings.device,
        device_map=settings.device_map,
        chat_template=settings.chat_template,
    )


def open_run(settings: Settings, benchmark: Benchmark, vanilla: HookedModel, plan: Design) -> Run:
    """The run folder of exactly this benchmark. Raises InputError as `Run`."""
    config = {
        "settings": settings.identity(),
        "model": vanilla.weight_hash(),
        "data": digest([i.__dict__ for i in (*plan.edited, *plan.asked, *benchmark.train)]),
        "versions": versions(),
        "source": source_hash(),
    }
    name = f"{Path(settings.model).name or 'model'}-{settings.artefact}-{fingerprint(config)[:8]}"
    return Run(settings.out if settings.out is not None else Path("runs") / name, config)


def plain(log: Any) -> Any:
    """A log as JSON holds it: what is not text, number, list or table becomes text."""
    if isinstance(log, dict):
        return {str(k): plain(v) for k, v in log.items()}
    if isinstance(log, list | tuple):
        return [plain(v) for v in log]
    return log if isinstance(log, str | int | float | bool) or log is None else str(log)
