"""Products by oneDNN against PyTorch's own, on whatever processor the tests run."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from interp import decode, products

LARGE = 64


@pytest.fixture
def everywhere(monkeypatch):
    """As on a processor where oneDNN is the faster, and from the smallest product on."""
    products.worthwhile.cache_clear()
    monkeypatch.setattr(products, "processor", lambda: "vendor_id : AuthenticAMD")
    monkeypatch.setattr(products.platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(products.platform, "system", lambda: "Linux")
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")
    monkeypatch.setattr(products, "LARGE", 0)
    yield
    products.worthwhile.cache_clear()


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(LARGE,), (4, LARGE // 4), (2, 1, LARGE)])
def test_a_product_is_the_same_but_for_rounding(everywhere, shape, bias):
    torch.manual_seed(0)
    module, x = nn.Linear(48, 40, bias=bias), torch.randn(*shape, 48)
    forward = products.linear(module)
    assert forward is not None
    with torch.no_grad():
        torch.testing.assert_close(forward(x), module(x), rtol=1e-5, atol=1e-5)


def test_a_product_with_a_matrix_of_gpt2_is_the_same_but_for_rounding(everywhere):
    torch.manual_seed(0)
    module, x = Conv1D(40, 48), torch.randn(2, LARGE, 48)
    nn.init.normal_(module.bias)
    forward = products.linear(module)
    assert forward is not None
    with torch.no_grad():
        torch.testing.assert_close(forward(x), module(x), rtol=1e-5, atol=1e-5)


def test_a_weight_that_was_changed_or_replaced_is_followed(everywhere):
    module, x = nn.Linear(8, 8), torch.randn(LARGE, 8)
    forward = products.linear(module)
    assert forward is not None
    with torch.no_grad():
        module.weight += 1
        torch.testing.assert_close(forward(x), module(x), rtol=1e-5, atol=1e-5)
        module.weight = nn.Parameter(torch.eye(8))
        torch.testing.assert_close(forward(x), x + module.bias, rtol=1e-5, atol=1e-5)


def test_gradients_autocast_other_types_and_calls_go_the_plain_way(everywhere, monkeypatch):
    asked = []
    assert products.worthwhile()
    monkeypatch.setattr(products, "onednn", lambda x, weight, bias: asked.append(len(x)) or x)
    module = nn.Linear(8, 8)
    forward = products.linear(module)
    assert forward is not None
    forward(torch.randn(LARGE, 8)).sum().backward()
    assert module.weight.grad is not None
    with torch.no_grad():
        torch.testing.assert_close(forward(input=torch.ones(2, 8)), module(torch.ones(2, 8)))
        assert forward(torch.ones(0, 8)).shape == (0, 8)
        with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
            forward(torch.ones(2, 9))
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert forward(torch.ones(2, 8)).dtype == torch.bfloat16
        torch._C._set_mkldnn_enabled(False)
        forward(torch.ones(2, 8))
        torch._C._set_mkldnn_enabled(True)
        assert asked == []
        forward(torch.ones(2, 8))
    assert asked == [2]


@pytest.mark.parametrize(
    ("processor", "machine", "capability"),
    [
        ("vendor_id : GenuineIntel", "x86_64", "AVX512"),
        ("vendor_id : AuthenticAMD", "aarch64", "DEFAULT"),
        ("vendor_id : AuthenticAMD", "x86_64", "AVX2"),
    ],
)
def test_where_mkl_is_as_fast_or_absent_nothing_is_replaced(everywhere, monkeypatch, processor, machine, capability):
    assert products.linear(nn.Linear(8, 8)) is not None
    products.worthwhile.cache_clear()
    monkeypatch.setattr(products, "processor", lambda: processor)
    monkeypatch.setattr(products.platform, "machine", lambda: machine)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    assert products.linear(nn.Linear(8, 8)) is None
    products.worthwhile.cache_clear()


def test_small_weights_are_left_to_mkl(everywhere, monkeypatch):
    monkeypatch.setattr(products, "LARGE", 65)
    assert products.linear(nn.Linear(8, 8)) is None
    assert products.linear(nn.Linear(8, 9)) is not None


def test_a_pytorch_without_this_way_to_ask_is_left_alone(everywhere, monkeypatch):
    def gone(*_):
        raise AttributeError("no such operation")

    monkeypatch.setattr(products, "onednn", gone)
    assert not products.worthwhile()


def test_only_plain_float32_layers_without_a_stand_in_are_replaced(everywhere):
    class Own(nn.Linear):
        pass

    replaced = nn.Linear(8, 8)
    object.__setattr__(replaced, "forward", lambda x: x)
    for module in (
        Own(8, 8),
        replaced,
        nn.Linear(8, 8, dtype=torch.bfloat16),
        nn.Linear(8, 8, device="meta"),
        nn.ReLU(),
    ):
        assert products.linear(module) is None


@pytest.mark.parametrize("architecture", ["gpt2", "llama", "neox"])
def test_decoding_gives_the_same_tokens_and_leaves_the_model_as_it_was(everywhere, make_model, texts, architecture):
    model = make_model(architecture)
    ids = [model.token_ids(text) for text in texts * 3]
    forwards = {name: module.__dict__.get("forward") for name, module in model.hf.named_modules()}
    fast = decode.greedy(model.hf, model.unembedding, ids, max_new_tokens=8)
    assert {name: module.__dict__.get("forward") for name, module in model.hf.named_modules()} == forwards
    products.worthwhile.cache_clear()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(products, "worthwhile", lambda: False)
        assert decode.greedy(model.hf, model.unembedding, ids, max_new_tokens=8) == fast
