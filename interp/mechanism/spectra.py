"""What kind of matrix a weight change is: its size, and in how many directions it acts, by layer and component.

Of D = W_m - W_vanilla: the relative norm |D| / |W|; the stable rank |D|^2 / s_1^2 (Rudelson and Vershynin 2007); the
effective rank, exp of the entropy of the singular values over their sum (Roy and Vetterli 2007); the first singular
value's share of that sum. A Gaussian matrix of the same shape and norm is the control. Nothing is said of what a change
does; a large one may do nothing.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from interp.errors import InputError
from interp.mechanism.lab import Analysis, Subject
from interp.models import HookedModel
from interp.records import Bars, Curve, Curves, Estimate, Finding, Grid
from interp.stats import exact

WHOLE = 1024
"""Matrices with a smaller side up to this get all their singular values; of larger ones, the first `TOP` are found by a
randomised SVD and what is left of the norm is spread evenly over the rest. That keeps norm and stable rank as they are
and makes the effective rank an upper bound (the first value's share a lower one)."""
TOP = 64
W_V, W_IN, ATTENTION, EMBEDDINGS, OTHER = "W_V", "W_in", "attention", "embeddings", "norms and biases"
MATRICES = (W_V, W_IN, ATTENTION)
NORM, STABLE, EFFECTIVE = "Relative size of the change of {}", "Stable rank of the change of {}", "Effective rank"
GAUSSIAN = "Gaussian matrix of that shape"


@dataclass(frozen=True)
class Spectrum:
    """One matrix's change in four numbers; all zero where nothing changed."""

    norm: float
    """Frobenius norm of the change."""
    stable: float
    effective: float
    first: float
    """Share of the largest singular value in the sum of all."""


def spectrum(change: Tensor, seed: int = 0) -> Spectrum:
    """The spectrum of a matrix (`change` with two dimensions, any dtype).

    Raises:
        InputError: it is no matrix, or holds NaN or infinity.
    """
    if change.dim() != 2 or not bool(torch.isfinite(change).all()):
        raise InputError(f"expected a finite matrix, got a tensor of shape {list(change.shape)}, or NaN or infinity")
    D = change.detach().float()
    norm = float(D.norm())
    if norm == 0:
        return Spectrum(0.0, 0.0, 0.0, 0.0)
    values = _values(D / norm, seed).double().clamp_min(0)
    share = values / values.sum()
    entropy = -torch.xlogy(share, share).sum()
    return Spectrum(norm, float(1 / values[0] ** 2), float(entropy.exp()), float(share[0]))


def _values(D: Tensor, seed: int) -> Tensor:
    """Singular values of a matrix of norm 1, the largest first."""
    small = min(D.shape)
    if small <= WHOLE:
        return torch.linalg.svdvals(D)
    with torch.random.fork_rng(devices=[D.device] if D.is_cuda else []):
        torch.manual_seed(seed)
        top = torch.svd_lowrank(D, q=TOP, niter=4)[1].sort(descending=True).values
    left = (1 - (top**2).sum()).clamp_min(0) / (small - TOP)
    return torch.cat([top, left.sqrt().clamp_max(top[-1]).expand(small - TOP)])


@lru_cache(maxsize=256)
def gaussian(shape: tuple[int, int], seed: int = 0) -> Spectrum:
    """The spectrum of a seeded Gaussian matrix of norm 1."""
    D = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    return spectrum(D / D.norm(), seed)


def components(model: HookedModel) -> Iterator[tuple[str, int | None, str]]:
    """(component, layer, parameter name) of every parameter; a layer of None is outside the blocks."""
    for name, parameter in model.hf.named_parameters():
        if not name.startswith(f"{model.layout.blocks}."):
            yield (EMBEDDINGS if parameter.dim() == 2 else OTHER), None, name
            continue
        layer, inside = name.removeprefix(f"{model.layout.blocks}.").split(".", 1)
        if parameter.dim() != 2:
            yield OTHER, int(layer), name
        elif name == model.value_name(int(layer)):
            yield W_V, int(layer), name
        elif inside.startswith(f"{model.layout.mlp}."):
            yield W_IN, int(layer), name
        else:
            yield ATTENTION, int(layer), name


@dataclass(frozen=True)
class _Cell:
    """All matrices of one component in one layer; ranks are means over them, weighted by their squared change."""

    relative: float
    """Percent."""
    stable: float
    effective: float
    first: float
    chance: Spectrum


def cells(vanilla: HookedModel, model: HookedModel, seed: int = 0) -> Mapping[tuple[str, int | None], _Cell]:
    """The change of every component in every layer.

    Raises:
        InputError: the two models do not have the same parameters.
    """
    old, new = dict(vanilla.hf.named_parameters()), dict(model.hf.named_parameters())
    found: dict[tuple[str, int | None], list[tuple[float, float, Spectrum, Spectrum]]] = {}
    for component, layer, name in components(vanilla):
        mine, theirs = new.get(name), old[name].detach()
        if mine is None or mine.shape != theirs.shape:
            raise InputError(f"{model.name} does not have the shape of {vanilla.name}: {name} differs")
        base = float(theirs.float().norm()) ** 2
        change = None if mine is old[name] else mine.detach().float() - theirs.float().to(mine.device)
        own = chance = Spectrum(0.0 if change is None else float(change.norm()), 0.0, 0.0, 0.0)
        if theirs.dim() == 2:
            own = own if change is None else spectrum(change, seed)
            chance = gaussian(tuple(theirs.shape), seed)  # type: ignore[arg-type]
        found.setdefault((component, layer), []).append((base, own.norm**2, own, chance))
    return {where: _cell(parts) for where, parts in found.items()}


def _cell(parts: list[tuple[float, float, Spectrum, Spectrum]]) -> _Cell:
    base, moved = sum(p[0] for p in parts), sum(p[1] for p in parts)
    weights = np.array([p[1] / moved if moved > 0 else 0.0 for p in parts])

    names = ("stable", "effective", "first")
    stable, effective, first = (float(weights @ [getattr(p[2], name) for p in parts]) for name in names)
    # The control is a plain mean: it is there whether anything changed or not, and is the same for every model.
    chance = Spectrum(0.0, *(float(np.mean([getattr(p[3], name) for p in parts])) for name in names))
    return _Cell(100.0 * (moved / base) ** 0.5 if base > 0 else 0.0, stable, effective, first, chance)


def measure(subject: Subject, vanilla: Subject) -> Finding:
    """The spectra of `subject`'s weights minus vanilla's."""
    started, name = time.perf_counter(), subject.name
    found = {} if subject is vanilla else cells(vanilla.model, subject.model, vanilla.lab.seed)
    return Finding(
        name="weight_spectra",
        title="Spectra of the weight changes",
        question="How large are the weight changes, where are they, and in how many directions do they act?",
        reading="",
        how_to_read="The relative size says where a method worked. The ranks say how concentrated a change is: rank 1 "
        "is a single direction, a Gaussian matrix of the same shape (grey) is no structure at all.",
        limits="Numbers of weights, exact and without sampling error, but one training or one edit: another seed gives "
        "others. A change of low rank need not be the effective part. Ranks of several matrices in a cell (query, key, "
        "value, output) are means weighted by their squared change. Biases and norms have a size and no rank.",
        n=1,
        seed=vanilla.lab.seed,
        source="Rudelson and Vershynin 2007 (stable rank); Roy and Vetterli 2007 (effective rank)",
        curves=_curves(name, found, vanilla.model.n_layers),
        bars=_bars(name, found),
        grids=_grids(name, found, vanilla.model.n_layers),
        seconds=time.perf_counter() - started,
    )


def _number(value: float, unit: str) -> Estimate:
    return exact(value, 1, unit)


def _curves(name: str, found: Mapping[tuple[str, int | None], _Cell], n_layers: int) -> tuple[Curves, ...]:
    if not found:
        return ()
    x, panels = tuple(float(i) for i in range(n_layers)), []
    for component in MATRICES:
        column = [found[component, layer] for layer in range(n_layers)]
        own = Curve(name, x, tuple(_number(c.stable, "rank") for c in column))
        null = Curve(GAUSSIAN, x, tuple(_number(c.chance.stable, "rank") for c in column), control=True)
        panels.append(Curves(STABLE.format(component), "layer", "stable rank", (own, null)))
    return tuple(panels)


def _bars(name: str, found: Mapping[tuple[str, int | None], _Cell]) -> tuple[Bars, ...]:
    """The largest change of each component over the layers, with its ranks."""
    if not found:
        return ()
    names = [c for c in (*MATRICES, EMBEDDINGS, OTHER) if any(where[0] == c for where in found)]
    most = {c: max((cell for w, cell in found.items() if w[0] == c), key=lambda cell: cell.relative) for c in names}
    size: dict[str, tuple[Estimate | None, ...]] = {c: (_number(most[c].relative, "%"),) for c in names}
    ranks: dict[str, tuple[Estimate | None, ...]] = {
        c: (_number(most[c].effective, "rank"), _number(most[c].chance.effective, "rank")) for c in names if c != OTHER
    }
    firsts: dict[str, tuple[Estimate | None, ...]] = {
        c: (_number(100 * most[c].first, "%"), _number(100 * most[c].chance.first, "%")) for c in names if c != OTHER
    }
    return (
        Bars("Relative size of the change, largest layer", "%", (name,), size),
        Bars(f"{EFFECTIVE} of the change there", "effective rank", (name, f"{name}, Gaussian"), ranks),
        Bars("First singular value's share there", "%", (name, f"{name}, Gaussian"), firsts),
    )


def _grids(name: str, found: Mapping[tuple[str, int | None], _Cell], n_layers: int) -> tuple[Grid, ...]:
    if not found:
        return ()
    values = np.array([[found[c, layer].relative for c in (*MATRICES, OTHER)] for layer in range(n_layers)])
    layers = tuple(str(i) for i in range(n_layers))
    return (Grid(f"{name}: relative change", "component", "layer", (*MATRICES, OTHER), layers, values, "%", 1),)


def read(finding: Finding) -> str:
    """Per model: where the change is largest and how concentrated it is there."""
    if not finding.bars:
        return "There is no model to compare with vanilla."
    size, rank = finding.bars[0], finding.bars[1]
    said = []
    for i, name in enumerate(size.groups):
        sizes = {c: e.value for c, v in size.series.items() if (e := v[i]) is not None}
        component = max((c for c in sizes if c != OTHER), key=lambda c: sizes[c])
        if max(sizes.values()) == 0:
            said.append(f"{name} has vanilla's weights")
            continue
        grid = next(g for g in finding.grids if g.title.startswith(f"{name}:"))
        where, only = component, sum(s > 0 for s in sizes.values()) == 1
        if component in grid.x:
            column = grid.values[:, grid.x.index(component)]
            where, only = f"{component} of layer {int(np.argmax(column))}", only and (column > 0).sum() == 1
        own, chance = rank.series[component][2 * i], rank.series[component][2 * i + 1]
        if own is not None and chance is not None:
            said.append(
                f"{name} changes {'only' if only else 'most'} {where}, by {sizes[component]:.2f} % of its norm, with "
                f"an effective rank of {own.value:.0f} (a Gaussian matrix of that shape: {chance.value:.0f})"
            )
    return ". ".join(said) + "."


WEIGHT_SPECTRA = Analysis("weight_spectra", measure, read)
"""Size and rank of the weight changes."""
