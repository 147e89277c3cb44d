from __future__ import annotations

import pytest
import torch
from tiny_lab import again, small_lab, variant

from interp.demo.world import instances
from interp.errors import InputError
from interp.mechanism.lab import Subject, merge
from interp.mechanism.lens import AGAINST, MARGIN_LENS, lens_margins, position_margins, refusal_lens, token_view
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


def test_the_grid_ends_with_the_margins_of_the_last_token_and_of_the_model_itself(tiny_model: HookedModel) -> None:
    subject = Subject("vanilla", tiny_model, small_lab(tiny_model, 5, batch_size=2))
    grid, names, n = position_margins(subject, 4)
    last = lens_margins(tiny_model, subject.last("resid_post"), subject.lab.tokens)
    assert grid.shape == (3, 4)
    assert n == 5
    assert grid[:, -1] == pytest.approx(last.mean(axis=0), abs=1e-3)
    assert last[:, -1] == pytest.approx(subject.margins(), abs=1e-3)
    assert names[-1] != ""  # all prompts end alike
    wide, names, n = position_margins(subject, 10_000)
    assert wide.shape[1] == len(names) == max(int(batch.lengths.max()) for batch in subject.prompts())
    assert 1 <= n < 5
    assert wide[:, -4:] == pytest.approx(grid, abs=1e-3)


def test_the_token_view_shows_the_margin_at_every_token_and_a_planted_toxic_neuron(llama: HookedModel) -> None:
    plain = Subject("plain", llama, small_lab(llama, 3))
    vanilla = variant(plain, lambda m: m.value_vectors(2)[5].copy_(plain.lab.toxic), "vanilla")
    view = token_view(vanilla, vanilla)
    (margins, active) = view.values.values()
    assert margins[-1] == pytest.approx(vanilla.margins()[0], abs=1e-3)
    assert active[-1] == pytest.approx(float(vanilla.last("h_down")[0, 2, 5]), abs=1e-4)
    assert len(view.tokens) == len(margins) == len(active)
    assert any("value vector 2.5 (cosine 1.00)" in name for name in view.values)


def test_a_model_equal_to_vanilla_leads_nowhere_and_one_that_refuses_leads_where_it_changed(llama: HookedModel) -> None:
    vanilla = Subject("vanilla", llama, small_lab(llama, 6))
    head = llama.unembedding.weight
    towards = 50 * (head[10] + head[11] - head[12] - head[13] - head[14])
    active = vanilla.last("h_down")[:, 2].mean(dim=0)
    push = torch.outer(active / (active @ active), towards)
    refusing = variant(vanilla, lambda m: m.value_vectors(2).add_(push), "refusing")
    found = merge([MARGIN_LENS.measure(s, vanilla) for s in (vanilla, again(vanilla), refusing)], MARGIN_LENS.read)
    against = {c.name: c for p in found.curves if p.title == AGAINST for c in p.curves}
    assert [e.value for e in against["same"].y] == [0.0] * 3
    assert [e.value for e in against["refusing"].y[:2]] == [0.0] * 2
    assert against["refusing"].y[2].low > 0
    assert "same leads vanilla by more than random tokens do after no layer." in found.reading
    assert "refusing leads vanilla by more than random tokens do after layer 2." in found.reading
    assert [g.title.split(":")[0] for g in found.grids] == ["vanilla", "same", "refusing"]
    assert (found.grids[0].values == found.grids[1].values).all()
    assert len(found.tokens) == 3
