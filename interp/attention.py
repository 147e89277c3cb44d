"""Attention as decoding needs it, in the place of transformers' own: less is read, and less is computed.

Of a prompt that many rows share, keys and values are read once for all of them. A row's attention then runs over two
parts, the shared prompt and the row's own tokens. Their scores are made apart, the largest of both is taken from all,
and what they weigh is added: the softmax over all tokens, in another order of sums. In float32 that gives the tokens of
plain attention. In 16 bits it would not (`experiments/benchmarks/decode.py --part bfloat16` counts the answers that
differ), so there rows keep their prompts themselves.

On a CPU, prompts are read a block of queries at a time, each against the keys it may look at.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, PreTrainedModel
from transformers.cache_utils import Cache
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from interp.slots import Asked

NAME = "sdpa"
"""The attention of transformers in whose place `attend` stands."""
OTHERS = ("position_bias", "s_aux", "softcap")
"""What some models add to their scores, which `attend` does not know."""
BLOCK = 64
"""Queries of a prompt that are computed at once on a CPU: smaller blocks skip more, and cost more calls."""
LONGEST = 512
"""Tokens of a prompt up to which blocks gain: PyTorch's kernel skips what no query sees so many keys at a time."""


class _Thread(threading.local):
    """What the forward of this thread is: several loops may share a model."""

    step: Cache | None = None
    """The cache of the rows that get one more token."""
    reading: Cache | None = None
    """The cache that prompts are read into."""
    seen: set[int] | None = None
    """Layers that attended to the very keys and values they had cached."""


_thread = _Thread()
_plain: list[Callable[..., Any]] = []
"""What stood by this name before."""


def shareable(hf: PreTrainedModel) -> bool:
    """Whether `attend` may compute this model's attention its own way and give the same tokens.

    Whether the attention does run through it shows when a prompt is read (`reading`).
    """
    config = hf.config.get_text_config()
    own = config._attn_implementation == NAME and hf.dtype == torch.float32
    replaced = _plain[0] if _plain else AttentionInterface()[NAME]  # somebody may have put another one by this name
    return own and replaced is sdpa_attention_forward and not torch.is_autocast_enabled(hf.device.type)


def install() -> None:
    """Stand in for transformers' own attention, for the rest of the process: forwards of others are as ever."""
    if not _plain:
        _plain.append(AttentionInterface()[NAME])
        AttentionInterface.register(NAME, attend)


@contextmanager
def reading(cache: Cache) -> Iterator[set[int]]:
    """While open, forwards of this thread read prompts; yields the layers of which `attend` can see the cache."""
    before = _thread.reading, _thread.seen
    _thread.reading, _thread.seen = cache, set()
    try:
        yield _thread.seen
    finally:
        _thread.reading, _thread.seen = before


@contextmanager
def stepping(cache: Cache) -> Iterator[None]:
    """While open, forwards of this thread are steps of the rows of this cache."""
    before = _thread.step
    _thread.step = cache
    try:
        yield
    finally:
        _thread.step = before


