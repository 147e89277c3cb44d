"""How much a model's weights changed: at the region, and block by block."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor
from transformers.pytorch_utils import Conv1D

from interp.errors import InputError
from interp.models import HookedModel


def edited_value_vectors(
    model: HookedModel, deltas: Iterable[Mapping[str, Tensor]], layer: int
) -> Iterator[Float[Tensor, "d_mlp d_model"]]:
    """W_V of `layer` under each edit, one at a time, without touching the model: what `Region.measure` reads.

    Args:
        model: the model the edits sit on, unedited.
        deltas: `edit.deltas` of each edit (state-dict name -> delta in the parameter's own layout).
        layer: 0-based. An edit of another layer gives the matrix as it is.
    """
    name, vanilla = model.value_name(layer), model.value_vectors(layer)
    transposed = not isinstance(model.value_module(layer), Conv1D)
    for delta in deltas:
        change = delta.get(name)
        if change is None:
            yield vanilla
        else:
            change = change.to(vanilla.device, torch.float32)
            # Rounded to the model's dtype, as the applied edit is.
            yield (vanilla.float() + (change.T if transposed else change)).to(vanilla.dtype)


def change_by_layer(vanilla: HookedModel, model: HookedModel) -> tuple[float, ...]:
    """|| theta(m) - theta(vanilla) || / || theta(vanilla) || over all parameters of each block, percent.

    Raises:
        InputError: the two models have different shapes.
    """
    if vanilla.n_layers != model.n_layers:
        raise InputError(f"expected a model of {vanilla.n_layers} layers, got {model.n_layers}")
    found = []
    for layer, (old, new) in enumerate(zip(vanilla.blocks, model.blocks, strict=True)):
        theirs = dict(new.named_parameters())
        moved = base = 0.0
        for name, parameter in old.named_parameters():
            other = theirs.get(name)
            if other is None or other.shape != parameter.shape:
                raise InputError(
                    f"{model.name} does not have the shape of {vanilla.name}: {name} of block {layer} differs"
                )
            base += _square(parameter)
            moved += 0.0 if other is parameter else _square(other.detach().float() - parameter.detach().float())
        found.append(100.0 * (moved / base) ** 0.5 if base > 0 else 0.0)
    return tuple(found)


def edits_change_by_layer(model: HookedModel, deltas: Iterable[Mapping[str, Tensor]]) -> tuple[float, ...]:
    """`change_by_layer` of edits, from their deltas alone: the mean over edits, percent."""
    prefixes = [f"{model.layout.blocks}.{layer}." for layer in range(model.n_layers)]
    base = [sum(_square(p) for p in block.parameters()) for block in model.blocks]
    totals, n = [0.0] * model.n_layers, 0
    for delta in deltas:
        n += 1
        for layer, prefix in enumerate(prefixes):
            moved = sum(_square(change) for name, change in delta.items() if name.startswith(prefix))
            totals[layer] += 100.0 * (moved / base[layer]) ** 0.5 if base[layer] > 0 else 0.0
    if n == 0:
        raise InputError("expected at least one edit, got none")
    return tuple(total / n for total in totals)


def changed_parameters(vanilla: HookedModel, model: HookedModel) -> Sequence[str]:
    """State-dict names of the parameters that differ in any bit."""
    theirs = dict(model.hf.named_parameters())
    return [
        name
        for name, p in vanilla.hf.named_parameters()
        if name not in theirs or not (theirs[name] is p or torch.equal(theirs[name], p))
    ]


def _square(x: Tensor) -> float:
    wide = torch.float32 if x.device.type == "mps" else torch.float64  # no float64 there
    return float(torch.linalg.vector_norm(x.detach(), dtype=wide)) ** 2
