"""Attention of new tokens over a prompt that many rows share: its keys and values are read once for all of them.

A row's attention runs over two parts, the shared prompt and the row's own tokens. Each gives its weighted values, the
largest score and the sum of the weights; both together are the softmax over all tokens (rounding apart).
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor, nn
from transformers import AttentionInterface, PreTrainedModel
from transformers.cache_utils import Cache
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

NAME = "interp_slots"
"""The name of this attention among those of transformers."""
ELSEWHERE = ("mpt",)
"""Models that add to their scores what depends on positions (ALiBi): their rows keep their prompts themselves."""
Part = tuple[Float[Tensor, "batch kv row width"], Float[Tensor, "batch kv row 1"], Float[Tensor, "batch kv row 1"]]
"""Values summed with unnormalised weights, the largest score, and the sum of the weights; in float32."""


class _Step(threading.local):
    """The cache of the step that this thread runs: several loops may share a model."""

    cache: Cache | None = None


_step = _Step()


def shareable(hf: PreTrainedModel) -> bool:
    """Whether rows of this model can share the keys and values of a prompt."""
    config = hf.config.get_text_config()
    return config._attn_implementation == "sdpa" and config.model_type not in ELSEWHERE


@contextmanager
def chosen(hf: PreTrainedModel) -> Iterator[None]:
    """While open, the model attends by `attend`. Outside of `stepping` that is what it did before."""
    config = hf.config.get_text_config()
    before = config._attn_implementation
    AttentionInterface.register(NAME, attend)
    AttentionMaskInterface.register(NAME, sdpa_mask)
    config._attn_implementation = NAME
    try:
        yield
    finally:
        config._attn_implementation = before


@contextmanager
def stepping(cache: Cache) -> Iterator[None]:
    """While open, forwards of this thread are steps of the rows of this cache."""
    _step.cache = cache
    try:
        yield
    finally:
        _step.cache = None


def attend(
    module: nn.Module,
    query: Float[Tensor, "row head new width"],
    key: Float[Tensor, "row kv own width"],
    value: Float[Tensor, "row kv own value_width"],
    attention_mask: Tensor | None,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[Float[Tensor, "row new head value_width"], None]:
    """Attention as transformers calls it; in a step over the shared prompts as well, where the layer has such."""
    layer: Any = None if _step.cache is None else _step.cache.layers[module.layer_idx]  # type: ignore[index]
    view = None if layer is None else layer.slots.view(layer.layer, key.device)
    if layer is None or view is None or not view.asked:
        return sdpa_attention_forward(module, query, key, value, attention_mask, scaling=scaling, **kwargs)
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    grouped = rearrange(query * scale, "row (kv group) 1 width -> row kv group width", kv=key.shape[1])
    summed, most, weight = _part(grouped, key, value, view.seen)
    most_before = torch.full_like(most, -torch.inf)
    summed_before, weight_before = torch.zeros_like(summed), torch.zeros_like(weight)
    for asked in view.asked:
        here = slice(asked.first, asked.first + len(asked.rows)), slice(None), slice(asked.seen.shape[-1])
        rows = rearrange(grouped[asked.rows], "prompt row kv group width -> prompt kv (row group) width")
        found = _part(rows, layer.shared_keys[here], layer.shared_values[here], asked.seen)
        target = asked.rows[asked.real]
        for into, part in zip((summed_before, most_before, weight_before), found, strict=True):
            by_row = rearrange(part, "prompt kv (row group) x -> prompt row kv group x", group=grouped.shape[2])
            into[target] = by_row[asked.real]
    top = torch.maximum(most, most_before)
    own, before = torch.exp(most - top), torch.exp(most_before - top)
    out = (own * summed + before * summed_before) / (own * weight + before * weight_before)
    return rearrange(out, "row kv group width -> row 1 (kv group) width").to(query.dtype), None


def _part(
    query: Float[Tensor, "batch kv row width"],
    key: Float[Tensor, "batch kv position width"],
    value: Float[Tensor, "batch kv position value_width"],
    seen: Bool[Tensor, "batch 1 1 position"],
) -> Part:
    scores = (query @ key.transpose(2, 3)).float().masked_fill_(~seen, -torch.inf)
    most = scores.amax(-1, keepdim=True)
    weights = torch.exp(scores - most)
    return (weights.to(value.dtype) @ value).float(), most, weights.sum(-1, keepdim=True)
