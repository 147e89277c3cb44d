"""Weight swaps: any set of (layer, component) computing with another model's parameters, and what the margin becomes.

Parameters are exchanged as objects for the length of a context and put back in `finally`; none is written to, so a
model that shares its weights with others is safe. A swap shows where a change sits, not which activation carries it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from interp.errors import InputError
from interp.mechanism.margin import MarginTokens, last_margin
from interp.mechanism.patching.places import read
from interp.models import HookedModel, Tokens
from interp.prefix import from_layer

COMPONENTS = ("W_V", "W_in", "attention", "norm")
"""Parts of a block. W_V: the MLP's second matrix, without its bias; W_in: the MLP's first matrices (GPT-2 c_fc, Llama
gate and up) with their biases; attention: all its parameters; norm: the block's norms, and W_V's bias where it has one.
"""
OUTSIDE = ("embeddings", "head")
"""Parts that belong to no layer: input (and position) embeddings; final norm, and the unembedding where it is not tied.
"""


@dataclass(frozen=True)
class Part:
    """A named set of parameters."""

    layer: int | None
    """0-based; None for the parts outside the blocks."""
    component: str
    """One of `COMPONENTS`, "block" for all four, or one of `OUTSIDE`."""

    def __post_init__(self) -> None:
        known = OUTSIDE if self.layer is None else (*COMPONENTS, "block")
        if self.component not in known:
            where = "outside the blocks" if self.layer is None else f"in layer {self.layer}"
            raise InputError(f"no component {self.component!r} {where}; expected one of {', '.join(known)}")


def everything(model: HookedModel) -> tuple[Part, ...]:
    """All blocks and what is outside: swapping them gives the donor."""
    return (*(Part(layer, "block") for layer in range(model.n_layers)), *(Part(None, name) for name in OUTSIDE))


def parameter_names(model: HookedModel, part: Part) -> list[str]:
    """State-dict names of a part's parameters (a tied unembedding counts as embeddings).

    Raises:
        InputError: no such layer.
    """
    layout = model.layout
    names = [name for name, _ in model.hf.named_parameters()]
    if part.layer is None:
        outside = [n for n in names if not n.startswith(f"{layout.blocks}.")]
        unembedding = model.unembedding.weight
        tied = unembedding is model.hf.get_input_embeddings().weight
        head = {id(p) for p in model.final_norm.parameters()} | (set() if tied else {id(unembedding)})
        at_head = [n for n in outside if id(model.hf.get_parameter(n)) in head]
        return at_head if part.component == "head" else [n for n in outside if n not in at_head]
    block = f"{layout.blocks}.{model.check_layer(part.layer)}."
    mine, value = [n for n in names if n.startswith(block)], model.value_name(part.layer)
    mlp, attention = f"{block}{layout.mlp}.", f"{block}{layout.attention}."
    groups = {
        "block": mine,
        "W_V": [value],
        "W_in": [n for n in mine if n.startswith(mlp) and not n.startswith(value.removesuffix("weight"))],
        "attention": [n for n in mine if n.startswith(attention)],
    }
    taken = {n for component in ("W_V", "W_in", "attention") for n in groups[component]}
    return groups.get(part.component, [n for n in mine if n not in taken])


@contextmanager
def with_weights(model: HookedModel, weights: dict[str, nn.Parameter]) -> Iterator[HookedModel]:
    """The clean model computing with other parameters under these names, wherever it holds them (tied ones twice).

    Raises:
        InputError: a name that the model does not have, or a parameter of another shape.
    """
    own = dict(model.hf.named_parameters())
    for name, new in weights.items():
        if name not in own or own[name].shape != new.shape:
            raise InputError(f"{model.name} has no parameter {name} of shape {tuple(new.shape)} to swap")
    stand_in = {id(own[name]): new for name, new in weights.items()}
    places = [
        (module, leaf, parameter)
        for module in model.hf.modules()
        for leaf, parameter in module._parameters.items()
        if id(parameter) in stand_in
    ]
    try:
        for module, leaf, parameter in places:
            module._parameters[leaf] = stand_in[id(parameter)]
        yield model
    finally:
        for module, leaf, parameter in places:
            module._parameters[leaf] = parameter


def donated(model: HookedModel, donor: HookedModel, parts: Iterable[Part]) -> dict[str, nn.Parameter]:
    """The donor's parameters of these parts, those that are equal left out.

    Raises:
        InputError: the donor has other parameters.
    """
    theirs, own = dict(donor.hf.named_parameters()), dict(model.hf.named_parameters())
    found = {}
    for name in dict.fromkeys(n for part in parts for n in parameter_names(model, part)):
        if name not in theirs:
            raise InputError(f"{donor.name} has no parameter {name}: expected a model of {model.name}'s architecture")
        if theirs[name] is not own[name] and not torch.equal(theirs[name], own[name].to(theirs[name].device)):
            found[name] = theirs[name]
    return found


class Receiver:
    """A model on some prompts, its residual streams kept, so that a swap runs only the blocks from its layer on."""

    def __init__(self, model: HookedModel, prompts: Sequence[Tokens], tokens: MarginTokens) -> None:
        self.model, self.tokens = model, tokens
        self.clean = [read(model, batch, tokens) for batch in prompts]
        self.margins: Float[np.ndarray, "prompt"] = _joined([c.margin for c in self.clean])

    @torch.no_grad()
    def swapped(self, weights: dict[str, nn.Parameter], lowest: int = -1) -> Float[np.ndarray, "prompt"]:
        """Margins with these parameters in place; -1: they reach below the first block."""
        if not weights:
            return self.margins
        found = []
        with with_weights(self.model, weights):
            for clean in self.clean:
                if lowest < 0:
                    found.append(last_margin(self.model, clean.tokens, self.tokens))
                else:
                    with from_layer(self.model, lowest, clean.acts["resid_pre", lowest]):
                        found.append(last_margin(self.model, clean.tokens, self.tokens))
        return _joined(found)

    def with_parts(self, donor: HookedModel, parts: Sequence[Part]) -> Float[np.ndarray, "prompt"]:
        """Margins, nats, with the donor's parameters of these parts. Raises InputError as `donated`."""
        return self.swapped(donated(self.model, donor, parts), _lowest(self.model, parts))


def _lowest(model: HookedModel, parts: Sequence[Part]) -> int:
    """The block that a forward may begin at."""
    if any(p.component == "embeddings" for p in parts):
        return -1
    return min((p.layer for p in parts if p.layer is not None), default=model.n_layers - 1)


def _joined(parts: Sequence[Tensor]) -> np.ndarray:
    return torch.cat(list(parts)).cpu().double().numpy()
