"""Named places inside every block of the clean model: read them all in one forward, or write to one at some positions.

Hooks sit on the Hugging Face modules, so that a written residual stream is what the rest of the model really reads
(also where transformer-lens only shows a copy). No parameter is touched; every hook is taken out again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from interp.errors import InputError
from interp.mechanism.margin import MarginTokens, last_margin
from interp.models import HookedModel, Tokens
from interp.prefix import from_layer

Place = Literal["resid_pre", "resid_mid", "resid_post", "h_down", "attn_out", "mlp_out"]
"""As `capture.Component`: residual stream before, within and after the block; input of W_V; what attention and MLP add
to the stream (Gemma2: after its post-norms)."""
Key = tuple[str, int]


@dataclass(frozen=True)
class Clean:
    """One forward of a batch padded on the left. Memory: batch x seq x the widths of the places that were kept."""

    tokens: Tokens
    margin: Float[Tensor, "batch"]
    """Refusal margin, nats."""
    acts: Mapping[Key, Float[Tensor, "batch seq _"]]
    """(place, layer) -> activations."""


def places_of(model: HookedModel) -> tuple[str, ...]:
    """The places that the architecture has: no resid_mid where attention and MLP read the same stream (GPT-NeoX)."""
    parallel = bool(getattr(model.hf.config, "use_parallel_residual", False))
    return tuple(p for p in get_args(Place) if not (parallel and p == "resid_mid"))


def check_place(model: HookedModel, place: str) -> str:
    """`place` itself. Raises InputError for an unknown one, or one that the architecture does not have."""
    if place not in get_args(Place):
        raise InputError(f"unknown place {place!r}; expected one of {', '.join(get_args(Place))}")
    if place not in places_of(model):
        raise InputError(
            f"{model.name} has no {place}: its attention and MLP run in parallel on the same input, so nothing lies "
            "between them; take resid_pre"
        )
    return place


def read(
    model: HookedModel,
    batch: Tokens,
    tokens: MarginTokens,
    places: Sequence[str] = ("resid_pre",),
    *,
    gradients: bool = False,
) -> Clean:
    """One forward that keeps the places of every layer; with `gradients`, as parts of a graph that ends in `margin`.

    Raises:
        InputError: as `check_place`.
    """
    for place in places:
        check_place(model, place)
    acts: dict[Key, Tensor] = {}
    with ExitStack() as stack, torch.set_grad_enabled(gradients):
        for layer in range(model.n_layers):
            for place in places:
                _on(stack, model, place, layer, lambda x, key=(place, layer): acts.update({key: x}))
        if gradients:  # the frozen weights need no gradient: the graph begins at the first block's input
            _hook_input(stack, model.blocks[0], lambda x: x.detach().requires_grad_(), first=True)
        margin = last_margin(model, batch, tokens)
    return Clean(batch, margin, acts)


@torch.no_grad()
def patched(
    model: HookedModel,
    own: Clean,
    place: str,
    layer: int,
    donor: Float[Tensor, "batch seq _"],
    where: Bool[Tensor, "batch seq"],
    tokens: MarginTokens,
) -> Float[Tensor, "batch"]:
    """Margins of `model` with `donor` in the place at the positions `where`; the blocks below the layer do not run.

    Args:
        model: the receiver, left as it is.
        own: its clean forward, with "resid_pre" among the places kept.
        place: which place.
        layer: 0-based.
        donor: the other model's activations there, on the same tokens.
        where: positions to write to.
        tokens: first tokens of refusing and complying answers.

    Raises:
        InputError: as `check_place`; no such layer.
    """
    check_place(model, place)
    model.check_layer(layer)
    resid = own.acts["resid_pre", layer]
    there = where[..., None].to(resid.device)

    def change(x: Tensor) -> Tensor:
        return torch.where(there, donor.to(x), x)

    with ExitStack() as stack:
        if place == "resid_pre":
            resid = change(resid)
        elif place == "resid_mid":  # attention writes what makes the sum the donor's
            _hook_output(stack, _writer(model, "attn_out", layer), lambda x: torch.where(there, donor.to(x) - resid, x))
        elif place == "h_down":
            _hook_input(stack, model.value_module(layer), change)
        else:
            _hook_output(stack, _writer(model, place, layer), change)
        stack.enter_context(from_layer(model, layer, resid))
        return last_margin(model, own.tokens, tokens)


# --------------------------------------------------------------------------------------------- hooks
def _on(stack: ExitStack, model: HookedModel, place: str, layer: int, keep: Callable[[Tensor], None]) -> None:
    block = model.blocks[layer]
    if place == "resid_pre":
        _hook_input(stack, block, keep)
    elif place == "resid_mid":
        _hook_input(stack, _middle(block), keep)
    elif place == "h_down":
        _hook_input(stack, model.value_module(layer), keep)
    else:
        _hook_output(stack, _writer(model, place, layer), keep)


def _middle(block: nn.Module) -> nn.Module:
    """The norm in front of the MLP: its input is the stream between attention and MLP."""
    names = ("pre_feedforward_layernorm", "ln_2", "post_attention_layernorm")
    return next(module for name in names if (module := getattr(block, name, None)) is not None)


def _writer(model: HookedModel, place: str, layer: int) -> nn.Module:
    """The module whose output is the place."""
    block = model.blocks[layer]
    if place == "resid_post":
        return block
    if hasattr(block, "post_feedforward_layernorm"):  # Gemma2 norms again what each part adds
        return block.post_attention_layernorm if place == "attn_out" else block.post_feedforward_layernorm  # type: ignore[return-value]
    return model.attention(layer) if place == "attn_out" else model.mlp(layer)


def _hook_input(
    stack: ExitStack, module: nn.Module, change: Callable[[Tensor], Tensor | None], first: bool = False
) -> None:
    def enter(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple, dict] | None:
        new = change(args[0] if args else kwargs["hidden_states"])
        if new is None:
            return None
        return ((new, *args[1:]), kwargs) if args else ((), {**kwargs, "hidden_states": new})

    stack.enter_context(_removed(module.register_forward_pre_hook(enter, with_kwargs=True, prepend=first)))


def _hook_output(stack: ExitStack, module: nn.Module, change: Callable[[Tensor], Tensor | None]) -> None:
    def leave(_: nn.Module, __: tuple[Any, ...], out: Any) -> Any:
        new = change(out[0] if isinstance(out, tuple) else out)
        if new is None:
            return None
        return (new, *out[1:]) if isinstance(out, tuple) else new

    stack.enter_context(_removed(module.register_forward_hook(leave)))


@contextmanager
def _removed(handle: Any) -> Iterator[None]:
    try:
        yield
    finally:
        handle.remove()
