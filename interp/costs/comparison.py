"""The plan of a comparison: forwards and tokens of each stage, before anything is computed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from interp.costs.asking import Asking
from interp.costs.methods import assumed_layer, edit_work, locating, made_once, training_lengths
from interp.costs.space import MIB, Shape, resident, responses_bytes
from interp.costs.work import NOTHING, Work, passed, total
from interp.evaluation import BENIGN, KQA, Item, by_owner
from interp.locate import Convention
from interp.mechanism.activations import OWN_BATCH
from interp.mechanism.probe_data import load_probe_texts
from interp.mechanism.swaps import BATCH
from interp.models import HookedModel
from interp.pipeline.edited import KEPT, TOGETHER
from interp.pipeline.run import configured
from interp.pipeline.settings import Settings
from interp.pipeline.study import CONVENTIONS, items_for, suffix_text
from interp.records import Instance
from interp.safeedit import Benchmark

PROBE_TEXTS, PROBE_BATCH = 4000, 32
PICTURES = 7 * MIB
"""Bytes of the report, which holds plotly.js, and of the figures."""
RECORDS, MOVED, EDIT, LOOKED = 50_000, 110, 1_500, 26_000
"""Bytes of a row's own records, of a harmless answer that moved, of an edit's provenance, of a row's scores."""


@dataclass(frozen=True)
class Planned:
    """What a comparison runs on, and what its parts share."""

    settings: Settings
    benchmark: Benchmark
    instances: tuple[Instance, ...]
    model: HookedModel

    @cached_property
    def asking(self) -> Asking:
        """The questions."""
        return Asking(self.model, self.benchmark, self.settings.max_new_tokens, self.settings.batch)

    @property
    def layer(self) -> int:
        """Of the toxic region: the one that was given, else the last."""
        return self.model.n_layers - 1 if self.settings.layer is None else self.settings.layer

    @property
    def convention(self) -> Convention:
        """How layers are located."""
        return CONVENTIONS[self.settings.convention]

    @property
    def causal_layer(self) -> int:
        """Of the default locator: nobody knows before it was asked; the middle is assumed."""
        return self.model.n_layers // 2

    @property
    def suffix(self) -> str:
        """S."""
        return suffix_text(self.settings)

    @property
    def suffix_tokens(self) -> int:
        """Its length."""
        return len(self.model.token_ids(f" {self.suffix}", special=False)) if self.suffix else 0

    @cached_property
    def items(self) -> list[Item]:
        """What every model is asked."""
        return items_for(self.settings, self.benchmark, self.instances, self.suffix)


def comparison_work(plan: Planned, at_most: bool = False) -> list[Work]:
    """Every stage in its order.

    Args:
        plan: what is compared.
        at_most: with answers as long as they may be, instead of as long as expected.
    """
    asking, suffix = plan.asking, plan.suffix
    items = plan.items
    states = [("", ""), (suffix, "")] if suffix else [("", "")]
    asked, moved = asking.answers([items], at_most=at_most), asking.moved(items, states)
    queries = [asking.model.format_prompt(i.adversarial_prompt) for i in plan.instances]
    prompts = [len(asking.model.token_ids(q)) for q in queries]
    stages = [_probe(plan), _locating(plan), passed(prompts, batch=plan.settings.batch, learning=True)]
    stages = [w.named(n) for w, n in zip(stages, ("toxic probe", "toxic layer", "where it sits"), strict=True)]
    stages += [asked.named("vanilla: answers"), (_record(plan, prompts) + moved).named("vanilla: inside")]
    for name in trainings(plan):
        made = made_once(method_of(plan, name), plan.model, plan.benchmark.train)
        stages.append(made.named(f"{name}: training"))
    for spec in plan.settings.specs():
        if spec.name == "dinm" and spec.source is None:
            stages += _edits(plan, items_of_edits(plan), states, prompts, at_most)
            continue
        swaps = total(_swaps(plan, prompts, BATCH, layer) for layer in {plan.layer, plan.causal_layer})
        inside = _locate_again(plan) + _record(plan, prompts) + swaps + moved
        stages += [asked.named(f"{spec.name}: answers"), inside.named(f"{spec.name}: inside")]
    return stages


def trainings(plan: Planned) -> list[str]:
    """Methods that are trained, in order; DPO brings SFT along where it stands on it."""
    names: list[str] = []
    for spec in plan.settings.specs():
        if spec.source is None and spec.name in ("sft", "dpo"):
            on_sft = spec.name == "dpo" and plan.settings.dpo_from == "sft"
            given = any(s.name == "sft" and s.source for s in plan.settings.specs())
            names += ["sft"] if on_sft and not given else []
            names.append(spec.name)
    return list(dict.fromkeys(names))


def items_of_edits(plan: Planned) -> list[list[Item]]:
    """What each edit is asked, in the order of the instances."""
    own = by_owner(plan.items)
    return [own[i.id] for i in plan.instances]


def method_of(plan: Planned, name: str) -> Any:
    """A method's configuration as the run will have it."""
    return configured(plan.settings, name, plan.suffix, plan.convention, plan.layer)