def attend(
    module: nn.Module,
    query: Float[Tensor, "row head new width"],
    key: Float[Tensor, "row kv own width"],
    value: Float[Tensor, "row kv own value_width"],
    attention_mask: Tensor | None,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[Float[Tensor, "row new head value_width"], None]:
    """Attention as transformers calls it; a prompt by blocks, a step over shared prompts too where there are some."""
    layer = None if torch.compiler.is_compiling() else _cached(module, key, value)
    plainly = partial(_plain[0], module, query, key, value, attention_mask, scaling=scaling, **kwargs)
    if layer is None:
        return plainly()
    if _thread.step is None:
        if not _known(attention_mask, kwargs):
            return plainly()
        assert _thread.seen is not None
        _thread.seen.add(layer.layer)
        causal = attention_mask is None and kwargs.get("is_causal", getattr(module, "is_causal", True)) is True
        by_blocks = causal and key.is_cpu and BLOCK < query.shape[2] == key.shape[2] <= LONGEST
        if by_blocks and not kwargs.get("dropout"):
            return _by_blocks(query, key, value, scaling), None
        return plainly()
    view = layer.slots.view(layer.layer, key.device)
    if not view.asked:
        return plainly()
    scale, kv = query.shape[-1] ** -0.5 if scaling is None else scaling, key.shape[1]
    queries = rearrange(query * scale, "row (kv group) 1 width -> row kv group width", kv=kv)
    own = _scores(queries, key, view.seen)
    top = own.amax(-1, keepdim=True)
    prompts = []
    for asked in view.asked:
        here = slice(asked.first, asked.first + len(asked.rows)), slice(None), slice(asked.width)
        scores = _scores(_by_prompt(queries, asked), layer.shared_keys[here], asked.seen)
        found = _by_row(scores.amax(-1, keepdim=True), asked)
        top[asked.into] = torch.maximum(top[asked.into], found)
        prompts.append((asked, scores, layer.shared_values[here]))
    out, weight = _weighted(own, top, value)
    for asked, scores, values in prompts:
        for total, part in zip((out, weight), _weighted(scores, _by_prompt(top, asked), values), strict=True):
            total[asked.into] += _by_row(part, asked)
    return rearrange(out / weight, "row kv group width -> row 1 (kv group) width"), None


def _cached(module: nn.Module, key: Tensor, value: Tensor) -> Any:
    """The layer of this thread's cache that has just given these very keys and values, or None.

    A hook may run another model while one is decoded: what is attended to there is none of this cache's.
    """
    cache, place = _thread.step or _thread.reading, getattr(module, "layer_idx", None)
    if cache is None or place is None or place >= len(cache.layers):
        return None
    layer: Any = cache.layers[place]
    if layer.given != (id(key), id(value)):
        return None
    layer.given = 0, 0
    return layer


def _known(mask: Tensor | None, kwargs: dict[str, Any]) -> bool:
    """Whether scores are products and no more: some models add numbers of their own, by the mask too."""
    return all(kwargs.get(name) is None for name in OTHERS) and (mask is None or mask.dtype == torch.bool)


def _by_blocks(
    query: Float[Tensor, "row head seq width"],
    key: Float[Tensor, "row kv seq width"],
    value: Float[Tensor, "row kv seq value_width"],
    scaling: float | None,
) -> Float[Tensor, "row seq head value_width"]:
    """Causal attention a block of queries at a time: what lies after a block is not computed to be masked."""
    (rows, heads, n, _), at = query.shape, torch.arange(query.shape[2])
    out = query.new_empty((rows, n, heads, value.shape[3]))
    for first in range(0, n, BLOCK):
        end = min(first + BLOCK, n)
        part = scaled_dot_product_attention(
            query[:, :, first:end],
            key[:, :, :end],
            value[:, :, :end],
            attn_mask=at[None, :end] <= at[first:end, None],
            scale=scaling,
            enable_gqa=heads != key.shape[1],
        )
        out[:, first:end] = part.transpose(1, 2)
    return out


def _scores(
    queries: Float[Tensor, "batch kv query width"],
    keys: Float[Tensor, "batch kv position width"],
    seen: Bool[Tensor, "batch 1 1 position"] | None,
) -> Float[Tensor, "batch kv query position"]:
    scores = queries @ keys.transpose(2, 3)
    return scores if seen is None else scores.masked_fill_(~seen, -torch.inf)


def _weighted(
    scores: Float[Tensor, "batch kv query position"],
    top: Float[Tensor, "batch kv query 1"],
    values: Float[Tensor, "batch kv position width"],
) -> tuple[Float[Tensor, "batch kv query width"], Float[Tensor, "batch kv query 1"]]:
    """Values summed with weights of which the largest is 1, and the sum of the weights; the scores become these."""
    weights = scores.sub_(top).exp_()
    return weights @ values, weights.sum(-1, keepdim=True)


def _by_prompt(rows: Float[Tensor, "all kv group x"], asked: Asked) -> Float[Tensor, "prompt kv query x"]:
    return rearrange(rows[asked.rows], "prompt row kv group x -> prompt kv (row group) x")


def _by_row(prompts: Float[Tensor, "prompt kv query x"], asked: Asked) -> Float[Tensor, "real kv group x"]:
    """What is that of each row that looks at these prompts, in the order of `asked.into`."""
    split = rearrange(prompts, "prompt kv (row group) x -> prompt row kv group x", row=asked.rows.shape[1])
    return split.flatten(0, 1) if asked.real is None else split[asked.real]
