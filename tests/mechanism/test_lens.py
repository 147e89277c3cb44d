from __future__ import annotations

import pytest
import torch

from interp.demo.world import instances
from interp.errors import InputError
from interp.mechanism.lens import refusal_lens
from interp.mechanism.shares import MarginTokens
from interp.models import HookedModel


@pytest.fixture(scope="module")
def model() -> HookedModel:
    return HookedModel.from_pretrained("demo")


def test_the_last_layer_of_the_lens_is_the_margin_the_model_acts_on(model: HookedModel) -> None:
    some = instances("val")[:3]
    tokens = MarginTokens.of(model, some)
    lens = refusal_lens(model, some, tokens)
    prompts = model.tokenize([model.format_prompt(i.adversarial_prompt) for i in some])
    with torch.no_grad():
        own = tokens.margin(model.logits(prompts)[:, -1])
    assert lens.values.shape == (3, model.n_layers)
    assert lens.values[:, -1] == pytest.approx(own.numpy(), abs=1e-3)
    assert lens.unit.endswith("nats")


def test_bare_questions_are_refused_more_than_attacked_ones(model: HookedModel) -> None:
    some = instances("val")[:200:20]
    tokens = MarginTokens.of(model, some)
    bare = refusal_lens(model, some, tokens, kind="onlyQ").values[:, -1]
    attacked = refusal_lens(model, some, tokens).values[:, -1]
    assert bare.mean() > attacked.mean()


def test_no_instances_is_one_line(model: HookedModel) -> None:
    with pytest.raises(InputError, match="at least one instance"):
        refusal_lens(model, [], MarginTokens((1,), (2,)))
