"""Edited models decoded together against each decoded alone."""

from __future__ import annotations

import weakref

import pytest
import torch
from conftest import tiny_tokenizer
from transformers import DeepseekV2Config, DeepseekV2ForCausalLM, DiffLlamaConfig, DiffLlamaForCausalLM

from interp import decode
from interp.edits import Provenance, WeightEdit
from interp.errors import InputError
from interp.models import HookedModel
from interp.multi import EditStore, RowWeights, generate_edited, shareable
from interp.slots import SlotLayer


def edit_of(model, layer: int, seed: int, size: float = 0.4, bias: bool = False) -> WeightEdit:
    generator = torch.Generator().manual_seed(seed)
    names = [model.value_name(layer)]
    names += [names[0].removesuffix("weight") + "bias"] if bias else []
    parameters = dict(model.hf.named_parameters())
    deltas = {n: size * torch.randn(parameters[n].shape, generator=generator) for n in names}
    return WeightEdit(deltas, Provenance("random", model.source, model.weight_hash(), layer=layer))


def alone(model, prompts, which, edits, n):
    answers = []
    for prompt, index in zip(prompts, which, strict=True):
        if index is None:
            answers += model.generate([prompt], max_new_tokens=n)
        else:
            with edits[index].applied(model):
                answers += model.generate([prompt], max_new_tokens=n)
    return answers


def test_rows_of_different_edits_answer_as_each_edited_model_alone(tiny_model, texts):
    edits = [edit_of(tiny_model, layer, seed) for layer, seed in ((1, 0), (1, 1), (2, 2), (0, 3))]
    prompts = [*texts, *texts]
    which = [0, 1, 2, 3, None, 0, 2, 1]
    together = generate_edited(tiny_model, prompts, which, edits, max_new_tokens=10, batch_size=3)
    assert together == alone(tiny_model, prompts, which, edits, 10)
    plain = tiny_model.generate(prompts, max_new_tokens=10)
    assert together[4] == plain[4]
    assert sum(a != b for a, b in zip(together, plain, strict=True)) >= 4  # the edits do something


def test_an_edit_of_several_layers_and_of_a_bias_is_followed(make_model, texts):
    model = make_model("gpt2")
    several = edit_of(model, 0, 1)
    several = WeightEdit({**several.deltas, **edit_of(model, 2, 2).deltas}, several.provenance)
    edits = [several, edit_of(model, 1, 3, bias=True)]
    which = [0, 1, 1, 0]
    assert all(shareable(model, e) for e in edits)
    assert generate_edited(model, texts, which, edits, max_new_tokens=8) == alone(model, texts, which, edits, 8)


def test_an_edit_of_other_weights_is_decoded_alone_in_its_place(make_model, texts):
    model, seen = make_model("llama"), []
    name = "model.layers.0.self_attn.o_proj.weight"
    delta = torch.randn(dict(model.hf.named_parameters())[name].shape, generator=torch.Generator().manual_seed(0))
    attention = WeightEdit({name: delta}, Provenance("random", model.source, model.weight_hash()))
    edits, which = [edit_of(model, 1, 0), attention], [1, 0, None, 1]
    together = generate_edited(
        model, texts, which, edits, max_new_tokens=8, progress=lambda done, total: seen.append((done, total))
    )
    assert together == alone(model, texts, which, edits, 8)
    assert seen[-1] == (4, 4)
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)


def test_the_model_is_left_as_it_was(llama, texts):
    before = llama.generate(texts, max_new_tokens=6)
    forwards = [llama.value_module(layer).__dict__.get("forward") for layer in range(llama.n_layers)]
    with pytest.raises(RuntimeError, match="stop here"):
        generate_edited(llama, texts, [0] * 4, [edit_of(llama, 1, 0)], max_new_tokens=6, progress=lambda *_: _stop())
    assert [llama.value_module(layer).__dict__.get("forward") for layer in range(llama.n_layers)] == forwards
    assert llama.generate(texts, max_new_tokens=6) == before


def _stop() -> None:
    raise RuntimeError("stop here")


