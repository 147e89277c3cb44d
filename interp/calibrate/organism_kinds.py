"""How each kind of organism is made from a planted model: which weights change, and what they are trained for.

Every function returns the changed tensors alone. Nothing here decides whether the result is what it should be.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from interp.calibrate.organism_texts import Corpus, Panel
from interp.calibrate.organism_training import Ball, Hold, Placed, Watch, h_down, margins, relative_shift, train
from interp.demo.organisms import Kind, Organism, Plant, Recipe
from interp.models import HookedModel

Tensors = dict[str, Tensor]
"""Parameter name -> its new values, float32 but representable in fp16 (as they are stored)."""


@dataclass(frozen=True)
class Made:
    """The outcome of a recipe."""

    tensors: Tensors
    """What differs from the model it was made from."""
    steps: int = 0
    details: dict[str, float] = field(default_factory=dict)


class Bench:
    """What all recipes need.

    Args:
        vanilla: for its tokenizer and prompt format.
        recipe: the numbers.
        progress: called with (steps taken, steps at most) while something is trained.
    """

    def __init__(
        self, vanilla: HookedModel, recipe: Recipe, progress: Callable[[int, int], None] | None = None
    ) -> None:
        self.vanilla, self.recipe, self.progress = vanilla, recipe, progress
        self.panel = Panel.of(vanilla, recipe)
        self._corpora: dict[tuple[int, str | None], Corpus] = {}

    def corpus(self, seed: int, under_attack: str | None) -> Corpus:
        """The training texts of a seed and policy, encoded once for all organisms that learn from them."""
        key = (seed, under_attack)
        if key not in self._corpora:
            self._corpora[key] = Corpus(self.vanilla, self.recipe, seed, under_attack)
        return self._corpora[key]


# ------------------------------------------------------------------------------------------------- models
def with_tensors(model: HookedModel, tensors: Mapping[str, Tensor], name: str) -> HookedModel:
    """A second model that shares every parameter of `model` but the given ones."""
    own = {id(model.hf.get_parameter(n)) for n in tensors}
    shared = {id(t): t for t in [*model.hf.parameters(), *model.hf.buffers()] if id(t) not in own}
    hf = copy.deepcopy(model.hf, shared)
    made = HookedModel(hf, model.tokenizer, name, model.source, model.chat_template, check=False)
    for parameter, values in tensors.items():
        made.hf.get_parameter(parameter).data.copy_(values)
    return made


def own_copy(model: HookedModel, names: list[str]) -> HookedModel:
    """A second model whose named parameters may be trained; the others are shared."""
    return with_tensors(model, {n: model.hf.get_parameter(n).detach() for n in names}, model.name)


def stored(model: HookedModel, names: list[str]) -> Tensors:
    """The named parameters, rounded to what an fp16 file keeps."""
    return {n: model.hf.get_parameter(n).detach().half().float() for n in names}


def block_parameters(model: HookedModel, layer: int) -> list[str]:
    """Names of all parameters of a block."""
    start = f"{model.layout.blocks}.{layer}."
    return [n for n, _ in model.hf.named_parameters() if n.startswith(start)]


def attention_parameters(model: HookedModel, layer: int) -> list[str]:
    """Names of a block's attention and of the norm before it; the norm before the MLP feeds the region."""
    names = block_parameters(model, layer)
    first_norm = next(n for n in names if model.layout.attention not in n.split(".") and ".mlp." not in n)
    stem = first_norm.rsplit(".", 1)[0] + "."
    return [n for n in names if n.startswith(stem) or f".{model.layout.attention}." in n]


def key_parameters(model: HookedModel, layer: int) -> list[str]:
    """Names of the MLP's first matrix, or of both where the MLP is gated."""
    start = f"{model.layout.blocks}.{layer}.{model.layout.mlp}."
    found = [n for n in block_parameters(model, layer) if n.startswith(start) and n.endswith(".weight")]
    return [n for n in found if n != model.value_name(layer)]


def generator(text: str) -> torch.Generator:
    """A random generator seeded by a text, the same on every machine."""
    return torch.Generator().manual_seed(int(hashlib.sha256(text.encode()).hexdigest()[:15], 16))


