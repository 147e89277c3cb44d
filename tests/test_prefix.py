"""Running a model from a layer on, or from W_V on, equals running all of it: logits and gradients."""

import pytest
import torch

from interp.errors import InputError
from interp.prefix import from_layer, from_value, logits_at, logits_from_value, prefix_residual, value_state

SIDES = ("left", "right")


def gradient(model, layer, run):
    """d(mean real logit) / d(W_V of `layer`) through `run`."""
    weight = model.value_weight(layer)
    weight.requires_grad_(True)
    try:
        logits = run()
        return torch.autograd.grad(logits.square().mean(), weight)[0]
    finally:
        weight.requires_grad_(False)


@pytest.mark.parametrize("side", SIDES)
def test_prefix_residual_equals_the_hidden_state_of_the_whole_forward(tiny_model, texts, side):
    tokens = tiny_model.tokenize(texts, side=side)
    out = tiny_model.hf(
        tokens.input_ids,
        attention_mask=tokens.attention_mask,
        position_ids=tokens.position_ids,
        output_hidden_states=True,
    )
    for layer in range(tiny_model.n_layers):
        assert torch.equal(prefix_residual(tiny_model, tokens, layer), out.hidden_states[layer])
    after = tiny_model.final_norm(prefix_residual(tiny_model, tokens, tiny_model.n_layers))
    assert torch.equal(after, out.hidden_states[-1])


@pytest.mark.parametrize("side", SIDES)
def test_from_layer_gives_the_logits_of_the_whole_forward(tiny_model, texts, side):
    tokens = tiny_model.tokenize(texts, side=side)
    whole = tiny_model.logits(tokens)
    for layer in range(tiny_model.n_layers + 1):
        resid = prefix_residual(tiny_model, tokens, layer)
        with from_layer(tiny_model, layer, resid):
            assert torch.equal(tiny_model.logits(tokens), whole)
    assert torch.equal(tiny_model.logits(tokens), whole)


def test_from_layer_gives_the_gradients_of_the_whole_forward(tiny_model, texts):
    tokens = tiny_model.tokenize(texts, side="right")
    for layer in range(tiny_model.n_layers):
        whole = gradient(tiny_model, layer, lambda: tiny_model.logits(tokens))
        resid = prefix_residual(tiny_model, tokens, layer)
        with from_layer(tiny_model, layer, resid):
            assert torch.equal(gradient(tiny_model, layer, lambda: tiny_model.logits(tokens)), whole)


def test_blocks_below_the_layer_do_not_run(llama, texts):
    tokens = llama.tokenize(texts)
    resid = prefix_residual(llama, tokens, 2)
    ran = []
    handles = [llama.mlp(i).register_forward_hook(lambda *_, i=i: ran.append(i)) for i in range(3)]
    with from_layer(llama, 2, resid):
        llama.logits(tokens)
    for handle in handles:
        handle.remove()
    assert ran == [2]


def test_a_changed_residual_reaches_the_logits_at_every_layer(tiny_model, texts):
    tokens = tiny_model.tokenize(texts)
    whole = tiny_model.logits(tokens)
    for layer in range(tiny_model.n_layers + 1):
        other = torch.randn_like(prefix_residual(tiny_model, tokens, layer))
        with from_layer(tiny_model, layer, other):
            assert not torch.allclose(tiny_model.logits(tokens), whole, atol=1e-2)


def test_an_exception_inside_leaves_the_model_whole(tiny_model, texts):
    tokens = tiny_model.tokenize(texts)
    whole = tiny_model.logits(tokens)
    state = value_state(tiny_model, tokens, 1)
    with pytest.raises(RuntimeError, match="inside"), from_value(tiny_model, state):
        raise RuntimeError("inside")
    assert torch.equal(tiny_model.logits(tokens), whole)
    assert all("forward" not in module.__dict__ for module in tiny_model.hf.modules())


@pytest.mark.parametrize("side", SIDES)
def test_from_value_gives_the_logits_and_gradients_of_the_whole_forward(tiny_model, texts, side):
    tokens = tiny_model.tokenize(texts, side=side)
    positions = torch.stack([torch.where(row.bool())[0][-2:] for row in tokens.attention_mask])
    index = positions[..., None].expand(-1, -1, tiny_model.vocab_size)
    for layer in range(tiny_model.n_layers):
        state = value_state(tiny_model, tokens, layer)
        weight = tiny_model.value_weight(layer)
        old = weight.detach().clone()
        try:
            weight.data += 0.1 * torch.randn_like(weight)  # the edit's later steps start from another W_V
            whole = tiny_model.logits(tokens)
            real = tokens.attention_mask.bool()
            assert torch.allclose(logits_from_value(tiny_model, state)[real], whole[real], atol=1e-5, rtol=1e-5)
            some = logits_from_value(tiny_model, state, positions)
            assert torch.allclose(some, whole.gather(1, index), atol=1e-5, rtol=1e-5)
            assert torch.allclose(
                logits_at(tiny_model, tokens, positions), whole.gather(1, index), atol=1e-5, rtol=1e-5
            )
            expected = gradient(tiny_model, layer, lambda: tiny_model.logits(tokens).gather(1, index))
            got = gradient(tiny_model, layer, lambda s=state: logits_from_value(tiny_model, s, positions))
            assert torch.allclose(got, expected, atol=1e-5 * float(expected.abs().max()))
        finally:
            weight.data.copy_(old)


def test_a_layer_out_of_range_is_told_in_one_line(llama, texts):
    tokens = llama.tokenize(texts)
    for bad in (4, -1):
        with pytest.raises(InputError, match=rf"layer {bad} out of range: the model has layers 0\.\.2"):
            prefix_residual(llama, tokens, bad)
    with pytest.raises(InputError, match="layer 3 out of range"):
        value_state(llama, tokens, 3)
