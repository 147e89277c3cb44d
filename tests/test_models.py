"""Loading, formatting, tokenizing, generating, saving and hooking on all architectures, and bad input of every kind."""

import json
import shutil
import time
import warnings
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.pytorch_utils import Conv1D

import interp.checkpoints as checkpoints
from interp.errors import InputError
from interp.methods import DEFAULT_SUFFIX
from interp.models import HookedModel, Tokens

TEMPLATE = "{{ bos_token }}{% for m in messages %}User: {{ m.content }}\n{% endfor %}Assistant:"


@pytest.fixture
def saved(llama, tmp_path):
    """A folder with the tiny Llama as a plain checkpoint."""
    llama.save(tmp_path / "llama")
    return tmp_path / "llama"


def edit_json(file, **changes):
    data = json.loads(file.read_text())
    file.write_text(json.dumps({k: v for k, v in {**data, **changes}.items() if v is not None}))


# ------------------------------------------------------------------------------------------------- shape and hooks
def test_the_model_knows_its_shape_and_its_value_vectors(tiny_model, texts):
    assert (tiny_model.n_layers, tiny_model.d_model, tiny_model.d_mlp) == (3, 32, 48)
    assert (tiny_model.vocab_size, tiny_model.context, tiny_model.dtype) == (320, 96, torch.float32)
    state = tiny_model.hf.state_dict(keep_vars=True)
    for layer in range(3):
        weight = tiny_model.value_weight(layer)
        assert state[tiny_model.value_name(layer)] is weight
        vectors = tiny_model.value_vectors(layer)
        assert vectors.shape == (48, 32)
        assert vectors.untyped_storage().data_ptr() == weight.untyped_storage().data_ptr()
        h = torch.randn(2, 48)
        out = tiny_model.value_module(layer)(h)
        bias = getattr(tiny_model.value_module(layer), "bias", None)
        assert torch.allclose(out - (0 if bias is None else bias), h @ vectors, atol=1e-4)
        assert isinstance(tiny_model.value_module(layer), (nn.Linear, Conv1D))


def test_the_model_is_frozen_and_in_eval_mode(tiny_model):
    assert not any(p.requires_grad for p in tiny_model.hf.parameters())
    assert not any(m.training for m in tiny_model.hf.modules())


def test_the_bridge_shares_its_parameters_with_the_clean_model(tiny_model):
    bridge = tiny_model.bridge
    assert tiny_model.bridge is bridge
    own = {p.untyped_storage().data_ptr() for p in bridge.parameters()}
    for name, parameter in tiny_model.hf.named_parameters():
        if "query_key_value" not in name:  # fused and interleaved on NeoX: the bridge holds q, k, v as copies
            assert parameter.untyped_storage().data_ptr() in own, name
    for layer in range(tiny_model.n_layers):
        assert bridge.blocks[layer].mlp.out.weight is tiny_model.value_weight(layer)


def test_the_bridge_agrees_with_the_clean_model_and_leaves_it_clean(tiny_model, texts, tmp_path):
    tokens = tiny_model.tokenize(texts)
    attention = tiny_model.hf.config._attn_implementation
    bridge = tiny_model.bridge
    with torch.no_grad():
        out = bridge(tokens.input_ids, attention_mask=tokens.attention_mask, position_ids=tokens.position_ids)
    real = tokens.attention_mask.bool()
    assert torch.allclose(out[real], tiny_model.logits(tokens)[real], atol=1e-3, rtol=1e-4)
    assert tiny_model.hf.config._attn_implementation == attention
    assert "_original_component" not in "".join(tiny_model.hf.state_dict())


def test_changes_of_any_weight_are_seen_by_the_bridge(make_model, texts):
    for architecture in ("gpt2", "llama", "neox"):
        model = make_model(architecture)
        tokens = model.tokenize(texts, side="right")
        real = tokens.attention_mask.bool()
        kwargs = {"attention_mask": tokens.attention_mask, "position_ids": tokens.position_ids}
        model.bridge(tokens.input_ids, **kwargs)
        with torch.no_grad():
            for parameter in model.attention(1).parameters():
                parameter.mul_(1.5)
        assert torch.allclose(model.bridge(tokens.input_ids, **kwargs)[real], model.logits(tokens)[real], atol=1e-3)


def test_layers_out_of_range_are_told(llama):
    for bad in (3, -1):
        with pytest.raises(InputError, match=rf"^layer {bad} out of range: the model has layers 0\.\.2$"):
            llama.value_vectors(bad)


