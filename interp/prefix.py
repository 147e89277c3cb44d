"""Run only the part of a model that an edit can change: from some layer on, or from one W_V on.

What lies below is computed once and put in the place of the modules that made it, while the model's own forward runs:
masks, positions and layer types stay as they are, and logits and gradients equal those of the whole forward.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from interp.errors import InputError
from interp.models import HookedModel, Tokens
from interp.standin import replaced


class _Reached(Exception):  # noqa: N818 (control flow, not an error)
    """Raised by a hook to end a forward whose rest nobody needs."""


# ------------------------------------------------------------------------------------------------- from a layer
def prefix_residual(model: HookedModel, tokens: Tokens, layer: int) -> Float[Tensor, "batch seq d_model"]:
    """The residual stream that enters block `layer` (resid_pre); the blocks from there on do not run.

    Args:
        layer: 0..n_layers; n_layers means the output of the last block, before the final norm.

    Raises:
        InputError: no such layer.
    """
    found: list[Tensor] = []

    def keep(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        found.append(args[0] if args else kwargs["hidden_states"])
        raise _Reached

    with torch.no_grad(), _pre_hook(_entry(model, layer), keep):
        _run_until(model, tokens)
    return found[0]


@contextmanager
def from_layer(model: HookedModel, layer: int, resid: Float[Tensor, "batch seq d_model"]) -> Iterator[HookedModel]:
    """While open, the clean model's forward takes `resid` as the input of block `layer` and skips the blocks below.

    Call it with the tokens that `resid` was computed on. `layer` = n_layers leaves only the final norm and the logits.

    Raises:
        InputError: no such layer.
    """
    entry = _entry(model, layer)
    with ExitStack() as stack:
        for block in model.blocks[:layer]:
            stack.enter_context(replaced(block, lambda *_, **__: resid))
        if layer == 0:  # nothing below to skip: resid stands in for the embeddings
            stack.enter_context(_pre_hook(entry, lambda _, args, kwargs: _with_hidden(resid, args, kwargs)))
        yield model


# ------------------------------------------------------------------------------------------------- from W_V
@dataclass(frozen=True)
class ValueState:
    """All that lies below W_V of one layer on some tokens: enough to run the model from that matrix on."""

    tokens: Tokens
    layer: int
    resid: Float[Tensor, "batch seq d_model"]
    """The input of the block."""
    attn_out: Float[Tensor, "batch seq d_model"]
    """What the block's attention wrote."""
    h_down: Float[Tensor, "batch seq d_mlp"]
    """The input of W_V."""

    def at(self, positions: Int[Tensor, "batch kept"]) -> ValueState:
        """The same for some positions of each row. Right only for the last layer, above which nothing attends."""

        def pick(x: Tensor) -> Tensor:
            return x.gather(1, positions.to(x.device)[..., None].expand(-1, -1, x.shape[-1]))

        ids, mask = (t.gather(1, positions.to(t.device)) for t in (self.tokens.input_ids, self.tokens.attention_mask))
        return ValueState(Tokens(ids, mask), self.layer, pick(self.resid), pick(self.attn_out), pick(self.h_down))


def value_state(model: HookedModel, tokens: Tokens, layer: int) -> ValueState:
    """Run the blocks up to W_V of `layer` once, without gradients. Raises InputError where there is no such layer."""
    block, found = model.blocks[model.check_layer(layer)], {}

    def keep_resid(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        found["resid"] = args[0] if args else kwargs["hidden_states"]

    def keep_attention(_: nn.Module, args: tuple[Any, ...], out: Any) -> None:
        found["attn_out"] = out[0] if isinstance(out, tuple) else out

    def keep_h_down(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        found["h_down"] = args[0]
        raise _Reached

    handle = model.attention(layer).register_forward_hook(keep_attention)
    try:
        with torch.no_grad(), _pre_hook(block, keep_resid), _pre_hook(model.value_module(layer), keep_h_down):
            _run_until(model, tokens)
    finally:
        handle.remove()
    return ValueState(tokens, layer, found["resid"], found["attn_out"], found["h_down"])


@contextmanager
def from_value(model: HookedModel, state: ValueState) -> Iterator[HookedModel]:
    """While open, the clean model's forward starts at W_V of `state.layer`: below it, everything is taken from `state`.

    The block's own code still adds and norms, so post-norms (Gemma2) and parallel blocks (NeoX) come out right. Call it
    with `state.tokens`.
    """
    value = model.value_module(state.layer)
    with from_layer(model, state.layer, state.resid), ExitStack() as stack:
        stack.enter_context(replaced(model.attention(state.layer), lambda *_, **__: (state.attn_out, None)))
        stack.enter_context(replaced(model.mlp(state.layer), lambda *_, **__: value(state.h_down)))
        yield model


def logits_from_value(
    model: HookedModel, state: ValueState, positions: Int[Tensor, "batch kept"] | None = None
) -> Float[Tensor, "batch kept vocab"]:
    """Logits given W_V as it is now, at some positions of each row (default all): what one step of an edit costs.

    Differentiable with respect to `model.value_weight(state.layer)` where the caller has unfrozen it. At the last layer
    only the named positions are computed at all.
    """
    last = state.layer == model.n_layers - 1
    if positions is not None and last:
        state = state.at(positions)
    with from_value(model, state), _only(model, None if last else positions):
        return model.logits(state.tokens)


def logits_at(
    model: HookedModel, tokens: Tokens, positions: Int[Tensor, "batch kept"]
) -> Float[Tensor, "batch kept vocab"]:
    """Logits of the whole model, but only for some positions of each row: the vocabulary product is the dear part."""
    with _only(model, positions):
        return model.logits(tokens)


# ------------------------------------------------------------------------------------------------- small things
def _entry(model: HookedModel, layer: int) -> nn.Module:
    """The module whose input is the residual stream entering `layer`."""
    if layer == model.n_layers:
        return model.final_norm
    return model.blocks[model.check_layer(layer)]


def _run_until(model: HookedModel, tokens: Tokens) -> None:
    try:
        model.logits(tokens)
    except _Reached:
        return
    raise InputError(f"{model.name} never reached the layer asked for; is it a sequential decoder?")


@contextmanager
def _pre_hook(module: nn.Module, hook: Callable[..., Any]) -> Iterator[None]:
    handle = module.register_forward_pre_hook(hook, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()


def _with_hidden(
    resid: Tensor, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    return ((resid, *args[1:]), kwargs) if args else ((), {**kwargs, "hidden_states": resid})


@contextmanager
def _only(model: HookedModel, positions: Tensor | None) -> Iterator[None]:
    """Show the unembedding only some positions of each row."""
    if positions is None:
        yield
        return

    def pick(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        hidden = args[0]
        at = positions.to(hidden.device)
        return (hidden.gather(1, at[..., None].expand(-1, -1, hidden.shape[-1])),), kwargs

    with _pre_hook(model.unembedding, pick):
        yield
