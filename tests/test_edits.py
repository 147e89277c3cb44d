"""A WeightEdit is applied and undone to the last bit, knows its model, and survives files and merging."""

from pathlib import Path

import pytest
import torch
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import AutoModelForCausalLM

import interp.edits as edits
from interp.capture import capture
from interp.edits import Provenance, WeightEdit
from interp.errors import InputError
from interp.methods import Detoxified
from interp.models import HookedModel


def random_edit(model, layer=1, scale=0.1, seed=0, names=None, **more):
    generator = torch.Generator().manual_seed(seed)
    state = dict(model.hf.named_parameters())
    names = names or [model.value_name(layer)]
    deltas = {name: scale * torch.randn(state[name].shape, generator=generator) for name in names}
    provenance = Provenance(
        "random", model.source, model.weight_hash(), instance_ids=(3, 7), config={"scale": scale}, layer=layer, **more
    )
    return WeightEdit(deltas, provenance)


def snapshot(model):
    return {name: p.detach().clone() for name, p in model.hf.named_parameters()}


def same(model, before):
    return all(torch.equal(p, before[name]) for name, p in model.hf.named_parameters())


# ------------------------------------------------------------------------------------------------- applying
def test_an_edit_changes_its_matrix_by_the_delta_and_leaves_every_other_weight_untouched(tiny_model):
    edit, before = random_edit(tiny_model), snapshot(tiny_model)
    name = tiny_model.value_name(1)
    with edit.applied(tiny_model) as edited:
        assert edited is tiny_model
        for other, parameter in tiny_model.hf.named_parameters():
            expected = before[name] + edit.deltas[name] if other == name else before[other]
            assert torch.equal(parameter, expected)
    assert same(tiny_model, before)


def test_the_undo_is_bitwise_even_where_subtracting_would_round(tiny_model, texts):
    before = snapshot(tiny_model)
    logits = tiny_model.logits(tiny_model.tokenize(texts))
    with random_edit(tiny_model, scale=1e6).applied(tiny_model):
        assert not torch.allclose(tiny_model.logits(tiny_model.tokenize(texts)), logits)
    assert same(tiny_model, before)
    assert torch.equal(tiny_model.logits(tiny_model.tokenize(texts)), logits)


def test_the_undo_happens_on_exceptions_too(tiny_model):
    before = snapshot(tiny_model)
    for error in (RuntimeError, KeyboardInterrupt):
        with pytest.raises(error), random_edit(tiny_model).applied(tiny_model):
            raise error
        assert same(tiny_model, before)


def test_nested_edits_add_up_and_come_off_one_by_one(tiny_model):
    before = snapshot(tiny_model)
    one, two = random_edit(tiny_model, seed=1), random_edit(tiny_model, seed=2)
    above = random_edit(tiny_model, layer=2, seed=3)
    name = tiny_model.value_name(1)
    with one.applied(tiny_model):
        middle = snapshot(tiny_model)
        with two.applied(tiny_model), above.applied(tiny_model):
            expected = before[name] + one.deltas[name] + two.deltas[name]
            assert torch.equal(tiny_model.value_weight(1), expected)
        assert same(tiny_model, middle)
    assert same(tiny_model, before)


def test_an_edit_is_seen_by_the_bridge_and_gone_afterwards(tiny_model, texts):
    everything = [name for name, p in tiny_model.hf.named_parameters() if p.ndim == 2 and ".1." in name]
    for names in ([tiny_model.value_name(1)], everything):
        edit = random_edit(tiny_model, names=names)
        before = capture(tiny_model, texts, "resid_post", pool="last")
        with edit.applied(tiny_model):
            during = capture(tiny_model, texts, "resid_post", pool="last")
            tokens = tiny_model.tokenize(texts, side="right")
            out = tiny_model.bridge(
                tokens.input_ids, attention_mask=tokens.attention_mask, position_ids=tokens.position_ids
            )
            real = tokens.attention_mask.bool()
            assert torch.allclose(out[real], tiny_model.logits(tokens)[real], atol=1e-3, rtol=1e-3)
        after = capture(tiny_model, texts, "resid_post", pool="last")
        assert torch.equal(before["resid_post", 0], during["resid_post", 0])
        assert not torch.allclose(before["resid_post", 1], during["resid_post", 1], atol=1e-3)
        assert all(torch.equal(before[key], after[key]) for key in before.acts)