# ------------------------------------------------------------------------------------------------- save and load
def test_save_then_load_gives_equal_logits_in_transformers_and_here(tiny_model, texts, tmp_path):
    folder = tmp_path / "model"
    tiny_model.save(folder)
    tokens = tiny_model.tokenize(texts)
    expected = tiny_model.logits(tokens)
    plain = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    got = plain(tokens.input_ids, attention_mask=tokens.attention_mask, position_ids=tokens.position_ids).logits
    assert torch.equal(got, expected)
    again = HookedModel.from_pretrained(folder, device="cpu")
    assert torch.equal(again.logits(again.tokenize(texts)), expected)
    assert again.weight_hash() == tiny_model.weight_hash()
    assert AutoTokenizer.from_pretrained(folder)(texts[0]).input_ids == tiny_model.tokenizer(texts[0]).input_ids
    assert again.name == "model"


def test_saving_still_works_after_the_bridge_was_made(llama, saved, tmp_path):
    assert llama.bridge is not None
    llama.save(tmp_path / "after")
    names = [p.name for p in sorted(saved.iterdir())]
    assert [p.name for p in sorted((tmp_path / "after").iterdir())] == names
    assert (saved / "model.safetensors").read_bytes() == (tmp_path / "after" / "model.safetensors").read_bytes()


def test_save_replaces_a_checkpoint_but_nothing_else(llama, saved, make_model, tmp_path):
    make_model("gpt2").save(saved)
    assert json.loads((saved / "config.json").read_text())["model_type"] == "gpt2"
    assert [p.name for p in tmp_path.iterdir()] == ["llama"]  # nothing temporary left
    other = tmp_path / "other"
    other.mkdir()
    (other / "thesis.tex").write_text("x")
    with pytest.raises(InputError, match="is not empty and holds no checkpoint"):
        llama.save(other)
    with pytest.raises(InputError, match="expected a folder to save the model in, got the file"):
        llama.save(other / "thesis.tex")
    assert (other / "thesis.tex").read_text() == "x"


