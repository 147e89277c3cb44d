"""Capture gives what the Hugging Face model computes on the same tokens, whatever the padding."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from interp.capture import CaptureBatch, capture, stream
from interp.errors import InputError
from interp.models import HookedModel, Tokens

SIDES = ("left", "right")


@pytest.fixture
def eager():
    """A context that gives an HF model eager attention, as capture does."""
    from contextlib import contextmanager

    @contextmanager
    def switch(hf):
        before = hf.config._attn_implementation
        hf.set_attn_implementation("eager")
        try:
            yield hf
        finally:
            hf.set_attn_implementation(before)

    return switch


def forward(hf, tokens, **more):
    return hf(
        input_ids=tokens.input_ids,
        attention_mask=tokens.attention_mask,
        position_ids=tokens.position_ids,
        use_cache=False,
        **more,
    )


HOOKS = {
    "resid_pre": "blocks.{}.hook_resid_pre",
    "resid_mid": "blocks.{}.hook_resid_mid",
    "resid_post": "blocks.{}.hook_resid_post",
    "h_down": "blocks.{}.mlp.hook_post",
    "attn_out": "blocks.{}.hook_attn_out",
    "mlp_out": "blocks.{}.hook_mlp_out",
}


@pytest.mark.parametrize("side", SIDES)
def test_capture_equals_the_bridge_at_every_place(tiny_model, texts, side):
    """To the last bit; GPT-2 and GPT-NeoX to rounding, since their fused q, k, v product is three in the bridge."""
    tokens = tiny_model.tokenize(texts, side=side)
    places = {p: h for p, h in HOOKS.items() if (tiny_model.name, p) != ("tiny-neox", "resid_mid")}
    got = capture(tiny_model, tokens, (*places, "final"), batch_size=len(texts))
    with torch.no_grad():
        _, cache = tiny_model.bridge.run_with_cache(
            tokens.input_ids, attention_mask=tokens.attention_mask, position_ids=tokens.position_ids
        )
    real = tokens.attention_mask.bool()
    names = {(p, layer): h.format(layer) for p, h in places.items() for layer in range(tiny_model.n_layers)}
    for key, name in {**names, ("final", tiny_model.n_layers - 1): "ln_final.hook_out"}.items():
        if tiny_model.name in ("tiny-gpt2", "tiny-neox"):
            assert torch.allclose(got[key][real], cache[name][real], atol=1e-5, rtol=1e-5), key
        else:
            assert torch.equal(got[key][real], cache[name][real]), key


def test_capture_makes_no_bridge_and_leaves_the_attention_as_it_was(make_model, texts):
    model = make_model("llama")
    capture(model, texts, ("resid_mid", "h_down"), layers=[0])
    assert model._bridge is None
    assert model.hf.config._attn_implementation == "sdpa"


@pytest.mark.parametrize("side", SIDES)
def test_residuals_equal_the_hidden_states_of_eager_hf(tiny_model, texts, side, eager):
    tokens = tiny_model.tokenize(texts, side=side)
    with eager(tiny_model.hf) as hf:
        hidden = forward(hf, tokens, output_hidden_states=True).hidden_states
    got = capture(tiny_model, tokens, ("resid_pre", "resid_post", "final"), batch_size=len(texts))
    real = tokens.attention_mask.bool()

    for layer in range(tiny_model.n_layers):
        assert torch.equal(got["resid_pre", layer][real], hidden[layer][real])
    for layer in range(tiny_model.n_layers - 1):
        assert torch.equal(got["resid_post", layer][real], hidden[layer + 1][real])
    assert torch.equal(got["final", tiny_model.n_layers - 1][real], hidden[-1][real])


def test_h_down_equals_what_a_forward_pre_hook_on_the_down_projection_sees(tiny_model, texts, eager):
    tokens = tiny_model.tokenize(texts, side="right")
    seen = {}
    handles = [
        tiny_model.value_module(i).register_forward_pre_hook(lambda _, args, i=i: seen.__setitem__(i, args[0]))
        for i in range(tiny_model.n_layers)
    ]
    with eager(tiny_model.hf) as hf:
        forward(hf, tokens)
    for handle in handles:
        handle.remove()
    got = capture(tiny_model, tokens, "h_down", batch_size=len(texts))
    real = tokens.attention_mask.bool()
    for layer in range(tiny_model.n_layers):
        assert got["h_down", layer].shape[-1] == tiny_model.d_mlp
        assert torch.allclose(got["h_down", layer][real], seen[layer][real], atol=1e-5, rtol=1e-5)


def test_what_the_parts_write_adds_up_to_the_stream(tiny_model, texts):
    got = capture(tiny_model, texts, ("resid_pre", "attn_out", "mlp_out", "resid_post"))
    for layer in range(tiny_model.n_layers):
        total = got["resid_pre", layer] + got["attn_out", layer] + got["mlp_out", layer]
        assert torch.allclose(total, got["resid_post", layer], atol=1e-4, rtol=1e-4)


def test_resid_mid_lies_between_attention_and_mlp(tiny_models, texts):
    for name, model in tiny_models.items():
        if name == "neox":
            continue
        got = capture(model, texts, ("resid_pre", "attn_out", "resid_mid"))
        for layer in range(model.n_layers):
            total = got["resid_pre", layer] + got["attn_out", layer]
            assert torch.allclose(total, got["resid_mid", layer], atol=1e-4, rtol=1e-4)


def test_resid_mid_of_a_parallel_block_is_refused_with_the_reason(tiny_models, texts):
    with pytest.raises(InputError, match="no resid_mid: its attention and MLP run in parallel on the same input"):
        capture(tiny_models["neox"], texts, "resid_mid")


def test_a_sequential_neox_has_a_resid_mid(texts, make_hf, make_tokenizer):
    model = HookedModel.from_hf(make_hf("neox", use_parallel_residual=False), make_tokenizer())
    got = capture(model, texts, ("resid_pre", "attn_out", "resid_mid"))
    assert torch.allclose(got["resid_mid", 1], got["resid_pre", 1] + got["attn_out", 1], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("pool", ["none", "mean", "last"])
def test_padded_equals_unpadded(tiny_model, texts, side, pool):
    components = ("resid_post", "h_down", "final")
    together = capture(tiny_model, texts, components, pool=pool, batch_size=3, side=side)
    for i, text in enumerate(texts):
        alone = capture(tiny_model, [text], components, pool=pool)
        for key in together.acts:
            got = together[key][i] if pool != "none" else together[key][i][together.mask[i]]
            expected = alone[key][0]
            assert got.shape == expected.shape
            assert torch.allclose(got, expected, atol=1e-4, rtol=1e-4)


def test_pooling_counts_real_tokens_only(llama, texts):
    everything = capture(llama, texts, "resid_post")
    mean = capture(llama, texts, "resid_post", pool="mean")
    last = capture(llama, texts, "resid_post", pool="last")
    for i in range(len(texts)):
        rows = everything["resid_post", 1][i][everything.mask[i]]
        assert len(rows) == len(llama.token_ids(texts[i]))
        assert torch.allclose(mean["resid_post", 1][i], rows.mean(0), atol=1e-5)
        assert torch.allclose(last["resid_post", 1][i], rows[-1], atol=1e-5)
        assert not everything["resid_post", 1][i][~everything.mask[i]].any()


def test_stream_gives_every_input_once_and_names_it(llama, texts):
    batches = list(stream(llama, texts, "resid_post", layers=1, batch_size=3))
    assert all(isinstance(b, CaptureBatch) and set(b.acts) == {("resid_post", 1)} for b in batches)
    assert sorted(i for b in batches for i in b.index) == list(range(len(texts)))
    assert [len(b.index) for b in batches] == [3, 1]
    for batch in batches:
        for row, i in enumerate(batch.index):
            assert batch.tokens.row(row) == llama.token_ids(texts[i])


def test_only_the_layers_asked_for_are_captured_and_higher_blocks_do_not_run(llama, texts):
    ran = []
    handle = llama.mlp(2).register_forward_pre_hook(lambda *_: ran.append(2))
    got = capture(llama, texts, ("resid_post", "h_down"), layers=[1, 0])
    assert set(got.acts) == {("resid_post", 0), ("resid_post", 1), ("h_down", 0), ("h_down", 1)}
    assert not ran
    capture(llama, texts, layers=2)
    handle.remove()
    assert ran


def test_stack_orders_layers(llama, texts):
    got = capture(llama, texts, layers=[2, 0], pool="mean")
    assert torch.equal(got.stack("resid_post"), torch.stack([got["resid_post", 0], got["resid_post", 2]]))


def test_capture_keeps_no_graph_and_leaves_no_hooks(tiny_model, texts):
    def hooks():  # transformers may have some of its own
        return [(len(m._forward_hooks), len(m._forward_pre_hooks)) for m in tiny_model.hf.modules()]

    before, own = tiny_model.logits(tiny_model.tokenize(texts)), hooks()
    got = capture(tiny_model, texts, pool="mean")
    assert all(not x.requires_grad for x in got.acts.values())
    assert hooks() == own
    assert torch.equal(tiny_model.logits(tiny_model.tokenize(texts)), before)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"components": "resid"}, "unknown component 'resid'; expected one of resid_pre,"),
        ({"layers": 3}, r"layer 3 out of range: the model has layers 0\.\.2"),
        ({"layers": [-1]}, "layer -1 out of range"),
        ({"layers": []}, "at least one component and one layer"),
        ({"pool": "max"}, "expected pool to be one of none, mean, last, got 'max'"),
        ({"batch_size": 0}, "expected batch_size >= 1, got 0"),
    ],
)
def test_bad_arguments_are_told_in_one_line(llama, texts, arguments, message):
    with pytest.raises(InputError, match=message):
        capture(llama, texts, **arguments)


def test_no_inputs_and_foreign_objects_are_told(llama):
    with pytest.raises(InputError, match="at least one text"):
        capture(llama, [])
    with pytest.raises(InputError, match="expected a HookedModel or a HookedTransformer, got Linear"):
        capture(nn.Linear(2, 2), ["a"])
    with pytest.raises(InputError, match="expected a HookedModel, got a TransformerBridge: wrap the HF model"):
        capture(llama.bridge, ["a"])


class FakeHookedTransformer:
    """The part of transformer-lens 3's HookedTransformer that capture stands on, over a HookedModel."""

    def __init__(self, model):
        self.inner = model
        self.cfg = SimpleNamespace(n_layers=model.n_layers, model_name="fake", parallel_attn_mlp=False)
        self.ln_final = model.final_norm
        self.asked = []

    def to_tokens(self, text):
        return torch.tensor([self.inner.token_ids(text)])

    def run_with_cache(self, tokens, *, names_filter, attention_mask, stop_at_layer, return_type):
        self.asked.append((tuple(names_filter), stop_at_layer))
        batch = Tokens(tokens, attention_mask)
        _, cache = self.inner.bridge.run_with_cache(
            tokens, attention_mask=attention_mask, position_ids=batch.position_ids, names_filter=names_filter
        )
        return None, {name: cache[name] for name in names_filter}


@pytest.mark.parametrize("side", SIDES)
def test_a_hooked_transformer_of_version_3_is_captured_by_duck_typing(llama, texts, side):
    fake = FakeHookedTransformer(llama)
    components = ("resid_post", "h_down", "final")
    got = capture(fake, texts, components, pool="mean", side=side)
    expected = capture(llama, texts, components, pool="mean", side=side)
    assert set(got.acts) == set(expected.acts)
    for key in expected.acts:
        assert torch.allclose(got[key], expected[key], atol=1e-5)
    assert all(depth == 3 and "blocks.1.mlp.hook_post" in names for names, depth in fake.asked)
    with pytest.raises(InputError, match="layer 7 out of range"):
        capture(fake, texts, layers=7)
