"""Measure one organism in every way that the toolkit claims to tell erased from bypassed by.

The unsafe reference is the planted model that the organism was made from, as vanilla is in a comparison. Prompts are of
the test split, which no organism was trained or selected on. Shares are read at every layer, so that a verdict at the
wrong layer can be scored too; everything else at the layer of the plant.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from interp import safeedit
from interp.demo.organisms import Organism
from interp.errors import InputError
from interp.mechanism.activations import PromptActivations, record
from interp.mechanism.probe import Site, TrainedProbe, toxic_directions, train_probes
from interp.mechanism.probe_data import load_probe_texts
from interp.mechanism.region import Region
from interp.mechanism.shares import MarginTokens, swap_margins, swap_shares
from interp.mechanism.shift import activation_shift
from interp.mechanism.weights import change_by_layer
from interp.models import HookedModel
from interp.records import Instance
from interp.records.calibration import OrganismEvidence

GROUPS = ("W_V", "inputs", "around", "above")
"""Where weights may change, seen from the plant's layer: W_V, the MLP's first matrix, elsewhere up to the block, later.
"""


@dataclass(frozen=True)
class Inputs:
    """What every organism is asked."""

    instances: tuple[Instance, ...]
    tokens: MarginTokens
    seed: int

    @property
    def queries(self) -> list[str]:
        """The adversarial prompts."""
        return [i.adversarial_prompt for i in self.instances]

    @classmethod
    def of(cls, model: HookedModel, n: int, seed: int) -> Inputs:
        """`n` instances of the demo's test split, spread over categories and attacks."""
        benchmark = safeedit.load("demo")
        return cls(benchmark.stratified("test", n, seed), MarginTokens.of(model, benchmark.train[:200]), seed)


class Reference:
    """A planted model, and what every organism made from it is held against: computed once, when first asked for."""

    def __init__(self, model: HookedModel, layer: int, inputs: Inputs) -> None:
        self.model, self.layer, self.inputs = model, layer, inputs

    @cached_property
    def probes(self) -> tuple[TrainedProbe, ...]:
        """The paper's probe on the planted model's own last hidden state, before and after the final norm."""
        last = self.model.n_layers - 1
        texts = load_probe_texts("demo", limit=4000, seed=self.inputs.seed)
        return train_probes(
            self.model, texts, (Site(last), Site(last, after_norm=True)), seed=self.inputs.seed, source="demo"
        )

    @cached_property
    def activations(self) -> PromptActivations:
        """What flows into the plant's region."""
        return record(self.model, self.inputs.queries, self.layer)

    @cached_property
    def region(self) -> Region:
        """The plant's region with its nulls."""
        return Region.of(
            self.model.value_vectors(self.layer),
            toxic_directions(self.probes),
            layer=self.layer,
            h_down_mean=self.activations.h_down_mean,
            features=self.probes[0].features,
            seed=self.inputs.seed,
        )


def evidence(organism: Organism, model: HookedModel, reference: Reference) -> OrganismEvidence:
    """Every measure on one organism.

    Args:
        organism: its recipe, for the truth.
        model: the organism.
        reference: the planted model it was made from.
    """
    inputs, layer, seconds = reference.inputs, reference.layer, dict[str, float]()
    with _timed(seconds, "shares, all layers"):
        shares = tuple(
            swap_shares(
                swap_margins(reference.model, model, inputs.queries, here, inputs.tokens),
                model=organism.name, layer=here, seed=inputs.seed,
            )
            for here in range(model.n_layers)
        )  # fmt: skip
    with _timed(seconds, "shift"):
        base = reference.activations
        shift = activation_shift(base, record(model, inputs.queries, layer), model=organism.name, seed=inputs.seed)
    with _timed(seconds, "region toxicity"):
        region = reference.region.measure(organism.name, [model.value_vectors(layer)]).toxicity
    with _timed(seconds, "weights"):
        weights, by_layer = weight_groups(reference.model, model, layer), change_by_layer(reference.model, model)
    return OrganismEvidence(
        organism=organism.name,
        plant=organism.plant.name,
        shape=organism.plant.shape,
        kind=organism.kind,
        truth=organism.truth,
        half=organism.half,
        drifted=organism.drifted,
        layer=layer,
        shares=shares,
        region=region,
        shift=shift,
        weights=weights,
        weight_change=by_layer,
        n=len(inputs.instances),
        seconds={name: round(took, 3) for name, took in seconds.items()},
    )


def weight_groups(reference: HookedModel, model: HookedModel, layer: int) -> dict[str, float]:
    """Share of the squared change of all block weights in each of `GROUPS`; all zero where nothing changed.

    Embeddings and the final norm count as "around" and "above".

    Raises:
        InputError: the two models have different parameters.
    """
    moved: dict[str, float] = dict.fromkeys(GROUPS, 0.0)
    theirs = dict(model.hf.named_parameters())
    value = reference.value_name(layer)
    for name, parameter in reference.hf.named_parameters():
        other = theirs.get(name)
        if other is None or other.shape != parameter.shape:
            raise InputError(f"{model.name} has other parameters than {reference.name}: {name}")
        if other is parameter:
            continue
        moved[_group(reference, name, value, layer)] += _square(other - parameter)
    total = sum(moved.values())
    return {name: part / total if total > 0 else 0.0 for name, part in moved.items()}


def _group(model: HookedModel, name: str, value: str, layer: int) -> str:
    if name == value:
        return "W_V"
    blocks = f"{model.layout.blocks}."
    if not name.startswith(blocks):
        return "above" if name.startswith(model.layout.final_norm) else "around"
    block = int(name.removeprefix(blocks).split(".")[0])
    if block != layer:
        return "above" if block > layer else "around"
    mlp = f"{blocks}{layer}.{model.layout.mlp}."
    first = name.startswith(mlp) and not name.startswith(f"{mlp}{model.layout.value}.")
    return "inputs" if first else "around"


def _square(change: Tensor) -> float:
    return float(torch.linalg.vector_norm(change.detach(), dtype=torch.float64)) ** 2


@contextmanager
def _timed(seconds: dict[str, float], name: str) -> Iterator[None]:
    start = time.process_time()
    try:
        yield
    finally:
        seconds[name] = seconds.get(name, 0.0) + time.process_time() - start


def plants_of(organisms: Sequence[Organism]) -> list[Organism]:
    """The planted models that the organisms were made from, each once, undrifted, in order."""
    found = {o.plant.name: Organism(o.plant, "planted", False) for o in organisms}
    return list(found.values())