def test_what_cannot_be_decoded_together_is_refused(make_model, texts):
    model = make_model("llama")
    name = "model.layers.0.self_attn.o_proj.weight"
    delta = torch.zeros_like(dict(model.hf.named_parameters())[name])
    attention = WeightEdit({name: delta}, Provenance("random", model.source, model.weight_hash()))
    assert not shareable(model, attention)
    with pytest.raises(InputError, match="expected edits of W_V alone, got one of model"):
        RowWeights(model, [attention])
    good = edit_of(model, 1, 0)
    with pytest.raises(InputError, match="one of 1 edits or None"):
        generate_edited(model, texts, [0, 0, 0, 1], [good])
    with pytest.raises(InputError, match="one of 1 edits or None"):
        generate_edited(model, texts, [0], [good])
    with pytest.raises(InputError, match="the edit was made on"):
        generate_edited(make_model("llama", seed=1), texts, [0] * 4, [good])


def test_many_rows_of_many_edits_are_decoded_in_two_threads_each_with_its_own_rows(make_model, texts, monkeypatch):
    monkeypatch.setattr(decode, "processors", lambda: 2)
    model = make_model("llama")
    edits = [edit_of(model, 1, seed) for seed in range(5)]
    prompts = [f"{texts[i % 4]} {i}" for i in range(40)]
    which = [i % 6 if i % 6 < 5 else None for i in range(40)]
    together = generate_edited(model, prompts, which, edits, max_new_tokens=5, batch_size=8)
    assert together == alone(model, prompts, which, edits, 5)


# ------------------------------------------------------------------------------------------------- shared prompts
@pytest.mark.parametrize("batch_size", [3, 64])
def test_prompts_that_vanilla_and_edits_of_any_layer_share_answer_as_each_alone(tiny_model, texts, batch_size):
    edits = [edit_of(tiny_model, layer, seed) for layer, seed in ((2, 0), (2, 1), (1, 2), (0, 3), (1, 4))]
    both = edit_of(tiny_model, 1, 5)
    edits.append(WeightEdit({**both.deltas, **edit_of(tiny_model, 2, 6).deltas}, both.provenance))
    which: list[int | None] = [None, 0, 1, 2, 3, 4, 5, 0, None, 2, 5, None, None]
    prompts = [texts[0]] * 7 + [texts[2]] * 4 + [texts[1], texts[0]]  # the last: vanilla asked the same twice
    together = generate_edited(tiny_model, prompts, which, edits, max_new_tokens=9, batch_size=batch_size)
    assert together == alone(tiny_model, prompts, which, edits, 9)
    assert len(set(together[:7])) >= 5  # the edits do something


@pytest.mark.parametrize("how", ["sdpa", "eager", "unwritten"])
def test_rows_that_share_prompts_end_and_are_replaced_at_any_time(make_model, texts, monkeypatch, how):
    model = make_model("llama")
    if how == "eager":
        model.hf.set_attn_implementation("eager")
    edits = [edit_of(model, layer, layer, size=0.6) for layer in (2, 1, 0, 2, 2)]
    rows = [(edit, text) for text in texts for edit in (None, *range(5))]
    which, prompts = [edit for edit, _ in rows], [text for _, text in rows]
    free = alone(model, prompts, which, edits, 9)
    stops = [free[i].token_ids[j] for i, j in ((0, 6), (7, 3), (14, 1), (20, 4))]  # so that rows end at many lengths
    monkeypatch.setattr(type(model), "stop_ids", property(lambda _: tuple(stops)))
    if how == "unwritten":
        room = SlotLayer._room
        monkeypatch.setattr(SlotLayer, "_room", lambda *args: room(*args).fill_(torch.nan))
    expected = alone(model, prompts, which, edits, 9)
    assert len({len(a.token_ids) for a in expected}) > 3
    for slots in (2, 5, 24):
        assert generate_edited(model, prompts, which, edits, max_new_tokens=9, batch_size=slots) == expected


def ways_of_its_own(name: str):
    """Tiny models whose attention does not read what it has cached, or not through transformers' interface."""
    sizes = {"vocab_size": len(tiny_tokenizer()), "hidden_size": 48, "intermediate_size": 64, "num_hidden_layers": 3}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 4, "max_position_embeddings": 256}
    if name == "DiffLlama":
        return DiffLlamaForCausalLM(DiffLlamaConfig(**sizes, **heads, pad_token_id=2))
    latent = {"kv_lora_rank": 8, "q_lora_rank": None, "qk_rope_head_dim": 4, "qk_nope_head_dim": 8, "v_head_dim": 8}
    dense = {"first_k_dense_replace": 3, "n_routed_experts": 2, "num_experts_per_tok": 1, "moe_intermediate_size": 8}
    return DeepseekV2ForCausalLM(DeepseekV2Config(**sizes, **heads, **latent, **dense, pad_token_id=2))