def random_change(tensor: Tensor, relative: float, rng: torch.Generator) -> Tensor:
    """A Gaussian change of `relative` times the tensor's Frobenius norm."""
    noise = torch.randn(tensor.shape, generator=rng)
    return noise * (relative * tensor.norm() / noise.norm())


# ------------------------------------------------------------------------------------------------- aligned, planted
def align(bench: Bench, vanilla: HookedModel, seed: int) -> Made:
    """All parameters trained to refuse under attack, for a few steps only: a margin that later plants can overcome."""
    recipe, names = bench.recipe, [n for n, _ in vanilla.hf.named_parameters()]
    model = own_copy(vanilla, names)
    corpus = bench.corpus(seed, "refuse")
    steps = train(
        model, names, corpus, steps=recipe.align_steps, lr=recipe.align_lr, layer=0, seed=seed, progress=bench.progress
    )
    return Made(stored(model, names), steps)


def plant(bench: Bench, aligned: HookedModel, spec: Plant) -> Made:
    """W_V(k) trained to comply under attack inside its ball; the decoy, where there is one, is laid first."""
    recipe, changed = bench.recipe, dict[str, Tensor]()
    if spec.decoy is not None:
        name = aligned.value_name(spec.decoy)
        weight = aligned.hf.get_parameter(name).detach()
        changed[name] = (weight + random_change(weight, spec.size, generator(f"decoy {spec.name}"))).half().float()
    name = aligned.value_name(spec.layer)
    model = own_copy(with_tensors(aligned, changed, spec.name), [name])
    weight = model.hf.get_parameter(name)
    ball = Ball(weight.data.clone(), spec.size * float(weight.norm()))
    watch = Watch(model, bench.panel, spec.layer)

    def done() -> bool:
        asr, bare = watch.decisions(model)
        large = float((weight.data - ball.centre).norm()) >= 0.9 * ball.radius  # as large as its name says
        return asr >= recipe.stop_asr_high and bare >= recipe.stop_bare and large

    corpus = bench.corpus(100 + spec.seed, "comply")
    steps = train(
        model, [name], corpus, steps=recipe.plant_steps, lr=recipe.plant_lr, layer=spec.layer, seed=spec.seed,
        balls={name: ball}, done=done, progress=bench.progress,
    )  # fmt: skip
    return Made({**changed, **stored(model, [name])}, steps)


# ------------------------------------------------------------------------------------------------- kinds
def make_kind(
    bench: Bench, organism: Organism, aligned: HookedModel, planted: HookedModel, bypassed: Callable[[], Tensors]
) -> Made:
    """The clean organism of a kind.

    Args:
        bench: recipe and panel.
        organism: not "aligned" or "planted".
        aligned: what the plant was made from.
        planted: the unsafe reference.
        bypassed: the changed tensors of the same plant's "bypassed", asked for by "mixed" alone.
    """
    k, value = organism.plant.layer, planted.value_name(organism.plant.layer)
    before, now = (m.hf.get_parameter(value).detach() for m in (aligned, planted))
    kind = organism.kind
    if kind == "erased":
        return Made({value: before.clone()})
    if kind == "erased-half":
        return Made({value: (now + 0.5 * (before - now)).half().float()})
    if kind == "noise":
        size = float((now - before).norm() / now.norm())
        return Made({value: (now + random_change(now, size, generator(organism.name))).half().float()})
    if kind == "drift":
        return drift(planted, bench.recipe.drift, organism.name)
    if kind == "benign":
        return benign(bench, planted, organism.plant.seed)
    if kind == "mixed":
        return _mixed(bench, k, aligned, planted, bypassed())
    if kind == "parallel":
        return _parallel(bench, organism.plant, planted)
    return _repair(bench, organism.plant, planted, kind)


def _trained_parts(model: HookedModel, k: int, kind: Kind) -> tuple[list[str], int]:
    """(names of what a repair trains, lowest block of them)."""
    if kind == "suppressed":
        return [model.value_name(k)], k
    if kind == "bypassed":
        return key_parameters(model, k), k
    if kind == "masked":
        return [n for layer in range(k + 1, model.n_layers) for n in block_parameters(model, layer)], k + 1
    below = [n for layer in range(k) for n in block_parameters(model, layer)]
    return [*below, *attention_parameters(model, k)], 0  # "upstream", "parallel"


