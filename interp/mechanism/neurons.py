"""Toxic value vectors: which neurons write along the probe's toxic row, what they say, and what training did to them.

After Lee et al. 2024 (arXiv 2401.01967, Sec. 3): the k value vectors of all layers with the highest cosine, the SVD of
their matrix, and their vocabulary (the unembedding applied to the vector itself, without the final norm). Vectors that
were chosen for being extreme look toxic along any direction and fall back under any change, so random directions, each
with its own k vectors, are measured by the same code. Nothing is ablated here: a cosine is not a cause.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from weakref import WeakKeyDictionary

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.errors import InputError
from interp.mechanism.intervals import of_means
from interp.mechanism.lab import Analysis, Subject
from interp.mechanism.region import random_directions, shaped_directions, unit_rows
from interp.models import HookedModel
from interp.records import Bars, Curve, Curves, Estimate, Finding
from interp.stats import exact

TOP = 20
"""How many value vectors (Lee et al. take 128 of 24 x 4,096)."""
DIRECTIONS = 200
"""Random directions of the null."""
WORDS = 8
"""Tokens shown of a vector's vocabulary."""
COSINES, ACTIVATIONS, PLACES = "Cosine with the toxic direction", "Activation on adversarial prompts", "Where they lie"
CHANGE = "Change of the mean cosine"
TOXIC, RANDOM, ISOTROPIC = "toxic direction", "random directions", "random directions, isotropic"
SHAPED = slice(1, 1 + DIRECTIONS)
"""Rows of the directions: 0 is toxic, then those with the residual stream's covariance, then the isotropic ones."""


@dataclass(frozen=True)
class TopVectors:
    """For each direction, the k value vectors of a model that are most aligned with it, the most aligned one first."""

    layer: Int[Tensor, "direction k"]
    """0-based."""
    neuron: Int[Tensor, "direction k"]
    cosine: Float[Tensor, "direction k"]


def top_vectors(model: HookedModel, directions: Float[Tensor, "direction d_model"], k: int = TOP) -> TopVectors:
    """The k most aligned value vectors over all layers, one layer in memory at a time.

    Args:
        model: whose W_V are read, as they are.
        directions: of any length but zero.
        k: how many; fewer where the model has fewer neurons.

    Raises:
        InputError: k < 1.
    """
    if k < 1:
        raise InputError(f"expected at least one value vector, got k = {k}")
    units = unit_rows(directions)
    best = units.new_zeros(len(units), 0)
    layers = neurons = torch.zeros(len(units), 0, dtype=torch.long)
    for layer in range(model.n_layers):
        value, index = (units @ unit_rows(model.value_vectors(layer).cpu()).T).topk(min(k, model.d_mlp), dim=1)
        value, index = torch.cat([best, value], 1), torch.cat([neurons, index], 1)
        where = torch.cat([layers, layers.new_full((len(units), index.shape[1] - layers.shape[1]), layer)], 1)
        best, order = value.topk(min(k, value.shape[1]), dim=1)
        neurons, layers = index.gather(1, order), where.gather(1, order)
    return TopVectors(layers, neurons, best)


def vectors_at(model: HookedModel, top: TopVectors) -> Float[Tensor, "direction k d_model"]:
    """The value vectors of these neurons in a model, which need not be the one they were chosen on."""
    found = torch.zeros(*top.layer.shape, model.d_model)
    for layer in range(model.n_layers):
        here = top.layer == layer
        found[here] = model.value_vectors(layer)[top.neuron[here]].float().cpu()
    return found


def vocabulary(model: HookedModel, vector: Float[Tensor, "d_model"], n: int = WORDS) -> str:
    """The n tokens whose unembedding has the largest product with the vector, quoted as Python does."""
    unembedding = model.unembedding.weight.detach()  # type: ignore[union-attr]
    ids = (unembedding @ vector.to(unembedding)).float().topk(n).indices.tolist()  # type: ignore[operator]
    return " ".join(repr(model.tokenizer.decode([i])) for i in ids)


def null_directions(vanilla: Subject, n: int = DIRECTIONS) -> Float[Tensor, "n d_model"]:
    """Random unit directions with the covariance of vanilla's last residual stream on adversarial and bare prompts.

    It is the harder null: isotropic directions lie mostly where no hidden state varies and nothing is written.
    """
    features = torch.cat([vanilla.last("resid_post", kind)[:, -1] for kind in ("DS", "onlyQ")])
    return shaped_directions(features, n, vanilla.lab.seed)


