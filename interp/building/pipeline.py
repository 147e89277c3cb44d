"""The build, in order: parts, generators, cases, responses, quality control, files; read `build` as a contents page."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from interp.building import attacks as step2
from interp.building import knowledge as step4
from interp.building import questions as step1
from interp.building.attacks import AttackTemplate
from interp.building.card import make_card, render, sha256
from interp.building.generators import Generator, Report, open_budget, open_generators, safe_query
from interp.building.plan import Case, cases
from interp.building.quality import (
    Outcome,
    apply_decisions,
    fate,
    problem,
    safe_id,
    safe_responses,
    unsafe_id,
    unsafe_responses,
)
from interp.building.questions import HarmfulQuestion
from interp.building.review import REVIEW, check_known, decisions_for, write_review
from interp.building.settings import DEMO, GENERATE, BuildSettings
from interp.building.splitting import Pools, split_pools
from interp.building.store import answering, judging
from interp.endpoint import Budget
from interp.errors import InputError
from interp.judges import Judge
from interp.judges import load as load_judge
from interp.records import Instance, Knowledge, to_dict
from interp.runs import Run, fingerprint, source_hash, versions, write_json, write_text
from interp.safeedit import SPLITS, load, save

CARD = "card.json"


@runtime_checkable
class Stages(Protocol):
    """What shows progress: `stage` yields a function to call with (done, total)."""

    def stage(self, name: str) -> AbstractContextManager[Report]:
        """Show a stage while the block runs."""
        ...


class Silent:
    """Shows nothing."""

    @contextmanager
    def stage(self, name: str) -> Iterator[Report]:
        """No output."""
        yield lambda done, total: None


def build(settings: BuildSettings, stages: Stages | None = None) -> dict[str, Any]:
    """Build a benchmark, or finish one that was killed; returns its card.

    Writes `SafeEdit_<split>.json`, `card.json`, `CARD.md` and `review.csv` into `settings.out`; the same settings give
    the same bytes, however often the build was interrupted.

    Raises:
        InputError: anything in the settings, files, models or endpoint that cannot be used. What was answered stays.
    """
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    stages = stages or Silent()
    with stages.stage("questions, attacks, knowledge"):
        decisions = decisions_for(settings.out, settings.review)
        questions, attacks, knowledge = read_parts(settings)
        if questions is not None:
            pools = make_pools(settings, questions, attacks)  # refused here, before a model is opened
    with stages.stage("models and judge"):
        budget = open_budget(settings)
        generators = open_generators(settings, budget)
        judge = open_judge(settings, budget)
        # Last: a model or judge that cannot be opened leaves no folder that is taken for another build.
        run = Run(settings.out, describe(settings, generators, judge, questions, attacks, knowledge))
    if questions is None:
        with stages.stage("writing questions") as report:
            questions = write_questions(settings, run, generators["question"], report)
            pools = make_pools(settings, questions, attacks)
    planned = cases(pools, knowledge, settings.categories, settings.seed, settings.limit)
    with stages.stage("safe responses") as report:
        verdicts = judging(run, judge)
        answer = answering(run, "safe", generators["safe"], report)
        safe = safe_responses(planned, lambda q: safe_query(q, settings), answer, verdicts)
    with stages.stage("unsafe responses") as report:
        answer = answering(run, "unsafe", generators["unsafe"], report)
        unsafe = unsafe_responses(planned, settings.attempts, answer, verdicts)
    with stages.stage("review and files"):
        check_known(decisions, [*safe.rejected, *unsafe.rejected], settings.review)
        agreed = 0
        for outcome in (safe, unsafe):
            apply_decisions(outcome, decisions)
            corrections = [r.text for r in outcome.accepted.values() if r.origin == "correction"]
            agreed += sum(not problem(outcome.kind, v) for v in verdicts(corrections))
        splits = assemble(planned, safe, unsafe)
        notes = [*pools.notes, *_notes(settings, questions)]
        card = make_card(run.config, planned, splits, (unsafe, safe), decisions, judge, agreed, notes)
        rejected = [*unsafe.rejected.values(), *safe.rejected.values()]
        fates = {i: fate(outcome, i) for outcome in (unsafe, safe) for i in outcome.rejected}
        write_review(settings.out / REVIEW, rejected, fates, decisions)
        return write(settings.out, splits, card)


def read_parts(
    settings: BuildSettings,
) -> tuple[list[HarmfulQuestion] | None, list[AttackTemplate], list[Knowledge]]:
    """Questions (None where they are still to be written), attack templates and knowledge pairs.

    Raises:
        InputError: as the readers.
    """
    questions = None
    if settings.questions != GENERATE:
        questions = step1.demo_questions() if settings.questions == DEMO else step1.read_questions(settings.questions)
        questions = [q for q in questions if q.category in settings.categories]
    attacks = step2.demo_attacks() if settings.attacks == DEMO else step2.read_attacks(settings.attacks)
    knowledge = step4.demo_knowledge() if settings.knowledge == DEMO else step4.read_knowledge(settings.knowledge)
    return questions, attacks, knowledge


def make_pools(settings: BuildSettings, questions: list[HarmfulQuestion], attacks: list[AttackTemplate]) -> Pools:
    """The distinct questions and the attacks by split. Raises InputError as `split_pools`."""
    return split_pools(step1.distinct(questions), attacks, settings.categories, settings.seed)


def write_questions(settings: BuildSettings, run: Run, generator: Generator, report: Report) -> list[HarmfulQuestion]:
    """Questions by the question model. Raises InputError as `generate_questions`."""
    answer = answering(run, "questions", generator, report)
    return step1.generate_questions(
        settings.categories, _descriptions(settings), settings.questions_per_category, answer
    )


def _descriptions(settings: BuildSettings) -> dict[str, str]:
    given = step1.read_descriptions(settings.descriptions) if settings.descriptions is not None else {}
    return step1.DESCRIPTIONS | given


def open_judge(settings: BuildSettings, budget: Budget | None = None) -> Judge:
    """The judge by name; "auto" is the demo's for a demo build, else SafeEdit's. Raises InputError as `judges.load`.

    Args:
        budget: of the build; a judge behind the endpoint spends from the same.
    """
    name = ("demo" if settings.is_demo else "safeedit") if settings.judge == "auto" else settings.judge
    device = "cpu"
    if name != DEMO and not settings.is_endpoint_judge:
        import torch

        device = "cuda" if torch.cuda.is_available() else "cpu"
    judge = load_judge(
        name,
        load("demo") if name == DEMO else load("demo", "test_ALL"),
        safe_label=settings.safe_label or None,
        device=device,
        endpoint=settings.endpoint,
        usage=budget.file if budget is not None else None,
    )
    client = getattr(judge, "client", None)
    if client is not None and budget is not None:
        client.budget = budget  # two counts of one file would each allow the whole
    return judge


def judge_identity(judge: Judge) -> dict[str, Any]:
    """What decides a judge's verdicts besides the source: its weights and vocabulary, or what the endpoint is asked."""
    identity: dict[str, Any] = {"name": _public(judge.name)}
    client = getattr(judge, "client", None)
    if client is not None:
        return identity | {"endpoint": client.identity}
    model: Any = getattr(judge, "model", judge)  # a guard holds a model, a classifier its parts
    if hasattr(model, "hf"):
        from interp.models import tensor_digest

        weights = hashlib.sha256()
        for name, tensor in model.hf.state_dict().items():
            weights.update(name.encode() + tensor_digest(tensor))
        identity["weights"] = weights.hexdigest()[:16]
        identity["tokenizer"] = fingerprint([model.tokenizer.get_vocab(), model.tokenizer.chat_template])
    return identity | {k: getattr(judge, k) for k in ("safe_label", "window", "threshold") if hasattr(judge, k)}


