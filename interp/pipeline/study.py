"""Everything that is computed once for a comparison: data, vanilla, judge, probe, toxic layer, activations."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from interp import demo, safeedit
from interp.decode import settle_threads
from interp.endpoint import EndpointSettings
from interp.errors import InputError
from interp.evaluation import Item, plan, with_files
from interp.judges import Judge, load_several
from interp.locate import PAPER, PAPER_FINAL_NORM, REFERENCE_RIGHT, Convention
from interp.mechanism.activations import PromptActivations
from interp.mechanism.probe import Site, TrainedProbe, toxic_directions, train_probes
from interp.mechanism.probe_data import load_probe_texts
from interp.mechanism.region import Region
from interp.mechanism.shares import MarginTokens
from interp.methods.base import SUFFIX_S1, SUFFIX_S2
from interp.models import HookedModel
from interp.options import Shared
from interp.pipeline.parts import keep_warnings
from interp.pipeline.progress import Stages
from interp.pipeline.settings import Settings
from interp.records import Instance, LayerScores
from interp.runs import Run, cache_dir, copy, fingerprint, source_hash, versions
from interp.safeedit import Benchmark

CONVENTIONS: dict[str, Convention] = {
    "paper": PAPER,
    "paper-after-norm": PAPER_FINAL_NORM,
    "reference": REFERENCE_RIGHT,
}
SUFFIXES = {"S1": SUFFIX_S1, "S2": SUFFIX_S2, "none": ""}


@dataclass
class Study:
    """What every row of a comparison is measured against."""

    settings: Settings
    run: Run
    stages: Stages
    benchmark: Benchmark
    instances: tuple[Instance, ...]
    vanilla: HookedModel
    judge: Judge
    suffix: str
    probes: tuple[TrainedProbe, ...]
    scores: tuple[LayerScores, ...]
    """Vanilla's layer distances: the convention in use first, then the others."""
    layer: int
    """0-based layer of the toxic region."""
    items: list[Item]
    base: PromptActivations
    """Vanilla on the adversarial prompts, with the responses it gave to them."""
    region: Region
    margin_tokens: MarginTokens
    """First tokens of refusing and of complying answers."""
    causal_scores: LayerScores
    """Where the default locator of analyses puts vanilla's behaviour, per instance; it knows of no edit."""
    warnings: list[str] = field(default_factory=list)
    """What to know about the whole comparison; each model keeps its own."""
    others: tuple[Judge, ...] = ()
    """Judges that are only asked how far they agree with the one that decides."""

    @property
    def convention(self) -> Convention:
        """How layers are located."""
        return CONVENTIONS[self.settings.convention]

    @property
    def causal_layer(self) -> int:
        """0-based layer that verdicts are read at: the one most instances name."""
        return self.causal_scores.toxic_layer

    @property
    def causal_how(self) -> str:
        """How it was located, in words."""
        scores = self.causal_scores
        return f"{scores.convention}, {scores.counts[scores.toxic_layer]} of {len(scores.instance_ids)} prompts"

    @property
    def share_layers(self) -> tuple[int, ...]:
        """Layers that causal shares are measured at: the toxic one, and the causal one where it is another."""
        return tuple(dict.fromkeys((self.layer, self.causal_layer)))

    @property
    def queries(self) -> list[str]:
        """The adversarial prompts, one per instance."""
        return [i.adversarial_prompt for i in self.instances]


def is_demo(settings: Shared) -> bool:
    """Whether vanilla is an embedded model that the methods' demo settings were chosen for."""
    return demo.is_demo(settings.model)


def open_data(settings: Settings) -> tuple[Benchmark, tuple[Instance, ...]]:
    """The benchmark and the instances to measure, spread over categories and attacks.

    Raises:
        InputError: as `safeedit.load` and `with_files`; no test split; fewer instances than asked for.
    """
    benchmark = with_files(safeedit.load(settings.data), settings.kqa, settings.csum, settings.xstest)
    split = "test" if benchmark.test else "test_ALL"
    instances = benchmark.stratified(split, settings.instances, settings.seed)
    without = sum(i.generalization is None for i in instances)
    if without:
        raise InputError(
            f"{without} of {len(instances)} test instances of {benchmark.name} have no 'generalization test', "
            "which DG needs; give data that has it"
        )
    return benchmark, instances