@dataclass(frozen=True)
class _Base:
    """Vanilla's side, the same for every model."""

    directions: Float[Tensor, "direction d_model"]
    """The toxic one first."""
    top: TopVectors
    vectors: Float[Tensor, "direction k d_model"]


_bases: WeakKeyDictionary[Subject, _Base] = WeakKeyDictionary()


def _base(vanilla: Subject) -> _Base:
    if vanilla not in _bases:
        toxic = vanilla.lab.toxic.float().cpu()[None]
        plain = random_directions(toxic.shape[1], DIRECTIONS, vanilla.lab.seed + 1)
        directions = torch.cat([toxic, null_directions(vanilla), plain])
        top = top_vectors(vanilla.model, directions)
        _bases[vanilla] = _Base(directions, top, vectors_at(vanilla.model, top))
    return _bases[vanilla]


def most_toxic(vanilla: Subject) -> tuple[int, int, float]:
    """Layer and neuron of the value vector that is most aligned with the toxic direction, and its cosine."""
    top = _base(vanilla).top
    return int(top.layer[0, 0]), int(top.neuron[0, 0]), float(top.cosine[0, 0])


def _cosines(vectors: Tensor, directions: Tensor) -> Float[np.ndarray, "direction k"]:
    wide = torch.nn.functional.normalize(vectors.double(), dim=-1)
    return torch.einsum("rkd,rd->rk", wide, torch.nn.functional.normalize(directions.double(), dim=-1)).numpy()


def between(values: np.ndarray, unit: str, of: str = "random directions") -> Estimate:
    """Mean and central 95 % of what the random directions (or other draws of a control) give."""
    low, high = np.quantile(values, [0.025, 0.975])
    mean = float(np.mean(values))
    how = f"central 95 % of {len(values)} {of}"
    return Estimate(mean, min(float(low), mean), max(float(high), mean), len(values), unit, how)


def measure(subject: Subject, vanilla: Subject) -> Finding:
    """Vanilla's most toxic value vectors, as they are in `subject`."""
    started, lab, base = time.perf_counter(), vanilla.lab, _base(vanilla)
    vectors = vectors_at(subject.model, base.top)
    cosine, before = _cosines(vectors, base.directions), _cosines(base.vectors, base.directions)
    k = cosine.shape[1]
    ranks = tuple(float(i + 1) for i in range(k))
    h = subject.last("h_down")[:, base.top.layer[0], base.top.neuron[0]].double().numpy()
    activations = of_means(h, lambda x: x, over="prompts", unit="activation", seed=lab.seed)
    moved = (cosine - before).mean(axis=1)
    cosines = [Curve(subject.name, ranks, tuple(exact(c, k, "cosine") for c in cosine[0]))]
    nulls = [
        Curve(name, ranks, tuple(between(before[rows, i], "cosine") for i in range(k)), control=True)
        for name, rows in ((RANDOM, SHAPED), (ISOTROPIC, slice(SHAPED.stop, None)))
    ]
    which = f"rank among vanilla's {k} most toxic value vectors"
    curves = [
        Curves(COSINES, which, "cosine", (*cosines, *nulls)),
        Curves(ACTIVATIONS, which, "mean h_down at the last prompt token", (
            Curve(subject.name, ranks, tuple(activations)),
        )),
    ]  # fmt: skip
    if subject is vanilla:
        curves.append(_places(subject, base))
    toxic = exact(float(moved[0]), k, "cosine")
    change: dict[str, tuple[Estimate | None, ...]] = {TOXIC: (toxic,), RANDOM: (between(moved[SHAPED], "cosine"),)}
    return Finding(
        name="toxic_value_vectors",
        title="Toxic value vectors",
        question="Which neurons write along the toxic direction, and what became of them?",
        reading="",
        how_to_read="Value vectors are ranked by their cosine with the probe's toxic row on vanilla and stay the same "
        "for every model. Grey is what random directions find with their own top vectors: above it is toxic, not "
        "merely extreme. The change is to be compared with that of the random directions, not with zero.",
        limits="A cosine says what a neuron would write, not that it is active or that it matters. The vocabulary "
        "leaves out the final norm. The random directions have the covariance of the last prompt token, the probe was "
        "trained on means over tokens.",
        n=len(lab.instances),
        seed=lab.seed,
        source="Lee et al. 2024 (arXiv 2401.01967), Sec. 3",
        curves=tuple(curves),
        bars=(Bars(f"{CHANGE} of vanilla's top {k}", "cosine", (subject.name,), change),),
        facts=_facts(subject, vanilla, base, vectors),
        seconds=time.perf_counter() - started,
    )