def test_a_failed_save_leaves_nothing_behind(llama, tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(llama.tokenizer, "save_pretrained", full)
    with pytest.raises(InputError, match=r"cannot write the model to .*: No space left on device"):
        llama.save(tmp_path / "model")
    assert not list(tmp_path.iterdir())


def test_the_chat_setting_travels_with_the_checkpoint(make_model, tmp_path):
    model = make_model("llama", template=TEMPLATE, chat_template="auto")
    model.save(tmp_path / "chat")
    again = HookedModel.from_pretrained(tmp_path / "chat", device="cpu")
    assert again.chat_template == "auto"
    assert again.format_prompt("Hi") == "<s>User: Hi\nAssistant:"
    assert (
        HookedModel.from_pretrained(tmp_path / "chat", chat_template="none", device="cpu").format_prompt("Hi") == "Hi"
    )


@pytest.mark.parametrize(
    ("given", "expected"), [(None, torch.float32), ("bfloat16", torch.bfloat16), ("auto", torch.float16)]
)
def test_dtype_is_float32_on_a_cpu_unless_said_otherwise(make_model, texts, tmp_path, given, expected):
    model = make_model("llama")
    model.hf.half()
    model.save(tmp_path / "half")
    again = HookedModel.from_pretrained(tmp_path / "half", dtype=given, device="cpu")
    assert again.dtype == expected
    assert again.device == torch.device("cpu")
    assert again.logits(again.tokenize(texts)).dtype == expected
    assert next(iter(again.bridge.parameters())).dtype == expected


def test_a_device_map_places_the_model(saved, texts, llama):
    mapped = HookedModel.from_pretrained(saved, device_map="cpu", dtype="float32")
    assert torch.equal(mapped.logits(mapped.tokenize(texts)), llama.logits(llama.tokenize(texts)))


MAPS = Path("/proc/self/maps")
"""Where Linux tells what a process has mapped; no other system does so in a way that Python can read."""


@pytest.mark.skipif(not MAPS.exists(), reason="only Linux tells what a process has mapped")
def test_weights_are_mapped_from_their_file(saved):
    model = HookedModel.from_pretrained(saved, device="cpu")
    lines = [line.split() for line in MAPS.read_text().splitlines()]
    file = str(saved / "model.safetensors")
    ranges = [[int(end, 16) for end in line[0].split("-")] for line in lines if line[-1] == file]
    assert ranges
    for name, parameter in model.hf.named_parameters():
        assert any(low <= parameter.data_ptr() < high for low, high in ranges), name


def test_a_change_of_the_weights_stays_out_of_their_file(saved):
    before = (saved / "model.safetensors").read_bytes()
    model = HookedModel.from_pretrained(saved, device="cpu")
    with torch.no_grad():
        model.value_weight(1).add_(1.0)
    assert (saved / "model.safetensors").read_bytes() == before


def test_the_demo_opens_by_its_name():
    demo = HookedModel.from_pretrained("demo", device="cpu")
    assert (demo.name, demo.dtype, demo.chat_template) == ("demo", torch.float32, "auto")
    assert demo.format_prompt("Who are you?", "Be kind.") == "User: Who are you? Be kind.\nAssistant:"
    assert demo.format_answer("Who are you?", "Me.") == " Me."
    [answer] = demo.generate([demo.format_prompt("What is the capital of France?")], max_new_tokens=24)
    assert answer.text
    assert answer.n_tokens == len(answer.token_ids) <= 24


# ------------------------------------------------------------------------------------------------- text
def test_the_suffix_is_added_only_where_it_is_given(llama):
    assert llama.format_prompt("How?") == "How?"
    assert llama.format_prompt("How?", DEFAULT_SUFFIX) == f"How? {DEFAULT_SUFFIX}"
    assert llama.format_answer("How?", "So.") == " So."


def test_chat_templates_are_used_on_request_only(make_model):
    off = make_model("llama", template=TEMPLATE)
    assert off.format_prompt("Hi", "S") == "Hi S"
    on = make_model("llama", template=TEMPLATE, chat_template="auto")
    assert on.format_prompt("Hi", "S") == "<s>User: Hi S\nAssistant:"
    assert on.format_answer("Hi", "Yes") == " Yes"
    line = make_model("llama", template=TEMPLATE + "\n", chat_template="auto")
    assert line.format_answer("Hi", "Yes") in (" Yes", "Yes")
    assert make_model("llama", chat_template="auto").format_prompt("Hi") == "Hi"  # it has no template


def test_an_answer_gets_no_second_blank_after_a_template_that_ends_in_one(make_model):
    model = make_model("llama", template="{% for m in messages %}[{{ m.content }}] {% endfor %}", chat_template="auto")
    assert model.format_prompt("Hi") == "[Hi] "
    assert model.format_answer("Hi", "Yes") == "Yes"


def test_bos_comes_once_with_and_without_a_chat_template(make_model):
    chat = make_model("llama", template=TEMPLATE, chat_template="auto", bos=True)
    for text in (chat.format_prompt("Hi"), "Hi"):
        ids = chat.token_ids(text)
        assert ids[0] == 0
        assert ids.count(0) == 1
    assert 0 not in chat.token_ids("Hi", special=False)
    assert 0 not in make_model("gpt2", bos=False).token_ids("Hi")
    head, tail = chat.encode_pair("Hi", "Yes")
    assert [*head, *tail].count(0) == 1


@pytest.mark.parametrize("side", ["left", "right"])
def test_tokenize_pads_on_the_side_asked_for_and_counts_positions_over_real_tokens(llama, texts, side):
    tokens = llama.tokenize(texts, side=side)
    assert len(tokens) == 4
    for i, text in enumerate(texts):
        assert tokens.row(i) == llama.token_ids(text) == llama.tokenizer(text).input_ids
        n = int(tokens.lengths[i])
        real = tokens.attention_mask[i].bool()
        assert tokens.position_ids[i][real].tolist() == list(range(n))
        assert bool(real[-1 if side == "left" else 0])
    assert set(tokens.input_ids[~tokens.attention_mask.bool()].tolist()) == {llama.pad_id}


def test_tokens_of_unequal_shape_are_refused():
    with pytest.raises((ValueError, TypeError)):
        Tokens(torch.ones(2, 3, dtype=torch.long), torch.ones(2, 4, dtype=torch.long))


def test_encode_pair_is_the_whole_text_cut_where_the_answer_begins(tiny_model):
    query, answer = "The cat sat on the", "mat and looked. "
    head, tail = tiny_model.encode_pair(query, answer)
    assert head == tiny_model.token_ids(query)
    assert tail[-1] == 1
    assert tiny_model.tokenizer.decode(tail[:-1]) == " " + answer
    assert [*head, *tail[:-1]] == tiny_model.token_ids(f"{query} {answer}")
    with_suffix, _ = tiny_model.encode_pair(query, answer, "Be kind.")
    assert with_suffix == tiny_model.token_ids(f"{query} Be kind.")
    assert tiny_model.encode_pair(query, answer, eos=False)[1] == tail[:-1]


# ------------------------------------------------------------------------------------------------- truncation
def test_a_cut_is_counted_and_told_with_its_side(make_model):
    model = make_model("llama", bos=True)
    ids = model.token_ids("abcdefgh")
    left = model.tokenize(["abcdefgh", "a"], max_length=5)
    assert left.row(0) == [0, *ids[-4:]]  # the BOS stays
    assert model.truncated == 1
    assert model.warnings == ["1 of 2 texts had more than 5 tokens: cut from the left, the last 5 kept"]
    right = model.tokenize(["abcdefgh"], max_length=5, truncation_side="right")
    assert right.row(0) == ids[:5]
    assert model.truncated == 2
    assert "cut from the right, the first 5 kept" in model.warnings[1]


def test_a_text_longer_than_the_context_is_cut_and_told(make_model, caplog):
    model = make_model("gpt2")
    tokens = model.tokenize(["x" * 300])
    assert tokens.lengths.tolist() == [96]
    assert model.warnings == ["1 of 1 texts had more than 96 tokens: cut from the left, the last 96 kept"]
    assert "cut from the left" in caplog.text


def test_encode_pair_tells_what_it_cuts_and_fits_the_context(make_model):
    model = make_model("gpt2")
    head, tail = model.encode_pair("q" * 200, "a" * 50)
    assert len(head) + len(tail) == 96
    assert tail[-1] == 1
    assert model.warnings == ["1 of 1 prompts had more than 45 tokens: cut from the left, the last 45 kept"]
    head, tail = model.encode_pair("q", "a" * 50, max_answer=10)
    assert len(tail) == 10
    assert tail[-1] != 1  # an answer that was cut does not end
    assert "answers had more than 10 tokens: cut from the right, the first 10 kept" in model.warnings[1]


def test_a_prompt_that_leaves_no_room_for_the_answer_is_cut_and_told(make_model):
    model = make_model("gpt2")
    [answer] = model.generate(["x" * 300], max_new_tokens=16)
    assert answer.n_tokens <= 16
    assert model.warnings == ["1 of 1 prompts had more than 80 tokens: cut from the left, the last 80 kept"]
    with pytest.raises(InputError, match=r"expected max_new_tokens in 1\.\.95"):
        model.generate(["x"], max_new_tokens=96)


def test_nothing_longer_than_the_context_reaches_the_model_unseen(llama):
    with pytest.raises(InputError, match="text 0 has 97 tokens, more than the 96 of the model's context"):
        llama.pad([[5] * 97])


# ------------------------------------------------------------------------------------------------- running
@pytest.mark.parametrize("side", ["left", "right"])
def test_logits_do_not_depend_on_padding(tiny_model, texts, side):
    tokens = tiny_model.tokenize(texts, side=side)
    together = tiny_model.logits(tokens)
    for i, text in enumerate(texts):
        alone = tiny_model.logits(tiny_model.tokenize([text]))[0]
        assert torch.allclose(together[i][tokens.attention_mask[i].bool()], alone, atol=1e-3, rtol=1e-4)


def test_batched_answers_equal_those_one_by_one(tiny_model, texts):
    prompts = [*texts, "the dog", "A"]
    together = tiny_model.generate(prompts, max_new_tokens=12, batch_size=4)
    assert len({g.token_ids for g in together}) > 1
    for prompt, generation in zip(prompts, together, strict=True):
        [alone] = tiny_model.generate([prompt], max_new_tokens=12)
        assert generation == alone


def test_answers_are_greedy_and_cut_by_tokens(tiny_model, texts):
    for text, generation in zip(texts, tiny_model.generate(texts, max_new_tokens=6), strict=True):
        ids = tiny_model.token_ids(text)
        for t in generation.token_ids:
            assert int(tiny_model.logits(tiny_model.pad([ids]))[0, -1].argmax()) == t
            ids = [*ids, t]
        assert generation.ended == (generation.n_tokens < 6)
        assert generation.text == tiny_model.tokenizer.decode(generation.token_ids, skip_special_tokens=True).strip()


def test_an_answer_ends_before_the_stop_token(make_model):
    model = make_model("llama")
    [free] = model.generate(["The cat"], max_new_tokens=10)
    assert not free.ended
    stop = free.token_ids[3]
    model.hf.generation_config.eos_token_id = [1, stop]
    [ended] = model.generate(["The cat"], max_new_tokens=10)
    assert ended.ended
    assert ended.token_ids == free.token_ids[: free.token_ids.index(stop)]


def test_the_checkpoints_own_sampling_settings_are_not_used(make_model):
    model = make_model("llama")
    [greedy] = model.generate(["The cat"], max_new_tokens=10)
    own = model.hf.generation_config
    own.do_sample, own.temperature, own.repetition_penalty, own.min_new_tokens = True, 5.0, 3.0, 10
    assert model.generate(["The cat"], max_new_tokens=10) == [greedy]
    assert model.hf.generation_config is own


def test_progress_is_told_after_each_batch(llama, texts):
    seen = []
    llama.generate(texts, max_new_tokens=2, batch_size=3, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(3, 4), (4, 4)]
    assert llama.generate([]) == []


# ------------------------------------------------------------------------------------------------- hashes
def test_the_weight_hash_sees_every_weight_and_nothing_else(make_model):
    model, same, other = make_model("llama"), make_model("llama"), make_model("llama", seed=1)
    first = model.weight_hash()
    assert len(first) == 16
    assert same.weight_hash() == first != other.weight_hash()
    for parameter in (model.value_weight(2), model.final_norm.weight):
        before = parameter.detach().clone()
        with torch.no_grad():
            parameter.view(-1)[0] += 1
            assert model.weight_hash() != first
            parameter.copy_(before)
        assert model.weight_hash() == first
    model.value_weight(0).data.view(-1)[0] += 1  # past autograd: only seen afresh
    assert model.weight_hash() == first != model.weight_hash(fresh=True)


# ------------------------------------------------------------------------------------------------- adapters
def lora(base, folder, architecture="llama", **options):
    """A random LoRA adapter of a tiny model, and the logits of model + adapter computed by PEFT."""
    from peft import LoraConfig, get_peft_model

    targets = {"gpt2": ["c_attn", "c_proj"], "neox": ["query_key_value", "dense_4h_to_h"]}
    config = LoraConfig(r=2, target_modules=targets.get(architecture, ["q_proj", "down_proj"]), **options)
    hf = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PEFT asks transformers for a deprecated attribute
        peft = get_peft_model(hf, config)
    torch.manual_seed(3)
    for name, parameter in peft.named_parameters():
        if "lora_" in name:
            nn.init.normal_(parameter, std=0.1)
    peft.eval().save_pretrained(folder)
    return peft


@pytest.mark.parametrize("architecture", ["llama", "gpt2", "neox"])
def test_an_adapter_opens_merged_onto_its_base(make_model, texts, tmp_path, architecture):
    base = make_model(architecture)
    base.save(tmp_path / "base")
    peft = lora(tmp_path / "base", tmp_path / "adapter", architecture)
    model = HookedModel.from_pretrained(tmp_path / "adapter", device="cpu")
    tokens = model.tokenize(texts)
    with torch.no_grad():
        expected = peft(tokens.input_ids, attention_mask=tokens.attention_mask, position_ids=tokens.position_ids).logits
    assert torch.allclose(model.logits(tokens), expected, atol=1e-3, rtol=1e-4)
    assert not torch.allclose(model.logits(tokens), base.logits(tokens), atol=1e-2)
    assert sorted(model.hf.state_dict()) == sorted(base.hf.state_dict())
    assert model.bridge.blocks[0].mlp.out.weight is model.value_weight(0)
    assert model.warnings == []


def test_an_adapter_opens_on_a_base_given_by_hand_and_says_so(make_model, saved, texts, tmp_path):
    lora(saved, tmp_path / "adapter")
    moved = tmp_path / "moved"
    saved.rename(moved)
    with pytest.raises(InputError, match=r"the adapter .* needs its base model: "):
        HookedModel.from_pretrained(tmp_path / "adapter", device="cpu")
    model = HookedModel.from_pretrained(tmp_path / "adapter", base=moved, device="cpu")
    assert model.warnings == [f"the adapter {tmp_path / 'adapter'} was made for {saved} and is merged onto {moved}"]


def test_an_adapter_for_another_base_is_refused(make_model, make_hf, make_tokenizer, saved, tmp_path):
    lora(saved, tmp_path / "adapter")
    make_model("gpt2").save(tmp_path / "gpt2")
    wide = HookedModel.from_hf(make_hf("llama", intermediate_size=64), make_tokenizer())
    wide.save(tmp_path / "wide")
    short = make_model("llama", n_layers=2)
    short.save(tmp_path / "short")
    for base, reason in [
        ("gpt2", r"it has no model\.layers\.\d\."),
        ("wide", r"model\.layers\.0\.mlp\.down_proj is \(32, 64\), its lora_A \(2, 48\)"),
        ("short", r"it has no model\.layers\.2\."),
    ]:
        with pytest.raises(InputError, match=f"does not fit .*{base}: {reason}") as caught:
            HookedModel.from_pretrained(tmp_path / "adapter", base=tmp_path / base, device="cpu")
        assert "\n" not in str(caught.value)


def test_a_damaged_adapter_is_told(saved, tmp_path):
    lora(saved, tmp_path / "adapter")
    (tmp_path / "adapter" / "adapter_model.safetensors").write_bytes(b"junk")
    with pytest.raises(InputError, match="cannot read"):
        HookedModel.from_pretrained(tmp_path / "adapter", device="cpu")
    (tmp_path / "adapter" / "adapter_model.safetensors").unlink()
    with pytest.raises(InputError, match=r"has no adapter_model\.safetensors"):
        HookedModel.from_pretrained(tmp_path / "adapter", device="cpu")
    (tmp_path / "adapter" / "adapter_config.json").write_text("{")
    with pytest.raises(InputError, match="is not a usable adapter"):
        HookedModel.from_pretrained(tmp_path / "adapter", device="cpu")


# ------------------------------------------------------------------------------------------------- state dicts
@pytest.mark.parametrize("wrapped", ["plain", "state", "module."])
def test_a_pt_file_opens_on_its_base(make_model, saved, texts, tmp_path, wrapped):
    other = make_model("llama", seed=5)
    state = other.hf.state_dict()
    if wrapped == "module.":
        state = {f"module.{k}": v for k, v in state.items()}
    torch.save({"state": state, "step": 3} if wrapped == "state" else state, tmp_path / "dpo.pt")
    model = HookedModel.from_pretrained(tmp_path / "dpo.pt", base=saved, device="cpu")
    assert torch.equal(model.logits(model.tokenize(texts)), other.logits(other.tokenize(texts)))
    assert (model.name, model.source) == ("dpo", str(tmp_path / "dpo.pt"))


def test_a_gpt2_state_dict_with_old_masks_and_without_its_tied_head_opens(make_model, texts, tmp_path):
    base, other = make_model("gpt2"), make_model("gpt2", seed=5)
    base.save(tmp_path / "base")
    state = {k: v.clone() for k, v in other.hf.state_dict().items() if k != "lm_head.weight"}
    state["transformer.h.0.attn.bias"] = torch.ones(1, 1, 96, 96)
    state["transformer.h.0.attn.masked_bias"] = torch.tensor(-1e4)
    save_file(state, tmp_path / "old.safetensors")
    model = HookedModel.from_pretrained(tmp_path / "old.safetensors", base=tmp_path / "base", device="cpu")
    assert torch.equal(model.logits(model.tokenize(texts)), other.logits(other.tokenize(texts)))


class Evil:
    def __reduce__(self):
        return (print, ("pickled code ran",))


def test_state_dicts_that_do_not_fit_are_refused(make_model, llama, saved, tmp_path, capsys):
    state = {k: v.clone() for k, v in llama.hf.state_dict().items()}
    name = llama.value_name(1)

    def refused(data, message, base=saved, file="w.pt"):
        torch.save(data, tmp_path / file)
        with pytest.raises(InputError, match=message) as caught:
            HookedModel.from_pretrained(tmp_path / file, base=base, device="cpu")
        assert "\n" not in str(caught.value)

    refused(state, "holds only weights; pass base", base=None)
    refused({k: v for k, v in state.items() if k != name}, rf"{name} is missing in the file \(0 unknown and 1 missing")
    refused({**state, "extra.weight": torch.ones(1)}, r"has no extra\.weight")
    refused({**state, name: torch.ones(2, 2)}, rf"{name} is \(2, 2\), expected \(32, 48\)")
    refused({**state, name: state[name] * torch.nan}, f"w has NaN weights in {name}")
    refused([1, 2], "is not a state dict: expected names and tensors, got list")
    refused(make_model("gpt2").hf.state_dict(), "does not fit")
    refused({"a": Evil()}, "cannot read the weights in .* \\(tensors only\\)")
    assert "pickled code ran" not in capsys.readouterr().out
    (tmp_path / "w.txt").write_text("x")
    with pytest.raises(InputError, match="expected a folder, a hub id or a state dict"):
        HookedModel.from_pretrained(tmp_path / "w.txt", device="cpu")


# ------------------------------------------------------------------------------------------------- bad checkpoints
def bad(source, message, **options):
    with pytest.raises(InputError, match=message) as caught:
        HookedModel.from_pretrained(source, device="cpu", **options)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


def test_folders_that_are_no_model_are_told(saved, tmp_path, llama):
    empty = tmp_path / "empty"
    empty.mkdir()
    bad(empty, r"is not a model: expected a config\.json or adapter_config\.json in it, found nothing")
    bad(tmp_path / "nowhere" / "at" / "all", "no such folder, and no hub id")
    bad(saved, "is a whole model; base .* is only for adapters", base="demo")
    bad(saved, "unknown dtype 'int7'", dtype="int7")
    with pytest.raises(InputError, match="no such device here: tpu9"):
        HookedModel.from_pretrained(saved, device="tpu9")
    with pytest.raises(InputError, match="expected one of device and device_map, got both"):
        HookedModel.from_pretrained(saved, device="cpu", device_map="auto")


def test_damaged_folders_are_told(saved, tmp_path):
    def copy(name):
        return shutil.copytree(saved, tmp_path / name)

    folder = copy("config")
    (folder / "config.json").write_text("{")
    bad(folder, "cannot open")
    folder = copy("kind")
    edit_json(folder / "config.json", model_type="nonesuch", architectures=None)
    bad(folder, "cannot open .*nonesuch")
    folder = copy("weights")
    (folder / "model.safetensors").write_bytes(b"\x08" * 40)
    bad(folder, "cannot open")
    folder = copy("no-weights")
    (folder / "model.safetensors").unlink()
    bad(folder, "cannot open .*no file named model.safetensors")
    folder = copy("no-tokenizer")
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer_config.json").unlink()
    bad(folder, "has no usable tokenizer")
    folder = copy("taller")
    edit_json(folder / "config.json", num_hidden_layers=4, layer_types=None)
    bad(folder, r"lacks 9 weights of its architecture, first model\.layers\.3")
    folder = copy("wider")
    edit_json(folder / "config.json", intermediate_size=64)
    bad(folder, "cannot open")


def test_nan_and_infinite_weights_are_told_with_their_name(make_model, make_hf, make_tokenizer, tmp_path):
    model = make_model("llama")
    model.value_weight(1).data[0, 0] = torch.nan
    model.save(tmp_path / "nan")
    bad(
        tmp_path / "nan", r"^nan has NaN weights in model\.layers\.1\.mlp\.down_proj\.weight; the checkpoint is damaged"
    )
    hf = make_hf("gpt2")
    hf.transformer.h[2].mlp.c_proj.weight.data[0, 0] = torch.inf
    with pytest.raises(InputError, match=r"infinite weights in transformer\.h\.2\.mlp\.c_proj\.weight"):
        HookedModel.from_hf(hf, make_tokenizer())


def test_a_tokenizer_without_pad_and_eos_is_told_how_to_get_one(make_hf, make_tokenizer, make_model, texts):
    with pytest.raises(
        InputError, match=r"neither a padding nor an EOS token; set one, e\.g\. tokenizer\.pad_token = "
    ):
        HookedModel.from_hf(make_hf("llama"), make_tokenizer(pad=None, eos=None), "bare")
    assert make_model("llama", pad=None).pad_id == 1  # EOS pads where nothing else does
    only_pad = make_model("llama", eos=None)
    only_pad.hf.generation_config.eos_token_id = None
    assert only_pad.stop_ids == ()
    assert [g.n_tokens for g in only_pad.generate(texts, max_new_tokens=3)] == [3] * 4
    with pytest.raises(InputError, match="has no EOS token to end an answer with; pass eos=False"):
        only_pad.encode_pair("a", "b")


def test_architectures_without_a_known_layout_are_refused(make_tokenizer):
    import transformers

    hf = transformers.OPTForCausalLM(
        transformers.OPTConfig(
            vocab_size=320,
            hidden_size=32,
            ffn_dim=48,
            num_hidden_layers=1,
            num_attention_heads=4,
            word_embed_proj_dim=32,
        )
    )
    with pytest.raises(
        InputError, match="the architecture OPTForCausalLM is not supported: expected the module layout of"
    ):
        HookedModel.from_hf(hf, make_tokenizer())


def test_objects_that_are_no_plain_model_are_told_what_to_do(llama, make_hf, make_tokenizer):
    with pytest.raises(InputError, match=r"expected a transformers model, got TransformerBridge: .*only for capture"):
        HookedModel.from_hf(llama.bridge, make_tokenizer())
    hf = make_hf("llama")
    hf.is_quantized = True
    with pytest.raises(InputError, match="are quantized and cannot be edited"):
        HookedModel.from_hf(hf, make_tokenizer())


def test_code_from_a_checkpoint_is_neither_run_nor_asked_about(saved, capsys):
    (saved / "evil.py").write_text("print('ran')\nfrom transformers import LlamaConfig as C, LlamaForCausalLM as M\n")
    edit_json(
        saved / "config.json", model_type="evil", auto_map={"AutoConfig": "evil.C", "AutoModelForCausalLM": "evil.M"}
    )
    bad(saved, "cannot open .*trust_remote_code|cannot open .*custom code")
    assert "ran" not in capsys.readouterr().out


def test_other_bad_arguments_are_told(llama, make_hf, make_tokenizer):
    with pytest.raises(InputError, match='expected chat_template "auto" or "none", got \'maybe\''):
        hf = make_hf("llama")
        hf.config.interp_chat_template = "maybe"
        HookedModel.from_hf(hf, make_tokenizer())
    with pytest.raises(InputError, match="at least one text"):
        llama.tokenize([])
    with pytest.raises(InputError, match="expected batch_size >= 1"):
        llama.generate(["a"], batch_size=0)


def test_an_empty_text_is_told_by_its_index(make_model):
    model = make_model("gpt2")
    with pytest.raises(InputError, match="text 1 has no tokens; expected at least one"):
        model.tokenize(["a", ""])
    with pytest.raises(InputError, match="text 0 has no tokens"):
        model.generate(["", "a"])
    assert make_model("llama", bos=True).tokenize([""]).lengths.tolist() == [1]


# ------------------------------------------------------------------------------------------------- the hub
def test_without_a_network_a_missing_id_is_one_quick_line():
    start = time.perf_counter()
    bad("someone/no-such-model-here", "cannot open someone/no-such-model-here: ")
    assert time.perf_counter() - start < 5


def test_a_hub_that_does_not_answer_is_given_up_on(monkeypatch):
    import huggingface_hub

    def hang(*_, **__):
        time.sleep(30)

    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", hang)
    monkeypatch.setattr(checkpoints, "HUB_TIMEOUT", 0.2)
    start = time.perf_counter()
    bad("someone/model", r"the Hugging Face hub did not answer \(no network\?\)")
    assert time.perf_counter() - start < 5


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("GatedRepoError", "it is gated; ask for access at https://huggingface.co/someone/model"),
        ("RepositoryNotFoundError", "the hub has no such model"),
        ("OfflineModeIsEnabled", "the hub is switched off"),
    ],
)
def test_what_the_hub_says_is_passed_on_in_one_line(monkeypatch, kind, message):
    import httpx
    import huggingface_hub
    from huggingface_hub import errors

    def refuse(*_, **__):
        error = getattr(errors, kind)
        if kind == "OfflineModeIsEnabled":
            raise error("offline")
        raise error("no", response=httpx.Response(403, request=httpx.Request("GET", "https://huggingface.co")))

    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", refuse)
    bad("someone/model", message)


def test_a_downloaded_model_opens_without_a_network(saved, monkeypatch, tmp_path, texts, llama):
    """The hub cache is laid out by hand: refs/main names the snapshot folder."""
    from huggingface_hub import constants

    repo = tmp_path / "hub" / "models--someone--model"
    (repo / "refs").mkdir(parents=True)
    (repo / "refs" / "main").write_text("0" * 40)
    shutil.copytree(saved, repo / "snapshots" / ("0" * 40))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    import transformers.utils.hub

    for module in (transformers.utils.hub, transformers.utils):
        if hasattr(module, "TRANSFORMERS_CACHE"):
            monkeypatch.setattr(module, "TRANSFORMERS_CACHE", str(tmp_path / "hub"))
    model = HookedModel.from_pretrained("someone/model", device="cpu")
    assert model.name == "someone/model"
    assert torch.equal(model.logits(model.tokenize(texts)), llama.logits(llama.tokenize(texts)))
