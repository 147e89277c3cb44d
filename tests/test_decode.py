"""Our decoding loop against transformers' own `generate`: the same tokens, whatever the batching."""

from __future__ import annotations

import pytest
import torch
from conftest import ARCHITECTURES
from hypothesis import given, settings
from hypothesis import strategies as st

from interp import decode

WINDOW = {"mistral": {"sliding_window": 4096}, "gemma2": {"sliding_window": 4096}}
PROMPTS = [[5, 9, 30], [7] * 12, [40, 41, 42, 43, 44, 45, 46], [100], [3, 4, 3, 4, 3], [250, 17] * 9, [12, 13, 14]]


def wide(make_hf, architecture: str, **config):
    """A tiny model whose attention reaches over the whole text."""
    return make_hf(architecture, **WINDOW.get(architecture, {}), **config).eval()


def unembedding(hf):
    return hf.get_output_embeddings()


def alone(hf, prompt: list[int], n: int, stops: list[int]) -> list[int]:
    """What transformers generates for one unpadded prompt."""
    out = hf.generate(
        input_ids=torch.tensor([prompt]),
        attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
        do_sample=False,
        max_new_tokens=n,
        eos_token_id=stops or None,
        pad_token_id=2,
    )
    return out[0, len(prompt) :].tolist()


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_tokens_are_those_of_generate_for_each_prompt_alone(make_hf, architecture):
    hf = wide(make_hf, architecture)
    stops = [alone(hf, PROMPTS[0], 4, [])[3], alone(hf, PROMPTS[1], 9, [])[8]]  # so that rows end at different lengths
    answers = decode.greedy(hf, unembedding(hf), PROMPTS, max_new_tokens=14, stop_ids=stops, slots=3)
    assert answers == [alone(hf, p, 14, stops) for p in PROMPTS]
    assert len({len(a) for a in answers}) > 1


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_both_attention_implementations_see_the_same_mask(make_hf, attention):
    hf = wide(make_hf, "llama", attn_implementation=attention)
    assert hf.config._attn_implementation == attention
    answers = decode.greedy(hf, unembedding(hf), PROMPTS, max_new_tokens=8, slots=4)
    assert answers == [alone(hf, p, 8, []) for p in PROMPTS]


@settings(max_examples=12, deadline=None)
@given(
    prompts=st.lists(st.lists(st.integers(3, 319), min_size=1, max_size=20), min_size=1, max_size=9),
    slots=st.integers(1, 12),
    stop=st.integers(3, 319),
    limit=st.integers(1, 7),
)
def test_batching_changes_no_token(tiny_models, prompts, slots, stop, limit):
    hf = tiny_models["gpt2"].hf
    one_by_one = [
        decode.greedy(hf, unembedding(hf), [p], max_new_tokens=limit, stop_ids=[stop], slots=1)[0] for p in prompts
    ]
    together = decode.greedy(hf, unembedding(hf), prompts, max_new_tokens=limit, stop_ids=[stop], slots=slots)
    assert together == one_by_one


def test_prompts_are_read_in_pieces_that_fit_one_forward(make_hf, monkeypatch):
    monkeypatch.setattr(decode, "PREFILL_TOKENS", 20)
    hf, sizes = wide(make_hf, "llama"), []
    answers = decode.greedy(
        hf, unembedding(hf), PROMPTS, max_new_tokens=5, slots=7, rows=lambda rows: sizes.append(len(rows))
    )
    assert answers == [alone(hf, p, 5, []) for p in PROMPTS]
    assert sizes[0] == 1  # the longest prompt alone: 18 tokens


def test_rows_are_told_before_each_forward(make_hf):
    hf, told, seen = wide(make_hf, "llama"), [], []
    handle = hf.model.layers[0].register_forward_pre_hook(lambda _, args: seen.append(args[0].shape[0]))
    decode.greedy(hf, unembedding(hf), PROMPTS, max_new_tokens=4, slots=3, rows=lambda rows: told.append(list(rows)))
    handle.remove()
    assert [len(rows) for rows in told] == seen
    assert {row for rows in told for row in rows} == set(range(len(PROMPTS)))
    assert all(len(set(rows)) == len(rows) <= 3 for rows in told)


def test_rows_that_end_make_room_at_once(make_hf):
    hf, told = wide(make_hf, "llama"), []
    [first] = decode.greedy(hf, unembedding(hf), [PROMPTS[0]], max_new_tokens=2)
    answers = decode.greedy(
        hf,
        unembedding(hf),
        PROMPTS,
        max_new_tokens=30,
        stop_ids=[first[0]],
        slots=2,
        rows=lambda r: told.append(list(r)),
    )
    assert answers[0] == [first[0]]
    rows = sum(map(len, told))
    assert rows == sum(len(a) for a in answers)  # one row of one forward for each token, and not one more


def test_progress_ends_with_all_prompts(make_hf):
    hf, seen = wide(make_hf, "llama"), []
    decode.greedy(
        hf, unembedding(hf), PROMPTS, max_new_tokens=3, slots=2, progress=lambda done, total: seen.append((done, total))
    )
    assert seen[-1] == (len(PROMPTS), len(PROMPTS))
    assert seen == sorted(set(seen))


@pytest.mark.parametrize(
    ("architecture", "fits"), [("mistral", False), ("gemma2", False), ("llama", True), ("gpt2", True)]
)
def test_attention_with_a_shorter_window_is_left_to_transformers(make_hf, architecture, fits):
    assert decode.supports(make_hf(architecture), longest=9) is fits
    assert decode.supports(make_hf(architecture), longest=8)


def test_no_prompts_give_no_answers(llama):
    assert decode.greedy(llama.hf, llama.unembedding, [], max_new_tokens=3) == []
