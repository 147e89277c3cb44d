"""The places of `interp.places` in every block: read them all in one forward, or write to one at some positions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import get_args

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from interp.errors import InputError
from interp.mechanism.margin import MarginTokens, last_margin
from interp.models import HookedModel, Tokens
from interp.places import Change, Place, hooked, input_hooked, is_parallel
from interp.prefix import from_layer

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
    return tuple(p for p in get_args(Place) if not (is_parallel(model) and p == "resid_mid"))


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

    def kept(key: Key) -> Change:
        return lambda x: acts.update({key: x})

    with ExitStack() as stack, torch.set_grad_enabled(gradients):
        for layer in range(model.n_layers):
            for place in places:
                stack.enter_context(hooked(model, place, layer, kept((place, layer))))  # type: ignore[arg-type]
        if gradients:  # the frozen weights need no gradient: the graph begins at the first block's input
            stack.enter_context(input_hooked(model.blocks[0], lambda x: x.detach().requires_grad_(), first=True))
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
            stack.enter_context(hooked(model, "attn_out", layer, lambda x: torch.where(there, donor.to(x) - resid, x)))
        else:
            stack.enter_context(hooked(model, place, layer, change))  # type: ignore[arg-type]
        stack.enter_context(from_layer(model, layer, resid))
        return last_margin(model, own.tokens, tokens)
