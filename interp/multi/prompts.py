"""One reading of a prompt for all the models that are asked it: what lies below the first W_V they differ in.

Models that differ from W_V of layer L on have the same keys and values in the blocks 0..L and the same input of that
W_V. One of them reads the prompt, the others go on from there: the blocks above L on all tokens, and where L is the
last layer, a single product at the last token.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from interp.models import HookedModel
from interp.standin import replaced


@dataclass
class Below:
    """What lies below W_V of one layer, for some rows; filled by a forward."""

    layer: int
    parts: dict[str, Float[Tensor, "row seq width"]] = field(default_factory=dict)
    """`resid`, the input of the block; `attn_out`, what its attention wrote; `h_down`, the input of W_V."""

    def rows(self, rows: Int[Tensor, "row"]) -> Below:
        """Some rows of it, any number of times."""
        return Below(self.layer, {name: part[rows.to(part.device)] for name, part in self.parts.items()})


class _State(threading.local):
    """What the forward of this thread keeps or starts from: several loops may share a model."""

    keeps: dict[int, Below] | None = None
    last: Int[Tensor, "row"] | None = None
    start: Below | None = None


class SharedPrompts:
    """`interp.decode.Shared` for models that differ in W_V matrices."""

    def __init__(self, model: HookedModel, layers: Sequence[int]) -> None:
        """Sharing for the prompts of one call of `generate`.

        Args:
            layers: of each prompt, the lowest layer whose W_V is its model's own; n_layers for the plain model.
        """
        self.model, self.layers = model, layers
        self._state = _State()

    @contextmanager
    def applied(self) -> Iterator[None]:
        """While open, forwards inside `keeping` and `resuming` do what these say; all others are as ever."""
        model = self.model
        with ExitStack() as stack:
            for layer in sorted({layer for layer in self.layers if layer < model.n_layers}):
                for module, made in ((model.attention(layer), self._attention), (model.mlp(layer), self._mlp)):
                    stack.enter_context(replaced(module, made(layer, module.forward)))
                handle = model.value_module(layer).register_forward_pre_hook(self._keeper(layer))
                stack.callback(handle.remove)
            for layer, block in enumerate(model.blocks):
                stack.enter_context(replaced(block, self._block(layer, block.forward)))
            yield

    @contextmanager
    def keeping(self, layers: Collection[int], last: Int[Tensor, "row"]) -> Iterator[dict[int, Below]]:
        """As `interp.decode.Shared` says: layer -> what lies below its W_V. At the last layer only the last tokens."""
        self._state.keeps, self._state.last = {layer: Below(layer) for layer in layers}, last
        try:
            yield self._state.keeps
        finally:
            self._state.keeps = self._state.last = None

    @contextmanager
    def resuming(self, state: Below, rows: Int[Tensor, "row"]) -> Iterator[None]:
        """As `interp.decode.Shared` says: the forward inside starts at W_V."""
        self._state.start = state.rows(rows)
        try:
            yield
        finally:
            self._state.start = None

    # ------------------------------------------------------------------------------------- inside a forward
    def _block(self, layer: int, forward: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any, **kwargs: Any) -> Any:
            start = self._state.start
            if start is not None and layer < start.layer:
                return start.parts["resid"]
            if start is not None and layer == start.layer:
                # Below it nothing has run: what comes in is not the residual stream of these tokens.
                return (
                    forward(start.parts["resid"], *args[1:], **kwargs)
                    if args
                    else forward(**{**kwargs, "hidden_states": start.parts["resid"]})
                )
            self._keep(layer, "resid", args[0] if args else kwargs["hidden_states"])
            return forward(*args, **kwargs)

        return run

    def _attention(self, layer: int, forward: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any, **kwargs: Any) -> Any:
            start = self._state.start
            if start is not None and start.layer == layer:
                return start.parts["attn_out"], None
            out = forward(*args, **kwargs)
            self._keep(layer, "attn_out", out[0] if isinstance(out, tuple) else out)
            return out

        return run

    def _mlp(self, layer: int, forward: Callable[..., Any]) -> Callable[..., Any]:
        value = self.model.value_module(layer)

        def run(*args: Any, **kwargs: Any) -> Any:
            start = self._state.start
            return (
                value(start.parts["h_down"]) if start is not None and start.layer == layer else forward(*args, **kwargs)
            )

        return run

    def _keeper(self, layer: int) -> Callable[[nn.Module, tuple[Any, ...]], None]:
        return lambda _, args: self._keep(layer, "h_down", args[0])

    def _keep(self, layer: int, part: str, states: Float[Tensor, "row seq width"]) -> None:
        keeps, last = self._state.keeps, self._state.last
        if keeps is None or last is None or layer not in keeps:
            return
        if layer == self.model.n_layers - 1:
            states = states[torch.arange(len(last), device=states.device), last.to(states.device)][:, None]
        keeps[layer].parts[part] = states
