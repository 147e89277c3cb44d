"""Our decoding loop against transformers' own `generate`: the same tokens, whatever the batching."""

from __future__ import annotations

import copy
import os
import threading
import time
from typing import Any

import pytest
import torch
from conftest import ARCHITECTURES, tiny_tokenizer
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import GPTNeoConfig, GPTNeoForCausalLM

from interp import attention, decode
from interp.models import HookedModel
from interp.slots import SlotLayer

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


@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
def test_both_attention_implementations_see_the_same_mask(make_hf, implementation):
    hf = wide(make_hf, "llama", attn_implementation=implementation)
    assert hf.config._attn_implementation == implementation
    answers = decode.greedy(hf, unembedding(hf), PROMPTS, max_new_tokens=8, slots=4)
    assert answers == [alone(hf, p, 8, []) for p in PROMPTS]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_prompts_read_a_block_of_queries_at_a_time_give_the_same_tokens(make_hf, monkeypatch, architecture):
    hf, blocks, by_blocks = wide(make_hf, architecture), [], attention._by_blocks
    monkeypatch.setattr(attention, "BLOCK", 5)
    monkeypatch.setattr(attention, "_by_blocks", lambda *args: blocks.append(args) or by_blocks(*args))
    assert decode.greedy(hf, unembedding(hf), PROMPTS, max_new_tokens=6, slots=4) == [
        alone(hf, p, 6, []) for p in PROMPTS
    ]
    assert bool(blocks) is (architecture != "gemma2")  # which caps its scores


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


def test_windows_of_local_attention_are_not_looked_over():
    config = GPTNeoConfig(
        vocab_size=320,
        hidden_size=16,
        num_layers=2,
        num_heads=2,
        attention_types=[[["global", "local"], 1]],
        window_size=8,
    )
    hf = GPTNeoForCausalLM(config)
    assert decode.supports(hf, longest=8)
    assert not decode.supports(hf, longest=9)


def test_no_prompts_give_no_answers(llama):
    assert decode.greedy(llama.hf, llama.unembedding, [], max_new_tokens=3) == []


MANY = [[3 + (7 * i + j) % 300 for j in range(1 + i % 13)] for i in range(40)]


@pytest.mark.parametrize("processors", [1, 2])
def test_small_models_decode_the_same_in_two_loops_as_prompt_by_prompt(tiny_models, monkeypatch, processors):
    monkeypatch.setattr(decode, "processors", lambda: processors)
    hf, told, seen = tiny_models["gpt2"].hf, [], []
    before = torch.get_num_threads()
    answers = decode.greedy(
        hf,
        unembedding(hf),
        MANY,
        max_new_tokens=6,
        stop_ids=[5, 9, 11],
        slots=8,
        rows=lambda rows: told.append((threading.get_ident(), tuple(rows))),
        progress=lambda done, total: seen.append((done, total)),
    )
    alone = [decode.greedy(hf, unembedding(hf), [p], max_new_tokens=6, stop_ids=[5, 9, 11])[0] for p in MANY]
    assert answers == alone
    assert len({thread for thread, _ in told}) == processors
    assert {row for _, rows in told for row in rows} == set(range(len(MANY)))
    assert seen[-1] == (len(MANY), len(MANY))
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert torch.get_num_threads() == before


def test_an_error_in_one_loop_ends_both_and_leaves_no_trace(tiny_models, monkeypatch):
    monkeypatch.setattr(decode, "processors", lambda: 2)
    hf, before = tiny_models["gpt2"].hf, torch.get_num_threads()
    hooks = len(unembedding(hf)._forward_pre_hooks)
    calls = []

    def fails(rows: list[int]) -> None:
        calls.append(rows)
        if len(calls) == 5:
            raise RuntimeError("told too often")

    with pytest.raises(RuntimeError, match="told too often"):
        decode.greedy(hf, unembedding(hf), MANY, max_new_tokens=50, slots=4, rows=fails)
    assert len(calls) < 40
    assert torch.get_num_threads() == before
    assert len(unembedding(hf)._forward_pre_hooks) == hooks


def test_threads_are_settled_for_small_models_alone(tiny_models, monkeypatch):
    asked = []
    monkeypatch.setattr(torch, "set_num_threads", asked.append)
    decode.settle_threads(tiny_models["llama"].hf)
    monkeypatch.setattr(decode, "SMALL_WIDTH", 16)
    decode.settle_threads(tiny_models["llama"].hf)
    assert asked == [1]


@pytest.mark.parametrize(("asked", "found"), [("1", 1), ("", None), ("many", None)])
def test_processors_are_those_one_may_use(monkeypatch, asked, found):
    monkeypatch.setenv("OMP_NUM_THREADS", asked)
    here = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    assert decode.processors() == (found or here)


# ------------------------------------------------------------------------------------------------- the last block
def shapes(module) -> list[tuple[int, ...]]:
    """Tokens of what the module is given from now on, told by a forward of its own and not by a hook."""
    seen, forward = [], module.forward
    object.__setattr__(module, "forward", lambda x: seen.append(x.shape[1]) or forward(x))
    return seen


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_last_block_reads_the_last_token_alone_and_changes_no_answer(make_hf, architecture):
    hf = wide(make_hf, architecture)
    model = HookedModel.from_hf(hf, tiny_tokenizer())
    spared = model.spared()
    assert len(spared) == (2 if architecture in ("gpt2", "neox") else 3)
    seen = [shapes(module) for module in (model.value_module(model.n_layers - 1), *spared)]
    plain = decode.greedy(hf, unembedding(hf), PROMPTS, max_new_tokens=6, slots=4)
    for tokens in seen:
        assert max(tokens) > 1
        tokens.clear()
    assert decode.greedy(hf, unembedding(hf), PROMPTS, max_new_tokens=6, slots=4, spared=spared) == plain
    assert [set(tokens) for tokens in seen] == [{1}] * len(seen)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in spared)


