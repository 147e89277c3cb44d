"""Where architectures keep the parts that this package looks into."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import nn
from transformers import PreTrainedModel

from interp.errors import InputError


@dataclass(frozen=True)
class Layout:
    """Where a family of architectures keeps its decoder blocks, its final norm and its W_V."""

    blocks: str
    final_norm: str
    attention: str
    """The attention, as a path inside a block."""
    mlp: str
    value: str
    """The MLP's second matrix, as a path inside the MLP."""
    by_token: tuple[str, ...]
    """Matrices of the attention whose outputs no other token needs: queries, if apart, and what it writes."""


LAYOUTS = (
    # Llama, Mistral, Qwen2, Qwen3, Gemma2; GPT-2; GPT-NeoX, Pythia
    Layout("model.layers", "model.norm", "self_attn", "mlp", "down_proj", ("q_proj", "o_proj")),
    Layout("transformer.h", "transformer.ln_f", "attn", "mlp", "c_proj", ("c_proj",)),
    Layout("gpt_neox.layers", "gpt_neox.final_layer_norm", "attention", "mlp", "dense_4h_to_h", ("dense",)),
)


def find(module: nn.Module, path: str) -> Any:
    """The part at a dotted path; None where there is none."""
    for part in path.split("."):
        module = getattr(module, part, None)  # type: ignore[assignment]
        if module is None:
            return None
    return module


def layout_of(hf: PreTrainedModel) -> Layout:
    """The layout of a model. Raises InputError for an architecture that has none of them."""
    for layout in LAYOUTS:
        blocks = find(hf, layout.blocks)
        inside = (layout.attention, f"{layout.mlp}.{layout.value}")
        if blocks is not None and len(blocks) and all(find(blocks[0], path) is not None for path in inside):
            return layout
    raise InputError(
        f"the architecture {type(hf).__name__} is not supported: expected the module layout of "
        "GPT-2, Llama, Mistral, Qwen2, Qwen3, Gemma2 or GPT-NeoX"
    )
