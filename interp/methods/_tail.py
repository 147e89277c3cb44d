"""The logits of one sequence as a function of one W_V: what each step of an edit computes, the long way or the short.

The weight under training is never put into the model: the forward of the module that holds W_V is exchanged for one
that uses it while logits are computed. The model's own parameters stay as they are, frozen, whatever happens.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import linear
from transformers.pytorch_utils import Conv1D

from interp.methods._losses import Supervised
from interp.models import HookedModel
from interp.prefix import _replaced, logits_from_value, value_state

Weights = Mapping[str, Float[Tensor, "..."]]
"""Float32 tensors in the place of the parameters of the module that holds W_V: "weight", and "bias" where edited."""
Logits = Callable[[Weights], Float[Tensor, "position vocab"]]
"""Float32 logits at the positions of one sequence that count, differentiable in the weights."""


def logits_of(model: HookedModel, layer: int, sequence: Supervised, fast: bool) -> Logits:
    """The logits of `sequence` given other weights for W_V of `layer`.

    Args:
        fast: run everything below W_V once, now; then each call runs that product and what follows, the vocabulary
            only where the sequence is supervised. Otherwise each call runs the whole model on the whole sequence.
    """
    return _short_way(model, layer, sequence) if fast else _long_way(model, layer, sequence)


def _long_way(model: HookedModel, layer: int, sequence: Supervised) -> Logits:
    tokens = model.pad([sequence.ids], side="right")
    positions = torch.tensor(sequence.positions, device=model.device)

    def run(weights: Weights) -> Float[Tensor, "position vocab"]:
        with _using(model, layer, weights):
            return model.logits(tokens)[0, positions].float()

    return run


def _short_way(model: HookedModel, layer: int, sequence: Supervised) -> Logits:
    state = value_state(model, model.pad([sequence.inputs], side="right"), layer)
    positions = torch.tensor([sequence.positions], device=model.device)
    last = model.n_layers - 1
    if layer == last:
        state = state.at(positions)  # nothing above attends: the other positions are never needed again

        def run_last(weights: Weights) -> Float[Tensor, "position vocab"]:
            with _using(model, layer, weights):
                return logits_from_value(model, state)[0].float()

        return run_last

    mlp = model.mlp(last).forward

    def on_positions(x: Float[Tensor, "1 seq d_model"]) -> Float[Tensor, "1 seq d_model"]:
        """The last MLP writes nothing that another position reads."""
        return torch.zeros_like(x).index_copy(1, positions[0], mlp(x[:, positions[0]]))

    def run(weights: Weights) -> Float[Tensor, "position vocab"]:
        with _using(model, layer, weights), _replaced(model.mlp(last), on_positions):
            return logits_from_value(model, state, positions)[0].float()

    return run


@contextmanager
def _using(model: HookedModel, layer: int, weights: Weights) -> Iterator[None]:
    """The module that holds W_V multiplies by `weights`, cast to the dtype of what flows in."""
    module = model.value_module(layer)
    bias = weights.get("bias", getattr(module, "bias", None))

    def product(h: Float[Tensor, "batch seq d_mlp"]) -> Float[Tensor, "batch seq d_model"]:
        weight = weights["weight"].to(h.dtype)
        return linear(
            h, weight.T if isinstance(module, Conv1D) else weight, None if bias is None else bias.to(h.dtype)
        )

    with _replaced(module, product):
        yield
