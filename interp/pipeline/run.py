"""The stages of a comparison in their order, each skipped where its record is already there."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from interp.errors import InputError
from interp.locate import Convention
from interp.methods.base import Detoxified
from interp.methods.dinm import Dinm
from interp.methods.dpo import Dpo
from interp.methods.sft import Sft
from interp.models import HookedModel
from interp.pipeline import edited, rows
from interp.pipeline.answers import answers_of
from interp.pipeline.given import check_given
from interp.pipeline.looking import locate_causal, recorded, vanilla_scores
from interp.pipeline.opinions import agreements_of
from interp.pipeline.parts import add, keep, keep_warnings, kept, recall_warnings
from interp.pipeline.progress import Stages
from interp.pipeline.settings import Settings, Spec, with_overrides
from interp.pipeline.study import (
    Study,
    is_demo,
    items_for,
    judges_for,
    margin_tokens_of,
    margin_warning,
    open_data,
    open_given,
    open_model,
    open_run,
    probe_warning,
    region_of,
    suffix_text,
    timed,
    toxic_probes,
)
from interp.records import Comparison, ComparisonRow, ShiftSource
from interp.runs import git_commit
from interp.safeedit import Benchmark


def prepare(settings: Settings, stages: Stages) -> Study:
    """Open everything and measure vanilla: nothing here depends on the methods."""
    with stages.stage("data and vanilla model"):
        benchmark, instances = open_data(settings)
        check_methods(settings, benchmark)
        vanilla = open_model(settings, settings.model, "vanilla")
        if settings.layer is not None:
            vanilla.check_layer(settings.layer)
        suffix = suffix_text(settings)
        for spec in settings.specs():
            if spec.source is not None:
                check_given(settings, vanilla, spec, [i.adversarial_prompt for i in instances])
        run = open_run(settings, benchmark, vanilla, instances)
        recall_warnings(run, "vanilla", vanilla)
    with stages.stage("judge"):
        judge, *others = judges_for(settings, benchmark, vanilla, run.path / "usage.jsonl")
        margin_tokens = margin_tokens_of(settings, benchmark, vanilla, instances)
    with stages.stage("toxic probe"):
        probes = toxic_probes(settings, vanilla, run)
    with stages.stage("vanilla: toxic layer") as report:
        scores = vanilla_scores(settings, vanilla, instances, run, report)
        layer = scores[0].toxic_layer if settings.layer is None else settings.layer
    with stages.stage("vanilla: where the behaviour sits"):
        causal = locate_causal(settings, vanilla, instances, margin_tokens, run)
    items = items_for(settings, benchmark, instances, suffix)
    seconds: dict[str, float] = {}
    responses = kept(run, "parts/vanilla", seconds)
    if not responses:
        took: dict[str, float] = {}
        with stages.stage("vanilla: answers") as report:
            responses = answers_of(settings, vanilla, items, judge, name="vanilla", took=took, progress=report)
        keep_warnings(run, "vanilla", vanilla)
        keep(run, "parts/vanilla", responses, took)
        add(seconds, took)
    with stages.stage("vanilla: inside"):
        prompts, answers = [i.adversarial_prompt for i in instances], rows.own_answers(responses, instances)
        base = recorded(vanilla, prompts, layer, answers, seconds)
        with timed(seconds, "mechanism"):
            region = region_of(vanilla, layer, probes, base, settings.seed)
    study = Study(
        settings=settings,
        run=run,
        stages=stages,
        benchmark=benchmark,
        instances=instances,
        vanilla=vanilla,
        judge=judge,
        suffix=suffix,
        probes=probes,
        scores=scores,
        layer=layer,
        items=items,
        base=base,
        region=region,
        margin_tokens=margin_tokens,
        causal_scores=causal,
        warnings=[*probe_warning(settings), *margin_warning(benchmark)],
        others=tuple(others),
    )
    if not run.has("row-vanilla"):
        run.save("row-vanilla", rows.vanilla_row(study, seconds))
    return study


def measure_all(study: Study) -> Comparison:
    """Every row, one model in memory at a time beside vanilla."""
    for spec in study.settings.specs():
        if study.run.has(f"row-{spec.name}"):
            continue
        measured = measure(study, spec)
        study.run.save(f"source-{spec.name}", measured.source)
        study.run.save(f"row-{spec.name}", measured.row)
        needed = study.settings.keep_edits or study.settings.deep
        if spec.name == "dinm" and spec.source is None and not needed:
            edited.drop_edits(study, spec.name)
    names = [s.name for s in study.settings.specs()]
    settings = study.settings
    measured_rows = tuple(study.run.load(f"row-{name}", ComparisonRow) for name in ["vanilla", *names])
    warnings = [*study.vanilla.warnings, *study.warnings, *(line for row in measured_rows for line in row.warnings)]
    return Comparison(
        model=settings.model,
        data=settings.data,
        layer=study.layer,
        suffix=study.suffix,
        rows=measured_rows,
        probe=study.probes[0].report,
        layer_scores=study.scores,
        causal_layer=study.causal_layer,
        causal_scores=study.causal_scores,
        sources=tuple(study.run.load(f"source-{name}", ShiftSource) for name in names),
        n_instances=len(study.instances),
        seed=settings.seed,
        config={**study.run.config, "first tokens": study.margin_tokens.words(study.vanilla)},
        versions=study.run.config["versions"],
        commit=git_commit(),
        planted=is_demo(settings) and study.benchmark.planted,
        warnings=tuple(dict.fromkeys(warnings)),
        judge=getattr(study.judge, "report", None),
        agreements=agreements_of(study, ["vanilla", *names]),
    )


def measure(study: Study, spec: Spec) -> rows.Measured:
    """One row: run the method, or open the model, and measure it."""
    seconds: dict[str, float] = {}
    settings = study.settings
    if spec.source is not None:
        model = open_given(settings, spec.source, spec.name)
        return rows.checkpoint_row(study, spec.name, "given", spec.source, model, seconds)
    if spec.name == "dinm":
        return edited.edits_row(study, "dinm", method_config(study, "dinm"), seconds)
    detoxified = trained(study, spec.name, seconds)
    with detoxified.applied(study.vanilla) as model:
        # The folder's name is the hash of model, data and config; its place in the cache is this machine's business.
        source = f"trained, {Path(str(detoxified.checkpoint)).name}"
        return rows.checkpoint_row(study, spec.name, spec.name, source, model, seconds)


def trained(study: Study, name: str, seconds: dict[str, float]) -> Detoxified:
    """The SFT or DPO checkpoint, from the cache or trained now; DPO on top of SFT unless told otherwise.

    `seconds["train"]` grows by what each checkpoint's own record says its training took, the SFT below DPO included:
    this run's clock would say that a cached training is free.
    """
    if name == "sft" or study.settings.dpo_from == "vanilla":
        return train_on(study, name, study.vanilla, seconds)
    given = next((s for s in study.settings.specs() if s.name == "sft" and s.source), None)
    if given is not None:
        return train_on(study, name, open_given(study.settings, str(given.source), "sft"), seconds)
    with trained(study, "sft", seconds).applied(study.vanilla) as sft:
        return train_on(study, name, sft, seconds)


def train_on(study: Study, name: str, base: HookedModel, seconds: dict[str, float]) -> Detoxified:
    """One training, or its checkpoint from the cache."""
    with study.stages.stage(f"{name}: training") as report:
        checkpoint = method_config(study, name).detoxify(base, study.benchmark.train, progress=report)
    add(seconds, {"train": checkpoint.log["seconds"]})
    return checkpoint


def method_config(study: Study, name: str) -> Any:
    """A method's configuration in this comparison."""
    return configured(study.settings, name, study.suffix, study.convention, study.layer)


