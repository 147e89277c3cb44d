"""Toxicity of the toxic region (paper, Sec. 4.3) under several named definitions, each beside what chance gives.

The paper's number is the mean cosine between the value vectors of one layer and a probe's toxic row. On its own it
says little: a random direction has such a mean too, and an edit moves it whichever way. So every definition is
evaluated on the toxic direction and on two sets of random directions by the same code, at vanilla and at every edit.

Not here: whether the region *causes* anything. That is `shares`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from interp.errors import InputError
from interp.records import Estimate, NullDistribution, RegionToxicity
from interp.stats import bootstrap, exact

PROBE = "probe"
PROBE_AFTER_NORM = "probe after the final norm"
MEAN_DIFFERENCE = "mean difference"

Reader = Callable[[Tensor], Tensor]
"""W_V as [d_mlp, d] -> the definition's value for each direction, [directions]."""


@runtime_checkable
class Definition(Protocol):
    """One way to put a number on the toxicity of a matrix of value vectors."""

    @property
    def name(self) -> str:
        """How tables call it."""
        ...

    @property
    def direction(self) -> str:
        """Which direction it reads: a key of the `directions` given to `Region.of`."""
        ...

    @property
    def unit(self) -> str:
        """Unit of the value."""
        ...

    def reader(
        self,
        vanilla: Float[Tensor, "d_mlp d"],
        directions: Float[Tensor, "r d"],
        h_down: Float[Tensor, "d_mlp"] | None,
    ) -> Reader | None:
        """The definition with everything fixed that vanilla fixes; None where `h_down` is needed and missing."""
        ...


@dataclass(frozen=True)
class MeanCosine:
    """Mean over all value vectors of their cosine with the direction: the paper's, for the probe's toxic row."""

    name: str = "mean cosine, all value vectors"
    direction: str = PROBE
    unit: str = "cosine"

    def reader(
        self,
        vanilla: Float[Tensor, "d_mlp d"],
        directions: Float[Tensor, "r d"],
        h_down: Float[Tensor, "d_mlp"] | None,
    ) -> Reader:
        """Linear in the direction: the mean unit value vector is all that is needed."""
        return lambda W: directions @ unit_rows(W).mean(dim=0)