def open_model(settings: Shared, source: str, name: str, base: str | None = None) -> HookedModel:
    """A model as the settings say. Raises InputError as `HookedModel.from_pretrained`, or for a dtype or device."""
    import torch

    dtype = None if settings.dtype == "auto" else getattr(torch, settings.dtype)
    device = None if settings.device == "auto" else settings.device
    chat: Any = None if settings.chat_template == "default" else settings.chat_template
    if device is not None:
        try:
            torch.empty(0, device=device)
        except (RuntimeError, AssertionError) as error:
            raise InputError(f"--device {device}: {str(error).splitlines()[0]}") from error
    elif settings.device_map is None and torch.cuda.is_available():
        device = "cuda"
    model = HookedModel.from_pretrained(
        source, base=base, dtype=dtype, device=device, device_map=settings.device_map, chat_template=chat, name=name
    )
    settle_threads(model.hf)
    return model


def open_given(settings: Settings, source: str, name: str) -> HookedModel:
    """A model made elsewhere; an adapter or a state dict in a local file is put onto `--model`."""
    path = Path(source)
    needs_base = path.is_file() or (path / "adapter_config.json").is_file()
    return open_model(settings, source, name, base=settings.model if needs_base else None)


def suffix_text(settings: Settings) -> str:
    """The suffix system prompt: S1, S2 or none by name (in any case), else the text itself.

    Raises:
        InputError: a single word that is none of the names, which is hardly a prompt.
    """
    names = {name.lower(): text for name, text in SUFFIXES.items()}
    if settings.suffix.lower() in names:
        return names[settings.suffix.lower()]
    if len(settings.suffix.split()) < 2:
        raise InputError(f"--suffix: expected {', '.join(SUFFIXES)} or a text, got {settings.suffix!r}")
    return settings.suffix


def probe_warning(settings: Settings) -> list[str]:
    """One line where the toxic direction of a real model would rest on the demo's texts."""
    if is_demo(settings) or settings.probe_data != "demo":
        return []
    return [
        "the toxic probe was trained on the demo's texts, which are templates; give --probe-data (e.g. a Jigsaw CSV)"
    ]


def margin_warning(benchmark: Benchmark) -> list[str]:
    """One line where the refusal margin's tokens had to be read off the instances that are measured."""
    if benchmark.train:
        return []
    return [
        f"{benchmark.name} has no train split: the first tokens of the refusal margin come from the test instances' "
        "own safe and unsafe answers"
    ]


def open_run(settings: Settings, benchmark: Benchmark, vanilla: HookedModel, instances: tuple[Instance, ...]) -> Run:
    """The run folder of exactly this comparison. Raises InputError as `Run`."""
    return Run(*identify(settings, benchmark, vanilla, instances))


def identify(
    settings: Settings, benchmark: Benchmark, vanilla: HookedModel, instances: tuple[Instance, ...]
) -> tuple[Path, dict[str, Any]]:
    """The run folder of a comparison, and what makes it this one: models, data, settings, versions and source code."""
    config = {
        "settings": settings.identity(),
        "model": vanilla.weight_hash(),
        "data": digest([i.__dict__ for i in instances]),
        "asked besides": digest([benchmark.facts, benchmark.benign, benchmark.summaries]),
        "judges": [source_stamp(name) for name in settings.judge],
        "sources": {s.name: source_stamp(s.source) for s in settings.specs() if s.source},
        "versions": versions(),
        "source": source_hash(),
    }
    if settings.out is not None:
        return settings.out, config
    name = "-".join(
        [Path(settings.model).name or "model", *(s.name for s in settings.specs()), fingerprint(config)[:8]]
    )
    return Path("runs") / name, config


def digest(data: Any) -> str:
    """16 hex digits over anything that JSON can hold (records by their repr)."""
    return hashlib.sha256(json.dumps(data, default=repr, sort_keys=True).encode()).hexdigest()[:16]