def configured(settings: Settings, name: str, suffix: str, convention: Convention, region: int) -> Any:
    """A method's configuration: the paper's, on the demo the one chosen on its val split, with `--set` on top.

    Args:
        settings: of the comparison.
        name: sft, dpo or dinm.
        suffix: S.
        convention: how layers are located.
        region: 0-based layer of the toxic region, which edits go to unless each is to locate its own.
    """
    config = base_config(settings, name)
    if name == "dinm":
        config = with_overrides(config, {"suffix": suffix})
        # One region for all edits, so that their numbers are about the same matrix (the released code reuses the first
        # instance's layer for all); the paper locates per instance, which is the option.
        layer = None if settings.per_instance else region
        config = replace(config, convention=convention, layer=layer)
    return with_overrides(config, settings.method_overrides().get(name, {}))


def base_config(settings: Settings, name: str) -> Any:
    """A method's configuration before `--set`."""
    kinds = {"sft": Sft, "dpo": Dpo, "dinm": Dinm}
    return kinds[name].demo() if is_demo(settings) else kinds[name]()


def check_methods(settings: Settings, benchmark: Benchmark) -> None:
    """Refuse what must fail later: training without a train split, a wrong `--set`."""
    runs = {s.name for s in settings.specs() if s.source is None}
    runs |= {"sft"} if "dpo" in runs and settings.dpo_from == "sft" else set()
    for name, changes in settings.method_overrides().items():
        if name not in runs:
            raise InputError(f"--set {name}.{next(iter(changes))}: {name} is not run in this comparison")
        with_overrides(base_config(settings, name), changes)
    trains = [s.name for s in settings.specs() if s.source is None and s.name in ("sft", "dpo")]
    if trains and not benchmark.train:
        raise InputError(
            f"{' and '.join(trains)} must be trained, and {benchmark.name} has no train split: give --data a folder "
            f"with SafeEdit_train.json, or a trained model, e.g. {trains[0]}=path/to/model"
        )
