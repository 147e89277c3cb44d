"""Attention of new tokens over a prompt that many rows share: its keys and values are read once for all of them.

A row's attention runs over two parts, the shared prompt and the row's own tokens. Their scores are made apart, the
largest of both is taken from all, and what they weigh is added: the softmax over all tokens, in another order of sums.
In float32 that gives the tokens of plain attention. In 16 bits it would not (43 % of 256 answers of a random model were
others, none where batches had other shapes), so there rows keep their prompts themselves.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from transformers import AttentionInterface, PreTrainedModel
from transformers.cache_utils import Cache
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

from interp.slots import Asked

NAME = "interp_slots"
"""The name of this attention among those of transformers."""
ELSEWHERE = ("mpt",)
"""Models that add to their scores what depends on positions (ALiBi): their rows keep their prompts themselves."""


class _Step(threading.local):
    """The cache of the step that this thread runs: several loops may share a model."""

    cache: Cache | None = None


_step = _Step()


def shareable(hf: PreTrainedModel) -> bool:
    """Whether rows of this model can share the keys and values of a prompt and give the same tokens."""
    config = hf.config.get_text_config()
    plain = config._attn_implementation == "sdpa" and config.model_type not in ELSEWHERE
    return plain and hf.dtype == torch.float32


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
    scale, kv = query.shape[-1] ** -0.5 if scaling is None else scaling, key.shape[1]
    queries = rearrange(query * scale, "row (kv group) 1 width -> row kv group width", kv=kv)
    own = _scores(queries, key, view.seen)
    top = own.amax(-1, keepdim=True)
    prompts = []
    for asked in view.asked:
        here = slice(asked.first, asked.first + len(asked.rows)), slice(None), slice(asked.seen.shape[-1])
        scores = _scores(_by_prompt(queries, asked), layer.shared_keys[here], asked.seen)
        rows, found = _by_row(scores.amax(-1, keepdim=True), asked)
        top[rows] = torch.maximum(top[rows], found)
        prompts.append((asked, scores, layer.shared_values[here]))
    out, weight = _weighted(own, top, value)
    for asked, scores, values in prompts:
        for into, part in zip((out, weight), _weighted(scores, _by_prompt(top, asked), values), strict=True):
            rows, found = _by_row(part, asked)
            into[rows] += found
    return rearrange(out / weight, "row kv group width -> row 1 (kv group) width"), None


def _scores(
    queries: Float[Tensor, "batch kv query width"],
    keys: Float[Tensor, "batch kv position width"],
    seen: Bool[Tensor, "batch 1 1 position"],
) -> Float[Tensor, "batch kv query position"]:
    return (queries @ keys.transpose(2, 3)).masked_fill_(~seen, -torch.inf)


def _weighted(
    scores: Float[Tensor, "batch kv query position"],
    top: Float[Tensor, "batch kv query 1"],
    values: Float[Tensor, "batch kv position width"],
) -> tuple[Float[Tensor, "batch kv query width"], Float[Tensor, "batch kv query 1"]]:
    """Values summed with weights of which the largest is 1, and the sum of the weights."""
    weights = torch.exp(scores - top)
    return weights @ values, weights.sum(-1, keepdim=True)


def _by_prompt(rows: Float[Tensor, "all kv group x"], asked: Asked) -> Float[Tensor, "prompt kv query x"]:
    return rearrange(rows[asked.rows], "prompt row kv group x -> prompt kv (row group) x")


def _by_row(
    prompts: Float[Tensor, "prompt kv query x"], asked: Asked
) -> tuple[Int[Tensor, "real"], Float[Tensor, "real kv group x"]]:
    """The rows that look at these prompts, and what is theirs."""
    split = rearrange(prompts, "prompt kv (row group) x -> prompt row kv group x", row=asked.rows.shape[1])
    return asked.rows[asked.real], split[asked.real]