@pytest.mark.parametrize("name", ["DiffLlama", "DeepseekV2"])
def test_where_attention_goes_its_own_ways_every_row_gets_its_own_copy(texts, name):
    torch.manual_seed(0)
    model = HookedModel.from_hf(ways_of_its_own(name).eval(), tiny_tokenizer(), name)
    edits = [edit_of(model, layer, layer) for layer in (2, 1, 0)]
    which, prompts = [None, 0, 1, 2] * 2, [texts[0]] * 4 + [texts[2]] * 4
    together = generate_edited(model, prompts, which, edits, max_new_tokens=8, batch_size=5)
    assert together == alone(model, prompts, which, edits, 8)
    assert len(set(together)) > 2


def test_another_model_that_a_hook_runs_meanwhile_keeps_its_own_attention(make_model, texts):
    model, other = make_model("llama"), make_model("llama", seed=1, n_layers=4)
    edits, prompts, which = [edit_of(model, 2, 0)], [texts[0]] * 2, [None, 0]
    expected, theirs, said = alone(model, prompts, which, edits, 4), other.generate(texts, max_new_tokens=3), []

    def ask(*_) -> None:
        said.append(other.generate(texts, max_new_tokens=3))

    handle = model.blocks[0].register_forward_hook(ask)
    assert generate_edited(model, prompts, which, edits, max_new_tokens=4) == expected
    handle.remove()
    assert len(said) > 2
    assert all(answers == theirs for answers in said)


def test_what_edits_share_of_a_prompt_is_computed_once(make_model, texts):
    model = make_model("llama")
    edits = [edit_of(model, layer, layer) for layer in (2, 1, 2)]
    read: dict[str, int] = {}

    def count(name: str):
        def hook(_module, args, _out):
            if args[0].shape[1] > 1:
                read[name] = read.get(name, 0) + args[0].shape[0]

        return hook

    handles = []
    for layer in range(3):
        handles.append(model.attention(layer).q_proj.register_forward_hook(count(f"attention {layer}")))
        handles.append(model.mlp(layer).up_proj.register_forward_hook(count(f"mlp {layer}")))
    generate_edited(model, [texts[0]] * 4, [None, 0, 1, 2], edits, max_new_tokens=3)
    for handle in handles:
        handle.remove()
    # One reading by vanilla; the edit of layer 1 does the block above it again, those of the last layer nothing.
    assert read == {"attention 0": 1, "mlp 0": 1, "attention 1": 1, "mlp 1": 1, "attention 2": 2, "mlp 2": 2}


def test_shared_prompts_are_dealt_to_two_threads_and_leave_the_model_as_it_was(make_model, texts, monkeypatch):
    monkeypatch.setattr(decode, "processors", lambda: 2)
    model = make_model("gpt2")
    before = [(n, "forward" in m.__dict__, len(m._forward_pre_hooks)) for n, m in model.hf.named_modules()]
    edits = [edit_of(model, layer, layer, bias=layer == 1) for layer in (0, 1, 2)]
    prompts = [f"{texts[i % 4]} {i}" for i in range(10) for _ in range(4)]
    which = [None, 0, 1, 2] * 10
    together = generate_edited(model, prompts, which, edits, max_new_tokens=5, batch_size=9)
    assert together == alone(model, prompts, which, edits, 5)
    assert [(n, "forward" in m.__dict__, len(m._forward_pre_hooks)) for n, m in model.hf.named_modules()] == before


# ------------------------------------------------------------------------------------------------- a budget of memory
SIZE = 4 * 32 * 48
"""Bytes of one tiny delta."""