def test_a_float32_delta_goes_onto_bfloat16_weights_rounded_once(make_model):
    model = make_model("llama")
    model.hf.to(torch.bfloat16)
    edit, before = random_edit(model), snapshot(model)
    name = model.value_name(1)
    with edit.applied(model):
        assert torch.equal(model.value_weight(1), (before[name].float() + edit.deltas[name]).bfloat16())
    assert same(model, before)


def test_generation_under_an_edit_differs_and_returns(llama, texts):
    before = llama.generate(texts, max_new_tokens=8)
    with random_edit(llama, scale=1.0).applied(llama):
        assert llama.generate(texts, max_new_tokens=8) != before
    assert llama.generate(texts, max_new_tokens=8) == before


# ------------------------------------------------------------------------------------------------- belonging
def test_an_edit_is_refused_by_other_weights_unless_forced(make_model):
    model, other = make_model("llama"), make_model("llama", seed=1)
    edit = random_edit(model)
    with (
        pytest.raises(
            InputError, match=r"was made on tiny-llama \(weights \w{16}\), not on .*pass force=True"
        ) as caught,
        edit.applied(other),
    ):
        pass
    assert "\n" not in str(caught.value)
    before = snapshot(other)
    with edit.applied(other, force=True):
        assert not same(other, before)
    with pytest.raises(InputError, match="pass force=True"):
        edit.beside(other)
    assert edit.beside(other, force=True).name == "tiny-llama+random"


def test_an_edit_is_refused_by_a_model_that_was_trained_on_since(make_model):
    model = make_model("llama")
    edit = random_edit(model)
    with torch.no_grad():
        model.final_norm.weight.mul_(1.01)
    with pytest.raises(InputError, match="pass force=True"), edit.applied(model):
        pass


def test_an_edit_does_not_change_the_hash_of_the_model_underneath(llama):
    first = llama.weight_hash()
    with random_edit(llama).applied(llama):
        assert llama.weight_hash() == first
    assert llama.weight_hash() == llama.weight_hash(fresh=True) == first


def test_an_edit_of_another_shape_is_refused_even_when_forced(make_model):
    edit = random_edit(make_model("llama"))
    with (
        pytest.raises(InputError, match=r"has no weight model\.layers\.1\.mlp"),
        edit.applied(make_model("gpt2"), True),
    ):
        pass
    name = "model.layers.1.mlp.down_proj.weight"
    small = WeightEdit({name: torch.ones(2, 2)}, edit.provenance)
    with (
        pytest.raises(InputError, match=r"is \(32, 48\), the edit's \(2, 2\)"),
        small.applied(make_model("llama"), True),
    ):
        pass
    with (
        pytest.raises(InputError, match=r"expected a HookedModel to edit, got object; see HookedModel\.from_hf"),
        edit.applied(object()),
    ):
        pass


def test_an_edit_that_is_no_edit_is_refused(llama):
    provenance = random_edit(llama).provenance
    with pytest.raises(InputError, match="needs at least one delta"):
        WeightEdit({}, provenance)
    with pytest.raises(InputError, match=r"the edit \(random\) of w is not finite; it diverged"):
        WeightEdit({"w": torch.tensor([1.0, torch.nan])}, provenance)
    with pytest.raises(InputError, match=r"expected a float32 delta for w, got torch\.bfloat16"):
        WeightEdit({"w": torch.ones(2).bfloat16()}, provenance)


