"""Do the units of a benchmark that are not done yet: alone, as a shard, or as one of several processes."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

from filelock import FileLock

from interp.benchmark.arms import Arm, arms
from interp.benchmark.design import Design, broken, design
from interp.benchmark.settings import Settings
from interp.benchmark.work import (
    Bench,
    Cost,
    EditNote,
    Located,
    Unit,
    answer,
    cost_of,
    edit_and_answer,
    locate,
    slug,
    units,
)
from interp.demo import world
from interp.edits import WeightEdit
from interp.errors import InputError
from interp.evaluation import Moved, with_files
from interp.methods.base import Detoxified
from interp.models import HookedModel
from interp.pipeline.progress import Report, Stages
from interp.pipeline.study import CONVENTIONS, digest, is_demo, judges_for, open_model, source_stamp
from interp.records import Instance, Response, Summary, Verdict
from interp.runs import Run, fingerprint, read_json, source_hash, versions, write_json
from interp.safeedit import Benchmark, load

WAIT = timedelta(days=30)
"""How long processes wait for each other: the slowest may train for hours."""


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
        """Until all processes are here. Those of shards started by hand do not know each other: they never wait."""
        if self.state is not None:
            self.state.wait_for_everyone()


def share(settings: Settings) -> Share:
    """By `--shard`, or as `accelerate launch` (or torchrun) says, or all of it.

    Raises:
        InputError: both of them.
    """
    launched = int(os.environ.get("WORLD_SIZE", "1")) > 1
    if settings.shard is not None:
        if launched:
            raise InputError("--shard is for processes started by hand: leave it out where a launcher starts several")
        return Share(*settings.shard)
    if not launched:
        return Share()
    import torch
    from accelerate import PartialState

    state = PartialState(cpu=settings.device == "cpu" or not torch.cuda.is_available(), timeout=WAIT)
    return Share(state.process_index, state.num_processes, state)


class Engine:
    """A benchmark that is open: its data, its vanilla model, and the arms it has."""

    def __init__(self, settings: Settings, share: Share, stages: Stages) -> None:
        """Open data, model and run folder.

        Raises:
            InputError: anything in the settings, data or model that cannot be used; a run folder of other settings.
        """
        self.settings, self.share, self.stages = settings, share, stages
        self.locating = settings.artefact == "layers"
        with stages.stage("data and model"):
            self.benchmark = open_data(settings)
            here = settings
            if share.state is not None and settings.device == "auto":
                here = replace(settings, device=str(share.state.device))
            vanilla = open_model(here, settings.model, "vanilla")
            demo = is_demo(settings)
            self.design = design(settings, self.benchmark, demo)
            self.arms = arms(settings.artefact, demo, vanilla.n_layers, settings.seed, settings.methods)
            path, config = identify(settings, self.benchmark, vanilla, self.design)
            usage = path / "usage.jsonl"
            judges = () if self.locating else judges_for(settings, self.benchmark, vanilla, usage)
            if settings.merge and not (path / "config.json").exists():
                raise InputError(f"--merge: expected a run folder, got {path}, which holds no run (no config.json)")
            run = Run(path, config)  # behind all that can be refused
        self.bench = Bench(
            run,
            self.benchmark,
            vanilla,
            judge=judges[0] if judges else None,
            design=self.design,
            batch=settings.batch,
            max_new_tokens=settings.max_new_tokens,
            seed=settings.seed,
            others=judges[1:],
            delta_memory=settings.delta_bytes,
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
        if self.settings.shard is not None:
            index, count = self.settings.shard
            write_json(self._shard(index, count), {"shard": index + 1, "of": count})
        for arm in self.arms:
            mine = [u for u in self.missing(arm) if u.index % self.share.count == self.share.index]
            with self.stages.stage(arm.name) as report:
                self._arm(arm, mine, report)
                if self.design.broken_only and not arm.edits:
                    # What the edits are asked depends on all that vanilla answered. A shard started by hand cannot
                    # wait for the others: it does what is missing itself, with the same bytes.
                    self.share.wait()
                    self._arm(arm, self.missing(arm), report)

    def _arm(self, arm: Arm, mine: list[Unit], report: Report) -> None:
        if not mine:
            return
        if self.locating:
            for done, unit in enumerate(mine, start=1):
                locate(self.bench, unit, CONVENTIONS[arm.name])
                report(done, len(mine))
        elif arm.edits:
            ready, chosen = self._prepared(arm), self.broken() if self.design.broken_only else []
            for done, unit in enumerate(mine, start=1):
                edit_and_answer(self.bench, replace(unit, arm=ready), chosen)
                report(done, len(mine))
        else:
            made, vanilla = self._made(arm), self.bench.vanilla
            with opened(made, vanilla) as model:
                for done, unit in enumerate(mine, start=1):
                    answer(self.bench, unit, model, made)
                    report(done, len(mine))

    def _prepared(self, arm: Arm) -> Arm:
        """The arm ready to edit: MEND trains its editor first, once for all processes (its cache is locked)."""
        prepare = getattr(arm.method, "prepare", None)
        if prepare is None:
            return arm
        ready = prepare(self.bench.vanilla, self._train(arm), self.benchmark.val)
        log = ready.training_log()
        self._same_training(arm, {name: log[name] for name in ("train", "val")})
        return replace(arm, method=ready)

    def _made(self, arm: Arm) -> Detoxified | None:
        """What an arm's method made of vanilla: by the first process that needs it, then from the cache or the run."""
        method = arm.method
        if method is None:
            return None
        file = self._kept(arm, ".safetensors")
        with self._lock(arm):
            if file.exists():  # written after its notes
                said = read_json(self._kept(arm, ".json"))
                return Detoxified(method.name, WeightEdit.load(file), suffix=said["suffix"], prefix=said["prefix"])
            data = self._train(arm) if method.needs == "the train split" else None
            made = method.detoxify(self.bench.vanilla, data)
            if made.edit is not None:
                said = {"suffix": made.suffix, "prefix": made.prefix, "log": plain(made.log)}
                write_json(self._kept(arm, ".json"), said)
                made.edit.save(file)
        if made.checkpoint is not None:
            self._same_training(arm, made.log["weight_hash"])
        return made

    def _same_training(self, arm: Arm, result: Any) -> None:
        """Keep what a training ended with; raise InputError where it was trained again since, and ended elsewhere."""
        file, stamp = self._kept(arm, ".trained.json"), fingerprint(result)
        with self._lock(arm):
            if not file.exists():
                write_json(file, stamp)
            elif read_json(file) != stamp:
                raise InputError(
                    f"{arm.name} was trained again since this run began and is not the same (the cache was emptied, or "
                    f"another machine took part): delete {self.run.path} and start again"
                )

    def _kept(self, arm: Arm, ending: str) -> Path:
        return self.run.path / "made" / f"{slug(arm.name)}{ending}"

    def _lock(self, arm: Arm) -> FileLock:
        """Held by the one process that makes what an arm needs; a process that dies lets go of it."""
        file = self._kept(arm, ".lock")
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"cannot write {file}: {error.strerror or error}") from error
        return FileLock(file)

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
            raise InputError(
                f"{len(lacking)} units are missing in {self.run.path}: {named}{more}; {self._remedy(lacking)}"
            )

    def _shard(self, index: int, count: int) -> Path:
        """The file that says that a shard was started by hand."""
        return self.run.path / "shards" / f"{index + 1}-of-{count}.json"

    def _remedy(self, lacking: Sequence[Unit]) -> str:
        """What does the missing units: shards, where the run was shared out by hand."""
        counts = {read_json(file)["of"] for file in sorted(self.run.path.glob("shards/*-of-*.json"))}
        if not counts:
            return "run the same command without --merge"
        count = max(counts)  # shares of any count hold every unit
        missing = ", ".join(f"{i + 1}/{count}" for i in sorted({u.index % count for u in lacking}))
        return f"run --shard {missing}, or the same command without --merge"

    def responses(self, arm: Arm) -> list[Response]:
        """Every response of an arm, in the order of its units."""
        return [r for unit in self.units(arm) for r in self.run.load_all(unit.file, Response)]

    def records(self, arm: Arm) -> list[Any]:
        """All that the units of an arm hold: responses, or located layers."""
        return self.located(arm) if self.locating else self.responses(arm)

    def moved(self, arm: Arm) -> list[Moved]:
        """How far vanilla's harmless answers moved in an arm."""
        return [m for unit in self.units(arm) for m in self.run.load_all(f"{unit.file}.moved", Moved)]

    def opinions(self) -> dict[str, list[Verdict]]:
        """What each judge says of each response of every arm, in order; {} where there is one judge."""
        if not self.bench.others or self.bench.judge is None:
            return {}
        every = [unit for arm in self.arms for unit in self.units(arm)]
        first = [r.verdict for arm in self.arms for r in self.responses(arm) if r.verdict is not None]
        more = {
            judge.name: [v for unit in every for v in self.run.load_all(f"{unit.file}.judge-{index}", Verdict)]
            for index, judge in enumerate(self.bench.others, start=2)
        }
        return {self.bench.judge.name: first, **more}

    def notes(self, arm: Arm) -> list[EditNote]:
        """What the edits of an arm are."""
        return [n for unit in self.units(arm) for n in self.run.load_all(f"{unit.file}.edits", EditNote)]

    def located(self, arm: Arm) -> list[Located]:
        """The layers of a convention."""
        return [n for unit in self.units(arm) for n in self.run.load_all(unit.file, Located)]

    def cost(self, arm: Arm) -> Cost:
        """What all units of an arm took together."""
        total = Cost()
        for cost in (cost_of(self.run, unit) for unit in self.units(arm)):
            total.cut += cost.cut
            for stage, took in cost.seconds.items():
                total.seconds[stage] = total.seconds.get(stage, 0.0) + took
        return total

    def broken(self) -> list[int]:
        """Ids of the instances whose prompt broke vanilla (Table 11). Raises InputError where there are none."""
        found = broken(self.responses(self.arms[0]), self.design.asked)
        if not found:
            raise InputError(f"none of {len(self.design.asked)} prompts broke {self.settings.model}: nothing to ask")
        return found