def source_stamp(source: str) -> str:
    """What tells one state of a model made elsewhere from the next: sizes and times of its files, or the hub id."""
    path = Path(source)
    files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else []
    return digest([(str(p), p.stat().st_size, p.stat().st_mtime_ns) for p in files]) if files else source


def judges_for(settings: Shared, benchmark: Benchmark, vanilla: HookedModel, usage: Path) -> tuple[Judge, ...]:
    """The safety judges, the one that decides first: "auto" is the demo's for the demo data, else SafeEdit's.

    Args:
        usage: file that keeps the budget of an endpoint.

    Raises:
        InputError: as `interp.judges.load_several`.
    """
    auto = "demo" if benchmark.planted else "safeedit"
    return load_several(
        [auto if name == "auto" else name for name in settings.judge],
        benchmark,
        safe_label=settings.judge_safe_label,
        device=str(vanilla.device),
        endpoint=EndpointSettings.given(settings.base_url, settings.key_env, settings.max_requests),
        usage=usage,
    )


def toxic_probes(settings: Settings, vanilla: HookedModel, run: Run) -> tuple[TrainedProbe, ...]:
    """The paper's probe (last layer) before and after the final norm: kept by the run, in the cache, or trained now."""
    files = (run.path / "probe.safetensors", run.path / "probe-after-norm.safetensors")
    if all(file.exists() for file in files):
        return tuple(TrainedProbe.load(file) for file in files)
    texts = load_probe_texts(settings.probe_data, limit=4000, seed=settings.seed)
    key = [vanilla.weight_hash(), digest([t.__dict__ for t in texts]), settings.seed, settings.probe_data]
    code = source_hash(
        "mechanism/probe.py",
        "mechanism/probe_data.py",
        "capture.py",
        "places.py",
        "models.py",
        "layouts.py",
        "texts.py",
    )
    folder = cache_dir() / "probes" / fingerprint([*key, code, versions()])
    cached = [folder / file.name for file in files]
    if all(file.exists() for file in cached):
        for here, there in zip(cached, files, strict=True):
            copy(here, there)
        return tuple(TrainedProbe.load(file) for file in files)
    last = vanilla.n_layers - 1
    sites = (Site(last), Site(last, after_norm=True))
    probes = train_probes(vanilla, texts, sites, seed=settings.seed, source=settings.probe_data)
    keep_warnings(run, "vanilla", vanilla)
    for probe, file, here in zip(probes, files, cached, strict=True):
        probe.save(here)
        probe.save(file)
    return probes


def margin_tokens_of(
    settings: Settings, benchmark: Benchmark, vanilla: HookedModel, instances: tuple[Instance, ...]
) -> MarginTokens:
    """First tokens of refusing and complying answers: those of the train split, or the words that were named.

    Raises:
        InputError: as `MarginTokens.of`.
    """
    texts = (benchmark.train or instances)[:200]
    return MarginTokens.of(vanilla, texts, refuse=settings.refuse_token, comply=settings.comply_token)


def items_for(settings: Settings, benchmark: Benchmark, instances: tuple[Instance, ...], suffix: str) -> list[Item]:
    """What every model is asked, with and without the suffix."""
    return plan(
        instances,
        benchmark,
        suffix,
        n_facts=settings.facts,
        n_benign=settings.benign,
        n_summaries=settings.summaries,
        seed=settings.seed,
    )


def region_of(
    vanilla: HookedModel, layer: int, probes: tuple[TrainedProbe, ...], base: PromptActivations, seed: int
) -> Region:
    """Vanilla's toxic region with its nulls."""
    return Region.of(
        vanilla.value_vectors(layer),
        toxic_directions(probes),
        layer=layer,
        h_down_mean=base.h_down_mean,
        features=probes[0].features,
        seed=seed,
    )


@contextmanager
def timed(seconds: dict[str, float], name: str) -> Iterator[None]:
    """Add the wall seconds of the block to `seconds[name]`."""
    start = time.perf_counter()
    try:
        yield
    finally:
        seconds[name] = round(seconds.get(name, 0.0) + time.perf_counter() - start, 2)