# ------------------------------------------------------------------------------------------------- beside
def test_a_model_beside_shares_all_parameters_but_the_edited_one(tiny_model, texts):
    edit, before = random_edit(tiny_model), snapshot(tiny_model)
    edited = edit.beside(tiny_model)
    name = tiny_model.value_name(1)
    mine = dict(tiny_model.hf.named_parameters())
    for other, parameter in edited.hf.named_parameters():
        assert (parameter is mine[other]) == (other != name)
    assert same(tiny_model, before)
    tokens = tiny_model.tokenize(texts)
    vanilla = tiny_model.logits(tokens)
    with edit.applied(tiny_model):
        expected = tiny_model.logits(tokens)
    assert torch.equal(edited.logits(tokens), expected)
    assert torch.equal(tiny_model.logits(tokens), vanilla)
    assert edited.weight_hash() != tiny_model.weight_hash()
    assert edited.template == tiny_model.template
    got = capture(edited, texts, "resid_post", pool="last")
    with edit.applied(tiny_model):
        assert torch.equal(got["resid_post", 2], capture(tiny_model, texts, "resid_post", pool="last")["resid_post", 2])


# ------------------------------------------------------------------------------------------------- files
@pytest.mark.parametrize("path", ["edit.safetensors", "folder"])
def test_saving_and_loading_gives_the_same_edit(llama, tmp_path, path):
    edit = random_edit(llama)
    file = edit.save(tmp_path / path)
    assert file.is_file()
    assert file.suffix == ".safetensors"
    again = WeightEdit.load(tmp_path / path)
    assert again.provenance == edit.provenance
    assert set(again.deltas) == set(edit.deltas)
    assert all(torch.equal(again.deltas[n], edit.deltas[n]) for n in edit.deltas)
    assert again.provenance.versions["torch"] == torch.__version__
    with again.applied(llama):
        pass


