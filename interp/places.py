"""Named places inside every block of the clean model: hooks that read what flows there, or change it.

The hooks sit on the Hugging Face modules, so that a changed residual stream is what the rest of the model really reads.
No parameter is touched, and every hook is taken out again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal

from torch import Tensor, nn

from interp.models import HookedModel

Place = Literal["resid_pre", "resid_mid", "resid_post", "h_down", "attn_out", "mlp_out"]
"""The residual stream before the block, between attention and MLP, after the block; the input of W_V; what attention
and MLP add to the stream (Gemma2: after its post-norms)."""
Change = Callable[[Tensor], Tensor | None]
"""Takes the activations [batch, seq, width]; what it returns takes their place, None leaves them as they are."""


def is_parallel(model: HookedModel) -> bool:
    """Whether attention and MLP read the same stream (GPT-NeoX): then nothing lies between them, no resid_mid."""
    return bool(getattr(model.hf.config, "use_parallel_residual", False))


@contextmanager
def hooked(model: HookedModel, place: Place, layer: int, change: Change) -> Iterator[None]:
    """While open, what flows through a place of a layer goes through `change` in every forward."""
    block = model.blocks[model.check_layer(layer)]
    inputs = {
        "resid_pre": lambda: block,
        "resid_mid": lambda: _middle(block),
        "h_down": lambda: model.value_module(layer),
    }
    hook = (
        input_hooked(inputs[place](), change)
        if place in inputs
        else output_hooked(_writer(model, place, layer), change)
    )
    with hook:
        yield


@contextmanager
def input_hooked(module: nn.Module, change: Change, first: bool = False) -> Iterator[None]:
    """While open, the hidden states that enter a module go through `change`, with `first` before all other hooks."""

    def enter(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple, dict] | None:
        new = change(args[0] if args else kwargs["hidden_states"])
        if new is None:
            return None
        return ((new, *args[1:]), kwargs) if args else ((), {**kwargs, "hidden_states": new})

    handle = module.register_forward_pre_hook(enter, with_kwargs=True, prepend=first)
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def output_hooked(module: nn.Module, change: Change) -> Iterator[None]:
    """While open, the hidden states that leave a module go through `change`."""

    def leave(_: nn.Module, __: tuple[Any, ...], out: Any) -> Any:
        new = change(out[0] if isinstance(out, tuple) else out)
        if new is None:
            return None
        return (new, *out[1:]) if isinstance(out, tuple) else new

    handle = module.register_forward_hook(leave)
    try:
        yield
    finally:
        handle.remove()


def _middle(block: nn.Module) -> nn.Module:
    """The norm in front of the MLP: its input is the stream between attention and MLP."""
    names = ("pre_feedforward_layernorm", "ln_2", "post_attention_layernorm")
    return next(module for name in names if (module := getattr(block, name, None)) is not None)


def _writer(model: HookedModel, place: Place, layer: int) -> nn.Module:
    """The module whose output is the place."""
    block = model.blocks[layer]
    if place == "resid_post":
        return block
    if hasattr(block, "post_feedforward_layernorm"):  # Gemma2 norms again what each part adds
        return block.post_attention_layernorm if place == "attn_out" else block.post_feedforward_layernorm  # type: ignore[return-value]
    return model.attention(layer) if place == "attn_out" else model.mlp(layer)
