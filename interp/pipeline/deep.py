"""`--deep`: every analysis of the laboratory on every model, one model in memory at a time beside vanilla.

What an analysis finds in a model is written as it comes (`deep/<analysis>-<model>.json`) and read back by a resumed
run; `deep/<analysis>.json` holds all models side by side. An analysis that cannot be done is told in one line, and the
others go on. Nothing here draws.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import numpy as np

from interp.edits import WeightEdit
from interp.errors import InputError
from interp.mechanism.deep import ANALYSES
from interp.mechanism.lab import Analysis, Lab, Subject, merge
from interp.mechanism.robustness import repeated_edits, sequential_survival
from interp.mechanism.several import over_edits
from interp.models import HookedModel
from interp.pipeline import edited
from interp.pipeline.output import Deep
from interp.pipeline.run import method_config, trained
from interp.pipeline.settings import Spec
from interp.pipeline.study import Study, open_given
from interp.records import Finding, Instance, dumps, loads
from interp.runs import write_text

EDITS = 3
"""Edits of a method that edits per instance, each looked into as a model; their means stand for the method."""
TRAIN = 200
"""Training instances that directions, attacks and fine-tunes may learn from."""


def look(study: Study, analyses: Sequence[Analysis] | None = None, *, sequential: bool = True) -> Deep:
    """Run every analysis on vanilla and on every row of the comparison.

    Args:
        study: the finished comparison.
        analyses: which; default all.
        sequential: also edit vanilla again and again with DINM (other instances, and the same), where DINM is compared.

    Raises:
        InputError: a model cannot be opened again, a record cannot be written or is damaged.
    """
    analyses = ANALYSES if analyses is None else analyses
    lab = lab_of(study)
    vanilla = Subject("vanilla", study.vanilla, lab)
    failed: dict[str, str] = {}
    _measure(study, analyses, [vanilla], vanilla, failed)
    for spec in study.settings.specs():
        if all(_done(study, analysis.name, spec.name) for analysis in analyses):
            continue
        with _models(study, spec) as models:
            subjects = [Subject(spec.name, model, lab) for model in models.values()]
            _measure(study, analyses, subjects, vanilla, failed, list(models))
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
    benchmark, asked = study.benchmark, {i.id for i in study.instances}
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
        others=tuple(i for i in benchmark.test if i.id not in asked),
    )


def _measure(
    study: Study, analyses: Sequence[Analysis], subjects: Sequence[Subject], vanilla: Subject, failed: dict[str, str],
    edits: Sequence[str] = ("",),
) -> None:  # fmt: skip
    """Every analysis on one model, or on several edits that stand for a method."""
    name = subjects[0].name
    with study.stages.stage(f"{name}: deep") as report:
        for done, analysis in enumerate(analyses, start=1):
            if not _done(study, analysis.name, name):
                start = time.perf_counter()
                try:
                    found = over_edits([analysis.measure(subject, vanilla) for subject in subjects], edits)
                except InputError as error:
                    failed[f"{analysis.name} {name}"] = f"{analysis.name} not done on {name}: {error}"
                    continue
                note = {f"{name}, edits": _note(study, edits)} if edits[0] else {}
                took = round(time.perf_counter() - start, 2)
                found = replace(found, facts={**found.facts, **note}, seconds=took)
                _write(study, f"{analysis.name}-{name}", found)
            report(done, len(analyses))


def _note(study: Study, edits: Sequence[str]) -> str:
    """Which edits stand for all of a method."""
    said = f"{len(edits)} of {len(study.instances)} edits stand for all, drawn with seed {study.settings.seed}: "
    said += ", ".join(edits)
    if len(edits) > 1:
        said += "; numbers are means over them, intervals reach over all of theirs, token views are of the first"
    return said + ("; asked without S" if study.suffix else "")


def _in_a_row(study: Study, vanilla: Subject, failed: dict[str, str]) -> list[Finding]:
    """DINM's edits on top of each other, of other instances and of the same: these are about a method, not a model."""
    method = method_config(study, "dinm")

    def edit(model: HookedModel, instance: Instance) -> WeightEdit:
        made = method.detoxify(model, instance).edit
        if made is None:
            raise InputError("expected an edit from dinm, got none")
        return made

    findings = []
    for name, analysis in (("sequential", sequential_survival), ("repeated", repeated_edits)):
        if not _done(study, name, "dinm"):
            with study.stages.stage(f"dinm: {name} edits"):
                try:
                    found = analysis(vanilla, edit, name="dinm", suffix=study.suffix)
                except InputError as error:
                    failed[name] = f"{name} not done: {error}"
                    continue
                _write(study, f"{name}-dinm", found)
                _write(study, name, found)
        findings.append(_load(study, name, "dinm"))
    return findings


@contextmanager
def _models(study: Study, spec: Spec) -> Iterator[dict[str, HookedModel]]:
    """The model of a row, opened again, under no name; or some of its edits, each by its name."""
    if spec.source is not None:
        yield {"": open_given(study.settings, spec.source, spec.name)}
    elif spec.name == "dinm":
        chosen = _chosen(study)
        made = zip(chosen, edited.edits(study, spec.name, chosen), strict=True)
        yield {f"edit on instance {i.id}": edit.beside(study.vanilla) for i, edit in made}
    else:
        with trained(study, spec.name, {}).applied(study.vanilla) as model:
            yield {"": model}


def _chosen(study: Study) -> list[Instance]:
    """The instances whose edits are looked into, drawn by the seed, in their order."""
    n = len(study.instances)
    drawn = np.random.default_rng(study.settings.seed).permutation(n)[: min(EDITS, n)]
    return [study.instances[i] for i in sorted(drawn.tolist())]


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
