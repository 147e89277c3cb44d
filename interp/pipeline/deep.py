"""`--deep`: every analysis of the laboratory on every model, one model in memory at a time beside vanilla.

What an analysis finds in a model is written as it comes (`deep/<analysis>-<model>.json`) and read back by a resumed
run; `deep/<analysis>.json` holds all models side by side. An analysis that cannot be done is told in one line, and the
others go on. Nothing here draws.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

from interp.edits import WeightEdit
from interp.errors import InputError
from interp.mechanism.deep import ANALYSES
from interp.mechanism.lab import Analysis, Lab, Subject, merge
from interp.mechanism.robustness import sequential_survival
from interp.models import HookedModel
from interp.pipeline import edited
from interp.pipeline.run import method_config, trained
from interp.pipeline.settings import Spec
from interp.pipeline.study import Study, open_given
from interp.records import Finding, Instance, dumps, loads
from interp.runs import write_text

TRAIN = 200
"""Training instances that directions, attacks and fine-tunes may learn from."""


@dataclass(frozen=True)
class Deep:
    """What the laboratory found."""

    findings: tuple[Finding, ...] = ()
    told: tuple[str, ...] = ()
    """One line for each analysis that could not be done."""


def look(study: Study, analyses: Sequence[Analysis] | None = None, *, sequential: bool = True) -> Deep:
    """Run every analysis on vanilla and on every row of the comparison.

    Args:
        study: the finished comparison.
        analyses: which; default all.
        sequential: also edit vanilla again and again with DINM, where DINM is compared.

    Raises:
        InputError: a model cannot be opened again, a record cannot be written or is damaged.
    """
    analyses = ANALYSES if analyses is None else analyses
    lab = lab_of(study)
    vanilla = Subject("vanilla", study.vanilla, lab)
    failed: dict[str, str] = {}
    _measure(study, analyses, vanilla, vanilla, failed)
    for spec in study.settings.specs():
        if all(_done(study, analysis.name, spec.name) for analysis in analyses):
            continue
        with _model(study, spec) as (model, note):
            _measure(study, analyses, Subject(spec.name, model, lab), vanilla, failed, note)
    findings = []
    for analysis in analyses:
        names = ["vanilla", *(s.name for s in study.settings.specs())]
        parts = [_load(study, analysis.name, name) for name in names if _done(study, analysis.name, name)]
        if parts:
            findings.append(_read(analysis, parts, failed))
            _write(study, analysis.name, findings[-1])
    if any(s.name == "dinm" and s.source is None for s in study.settings.specs()):
        if sequential:
            findings += _in_a_row(study, vanilla, failed)
        if not study.settings.keep_edits:
            edited.drop_edits(study, "dinm")
    return Deep(tuple(findings), tuple(failed.values()))


def _read(analysis: Analysis, parts: Sequence[Finding], failed: dict[str, str]) -> Finding:
    """The parts as one finding with its reading. What was measured stays where it cannot be put in words, e.g. because
    a model lacks the panel that is read."""
    try:
        return merge(parts, analysis.read)
    except (InputError, LookupError, StopIteration, ValueError) as error:
        failed[analysis.name] = f"{analysis.name} measured, but not put in words: {str(error) or type(error).__name__}"
        return merge(parts)


def lab_of(study: Study) -> Lab:
    """The inputs of every analysis, from what the comparison holds anyway."""
    benchmark = study.benchmark
    return Lab(
        instances=study.instances,
        train=tuple(benchmark.train[:TRAIN]),
        benign=tuple(benchmark.benign),
        tokens=study.margin_tokens,
        layer=study.causal_layer,
        toxic_layer=study.layer,
        toxic=study.probes[0].probe.toxic,
        suffix=study.suffix,
        seed=study.settings.seed,
        batch_size=study.settings.batch,
    )


def _measure(
    study: Study, analyses: Sequence[Analysis], subject: Subject, vanilla: Subject, failed: dict[str, str],
    note: str = "",
) -> None:  # fmt: skip
    with study.stages.stage(f"{subject.name}: deep") as report:
        for done, analysis in enumerate(analyses, start=1):
            if not _done(study, analysis.name, subject.name):
                start = time.perf_counter()
                try:
                    found = analysis.measure(subject, vanilla)
                except InputError as error:
                    failed[f"{analysis.name} {subject.name}"] = f"{analysis.name} not done on {subject.name}: {error}"
                    continue
                facts = {**found.facts, **({subject.name: note} if note else {})}
                took = round(time.perf_counter() - start, 2)
                _write(study, f"{analysis.name}-{subject.name}", replace(found, facts=facts, seconds=took))
            report(done, len(analyses))


def _in_a_row(study: Study, vanilla: Subject, failed: dict[str, str]) -> list[Finding]:
    """DINM's edits piled up on each other: the one analysis that is about a method and not about a model."""
    if not _done(study, "sequential", "dinm"):
        method = method_config(study, "dinm")

        def edit(model: HookedModel, instance: Instance) -> WeightEdit:
            made = method.detoxify(model, instance).edit
            if made is None:
                raise InputError("expected an edit from dinm, got none")
            return made

        with study.stages.stage("dinm: edits in a row"):
            try:
                found = sequential_survival(vanilla, edit, name="dinm", suffix=study.suffix)
            except InputError as error:
                failed["sequential"] = f"sequential not done: {error}"
                return []
            _write(study, "sequential-dinm", found)
            _write(study, "sequential", found)
    return [_load(study, "sequential", "dinm")]


@contextmanager
def _model(study: Study, spec: Spec) -> Iterator[tuple[HookedModel, str]]:
    """The model of a row, opened again, and what must be said about it."""
    if spec.source is not None:
        yield open_given(study.settings, spec.source, spec.name), ""
    elif spec.name == "dinm":
        first = study.instances[0]
        edit = next(edited.edits(study, spec.name, [first]))
        note = f"one of {len(study.instances)} edits stands for all: the one made on instance {first.id}"
        note += ", asked without S" if study.suffix else ""
        yield edit.beside(study.vanilla), note
    else:
        with trained(study, spec.name, {}).applied(study.vanilla) as model:
            yield model, ""


def _file(study: Study, name: str):
    return study.run.path / "deep" / f"{name}.json"


def _done(study: Study, analysis: str, model: str) -> bool:
    return _file(study, f"{analysis}-{model}").exists()


def _write(study: Study, name: str, finding: Finding) -> None:
    write_text(_file(study, name), dumps(finding) + "\n")


def _load(study: Study, analysis: str, model: str) -> Finding:
    file = _file(study, f"{analysis}-{model}")
    try:
        return loads(Finding, file.read_text(encoding="utf-8"))
    except InputError as error:
        raise InputError(f"{file}: {error}; delete it and run again") from error