# ------------------------------------------------------------------------------------------------- stages
def _probe(plan: Planned) -> Work:
    """All texts once through the model."""
    texts = load_probe_texts(plan.settings.probe_data, limit=PROBE_TEXTS, seed=plan.settings.seed)
    distinct = dict.fromkeys(t.text.strip() for t in texts if t.text.strip())
    return passed([min(len(plan.model.token_ids(t)), plan.model.context) for t in distinct], batch=PROBE_BATCH)


def _locating(plan: Planned) -> Work:
    """Every convention on vanilla."""
    return total(locating(plan.model, plan.instances, c, plan.settings.batch) for c in CONVENTIONS.values())


def _locate_again(plan: Planned) -> Work:
    return locating(plan.model, plan.instances, plan.convention, plan.settings.batch)


def _record(plan: Planned, prompts: Sequence[int]) -> Work:
    """Each prompt alone, then prompts with their own answers up to the region's layer."""
    asking = plan.asking
    longer = [p + asking.written(i) for p, i in zip(prompts, plan.instances, strict=True)]
    return passed(prompts) + passed(longer, share=(plan.layer + 1) / plan.model.n_layers, batch=OWN_BATCH)


def _swaps(plan: Planned, prompts: Sequence[int], batch: int, layer: int, edited: int | None = None) -> Work:
    """Two whole forwards and eight that begin above the layer, or algebra where its W_V alone was edited."""
    if edited == layer:
        return 2 * passed(prompts)
    above = (plan.model.n_layers - 1 - layer) / plan.model.n_layers
    return 2 * passed(prompts, batch=batch) + 8 * passed(prompts, share=above, batch=batch)


def _edits(
    plan: Planned, groups: list[list[Item]], states: list[tuple[str, str]], prompts: Sequence[int], at_most: bool
) -> list[Work]:
    """Edits, their answers in blocks, a look inside each."""
    method = method_of(plan, "dinm")
    asking = plan.asking
    edits = total(edit_work(method, plan.model, i) for i in plan.instances)
    blocks = [groups[start : start + TOGETHER] for start in range(0, len(groups), TOGETHER)]
    asked = total(asking.answers(block, at_most=at_most) for block in blocks)
    moved = total(asking.moved(own, states) for own in groups)
    edited, suffixed = assumed_layer(method, plan.model), [p + plan.suffix_tokens for p in prompts]
    swaps = total(_swaps(plan, prompts, 1, layer, edited) for layer in {plan.layer, plan.causal_layer})
    with_suffix = _swaps(plan, suffixed, 1, plan.causal_layer, edited) if plan.suffix else NOTHING
    inside = _record(plan, prompts) + swaps + with_suffix + moved
    return [w.named(f"dinm: {n}") for w, n in ((edits, "edits"), (asked, "answers"), (inside, "inside"))]


# ------------------------------------------------------------------------------------------------- space
def comparison_memory(plan: Planned) -> dict[str, int]:
    """Bytes resident at once in each stage that can be the largest, libraries included."""
    shape, asking, settings = Shape.of(plan.model), plan.asking, plan.settings
    prompt = max(asking.prompt(item) for item in plan.items)
    rows, width = min(settings.batch, len(plan.items)), prompt + settings.max_new_tokens
    held = 2 if any(s.name != "dinm" or s.source for s in settings.specs()) else 1
    edits = (
        min(TOGETHER, len(plan.instances)) if any(s.name == "dinm" and not s.source for s in settings.specs()) else 0
    )
    sizes = {
        "answers": held * shape.weights + shape.decoding(rows, width, edits, settings.delta_bytes),
        "harmless answers": held * shape.weights + shape.reading(*asking.harmless(plan.items)),
    }
    for name in trainings(plan):
        method = method_of(plan, name)
        longest = max(training_lengths(method, plan.model, plan.benchmark.train))
        beside = 2 if name == "dpo" and settings.dpo_from == "sft" else 1  # what is open beside the copy under training
        sizes[f"{name}: training"] = beside * shape.weights + shape.training(method, longest, name == "dpo")
    return resident(sizes, bool(trainings(plan)))


def comparison_disk(plan: Planned) -> dict[str, int]:
    """Bytes that a whole run leaves: in its folder, and in the cache."""
    shape, settings, asking = Shape.of(plan.model), plan.settings, plan.asking
    specs, n = settings.specs(), len(plan.instances)
    rows, responses = len(specs) + 1, responses_bytes(asking, plan.items)
    probes = 2 * shape.d_model * 4 * _probe(plan).forwards
    harmless = len([i for i in plan.items if i.kind in (KQA, BENIGN)])
    edits = sum(s.name == "dinm" and s.source is None for s in specs)
    edited = edits > 0
    kept = edited and (settings.keep_edits or settings.deep)
    inside = 4 * (shape.layers + 1) * (shape.d_model + shape.d_mlp)
    folder = 2 * rows * responses + probes + rows * (RECORDS + MOVED * harmless)
    folder += n * ((4 * shape.matrix + EDIT if kept else 0) + (inside if edited else 0))
    folder += PICTURES if settings.figures else 0
    trained = len(trainings(plan)) * (shape.weights + len(plan.model.tokenizer.backend_tokenizer.to_str()))
    cache = trained + probes + rows * (responses + MOVED * harmless + LOOKED)
    cache += (rows - edits) * n * inside + (edits * n * (4 * shape.matrix + EDIT) if 4 * shape.matrix <= KEPT else 0)
    return {"run folder": round(folder), "cache": round(cache)}
