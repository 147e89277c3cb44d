"""The logits of some sequences as a function of one W_V: what each step of an edit computes, the long way or the short.

The weight under training is never put into the model: the forward of the module that holds W_V is exchanged for one
that uses it while logits are computed. The model's own parameters stay as they are, frozen, whatever happens.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import linear
from transformers.pytorch_utils import Conv1D

from interp.methods._losses import Supervised
from interp.models import HookedModel, Tokens
from interp.prefix import ValueState, from_layer, logits_from_value, prefix_residual, replaced, value_state

Weights = Mapping[str, Float[Tensor, "..."]]
"""Float32 tensors in the place of the parameters of the module that holds W_V: "weight", and "bias" where edited."""
Logits = Callable[[Weights], list[Float[Tensor, "position vocab"]]]
"""Float32 logits of each sequence at the positions that count, differentiable in the weights."""


def logits_of(model: HookedModel, layer: int, sequences: Sequence[Supervised], fast: bool) -> Logits:
    """The logits of `sequences` given other weights for W_V of `layer`.

    Args:
        fast: run everything below W_V once, now; then each call runs that product and what follows, the vocabulary
            only where a sequence is supervised. Otherwise each call runs the whole model on the whole sequences.
    """
    if not fast:
        ways = [_whole(model, sequence) for sequence in sequences]
    elif layer == model.n_layers - 1:
        return _of_last_layer(model, sequences)
    else:
        ways = [_from_value(model, layer, sequence) for sequence in sequences]

    def run(weights: Weights) -> list[Float[Tensor, "position vocab"]]:
        with _using(model, layer, weights):
            return [way().float() for way in ways]

    return run


def _whole(model: HookedModel, sequence: Supervised) -> Callable[[], Float[Tensor, "position vocab"]]:
    tokens, positions = model.pad([sequence.ids], side="right"), list(sequence.positions)
    return lambda: model.logits(tokens)[0, positions]


def _from_value(model: HookedModel, layer: int, sequence: Supervised) -> Callable[[], Float[Tensor, "position vocab"]]:
    state = value_state(model, model.pad([sequence.inputs], side="right"), layer)
    positions = torch.tensor([sequence.positions], device=model.device)
    last, mlp = model.mlp(model.n_layers - 1), model.mlp(model.n_layers - 1).forward

    def on_positions(x: Float[Tensor, "1 seq d_model"]) -> Float[Tensor, "1 seq d_model"]:
        """The last MLP, only where its output is read: no other position reads it."""
        at = positions[0].to(x.device)  # the last layer may lie on another device than the tokens
        return torch.zeros_like(x).index_copy(1, at, mlp(x[:, at]))

    def run() -> Float[Tensor, "position vocab"]:
        with replaced(last, on_positions):
            return logits_from_value(model, state, positions)[0]

    return run


def _of_last_layer(model: HookedModel, sequences: Sequence[Supervised]) -> Logits:
    """Above the last attention nothing looks at another position: all supervised ones go through as one row."""
    states = [_last_state(model, sequence) for sequence in sequences]
    lengths = [len(sequence.positions) for sequence in sequences]
    row = ValueState(
        model.pad([[i for state in states for i in state.tokens.row(0)]], side="right"),
        model.n_layers - 1,
        *(torch.cat([getattr(state, part) for state in states], dim=1) for part in ("resid", "attn_out", "h_down")),
    )

    def run(weights: Weights) -> list[Float[Tensor, "position vocab"]]:
        with _using(model, row.layer, weights):
            return list(logits_from_value(model, row)[0].float().split(lengths))

    return run


@torch.no_grad()
def _last_state(model: HookedModel, sequence: Supervised) -> ValueState:
    """`value_state` of the last layer at the supervised positions, with the MLP in front of W_V run only there."""
    layer, positions = model.n_layers - 1, list(sequence.positions)
    tokens = model.pad([sequence.inputs], side="right")
    mlp, resid, seen = model.mlp(layer), prefix_residual(model, tokens, layer), {}

    def attended(_module: nn.Module, _inputs: Any, output: Any) -> None:
        seen["attn_out"] = (output[0] if isinstance(output, tuple) else output)[:, positions]

    def entered(x: Float[Tensor, "1 seq d_model"]) -> Float[Tensor, "1 seq d_model"]:
        seen["mlp_in"] = x[:, positions]
        return torch.zeros_like(x)

    handle = model.attention(layer).register_forward_hook(attended)
    try:
        with from_layer(model, layer, resid), replaced(mlp, entered):
            model.hf.base_model(input_ids=tokens.input_ids, use_cache=False)
    finally:
        handle.remove()
    with replaced(model.value_module(layer), lambda h: h):
        h_down = mlp(seen["mlp_in"])
    kept = Tokens(tokens.input_ids[:, positions], tokens.attention_mask[:, positions])
    return ValueState(kept, layer, resid[:, positions], seen["attn_out"], h_down)


@contextmanager
def _using(model: HookedModel, layer: int, weights: Weights) -> Iterator[None]:
    """The module that holds W_V multiplies by `weights`, cast to the dtype of what flows in."""
    module = model.value_module(layer)
    bias = weights.get("bias", getattr(module, "bias", None))

    def product(h: Float[Tensor, "batch seq d_mlp"]) -> Float[Tensor, "batch seq d_model"]:
        weight = weights["weight"].to(h.dtype)
        return linear(h, weight.T if isinstance(module, Conv1D) else weight, None if bias is None else bias.to(h.dtype))

    with replaced(module, product):
        yield