@contextmanager
def opened(made: Detoxified | None, vanilla: HookedModel) -> Iterator[HookedModel]:
    """What a method made of vanilla, as a model beside it: vanilla itself stays what the row is held against.

    Raises as `Detoxified.applied`.
    """
    if made is None:
        yield vanilla
    elif made.edit is not None:
        yield made.edit.beside(vanilla)
    else:
        with made.applied(vanilla) as model:
            yield model


def open_data(settings: Settings) -> Benchmark:
    """The benchmark, with what general items are read from files. Raises InputError as `load` and `with_files`."""
    benchmark = with_files(load(settings.data), settings.kqa, settings.csum, settings.xstest)
    if benchmark.planted and not benchmark.summaries:
        return replace(benchmark, summaries=tuple(Summary(s.prompt, s.answer) for s in world.summaries()))
    return benchmark


def identify(
    settings: Settings, benchmark: Benchmark, vanilla: HookedModel, plan: Design
) -> tuple[Path, dict[str, Any]]:
    """The run folder of exactly this benchmark, and what makes it this one."""
    config = {
        "settings": settings.identity(),
        "model": vanilla.weight_hash(),
        "runs on": f"{vanilla.device.type}, {str(vanilla.dtype).removeprefix('torch.')}",
        "data": digest(
            [
                (*plan.edited, *plan.asked),
                benchmark.train,
                benchmark.val,
                benchmark.facts,
                benchmark.benign,
                benchmark.summaries,
            ]
        ),
        "judges": [source_stamp(name) for name in settings.judge],
        "versions": versions(),
        "source": source_hash(),
    }
    name = f"{Path(settings.model).name or 'model'}-{settings.artefact}-{fingerprint(config)[:8]}"
    return settings.out if settings.out is not None else Path("runs") / name, config


def plain(log: Any) -> Any:
    """A log as JSON holds it: what is not text, number, list or table becomes text."""
    if isinstance(log, dict):
        return {str(k): plain(v) for k, v in log.items()}
    if isinstance(log, list | tuple):
        return [plain(v) for v in log]
    return log if isinstance(log, str | int | float | bool) or log is None else str(log)
