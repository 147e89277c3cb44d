"""Interventions on a running model: writes replaced, inputs pushed, neurons made louder, weights rounded; and copies.

Each intervention is a context manager that leaves nothing behind: no weight of the model itself is ever written to.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import linear
from transformers.pytorch_utils import Conv1D

from interp.errors import InputError
from interp.models import HookedModel
from interp.prefix import replaced

KEYS = ("gate_proj", "c_fc", "dense_h_to_4h")
"""Names of the MLP's first matrix: of the gate in gated MLPs (Llama, Gemma), GPT-2's, GPT-NeoX's."""


@contextmanager
def written(
    model: HookedModel, layer: int, change: Callable[[Float[Tensor, "batch seq d_model"]], Tensor | None]
) -> Iterator[None]:
    """While open, what W_V of `layer` writes goes through `change` (None: stays as it is).

    Raises InputError where there is no such layer.
    """

    def leave(_: nn.Module, __: tuple[Any, ...], out: Tensor) -> Tensor | None:
        return change(out)

    handle = model.value_module(layer).register_forward_hook(leave)
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def fed(
    model: HookedModel, layer: int, change: Callable[[Float[Tensor, "batch seq d_mlp"]], Tensor | None]
) -> Iterator[None]:
    """While open, what flows into W_V of `layer` (h_down) goes through `change` (None: stays as it is).

    Raises InputError where there is no such layer.
    """

    def enter(_: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
        changed = change(args[0])
        return None if changed is None else (changed, *args[1:])

    handle = model.value_module(layer).register_forward_pre_hook(enter)
    try:
        yield
    finally:
        handle.remove()


def key_module(model: HookedModel, layer: int) -> nn.Module:
    """The module that holds the key vectors of a layer: row i of its matrix decides when neuron i fires.

    In a gated MLP it is the gate, whose output goes through the non-linearity. Raises InputError where there is none.
    """
    mlp = model.mlp(layer)
    found = next((getattr(mlp, name) for name in KEYS if hasattr(mlp, name)), None)
    if found is None:
        raise InputError(f"{model.name}: expected the MLP's first matrix under one of {', '.join(KEYS)}, found none")
    return found


@contextmanager
def louder(model: HookedModel, neurons: Mapping[int, Tensor], dose: float) -> Iterator[None]:
    """While open, the key vectors of some neurons are `dose` times as long (Lee et al. 2024, Sec. 6); dose 1 is exact.

    The bias of a neuron, where it has one, is not scaled: (dose - 1) times the product with the key is added.

    Args:
        model: left as it is.
        neurons: layer -> indices of its neurons.
        dose: factor of the key vectors.
    """

    def hook(module: nn.Module, index: Tensor) -> Callable[..., Tensor]:
        bias = getattr(module, "bias", None)

        def scale(_: nn.Module, __: Any, out: Tensor) -> Tensor:
            own = out[..., index] if bias is None else out[..., index] - bias[index]
            return out.index_add(-1, index, own * (dose - 1.0))

        return scale

    with ExitStack() as stack:
        for layer, index in neurons.items():
            module = key_module(model, layer)
            handle = module.register_forward_hook(hook(module, index.to(model.value_weight(layer).device)))
            stack.callback(handle.remove)
        yield


def rounded(weight: Float[Tensor, "out in"], bits: int) -> Float[Tensor, "out in"]:
    """The weight after a round trip through signed integers of `bits` bits, one scale per output channel (row).

    Symmetric, to the nearest: no element moves by more than half a step, max |row| / (2^bits - 2).

    Raises:
        InputError: fewer than 2 bits.
    """
    if bits < 2:
        raise InputError(f"expected at least 2 bits, got {bits}")
    top = 2.0 ** (bits - 1) - 1
    wide = weight.float()
    scale = wide.abs().amax(dim=1, keepdim=True) / top
    scale = torch.where(scale > 0, scale, torch.ones_like(scale))
    return ((wide / scale).round().clamp(-top, top) * scale).to(weight.dtype)


@contextmanager
def weights_through(model: HookedModel, change: Callable[[Float[Tensor, "out in"], str], Tensor]) -> Iterator[None]:
    """While open, every linear map inside the blocks multiplies by `change(weight, name)`, made anew at each forward.

    One changed matrix is in memory at a time. Embeddings, norms, biases and the unembedding stay as they are.

    Args:
        model: its parameters are not touched.
        change: of a matrix with one output channel a row, and its module's name ("3.mlp.c_fc"), which tells a draw of
            noise for it from that for any other.
    """

    def forward(module: nn.Module, name: str) -> Callable[[Tensor], Tensor]:
        across = isinstance(module, Conv1D)

        def run(x: Tensor) -> Tensor:
            weight = change(module.weight.T if across else module.weight, name)  # type: ignore[union-attr,arg-type]
            return linear(x, weight, module.bias)  # type: ignore[arg-type]

        return run

    with ExitStack() as stack:
        for layer, block in enumerate(model.blocks):
            for name, module in block.named_modules():
                if isinstance(module, (nn.Linear, Conv1D)):
                    stack.enter_context(replaced(module, forward(module, f"{layer}.{name}")))
        yield


def trainable_copy(model: HookedModel, names: set[str] | None = None) -> HookedModel:
    """A second model with parameters of its own under training; the others are shared with `model`, and frozen.

    Args:
        model: stays as it is, frozen.
        names: state-dict names of the parameters to train; None is all of them.

    Raises:
        InputError: a name that the model does not have.
    """
    parameters = dict(model.hf.named_parameters())
    unknown = sorted((names or set()) - set(parameters))
    if unknown:
        raise InputError(f"{model.name} has no parameter {unknown[0]} to train")
    trained = set(parameters) if names is None else names
    shared: dict[int, Any] = {id(p): p for name, p in parameters.items() if name not in trained}
    shared |= {id(b): b for b in model.hf.buffers()}
    hf = copy.deepcopy(model.hf, shared)
    other = HookedModel(hf, model.tokenizer, f"{model.name}, copy", model.source, model.chat_template, check=False)
    for name, parameter in hf.named_parameters():
        if name in trained:
            parameter.requires_grad_(True)
    return other
