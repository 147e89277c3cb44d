"""Fig. 8: planted shifts are found, and a zero shift is never drawn as one."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from interp.mechanism.activations import PromptActivations, record
from interp.mechanism.source import shift_source
from interp.records import ShiftSource, dumps, loads


def points(h_mid: torch.Tensor, strength: float = 1.0) -> PromptActivations:
    n, d = h_mid.shape
    return PromptActivations(
        0, "mean", tuple(range(n)), torch.ones(n, 1, 3), torch.ones(n, 1, d), h_mid, torch.full((n,), strength)
    )


def cloud(n: int = 40) -> torch.Tensor:
    """Spread 5 along the first axis, 1 along the second, .1 along the others."""
    scale = torch.tensor([5.0, 1.0, 0.1, 0.1, 0.1])
    return torch.randn(n, 5, generator=torch.Generator().manual_seed(0)) * scale + 3.0


def test_a_planted_shift_becomes_the_first_axis_and_the_widest_spread_the_second() -> None:
    before = cloud()
    step = torch.tensor([0.0, 0.0, 2.0, 0.0, 0.0])
    found = shift_source(points(before), points(before + step, 2.0), model="sft", instance_ids=range(100, 140))
    assert found.delta_norm == pytest.approx(2.0, rel=1e-5)
    np.testing.assert_allclose(found.shifted[:, 0] - found.vanilla[:, 0], 2.0, rtol=1e-5)
    np.testing.assert_allclose(found.shifted[:, 1], found.vanilla[:, 1], atol=1e-5)
    assert abs(found.vanilla[:, 0].mean()) < 1e-6
    along = np.corrcoef(found.vanilla[:, 1], before[:30, 0].numpy())[0, 1]
    assert abs(along) > 0.999
    assert 0.8 < found.explained < 1.0
    assert found.instance_ids[:2] == (100, 101)
    assert len(found.vanilla) == 30  # as many as the paper draws
    assert (found.activation_vanilla[0], found.activation_shifted[0]) == (1.0, 2.0)
    assert found.axis == "mean shift"


def test_a_worked_case_in_two_dimensions() -> None:
    before = torch.tensor([[0.0, 1.0], [0.0, -1.0]])
    found = shift_source(points(before), points(before + torch.tensor([3.0, 0.0])), model="m")
    np.testing.assert_allclose(found.vanilla, [[0, 1], [0, -1]], atol=1e-12)
    np.testing.assert_allclose(found.shifted, [[3, 1], [3, -1]], atol=1e-12)
    assert found.explained == pytest.approx(4 / 13)  # 4 of variance along y, 4 * 1.5^2 = 9 along x


def test_a_zero_shift_falls_back_on_the_second_component_and_says_so() -> None:
    before = cloud()
    found = shift_source(points(before), points(before.clone()), model="dinm")
    assert found.delta_norm == 0.0
    assert "second principal component" in found.axis
    np.testing.assert_array_equal(found.vanilla, found.shifted)
    assert abs(np.corrcoef(found.vanilla[:, 0], before[:30, 1].numpy())[0, 1]) > 0.9
    assert abs(np.corrcoef(found.vanilla.T)[0, 1]) < 1e-6
    assert loads(ShiftSource, dumps(found)).axis == found.axis


def test_one_input_is_enough_to_be_drawn() -> None:
    found = shift_source(points(cloud(1)), points(cloud(1) + 1.0), model="m")
    assert np.isfinite(found.vanilla).all()
    assert np.isfinite(found.explained)


def test_h_mid_is_read_in_front_of_the_mlp_at_the_last_token(tiny_model, texts) -> None:
    found = record(tiny_model, texts[:1], 1)
    block = tiny_model.blocks[1]
    if hasattr(tiny_model.hf.config, "use_parallel_residual"):
        norm = block.input_layernorm  # attention and MLP run in parallel: the MLP's stream is the block's input
    else:
        norms = ("pre_feedforward_layernorm", "post_attention_layernorm", "ln_2")
        norm = next(getattr(block, name) for name in norms if hasattr(block, name))
    seen = []
    handle = norm.register_forward_pre_hook(lambda _, args: seen.append(args[0][0, -1]))
    try:
        with torch.no_grad():
            tiny_model.logits(tiny_model.tokenize(texts[:1]))
    finally:
        handle.remove()
    torch.testing.assert_close(found.h_mid[0], seen[0], atol=1e-3, rtol=1e-3)