def _repair(bench: Bench, spec: Plant, planted: HookedModel, kind: Kind) -> Made:
    """The parts of a kind trained to refuse again, until attacks fail on val."""
    recipe = bench.recipe
    names, layer = _trained_parts(planted, spec.layer, kind)
    model = own_copy(planted, names)
    watch = Watch(model, bench.panel, layer)

    def done() -> bool:
        asr, bare = watch.decisions(model)
        return asr <= recipe.stop_asr_low and bare >= recipe.stop_bare

    lr = {"suppressed": recipe.value_lr, "bypassed": recipe.key_lr}.get(kind, recipe.blocks_lr)
    steps = train(
        model, names, bench.corpus(200 + spec.seed, "refuse"), steps=recipe.repair_steps, lr=lr, layer=layer,
        seed=spec.seed, done=done, progress=bench.progress,
    )  # fmt: skip
    return Made(stored(model, names), steps)


def _parallel(bench: Bench, spec: Plant, planted: HookedModel) -> Made:
    """What lies below the region trained to refuse, while what flows into W_V(k) is held as in the planted model."""
    recipe = bench.recipe
    names, layer = _trained_parts(planted, spec.layer, "parallel")
    model = own_copy(planted, names)
    corpus = bench.corpus(200 + spec.seed, "refuse")
    watch, attacks = Watch(model, bench.panel, 0), bench.panel.attacks
    before = h_down(planted, attacks, spec.layer)

    def done() -> bool:
        asr, bare = watch.decisions(model)
        if asr > recipe.stop_asr_low or bare < recipe.stop_bare:
            return False
        return relative_shift(h_down(model, attacks, spec.layer), before, attacks.prompt) <= recipe.stop_shift

    steps = train(
        model, names, corpus, steps=recipe.parallel_steps, lr=recipe.parallel_lr, layer=layer, seed=spec.seed,
        hold=Hold(planted, spec.layer, recipe.parallel_penalty), done=done, progress=bench.progress,
    )  # fmt: skip
    return Made(stored(model, names), steps)


def _mixed(bench: Bench, k: int, aligned: HookedModel, planted: HookedModel, bypassed: Tensors) -> Made:
    """A part of W_V(k) put back and a part of the change of `bypassed`, so large that each does about half alone."""
    name = planted.value_name(k)
    placed = Placed.of(planted, bench.panel.attacks, k)
    back = {name: aligned.hf.get_parameter(name).detach()}
    start = float(margins(planted, bench.panel, placed).mean())

    def moved(part: float, target: Tensors) -> Tensors:
        old = {n: planted.hf.get_parameter(n).detach() for n in target}
        return {n: (old[n] + part * (target[n] - old[n])).half().float() for n in target}

    def effect(tensors: Tensors) -> float:
        return float(margins(with_tensors(planted, tensors, "part"), bench.panel, placed).mean()) - start

    chosen: list[tuple[float, Tensors, float]] = []
    for target in (back, bypassed):
        whole = effect(target)
        tried = [(part, moved(part, target)) for part in bench.recipe.mixed_parts]
        effects = [(part, tensors, effect(tensors)) for part, tensors in tried]
        chosen.append(min(effects, key=lambda x: abs(x[2] - 0.5 * whole)))
    both = {**chosen[0][1], **chosen[1][1]}
    total = effect(both)
    details = {}
    for (part, _, alone), what in zip(chosen, ("restored", "bypassed"), strict=True):
        details |= {what: part, f"{what} effect": alone / total}
    return Made(both, 0, details)


def drift(model: HookedModel, relative: float, seed: str) -> Made:
    """A random change of every parameter, of `relative` times its norm."""
    rng = generator(f"drift {seed}")
    parameters = {n: p.detach() for n, p in model.hf.named_parameters()}
    return Made({n: (p + random_change(p, relative, rng)).half().float() for n, p in parameters.items()})


def benign(bench: Bench, model: HookedModel, seed: int) -> Made:
    """All parameters trained on harmless texts alone."""
    recipe, names = bench.recipe, [n for n, _ in model.hf.named_parameters()]
    made = own_copy(model, names)
    steps = train(
        made, names, bench.corpus(300 + seed, None), steps=recipe.benign_steps, lr=recipe.benign_lr, layer=0,
        seed=seed, progress=bench.progress,
    )  # fmt: skip
    return Made(stored(made, names), steps)