def describe(
    settings: BuildSettings,
    generators: Mapping[str, Generator],
    judge: Judge,
    questions: list[HarmfulQuestion] | None,
    attacks: list[AttackTemplate],
    knowledge: list[Knowledge],
) -> dict[str, Any]:
    """All that decides the bytes of a build: its identity. Files by name and content, never by their place."""
    asked: Any = questions if questions is not None else [_descriptions(settings), settings.questions_per_category]
    return {
        "questions": _source(settings.questions, asked),
        "attacks": _source(settings.attacks, attacks),
        "knowledge": _source(settings.knowledge, [to_dict(k) for k in knowledge]),
        "categories": list(settings.categories),
        "generators": {role: generator.identity for role, generator in generators.items()},
        "instruction": settings.instruction,
        "judge": judge_identity(judge),
        "attempts": settings.attempts,
        "limit": settings.limit,
        "seed": settings.seed,
        "versions": versions(),
        "source": source_hash(),
    }


def _source(name: str, content: Any) -> dict[str, Any]:
    return {"source": _public(name), "digest": fingerprint(content)}


def _public(name: str) -> str:
    return Path(name).name if Path(name).exists() else name


def assemble(planned: list[Case], safe: Outcome, unsafe: Outcome) -> dict[str, list[Instance]]:
    """The instances of each split that have both responses; a split without any is not there."""
    splits: dict[str, list[Instance]] = {}
    for split in SPLITS:
        found = [
            case.instance(safe.accepted[safe_id(case)].text, unsafe.accepted[unsafe_id(case)].text)
            for case in planned
            if case.split == split and safe_id(case) in safe.accepted and unsafe_id(case) in unsafe.accepted
        ]
        if found:
            splits[split] = found
    return splits


def _notes(settings: BuildSettings, questions: list[HarmfulQuestion]) -> list[str]:
    notes = []
    repeats = len(questions) - len(step1.distinct(questions))
    if repeats:
        notes.append(f"{repeats} questions were repeats of others and left out")
    if settings.is_demo:
        notes.append("Questions and answers are the demo world's: its behaviour is planted, nothing here is a finding")
    if settings.limit is not None:
        notes.append(f"limited to {settings.limit} instances a split")
    return notes


def write(out: Path, splits: Mapping[str, list[Instance]], card: dict[str, Any]) -> dict[str, Any]:
    """Write the benchmark and its card, the card last; returns the card with the files' digests.

    Raises:
        InputError: a file cannot be written, or quality control left nothing.
    """
    if not splits:
        raise InputError(f"quality control left no instance; see {out / REVIEW}")
    for split, instances in splits.items():
        save(instances, out / f"SafeEdit_{split}.json")
    card = card | {"files": {f"SafeEdit_{split}.json": sha256(out / f"SafeEdit_{split}.json") for split in splits}}
    write_text(out / "CARD.md", render(card, "A benchmark in SafeEdit's layout"))
    write_json(out / CARD, card)
    return card