@pytest.mark.parametrize("path", ["mlp", "self_attn", "self_attn.q_proj", "self_attn.o_proj"])
def test_a_module_that_stands_in_another_block_too_reads_all_tokens(make_hf, path):
    hf = wide(make_hf, "llama")
    first, last = hf.model.layers[0], hf.model.layers[-1]
    *outer, name = path.split(".")
    for part in outer:
        first, last = getattr(first, part), getattr(last, part)
    setattr(first, name, getattr(last, name))
    spared = HookedModel.from_hf(hf, tiny_tokenizer()).spared()
    assert all(module is not getattr(last, name) for module in spared)
    if path != "self_attn":  # whose cache knows one place alone
        answers = decode.greedy(hf, unembedding(hf), PROMPTS, max_new_tokens=6, slots=4, spared=spared)
        assert answers == [alone(hf, p, 6, []) for p in PROMPTS]


def test_what_cannot_be_hooked_leaves_no_hooks(make_hf):
    class Refusing(torch.nn.Identity):
        def register_forward_hook(self, *_: Any, **__: Any) -> Any:
            raise RuntimeError("no hooks here")

    hf = wide(make_hf, "llama")
    with pytest.raises(RuntimeError, match="no hooks here"):
        decode.greedy(hf, unembedding(hf), PROMPTS, max_new_tokens=2, spared=[hf.model.layers[-1].mlp, Refusing()])
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in hf.modules())


@pytest.mark.parametrize("where", ["mlp", "value_module", "block", "norm", "base"])
def test_who_watches_the_last_block_sees_all_tokens(make_model, texts, where):
    model, seen = make_model("llama"), []
    last = model.n_layers - 1
    modules = {"mlp": model.mlp(last), "value_module": model.value_module(last), "block": model.blocks[last]}
    modules["base"] = model.hf.base_model
    module = modules.get(where, model.final_norm)
    plain = model.generate(texts, max_new_tokens=4)
    whole = lambda out: out if isinstance(out, torch.Tensor) else out[0]  # noqa: E731
    handle = module.register_forward_hook(lambda _, args, out: seen.append(whole(out).detach().abs().sum(-1)))
    assert model.generate(texts, max_new_tokens=4) == plain
    handle.remove()
    assert seen[0].shape[1] > 1
    assert (seen[0] > 0).all()


def test_under_autocast_two_loops_round_as_one(make_hf, monkeypatch):
    hf, found = wide(make_hf, "llama"), {}
    for processors in (1, 2):
        monkeypatch.setattr(decode, "processors", lambda n=processors: n)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            found[processors] = decode.greedy(hf, unembedding(hf), MANY, max_new_tokens=12, slots=16)
    assert found[1] == found[2]


def test_under_autocast_answers_are_given_as_before(make_model, texts):
    model = make_model("llama")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        spared = model.generate(texts, max_new_tokens=4)
        handle = model.final_norm.register_forward_hook(lambda *_: None)
        assert model.generate(texts, max_new_tokens=4) == spared
    handle.remove()


def test_threads_that_answer_with_one_model_leave_it_as_it_was(make_model, texts):
    model = make_model("llama")
    expected, found = model.generate(texts, max_new_tokens=8), {}
    before = {name: set(module.__dict__) for name, module in model.hf.named_modules()}
    barrier = threading.Barrier(2)

    def answer(n: int, delay: float) -> None:
        barrier.wait()
        time.sleep(delay)
        found[n] = model.generate(texts * n, max_new_tokens=8)

    threads = [threading.Thread(target=answer, args=(n, 0.002 * n)) for n in (1, 6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {n: expected * n for n in (1, 6)}
    assert {name: set(module.__dict__) for name, module in model.hf.named_modules()} == before
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.hf.modules())


def test_a_copy_made_while_answers_are_given_is_a_model_of_its_own(make_model, texts):
    model, copies = make_model("llama"), []

    def copied(*_) -> None:
        if not copies:
            copies.append(copy.deepcopy(model.hf))

    model.generate(texts, max_new_tokens=4, progress=copied)
    ids = torch.tensor([[5, 6, 7]])
    torch.testing.assert_close(copies[0](input_ids=ids).logits, model.hf(input_ids=ids).logits)
    copies[0].model.layers[-1].mlp.down_proj.weight.data.zero_()
    assert not torch.allclose(copies[0](input_ids=ids).logits, model.hf(input_ids=ids).logits)


def test_what_a_slot_held_before_does_not_matter(make_hf, monkeypatch):
    hf = wide(make_hf, "llama")
    plain = decode.greedy(hf, unembedding(hf), PROMPTS, max_new_tokens=6, slots=3)
    room = SlotLayer._room
    monkeypatch.setattr(SlotLayer, "_room", lambda *args: room(*args).fill_(torch.nan))
    assert decode.greedy(hf, unembedding(hf), PROMPTS, max_new_tokens=6, slots=3) == plain