@pytest.mark.parametrize(("budget", "spilled", "groups"), [(1, 5, 5), (2 * SIZE, 3, 3), (None, 0, 1)])
def test_edits_over_the_budget_lie_on_disk_and_answer_the_same(
    make_model, texts, tmp_path, monkeypatch, budget, spilled, groups
):
    model, made = make_model("llama"), []
    edits = [edit_of(model, layer, seed) for seed, layer in enumerate((2, 2, 1, 0, 2))]
    prompts, which = [texts[i % 4] for i in range(12)], [0, 1, 2, 3, 4, None] * 2
    expected = generate_edited(model, prompts, which, edits, max_new_tokens=6)
    init = RowWeights.__init__

    def counted(self, model, edits, chosen=None, force=False):
        init(self, model, edits, chosen, force)
        made.append(sum(stack.numel() * 4 for stack in self.stacks.values()))

    monkeypatch.setattr(RowWeights, "__init__", counted)
    with EditStore(edits, budget, tmp_path) as store:
        assert store.spilled == spilled
        assert len(list(tmp_path.glob("spilled-*/*.safetensors"))) == spilled
        assert store.held <= (budget or 5 * SIZE)
        assert generate_edited(model, prompts, which, store, max_new_tokens=6) == expected
        for kept, edit in zip(store, edits, strict=True):
            assert kept.provenance.instance_ids == edit.provenance.instance_ids
            assert all(torch.equal(kept.deltas[name], delta) for name, delta in edit.deltas.items())
    assert list(tmp_path.iterdir()) == []
    assert len(made) == groups
    assert max(made) <= max(budget or 5 * SIZE, SIZE)


def test_matrices_of_one_group_are_let_go_before_the_next_are_laid_out(make_model, texts, monkeypatch):
    model, alive, most = make_model("llama"), [], []
    init = RowWeights.__init__

    def watched(self, model, edits, chosen=None, force=False):
        init(self, model, edits, chosen, force)
        alive.append(weakref.ref(self))
        most.append(sum(ref() is not None for ref in alive))

    monkeypatch.setattr(RowWeights, "__init__", watched)
    store = EditStore([edit_of(model, 2, seed) for seed in range(4)], budget=SIZE)
    with store:
        generate_edited(model, texts, [0, 1, 2, 3], store, max_new_tokens=2)
    assert most == [1, 1, 1, 1]


def test_two_stores_below_one_folder_keep_apart(make_model, tmp_path):
    model = make_model("llama")
    first, second = (edit_of(model, 1, seed) for seed in (0, 1))
    name = model.value_name(1)
    with EditStore([first], 0, tmp_path / "new") as one, EditStore([second], 0, tmp_path / "new") as other:
        assert torch.equal(one[0].deltas[name], first.deltas[name])
        assert torch.equal(other[0].deltas[name], second.deltas[name])
    assert list((tmp_path / "new").iterdir()) == []


def test_a_hook_on_the_edited_module_is_called_once_for_all_rows(make_model, texts):
    model, seen = make_model("llama"), []
    edits = [edit_of(model, 2, seed) for seed in (0, 1)]
    handle = model.value_module(2).register_forward_pre_hook(lambda _, args: seen.append(len(args[0])))
    try:
        generate_edited(model, texts[:3], [0, 1, None], edits, max_new_tokens=1)
    finally:
        handle.remove()
    assert seen == [3]


def test_an_edit_of_a_bias_that_the_model_lacks_is_refused_in_one_line(make_model, texts):
    model = make_model("llama")
    name = model.value_name(1).removesuffix("weight") + "bias"
    lacking = WeightEdit({name: torch.ones(32)}, Provenance("random", model.source, model.weight_hash()))
    assert not shareable(model, lacking)
    with pytest.raises(InputError, match="bias"):
        generate_edited(model, texts[:1], [0], [lacking], max_new_tokens=1)


def test_an_edit_that_is_on_disk_already_is_read_from_there_and_stays(make_model, tmp_path):
    model = make_model("llama")
    edit = edit_of(model, 1, 0)
    file = edit.save(tmp_path / "mine.safetensors")
    with EditStore(budget=0) as store:
        store.add(edit, file)
        assert torch.equal(store[0].deltas[model.value_name(1)], edit.deltas[model.value_name(1)])
    assert [p.name for p in tmp_path.iterdir()] == ["mine.safetensors"]


def test_edits_of_one_layer_lie_in_one_stack(make_model):
    model = make_model("gpt2")
    weights = RowWeights(model, [edit_of(model, layer, layer, bias=layer == 1) for layer in (1, 2, 1, 1)])
    shapes = {name: tuple(stack.shape) for name, stack in weights.stacks.items()}
    assert shapes == {
        model.value_name(1): (3, 48, 32),
        model.value_name(1).replace("weight", "bias"): (3, 32),
        model.value_name(2): (1, 48, 32),
    }
    stack = weights.stacks[model.value_name(1)]
    [twin] = [weights.edited[1][2]]
    assert twin.get_parameter("weight").data_ptr() == stack[1].data_ptr()
