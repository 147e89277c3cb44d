"""Attention over shared prompts against plain attention over a copy of them in every row."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.functional import scaled_dot_product_attention
from transformers.cache_utils import Cache
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from interp import attention
from interp.slots import PADDED, Filling, Row, SlotLayer, Slots, side_by_side

WIDTH, LAYERS = 8, 3


@st.composite
def filled(draw):
    """Rows with an answer of some tokens, each after one of some shared prompts or after a prompt of its own."""
    prompts = draw(st.lists(st.integers(1, 9), min_size=1, max_size=5))
    asked = draw(st.lists(st.integers(-1, len(prompts) - 1), min_size=1, max_size=9))
    answers = [draw(st.integers(0, 4)) for _ in asked]
    own = [draw(st.integers(1, 9)) for _ in asked]
    tops = [draw(st.integers(0, LAYERS - 1)) for _ in asked]
    kv, group = draw(st.sampled_from([(1, 1), (2, 1), (2, 3)]))
    return prompts, asked, answers, own, tops, kv, group, draw(st.integers(0, 99))


@settings(max_examples=60, deadline=None)
@given(filled())
def test_rows_that_share_prompts_attend_as_if_each_had_a_copy(case):
    prompts, asked, answers, own, tops, kv, group, seed = case
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator)

    rows = [
        Row(prompts[p] + n, top, p, prompts[p]) if p >= 0 else Row(length + n)
        for p, n, length, top in zip(asked, answers, own, tops, strict=True)
    ]
    slots = Slots(len(rows), 9, 5, tuple(sorted({row.alike for row in rows})))
    layers = [SlotLayer(slots, layer) for layer in range(LAYERS)]
    query = normal(len(rows), kv * group, 1, WIDTH)
    attention.install()
    module: Any = nn.Module()
    module.num_key_value_groups = group
    for index, layer in enumerate(layers):
        whole = [(normal(kv, row.length + 1, WIDTH), normal(kv, row.length + 1, WIDTH)) for row in rows]
        common = [(normal(kv, n, WIDTH), normal(kv, n, WIDTH)) for n in prompts]
        layer.lazy_initialization(whole[0][0][None], whole[0][1][None])
        for states in (layer.keys, layer.values):
            states.fill_(torch.nan)  # what nobody wrote must not matter
        for place, prompt in enumerate(common):
            if any(row.shared == place and index <= row.alike for row in rows):
                slots.filling, slots.sharing = [], [Filling(place, 0, range(LAYERS))]
                layer.update(prompt[0][None], prompt[1][None])
        for slot, row in enumerate(rows):  # its prompt and answer as if they were one prompt, then the shared part cut
            if row.shared >= 0 and index <= row.alike:
                for states, prompt in zip(whole[slot], common[row.shared], strict=True):
                    states[:, : row.prompt] = prompt
            slots.filling, slots.sharing = [Filling(slot, 0, range(LAYERS))], []
            before = row.length - row.own(index)
            layer.update(*(states[None, :, before:-1] for states in whole[slot]))
        slots.step(rows, prompts)
        new = (torch.stack([pair[i][:, -1:] for pair in whole]) for i in (0, 1))
        keys, values = layer.update(*new)
        module.layer_idx = index
        widest = max(row.length for row in rows) + 1
        mask = (torch.arange(widest)[None] < torch.tensor([row.length + 1 for row in rows])[:, None])[:, None, None]
        with attention.stepping(Cache(layers=layers)):
            found, _ = attention.attend(module, query, keys, values, mask, scaling=0.3, dropout=0.0)
        for slot, (key, value) in enumerate(whole):
            alone, _ = sdpa_attention_forward(
                module, query[slot : slot + 1], key[None], value[None], None, scaling=0.3, dropout=0.0
            )
            torch.testing.assert_close(found[slot : slot + 1], alone, rtol=1e-5, atol=1e-5)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 40), st.integers(1, 9), st.sampled_from([(1, 1), (2, 1), (2, 3)]), st.integers(0, 99))
def test_a_prompt_read_by_blocks_is_attended_to_as_in_one(tokens, block, heads, seed):
    (kv, group), generator = heads, torch.Generator().manual_seed(seed)
    query = torch.randn((2, kv * group, tokens, WIDTH), generator=generator)
    key, value = (torch.randn((2, kv, tokens, WIDTH), generator=generator) for _ in range(2))
    whole = scaled_dot_product_attention(query, key, value, is_causal=True, scale=0.3, enable_gqa=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(attention, "BLOCK", block)
        found = attention._by_blocks(query, key, value, 0.3)
    torch.testing.assert_close(found, whole.transpose(1, 2), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, True),
        ({"mask": torch.ones(1, 1, 9, 9, dtype=torch.bool)}, False),
        ({"tokens": 4}, False),
        ({"causal": False}, False),
        ({"is_causal": False}, False),
        ({"dropout": 1e-9}, False),
    ],
)
def test_only_causal_attention_over_prompts_of_some_length_goes_by_blocks(monkeypatch, change, expected):
    attention.install()
    asked, by_blocks = [], attention._by_blocks
    monkeypatch.setattr(attention, "_by_blocks", lambda *args: asked.append(args) or by_blocks(*args))
    monkeypatch.setattr(attention, "BLOCK", 4)
    tokens = change.get("tokens", 9)
    layer = SlotLayer(Slots(1, tokens, 2), 0)
    layer.slots.filling = [Filling(0, 0, range(1))]
    module: Any = nn.Module()
    module.layer_idx, module.is_causal = 0, change.get("causal", True)
    query, key, value = (torch.randn(1, 1, tokens, WIDTH) for _ in range(3))
    cache, extra = Cache(layers=[layer]), {k: v for k, v in change.items() if k in ("is_causal", "dropout")}
    with attention.reading(cache):
        given = cache.layers[0].update(key, value)
        found, _ = attention.attend(module, query, *given, change.get("mask"), **extra)
    plain, _ = sdpa_attention_forward(module, query, key, value, change.get("mask"), **extra)
    torch.testing.assert_close(found, plain, rtol=1e-5, atol=1e-5)
    assert bool(asked) is expected


@given(st.lists(st.integers(0, 6), max_size=12))
def test_runs_of_prompts_cover_what_is_asked_once_and_are_not_padded_too_much(counts):
    runs = side_by_side(counts)
    assert sorted(place for run in runs for place in run) == [place for place, n in enumerate(counts) if n]
    for run in runs:
        own = [counts[place] for place in run]
        assert len(own) * max(own) <= PADDED * sum(own)


@pytest.mark.parametrize(
    ("implementation", "dtype", "can"),
    [("sdpa", torch.float32, True), ("eager", torch.float32, False), ("sdpa", torch.bfloat16, False)],
)
def test_only_plain_attention_in_float32_is_shared(make_hf, implementation, dtype, can):
    assert attention.shareable(make_hf("llama", attn_implementation=implementation).to(dtype)) is can


def test_outside_of_shared_steps_attention_is_what_it_was(make_hf):
    hf = make_hf("llama")
    ids = torch.tensor([[3, 4, 5, 6]])
    before = hf(input_ids=ids).logits
    attention.install()
    attention.install()
    torch.testing.assert_close(hf(input_ids=ids).logits, before, rtol=0, atol=0)
    assert hf.config._attn_implementation == "sdpa"


def test_an_attention_that_somebody_put_by_this_name_is_left_alone(make_hf, monkeypatch):
    hf = make_hf("llama")
    assert attention.shareable(hf)
    monkeypatch.setattr(attention, "_plain", [lambda *args, **kwargs: sdpa_attention_forward(*args, **kwargs)])
    assert not attention.shareable(hf)


def test_a_step_inside_a_step_leaves_the_outer_one_open():
    outer, inner = Cache(layers=[]), Cache(layers=[])
    with attention.stepping(outer):
        with pytest.raises(RuntimeError, match="stop"), attention.stepping(inner):
            raise RuntimeError("stop")
        assert attention._thread.step is outer
    assert attention._thread.step is None


def test_layers_that_attend_to_something_else_than_they_cached_are_not_seen():
    attention.install()
    layer = SlotLayer(Slots(1, 4, 2), 0)
    layer.slots.filling = [Filling(0, 0, range(1))]
    module: Any = nn.Module()
    module.layer_idx = 0
    key, value = torch.randn(1, 1, 4, WIDTH), torch.randn(1, 1, 4, WIDTH)
    for change, extra, expected in (
        (0.0, {}, {0}),
        (1.0, {}, set()),
        (0.0, {"position_bias": torch.zeros(4, 4)}, set()),
        (0.0, {"attention_mask": torch.zeros(1, 1, 4, 4)}, set()),
    ):
        cache = Cache(layers=[layer])
        given = cache.layers[0].update(key, value)
        keys = given[0] + change if change else given[0]
        with attention.reading(cache) as seen:
            attention.attend(module, torch.randn(1, 1, 4, WIDTH), keys, given[1], **{"attention_mask": None, **extra})
        assert seen == expected
