"""ProFS: the projection by hand, what it leaves alone, and that the model stays as it is."""

from dataclasses import replace

import pytest
import torch
from rivals import assert_untouched, instance, snapshot

from interp.errors import InputError
from interp.methods.base import Method
from interp.methods.profs import Profs

WORDS = ["the cat", "a dog", "the moon", "the mat", "a long time", "the sofa", "my hat", "one tree"]
PAIRS = [
    replace(
        instance(i, f"Tell me of {w}!", f"I am sorry, not {w}."), unsafe_generation=f"Sure, here is {w} on the mat {i}."
    )
    for i, w in enumerate(WORDS)
]
TINY = Profs(rank=2, pairs=8, start_layer=1, batch_size=3)


def own_embeddings(model, layer, pool):
    """Mean hidden states computed by the plain model, one text at a time."""
    found = {}
    for kind in ("safe_generation", "unsafe_generation"):
        rows = []
        for pair in PAIRS:
            head, tail = model.encode_pair(pair.adversarial_prompt, getattr(pair, kind), eos=False)
            kept = {}
            handle = model.blocks[layer].register_forward_hook(
                lambda _, __, out, kept=kept: kept.update(x=out[0] if isinstance(out, tuple) else out)
            )
            with torch.no_grad():
                model.hf(torch.tensor([head + tail]))
            handle.remove()
            x = kept["x"]
            x = x[0] if x.dim() == 3 else x
            rows.append(x[len(head) if pool == "answer" else 0 :].double().mean(0))
        found[kind] = torch.stack(rows)
    return found["safe_generation"], found["unsafe_generation"]


@pytest.mark.parametrize("pool", ["text", "answer"])
def test_the_edit_is_the_projection_of_the_paper_computed_by_hand(tiny_model, pool):
    before = snapshot(tiny_model)
    got = replace(TINY, pool=pool).detoxify(tiny_model, PAIRS)
    assert_untouched(tiny_model, before)
    assert [*got.edit.deltas] == [tiny_model.value_name(1), tiny_model.value_name(2)]
    for layer in (1, 2):
        safe, unsafe = own_embeddings(tiny_model, layer, pool)
        common = torch.linalg.svd(safe).Vh[0]
        differences = (safe - unsafe) @ (torch.eye(32).double() - torch.outer(common, common))
        top = torch.linalg.svd(differences).Vh[:2]
        expected = tiny_model.value_vectors(layer).double() @ (torch.eye(32).double() - top.T @ top)
        with got.applied(tiny_model):
            edited = tiny_model.value_vectors(layer).double()
        torch.testing.assert_close(edited, expected, rtol=0, atol=2e-3)


def test_what_w_v_writes_into_the_subspace_is_gone_and_the_rest_is_as_before(tiny_models):
    model = tiny_models["gpt2"]
    got = TINY.detoxify(model, PAIRS)
    old = model.value_vectors(1).clone()
    with got.applied(model):
        new = model.value_vectors(1).clone()
    lost = torch.linalg.matrix_rank(old - new, rtol=1e-4)
    assert int(lost) == 2
    basis = torch.linalg.svd(old - new).Vh[:2]
    assert float((new @ basis.T).abs().max()) < 1e-5
    outside = torch.eye(32) - basis.T @ basis
    torch.testing.assert_close(new @ outside, old @ outside, rtol=0, atol=1e-5)


def test_twice_projected_is_once_projected(tiny_models):
    model = tiny_models["llama"]
    got = replace(TINY, start_layer=2).detoxify(model, PAIRS)
    [delta] = got.edit.deltas.values()
    with got.applied(model):
        values = model.value_vectors(2).clone()
    directions = torch.linalg.svd(delta.T).Vh[:2]
    torch.testing.assert_close(values @ directions.T, torch.zeros(48, 2), rtol=0, atol=1e-5)


def test_centring_keeps_the_common_direction_in_w_v(tiny_models):
    model = tiny_models["neox"]
    safe, _ = own_embeddings(model, 2, "text")
    lost = {}
    for centring, common in (
        ("none", safe.mean(0)),
        ("mean", safe.mean(0)),
        ("top singular vector", torch.linalg.svd(safe).Vh[0]),
    ):
        got = replace(TINY, start_layer=2, centring=centring, rank=6).detoxify(model, PAIRS)
        [delta] = got.edit.deltas.values()  # [d_model, d_mlp]
        lost[centring] = float((delta.double().T @ (common / common.norm())).norm() / delta.norm())
    assert lost["mean"] < 1e-4
    assert lost["top singular vector"] < 1e-4
    assert lost["none"] > 1e-2


def test_batches_and_padding_do_not_enter(tiny_models):
    model = tiny_models["gpt2"]
    one, all_ = (replace(TINY, batch_size=n).detoxify(model, PAIRS) for n in (1, 8))
    for name, delta in one.edit.deltas.items():
        torch.testing.assert_close(all_.edit.deltas[name], delta, rtol=0, atol=1e-3)


def test_the_start_layer_is_15_32nds_of_the_depth_unless_it_is_given(tiny_models):
    got = replace(TINY, start_layer=None).detoxify(tiny_models["llama"], PAIRS)
    assert len(got.edit.deltas) == 2  # 3 * 15 // 32 = 1
    assert Profs().start_layer is None


def test_the_choice_of_pairs_is_seeded_and_recorded(tiny_models):
    model = tiny_models["llama"]
    first, again, other = (replace(TINY, pairs=4, seed=s).detoxify(model, PAIRS) for s in (0, 0, 1))
    ids = first.edit.provenance.instance_ids
    assert ids == again.edit.provenance.instance_ids != other.edit.provenance.instance_ids
    assert len(ids) == 4
    name = model.value_name(1)
    assert torch.equal(first.edit.deltas[name], again.edit.deltas[name])
    assert isinstance(TINY, Method)
    assert (TINY.needs, first.layer, first.edit.provenance.layer) == ("the train split", None, None)


def test_bad_input_is_told_in_one_line(llama, make_model):
    with pytest.raises(InputError, match="at least one training instance, got none"):
        TINY.detoxify(llama, [])
    with pytest.raises(InputError, match=r"layer 7 out of range: the model has layers 0\.\.2"):
        replace(TINY, start_layer=7).detoxify(llama, PAIRS)
    with pytest.raises(InputError, match="got 8 pairs, d_model 32"):
        replace(TINY, rank=9).detoxify(llama, PAIRS)
    with pytest.raises(InputError, match="instance 0 has an empty unsafe response"):
        TINY.detoxify(llama, [replace(PAIRS[0], unsafe_generation=" "), *PAIRS[1:]])
    same = [replace(pair, id=i) for i, pair in enumerate([PAIRS[0]] * 4)]
    with pytest.raises(InputError, match="differ in fewer than 2 directions"):
        replace(TINY, centring="none").detoxify(llama, same)
    broken = make_model("llama")
    broken.value_weight(0).data.fill_(float("nan"))
    with pytest.raises(InputError, match="not finite"):
        TINY.detoxify(broken, PAIRS)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rank": 0}, "rank must be at least 1, got 0"),
        ({"pairs": 0}, "pairs must be at least 1, got 0"),
        ({"centring": "median"}, "centring must be one of"),
        ({"pool": "last"}, "pool must be one of"),
    ],
)
def test_a_bad_configuration_is_refused(change, message):
    config = Profs()
    for name, value in change.items():  # past the type checker of the test run, as users run without it
        object.__setattr__(config, name, value)
    with pytest.raises(InputError, match=message):
        config.__post_init__()