@dataclass(frozen=True)
class TopCosine:
    """Mean cosine of the k value vectors most aligned with the direction *on vanilla* (the set stays fixed).

    Vectors chosen for being extreme fall back under any change, so the null falls too: each random direction has its
    own top k, chosen on vanilla in the same way. Compare the change with the null's mean, not with zero.
    """

    k: int = 10
    direction: str = PROBE
    unit: str = "cosine"

    @property
    def name(self) -> str:
        """How tables call it."""
        return f"mean cosine, top {self.k} value vectors of vanilla"

    def reader(
        self,
        vanilla: Float[Tensor, "d_mlp d"],
        directions: Float[Tensor, "r d"],
        h_down: Float[Tensor, "d_mlp"] | None,
    ) -> Reader:
        """Each direction keeps the indices of its own k vectors; they are read in chunks to bound the memory."""
        k = min(self.k, len(vanilla))
        top = (directions @ unit_rows(vanilla).T).topk(k, dim=1).indices
        chunk = max(1, 2**24 // (k * vanilla.shape[1]))

        def read(W: Tensor) -> Tensor:
            rows = unit_rows(W)
            parts = zip(top.split(chunk), directions.split(chunk), strict=True)
            return torch.cat([torch.einsum("rkd,rd->r", rows[chosen], d) / k for chosen, d in parts])

        return read


@dataclass(frozen=True)
class WeightedWrite:
    """What the region writes onto the direction when vanilla's mean h_down flows in: mean(h_down) @ W_V . direction.

    The activation is vanilla's for every model, so that only the matrix can move the number.
    """

    name: str = "activation-weighted write"
    direction: str = PROBE
    unit: str = "residual stream units"

    def reader(
        self,
        vanilla: Float[Tensor, "d_mlp d"],
        directions: Float[Tensor, "r d"],
        h_down: Float[Tensor, "d_mlp"] | None,
    ) -> Reader | None:
        """None without `h_down`."""
        if h_down is None:
            return None
        return lambda W: directions @ (h_down @ W)


DEFINITIONS: tuple[Definition, ...] = (
    MeanCosine(),
    TopCosine(),
    WeightedWrite(),
    MeanCosine("mean cosine, probe after the final norm", PROBE_AFTER_NORM),
    MeanCosine("mean cosine, mean-difference direction", MEAN_DIFFERENCE),
)
"""The paper's first. A definition whose direction (or h_down) is not given is left out."""


@dataclass(frozen=True)
class RegionMeasurement:
    """What one pass over the matrices of a model (or over all its edits) gives."""

    toxicity: tuple[RegionToxicity, ...]
    """One per definition, the paper's first."""
    weight_change: Estimate
    """|| W - W_vanilla ||_F / || W_vanilla ||_F, percent."""


@dataclass(frozen=True)
class _Prepared:
    definition: Definition
    read: Reader
    vanilla: Tensor
    """[1 + isotropic + shaped] values on vanilla: the toxic direction, then the random ones."""


@dataclass(frozen=True)
class Region:
    """Vanilla's region with its nulls, computed once; `measure` then reads any number of models against it."""

    layer: int
    """0-based."""
    weight: Float[Tensor, "d_mlp d"]
    n_null: int
    n_shaped: int
    seed: int
    prepared: tuple[_Prepared, ...]

    @classmethod
    def of(
        cls,
        vanilla: Float[Tensor, "d_mlp d"],
        directions: Mapping[str, Tensor],
        *,
        layer: int,
        h_down_mean: Tensor | None = None,
        definitions: Sequence[Definition] = DEFINITIONS,
        n_null: int = 1000,
        seed: int = 0,
        features: Float[Tensor, "n d"] | None = None,
    ) -> Region:
        """Measure vanilla once, on the toxic directions and on random ones.

        Args:
            vanilla: value vectors of the layer, row i of neuron i (`model.value_vectors(layer)`).
            directions: toxic directions [d] by name, of any length: `PROBE`, `PROBE_AFTER_NORM`, `MEAN_DIFFERENCE`.
            layer: 0-based, for the records.
            h_down_mean: [d_mlp], vanilla's mean h_down over the adversarial inputs.
            definitions: what to compute.
            n_null: number of isotropic random directions.
            seed: of the random directions.
            features: hidden states the probe was trained on. Given, a second null is made of as many random
                directions with *their* covariance, which is what a probe with meaningless labels would find. It is
                the harder null: edits and probes both live where the hidden states vary.

        Raises:
            InputError: a shape does not fit, a direction is zero or not finite, or the weights hold NaN.
        """
        W = vanilla.detach().to(torch.float32).clone()
        d = W.shape[1]
        if not torch.isfinite(W).all():
            raise InputError(f"expected finite value vectors at layer {layer}, got NaN or infinity")
        if n_null < 1:
            raise InputError(f"expected at least one random direction, got {n_null}")
        h = None if h_down_mean is None else h_down_mean.detach().to(W)
        if h is not None and h.shape != (len(W),):
            raise InputError(f"expected h_down_mean of shape [{len(W)}], got {list(h.shape)}")
        null = random_directions(d, n_null, seed).to(W)
        shaped = null[:0] if features is None else shaped_directions(features, n_null, seed + 1).to(W)
        prepared = []
        for definition in definitions:
            if definition.direction not in directions:
                continue
            toxic = _unit(directions[definition.direction], definition.direction, d).to(W)
            read = definition.reader(W, torch.cat([toxic[None], null, shaped]), h)
            if read is not None:
                prepared.append(_Prepared(definition, read, read(W)))
        if not prepared:
            raise InputError(f"no definition can be computed from the directions {sorted(directions)}")
        return cls(layer, W, n_null, len(shaped), seed, tuple(prepared))

    def measure(self, model: str, weights: Iterable[Tensor]) -> RegionMeasurement:
        """Toxicity and weight change of one model: one matrix of a checkpoint, or one per edit.

        The matrices are read one at a time and never kept: pass a generator. With several, value and change are means
        over edits with a bootstrap over edits, and the null is the same mean for each random direction.

        Raises:
            InputError: no matrix came, or one has another shape or is not finite.
        """
        base = float(self.weight.norm())
        relative: list[float] = []
        toxic: list[list[float]] = [[] for _ in self.prepared]
        total = [torch.zeros(len(p.vanilla), dtype=torch.float64) for p in self.prepared]
        for weight in weights:
            W = weight.detach().to(self.weight)
            if W.shape != self.weight.shape:
                raise InputError(f"expected value vectors of shape {list(self.weight.shape)}, got {list(W.shape)}")
            if not torch.isfinite(W).all():
                raise InputError(f"expected finite value vectors of {model} at layer {self.layer}, got NaN or infinity")
            relative.append(100.0 * float((W - self.weight).norm()) / base if base > 0 else 0.0)
            for p, values, change in zip(self.prepared, toxic, total, strict=True):
                now = p.read(W)
                values.append(float(now[0]))
                change += (now - p.vanilla).cpu().double()
        if not relative:
            raise InputError(f"expected at least one weight matrix of {model}, got none")
        records = tuple(
            self._record(model, p, values, change / len(relative))
            for p, values, change in zip(self.prepared, toxic, total, strict=True)
        )
        return RegionMeasurement(records, over_edits(relative, "%"))

    def _record(self, model: str, p: _Prepared, values: list[float], change: Tensor) -> RegionToxicity:
        vanilla = float(p.vanilla[0])
        unit = p.definition.unit
        isotropic = slice(1, 1 + self.n_null)
        null_change = change[isotropic].numpy()
        shaped = change[1 + self.n_null :].numpy()
        moved = over_edits([v - vanilla for v in values], unit)
        return RegionToxicity(
            model=model,
            layer=self.layer,
            definition=p.definition.name,
            vanilla=vanilla,
            value=over_edits(values, unit),
            change=moved,
            null_vanilla=null_distribution(p.vanilla[isotropic].cpu().double().numpy(), self.seed),
            null_change=null_distribution(null_change, self.seed),
            p_change=two_sided_p(moved.value, null_change),
            unit=unit,
            p_change_shaped=two_sided_p(moved.value, shaped) if len(shaped) else None,
        )


def region_toxicity(
    vanilla: Float[Tensor, "d_mlp d"],
    weights: Iterable[Tensor],
    directions: Mapping[str, Tensor],
    *,
    model: str,
    layer: int,
    h_down_mean: Float[Tensor, "d_mlp"] | None = None,
    n_null: int = 1000,
    seed: int = 0,
) -> tuple[RegionToxicity, ...]:
    """`Region.of(...).measure(...)` in one call, for one model; shapes and errors as there."""
    region = Region.of(vanilla, directions, layer=layer, h_down_mean=h_down_mean, n_null=n_null, seed=seed)
    return region.measure(model, weights).toxicity


# --------------------------------------------------------------------------------------------- small parts
def unit_rows(W: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
    """Rows scaled to length 1; a zero row stays zero (its cosine with anything counts 0)."""
    return torch.nn.functional.normalize(W.to(torch.float32), dim=1)


def random_directions(d: int, n: int, seed: int) -> Float[Tensor, "n {d}"]:
    """n directions drawn evenly from the unit sphere in d dimensions."""
    generator = torch.Generator().manual_seed(seed)
    return unit_rows(torch.randn(n, d, generator=generator))


def shaped_directions(features: Float[Tensor, "m d"], n: int, seed: int) -> Float[Tensor, "n d"]:
    """n random unit directions with the covariance of the features: the mean difference under random labels."""
    centred = features.detach().float().cpu()
    centred = centred - centred.mean(dim=0)
    generator = torch.Generator().manual_seed(seed)
    return unit_rows(torch.randn(n, len(centred), generator=generator) @ centred)


def null_distribution(values: np.ndarray, seed: int) -> NullDistribution:
    """Mean, standard deviation and central 95 % of the values of random directions."""
    low, high = np.quantile(values, [0.025, 0.975])
    return NullDistribution(float(values.mean()), float(values.std()), float(low), float(high), len(values), seed)


def two_sided_p(value: float, null: np.ndarray) -> float:
    """Share of the null at least as far from the null's mean as `value` is, with the +1 correction."""
    centre = float(null.mean())
    return float((1 + np.sum(np.abs(null - centre) >= abs(value - centre))) / (1 + len(null)))


def over_edits(values: Sequence[float], unit: str) -> Estimate:
    """The mean over edits with a bootstrap over edits; exact where there is one matrix."""
    return exact(values[0], 1, unit) if len(values) == 1 else bootstrap(values, over="edits", unit=unit)


def _unit(direction: Tensor, name: str, d: int) -> Tensor:
    if direction.shape != (d,):
        raise InputError(f"expected the direction {name!r} of shape [{d}], got {list(direction.shape)}")
    length = float(direction.float().norm())
    if not 0 < length < float("inf"):
        raise InputError(f"expected a finite non-zero direction {name!r}, got one of length {length}")
    return direction.detach().float() / length