def _places(subject: Subject, base: _Base) -> Curves:
    """How many of the top vectors each layer holds."""
    layers = range(subject.model.n_layers)
    counts = np.stack([(base.top.layer == layer).sum(dim=1).numpy() for layer in layers], axis=1)
    x, k = tuple(float(i) for i in layers), base.top.layer.shape[1]
    own = Curve(subject.name, x, tuple(exact(float(c), k, "vectors") for c in counts[0]))
    null = Curve(RANDOM, x, tuple(between(counts[SHAPED, i], "vectors") for i in layers), control=True)
    return Curves(
        PLACES, "layer", f"of the top {k} value vectors", (own, null), marked=(float(subject.lab.toxic_layer),)
    )


def _facts(subject: Subject, vanilla: Subject, base: _Base, vectors: Tensor) -> dict[str, str]:
    """Vocabulary of the vectors (vanilla) and of the first singular vectors (every model)."""
    facts = {}
    energy, right = _svd(unit_rows(vectors[0]))
    others = np.array([float(_svd(unit_rows(v))[0][0]) for v in base.vectors[SHAPED]])
    chance = between(100 * others, "%")
    facts[f"{subject.name}: first singular vector of the top vectors"] = (
        f"holds {100 * float(energy[0]):.0f} % of their energy "
        f"(top vectors of random directions on vanilla: {chance.low:.0f} to {chance.high:.0f} %)"
    )
    for i in range(min(3, len(right))):
        direction = right[i] * torch.sign(right[i] @ subject.lab.toxic.float().cpu())
        facts[f"{subject.name}: vocabulary of singular vector {i + 1}"] = vocabulary(subject.model, direction)
    if subject is vanilla:
        for layer, neuron, c, vector in zip(*(x[0] for x in (base.top.layer, base.top.neuron, base.top.cosine)),
                                            base.vectors[0], strict=True):  # fmt: skip
            said = f"value vector {int(layer)}.{int(neuron)} (cosine {float(c):.2f})"
            facts[said] = vocabulary(subject.model, vector)
    return facts


def _svd(rows: Float[Tensor, "k d"]) -> tuple[Tensor, Tensor]:
    """Shares of the energy, and the right singular vectors."""
    _, s, right = torch.linalg.svd(rows, full_matrices=False)
    return s**2 / (s**2).sum().clamp_min(1e-30), right


def read(finding: Finding) -> str:
    """Are there more toxic vectors than chance has, and did any model move them more than chance?"""
    curves = {c.name: c for c in next(p for p in finding.curves if p.title == COSINES).curves}
    places = next((p for p in finding.curves if p.title == PLACES), None)  # only vanilla's
    first = curves[places.curves[0].name] if places else next(c for c in curves.values() if not c.control)
    chance, k = curves[RANDOM].y, len(first.y)
    above = sum(value.value > null.high for value, null in zip(first.y, chance, strict=True))
    said = (
        f"Of {first.name}'s {k} most toxic value vectors, {above} are more aligned with the toxic direction "
        f"(cosine {first.y[0].value:.2f} to {first.y[-1].value:.2f}) than those of 97.5 % of random directions are "
        f"with theirs ({chance[0].high:.2f} to {chance[-1].high:.2f})."
    )
    bars = next(b for b in finding.bars if b.title.startswith(CHANGE))
    moved = []
    for name, value, null in zip(bars.groups, bars.series[TOXIC], bars.series[RANDOM], strict=True):
        if name == first.name or value is None or null is None:
            continue
        if value.value == value.low == value.high == 0:  # a measured zero would not be exact
            moved.append(f"{name} by exactly 0 by construction (it leaves these vectors as they are)")
            continue
        verdict = "within" if null.low <= value.value <= null.high else "outside"
        moved.append(f"{name} by {value.value:+.4f} ({verdict} the {null.low:+.4f} to {null.high:+.4f} of chance)")
    return said + (f" Their mean cosine changes in {'; '.join(moved)}." if moved else "")


NEURONS = Analysis("toxic_value_vectors", measure, read)
"""Which value vectors are toxic, and what became of them."""
