"""Forwards through other weights for a few linear modules of a model, and the two factors of their gradients.

`_tail` does this for one W_V and fastest; here it is any linear modules of any layers. The weights are never put into
the model: the forward of each module is exchanged while logits are computed, so the model stays frozen as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import linear
from transformers.pytorch_utils import Conv1D

from interp.methods._losses import Supervised
from interp.models import HookedModel
from interp.prefix import from_layer, logits_at, prefix_residual, replaced

Weights = Mapping[str, Float[Tensor, "..."]]
"""State-dict name -> float32 tensor in the place of that parameter."""


def mlp_names(model: HookedModel, layer: int, bias: bool = False) -> list[str]:
    """State-dict names of the matrices of a layer's MLP (with `bias` of their biases, too), in the model's order."""
    prefix = model.value_name(layer).removesuffix(f"{model.layout.value}.weight")
    parameters = model.mlp(layer).named_parameters()
    return [f"{prefix}{name}" for name, p in parameters if p.dim() == 2 or (bias and name.endswith("bias"))]


def forward_of(
    model: HookedModel, lowest: int, sequences: Sequence[Supervised]
) -> Callable[[Weights], list[Float[Tensor, "position vocab"]]]:
    """The float32 logits of each sequence at its supervised positions, given other weights from layer `lowest` on.

    The layers below run once, now. Each sequence is a row of its own: padding cannot enter.
    """
    rows = []
    for sequence in sequences:
        tokens = model.pad([sequence.inputs], side="right")
        positions = torch.tensor([sequence.positions], device=model.device)
        rows.append((tokens, positions, prefix_residual(model, tokens, lowest)))

    def run(weights: Weights) -> list[Float[Tensor, "position vocab"]]:
        found = []
        with using(model, weights):
            for tokens, positions, resid in rows:
                with from_layer(model, lowest, resid):
                    found.append(logits_at(model, tokens, positions)[0].float())
        return found

    return run


@contextmanager
def using(model: HookedModel, weights: Weights) -> Iterator[None]:
    """While open, the linear modules that own these parameters multiply by `weights`, cast to what flows in."""
    owned: dict[str, dict[str, Tensor]] = {}
    for name, weight in weights.items():
        path, _, leaf = name.rpartition(".")
        owned.setdefault(path, {})[leaf] = weight
    with ExitStack() as stack:
        for path, own in owned.items():
            stack.enter_context(replaced(*_product(model.hf.get_submodule(path), own)))
        yield


def _product(module: nn.Module, own: Mapping[str, Tensor]) -> tuple[nn.Module, Callable[[Tensor], Tensor]]:
    weight: Tensor = own.get("weight", module.weight)  # type: ignore[assignment]
    bias: Tensor | None = own.get("bias", getattr(module, "bias", None))

    def product(x: Float[Tensor, "*batch d_in"]) -> Float[Tensor, "*batch d_out"]:
        matrix = weight.to(x.dtype)
        return linear(x, matrix.T if isinstance(module, Conv1D) else matrix, None if bias is None else bias.to(x.dtype))

    return module, product


@dataclass(frozen=True)
class Factors:
    """The gradient of a loss with respect to one matrix as a sum of outer products, one per token (float32)."""

    u: Float[Tensor, "token d_in"]
    """What flowed into the matrix."""
    delta: Float[Tensor, "token d_out"]
    """The gradient of the loss at its output."""


def gradient_factors(
    model: HookedModel,
    names: Sequence[str],
    sequence: Supervised,
    lowest: int,
    loss: Callable[[Float[Tensor, "position vocab"]], Float[Tensor, ""]],
) -> tuple[float, dict[str, Factors]]:
    """The loss on a sequence, and the factors of its gradient for each named matrix; tokens without gradient left out.

    Args:
        names: weights of linear modules in layers from `lowest` on.
        loss: of the float32 logits at the supervised positions.
    """
    inputs: dict[str, Tensor] = {}
    shifts: dict[str, Tensor] = {}

    def watched(name: str, module: nn.Module) -> Callable[[Tensor], Tensor]:
        _, product = _product(module, {})

        def forward(x: Tensor) -> Tensor:
            out = product(x)
            inputs[name], shifts[name] = x.detach(), torch.zeros_like(out, requires_grad=True)
            return out + shifts[name]

        return forward

    run = forward_of(model, lowest, [sequence])
    with ExitStack() as stack, torch.enable_grad():
        for name in names:
            module = model.hf.get_submodule(name.removesuffix(".weight"))
            stack.enter_context(replaced(module, watched(name, module)))
        value = loss(run({})[0])
        gradients = torch.autograd.grad(value, [shifts[name] for name in names])
    found = {}
    for name, gradient in zip(names, gradients, strict=True):
        u, delta = inputs[name][0].float(), gradient[0].float()
        alive = (delta != 0).any(-1)
        found[name] = Factors(u[alive], delta[alive])
    return float(value.detach()), found


def as_weight(model: HookedModel, name: str, outer: Float[Tensor, "d_in d_out"]) -> Float[Tensor, "..."]:
    """A matrix [d_in, d_out] in the layout of the named weight."""
    return outer if isinstance(model.hf.get_submodule(name.removesuffix(".weight")), Conv1D) else outer.T
