"""Forwards that locators share: one clean run that keeps what each layer wrote, then only the layers above a change.

Works on every shape of `interp.models`: sequential or parallel blocks, norms before or after the MLP. Prompts are
padded on the left, so the last column is every prompt's last token, where the answer begins. No weight is changed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from interp.errors import InputError
from interp.mechanism.localise.locator import Inputs, Scored
from interp.mechanism.margin import MarginTokens, last_margin
from interp.models import HookedModel, Tokens
from interp.places import hooked, input_hooked
from interp.prefix import from_layer

Replace = Callable[[Float[Tensor, "batch seq d_model"]], Float[Tensor, "batch seq d_model"]]
"""What a module wrote -> what stands in for it."""


@dataclass(frozen=True)
class Run:
    """A clean forward of one batch. Memory: 2 x layers x batch x seq x d_model numbers in the model's dtype."""

    margin: Float[Tensor, "batch"]
    """Refusal margin at the last token, nats."""
    resid: tuple[Float[Tensor, "_ _ d_model"], ...]
    """The residual stream [batch, seq, d_model] entering each block, and last the one after the last block."""
    mlp: tuple[Float[Tensor, "_ _ d_model"], ...]
    """What each MLP adds to the residual stream (Gemma2: after its post-norm)."""
    real: Bool[Tensor, "batch seq"]
    """Which positions are tokens and not padding."""


def writer(model: HookedModel, layer: int) -> nn.Module:
    """The module whose output the block adds to the residual stream as its MLP's."""
    return getattr(model.blocks[layer], "post_feedforward_layernorm", None) or model.mlp(layer)


def run(model: HookedModel, batch: Tokens, tokens: MarginTokens) -> Run:
    """One clean forward of a batch that is padded on the left."""
    resid: list[Tensor] = []
    mlp: list[Tensor] = []

    with ExitStack() as stack:
        for layer, block in enumerate(model.blocks):
            stack.enter_context(input_hooked(block, resid.append))
            stack.enter_context(hooked(model, "mlp_out", layer, mlp.append))
        stack.enter_context(input_hooked(model.final_norm, resid.append))
        margin = last_margin(model, batch, tokens)
    return Run(margin, tuple(resid), tuple(mlp), batch.attention_mask.bool())


@contextmanager
def other_weight(model: HookedModel, layer: int, weight: Float[Tensor, "d_mlp d_model"]) -> Iterator[None]:
    """The layer computing with another W_V (its bias stays), for the length of a `with` block; no parameter changes."""
    module = model.value_module(layer)

    def swap(_: nn.Module, args: tuple[Any, ...], _out: Tensor) -> Tensor:
        out = args[0] @ weight.to(args[0])
        return out if getattr(module, "bias", None) is None else out + module.bias

    handle = module.register_forward_hook(swap)
    try:
        yield
    finally:
        handle.remove()


def margin_above(
    model: HookedModel, batch: Tokens, tokens: MarginTokens, layer: int, resid: Float[Tensor, "batch seq d_model"]
) -> Float[Tensor, "batch"]:
    """The margin where `resid` enters block `layer` (n_layers: the final norm); the blocks below do not run."""
    with from_layer(model, layer, resid):
        return last_margin(model, batch, tokens)


def margins_without(
    model: HookedModel, batch: Tokens, tokens: MarginTokens, clean: Run, replace: Callable[[int], Replace]
) -> Float[Tensor, "batch layer"]:
    """The margin with the MLP output of one layer replaced, for each layer in turn; only the layers above run again."""
    columns = []
    for layer in range(model.n_layers):
        with hooked(model, "mlp_out", layer, replace(layer)):
            columns.append(margin_above(model, batch, tokens, layer, clean.resid[layer]))
    return torch.stack(columns, dim=1)


def by_batch(
    model: HookedModel, inputs: Inputs, each: Callable[[Tokens, Tokens | None], Float[Tensor, "batch layer"]]
) -> Scored:
    """Call `each` with batches of attack prompts and the same instances' bare ones; its rows in the instances' order.

    Batched by length, under `no_grad`.
    """
    attack = inputs.prompts(model, inputs.kind)
    bare = inputs.prompts(model, inputs.bare) if inputs.bare is not None else None
    lengths = [len(model.token_ids(text)) for text in attack]
    order = sorted(range(len(attack)), key=lengths.__getitem__)
    values = np.zeros((len(attack), model.n_layers))
    for start in range(0, len(order), inputs.batch_size):
        index = order[start : start + inputs.batch_size]
        ours = model.tokenize([attack[i] for i in index])
        theirs = model.tokenize([bare[i] for i in index]) if bare is not None else None
        with torch.no_grad():
            values[index] = each(ours, theirs).double().cpu().numpy()
    return Scored(values, sum(length > model.context for length in lengths))


def needed(bare: Tokens | None, what: str) -> Tokens:
    """The bare prompts. Raises InputError where there are none."""
    if bare is None:
        raise InputError(f'{what} puts parts of a run on the bare question into the attack: expected bare="onlyQ"')
    return bare