def test_files_that_are_no_edit_are_told(llama, tmp_path):
    with pytest.raises(InputError, match=r"no such edit: .*nothing"):
        WeightEdit.load(tmp_path / "nothing")
    file = random_edit(llama).save(tmp_path)
    data = file.read_bytes()
    for damaged in (b"junk", data[: len(data) // 2]):
        file.write_bytes(damaged)
        with pytest.raises(InputError, match="is damaged"):
            WeightEdit.load(tmp_path)
    from safetensors.torch import save_file

    save_file({"w": torch.ones(2)}, file)
    with pytest.raises(InputError, match="is not a saved WeightEdit"):
        WeightEdit.load(tmp_path)


def test_an_edit_that_cannot_be_written_is_told(llama, tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match=r"cannot write .*file"):
        random_edit(llama).save(tmp_path / "file" / "edit.safetensors")
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_a_merged_checkpoint_opens_in_plain_transformers_with_the_same_logits(tiny_model, texts, tmp_path):
    edit, before = random_edit(tiny_model), snapshot(tiny_model)
    tokens = tiny_model.tokenize(texts)
    with edit.applied(tiny_model):
        expected = tiny_model.logits(tokens)
    folder = edit.merge(tiny_model, tmp_path / "merged")
    assert same(tiny_model, before)
    plain = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    out = plain(tokens.input_ids, attention_mask=tokens.attention_mask, position_ids=tokens.position_ids)
    assert torch.equal(out.logits, expected)


# ------------------------------------------------------------------------------------------------- size
def test_norms_are_frobenius_over_all_edited_matrices(llama):
    names = [llama.value_name(0), llama.value_name(2)]
    edit = random_edit(llama, names=names)
    delta = torch.cat([edit.deltas[n].flatten() for n in names])
    weight = torch.cat([llama.hf.get_parameter(n).flatten() for n in names])
    assert edit.norm == pytest.approx(float(delta.norm()), rel=1e-5)
    assert edit.relative_norm(llama) == pytest.approx(float(delta.norm() / weight.norm()), rel=1e-5)


def test_between_turns_old_weights_into_new_ones(llama):
    name = llama.value_name(1)
    old = llama.value_weight(1).detach()
    new = old + torch.randn(old.shape)
    edit = WeightEdit.between({name: old}, {name: new}, random_edit(llama).provenance)
    with edit.applied(llama):
        assert torch.allclose(llama.value_weight(1), new, atol=1e-6)


class Allocations(TorchDispatchMode):
    """Counts the bytes of all tensors made inside that are still alive, and the most there ever were."""

    def __init__(self):
        super().__init__()
        self.alive, self.peak = {}, 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        old = {t.untyped_storage()._cdata for t in tree_leaves((args, kwargs)) if isinstance(t, torch.Tensor)}
        out = function(*args, **(kwargs or {}))
        for t in tree_leaves(out):
            if isinstance(t, torch.Tensor) and t.untyped_storage()._cdata not in old:
                self.alive[StorageWeakRef(t.untyped_storage())] = t.untyped_storage().nbytes()
        self.peak = max(self.peak, self.now())
        return out

    def now(self):
        return sum(size for ref, size in self.alive.items() if not ref.expired())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_an_applied_edit_costs_a_backup_of_its_matrix_beside_its_delta(make_hf, make_tokenizer, monkeypatch, dtype):
    monkeypatch.setattr(edits, "CHUNK", 1 << 10)
    model = HookedModel.from_hf(make_hf("llama", n_layers=1, intermediate_size=1 << 11).to(dtype), make_tokenizer())
    delta = torch.full(model.value_weight(0).shape, 0.1)
    edit = WeightEdit({model.value_name(0): delta}, Provenance("x", "x", model.weight_hash()))
    matrix = model.value_weight(0).nbytes
    with Allocations() as made:
        with edit.applied(model):
            inside = made.now()
        after = made.now()
    assert inside == matrix
    assert matrix <= made.peak < 1.2 * matrix
    assert after == 0


# ------------------------------------------------------------------------------------------------- Detoxified
def test_a_detoxified_edit_is_applied_for_the_block_only(llama, texts):
    edit, before = random_edit(llama), snapshot(llama)
    with Detoxified("dinm", edit, layer=1).applied(llama) as model:
        assert model is llama
        assert not same(llama, before)
    assert same(llama, before)


def test_a_detoxified_checkpoint_is_opened_as_the_model_was(llama, make_model, texts, tmp_path):
    trained = make_model("llama", seed=4)
    trained.save(tmp_path / "sft")
    with Detoxified("sft", checkpoint=tmp_path / "sft").applied(llama) as model:
        assert model is not llama
        assert (model.name, model.dtype, model.device) == ("sft", llama.dtype, llama.device)
        assert torch.equal(model.logits(model.tokenize(texts)), trained.logits(trained.tokenize(texts)))
    with (
        pytest.raises(InputError, match="the checkpoint of sft is gone: expected a folder at"),
        Detoxified("sft", checkpoint=tmp_path / "gone").applied(llama),
    ):
        pass


def test_a_detoxified_checkpoint_is_placed_by_the_models_device_map(make_model, texts, tmp_path, monkeypatch):
    make_model("llama", seed=4).save(tmp_path / "sft")
    spread = make_model("llama", seed=3)
    # What accelerate leaves on a model that it spread over devices; on one CPU alone it leaves nothing.
    parts = ("model.embed_tokens", "model.layers", "model.norm", "model.rotary_emb", "lm_head")
    spread.hf.hf_device_map = dict.fromkeys(parts, "cpu")
    placed, opening = [], HookedModel.from_pretrained

    def opened(*sources, **options):
        placed.append((options["device"], options["device_map"]))
        return opening(*sources, **options)

    monkeypatch.setattr(HookedModel, "from_pretrained", opened)
    with Detoxified("sft", checkpoint=tmp_path / "sft").applied(spread) as model:
        assert model.logits(model.tokenize(texts)).isfinite().all()
    assert placed == [(None, spread.hf.hf_device_map)]


def test_a_method_of_prompts_only_leaves_the_model_alone(llama):
    with Detoxified("reminder", suffix="Be kind.").applied(llama) as model:
        assert model is llama
    with pytest.raises(ValueError, match="got both"):
        Detoxified("x", random_edit(llama), Path("x"))
