"""The toolkit on devices that are not the CPU, one or two of them, as far as that can be told without one.

Tensors say that they lie on a device and are computed on the CPU (`pretend_devices`); what a GPU would refuse for the
place of its arguments is refused.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import dispatch_model
from conftest import TEXTS, tiny_hf, tiny_tokenizer
from pretend_devices import pretend_devices
from rivals import ONE, THREE, TWO
from tiny_lab import small_instance, small_lab, variant
from torch.utils._python_dispatch import _disable_current_modes

from interp.capture import capture
from interp.edits import WeightEdit
from interp.errors import InputError
from interp.evaluation.divergence import Answered, answer_kl
from interp.locate import PAPER, REFERENCE_RIGHT, layer_distances
from interp.mechanism.deep import ANALYSES
from interp.mechanism.lab import Analysis, Lab, Subject
from interp.mechanism.localise import LOCATORS, locate_behaviour
from interp.mechanism.shares import swap_shares
from interp.mechanism.swaps import swap_margins
from interp.methods import Dinm, Direction, FtL, Profs
from interp.models import HookedModel
from interp.multi import generate_edited

INSTANCES = [ONE, TWO, THREE]
MANY = [small_instance(i) for i in range(12)]


PLACES = {"one": ("pretend:0",), "two": ("pretend:0", "pretend:1")}
"""Where the first two of three blocks lie, and where the last one lies."""


def spread(architecture: str, first: str, last: str) -> dict[str, str]:
    """Embeddings and what is tied to them, and two of three blocks on one device; the last block on the other."""
    if architecture == "gpt2":
        names = ["wte", "wpe", "drop", "h.0", "h.1"], ["h.2", "ln_f"]
        root, head = "transformer.", first  # tied to the embeddings
    else:
        names = ["embed_tokens", "rotary_emb", "layers.0", "layers.1"], ["layers.2", "norm"]
        root, head = "model.", last
    found = {f"{root}{name}": device for part, device in zip(names, (first, last), strict=True) for name in part}
    return {**found, "lm_head": head}


def make(architecture: str, places: str | None = None) -> HookedModel:
    """The tiny model on the CPU, or on pretended devices."""
    hf = tiny_hf(architecture)
    if places is not None:
        where = PLACES[places]
        hf = (
            hf.to(where[0])
            if len(where) == 1
            else dispatch_model(hf, spread(architecture, *where), main_device=where[0])
        )
    return HookedModel.from_hf(hf, tiny_tokenizer(), "tiny")


@pytest.fixture(autouse=True)
def devices() -> Iterator[None]:
    with pretend_devices():
        yield


def pretended(places: str | None) -> AbstractContextManager[Any]:
    """Without places the CPU itself, at its own speed: no operation passes through Python."""
    return _disable_current_modes() if places is None else nullcontext()


@pytest.fixture(params=["gpt2", "llama"])
def architecture(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(params=PLACES)
def pair(request: pytest.FixtureRequest, architecture: str) -> tuple[HookedModel, HookedModel]:
    """(on the CPU, on devices)."""
    return make(architecture), make(architecture, request.param)


# ---------------------------------------------------------------------------------------- the pretence itself
def test_a_pretended_device_refuses_what_a_gpu_refuses():
    here, there = torch.ones(3, device="pretend:0"), torch.ones(3, device="pretend:1")
    for mixed in (lambda: here + torch.ones(3), lambda: here + there, lambda: torch.ones(3)[here > 0]):
        with pytest.raises(RuntimeError, match="expected all tensors on one device"):
            mixed()
    with pytest.raises(RuntimeError, match="expected a generator"):
        torch.randn(3, device="pretend:0", generator=torch.Generator())
    with pytest.raises((RuntimeError, TypeError)):
        here.numpy()
    assert (here + torch.tensor(1.0)).sum().item() == 6.0
    assert (here.to(there.device) + there).device == torch.device("pretend:1")
    assert here[torch.tensor([0, 2])].tolist() == [1.0, 1.0]
    here[:2].zero_()
    assert here.tolist() == [0.0, 0.0, 1.0]


def test_the_model_lies_where_it_was_put(pair):
    _, there = pair
    places = {p.device for p in there.hf.parameters()}
    assert there.device == torch.device("pretend:0") in places
    assert 1 <= len(places) <= 2


def test_a_model_of_which_parts_are_offloaded_is_refused_in_one_line():
    hf = dispatch_model(tiny_hf("llama"), spread("llama", "pretend:0", "cpu"), main_device="pretend:0")
    with pytest.raises(InputError, match=r"model\.layers\.2\.\S+ of tiny was offloaded"):
        HookedModel.from_hf(hf, tiny_tokenizer(), "tiny")


# ------------------------------------------------------------------------------------------ looking and answering
def test_answers_and_activations_are_those_of_the_cpu(pair):
    here, there = pair
    assert there.generate(TEXTS, max_new_tokens=8) == here.generate(TEXTS, max_new_tokens=8)
    one, other = (capture(model, TEXTS, ("resid_post", "h_down"), pool="last") for model in (here, there))
    for place in ("resid_post", "h_down"):
        torch.testing.assert_close(other.stack(place), one.stack(place), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("convention", [PAPER, REFERENCE_RIGHT], ids=lambda c: c.name)
def test_layers_are_located_as_on_the_cpu(pair, convention):
    here, there = (layer_distances(model, INSTANCES, convention) for model in pair)
    np.testing.assert_allclose(there.values, here.values, rtol=1e-3, atol=1e-4)


# ----------------------------------------------------------------------------------------------------- edits
METHODS = {
    "dinm": lambda: Dinm(steps=3, lr=1e-2),
    "dinm, last layer": lambda: Dinm(steps=3, lr=1e-2, layer=2),
    "ft-l": lambda: FtL(steps=3, layer=1),
    "profs": lambda: Profs(rank=2),
    "direction": lambda: Direction(max_kl=None, filtered=False, highest_layer=1.0),
}


@pytest.mark.parametrize("method", METHODS)
def test_edits_are_those_of_the_cpu_and_can_be_applied_saved_and_undone(pair, method, tmp_path: Path):
    made = []
    for model in pair:
        edit = METHODS[method]().detoxify(model, MANY if method in ("profs", "direction") else ONE).edit
        edit.save(tmp_path / model.device.type)
        before = model.generate(TEXTS, max_new_tokens=6)
        with WeightEdit.load(tmp_path / model.device.type).applied(model):
            after = model.generate(TEXTS, max_new_tokens=6)
        assert model.generate(TEXTS, max_new_tokens=6) == before
        made.append((edit.deltas, before, after))
    (here, *said), (there, *also) = made
    assert here.keys() == there.keys()
    for name, delta in here.items():
        torch.testing.assert_close(there[name].cpu(), delta, rtol=1e-2, atol=1e-4)
    assert also == said


def test_many_edited_models_answer_together_as_on_the_cpu(pair):
    said = []
    for model in pair:
        edits = [Dinm(steps=2, lr=1e-2, layer=layer).detoxify(model, i).edit for layer, i in enumerate(INSTANCES)]
        prompts = [text for text in TEXTS for _ in range(4)]
        said.append(generate_edited(model, prompts, [None, 0, 1, 2] * len(TEXTS), edits, max_new_tokens=6))
    assert said[0] == said[1]


# ------------------------------------------------------------------------------------------------- laboratory
def tell_apart(model: HookedModel, lab: Lab) -> None:
    """Make a first token of bare questions differ from that of attacked prompts, so that there is a refusal."""
    plain = Subject("plain", model, lab)
    bare, attacked = (plain.last("resid_post", kind)[:, -1].mean(dim=0) for kind in ("onlyQ", "DS"))
    difference = 60 * torch.nn.functional.normalize(bare - attacked, dim=-1)
    model.unembedding.weight[10] = difference.to(model.unembedding.weight)
    model.unembedding.weight[12] = -difference.to(model.unembedding.weight)


def subjects(model: HookedModel) -> tuple[Subject, Subject]:
    """Vanilla, and a model whose middle matrix was shifted."""
    vanilla = Subject("vanilla", model, small_lab(model, train=12, batch_size=4))
    with torch.no_grad():
        tell_apart(model, vanilla.lab)
        return vanilla, variant(vanilla, lambda m: m.value_weight(1).mul_(0.5))


@pytest.mark.parametrize("analysis", ANALYSES, ids=lambda a: a.name)
def test_every_analysis_finds_on_two_devices_what_it_finds_on_the_cpu(analysis: Analysis):
    found = []
    for places in (None, "two"):
        with pretended(places):
            vanilla, other = subjects(make("llama", places))
            found.append(analysis.measure(other, vanilla))
    here, there = found
    assert there.n == here.n
    for one, two in zip(here.bars, there.bars, strict=True):
        assert one.series.keys() == two.series.keys()
    for one, two in zip(here.curves, there.curves, strict=True):
        for a, b in zip(one.curves, two.curves, strict=True):
            np.testing.assert_allclose([e.value for e in b.y], [e.value for e in a.y], rtol=0.05, atol=0.05)


@pytest.mark.parametrize("locator", LOCATORS)
def test_every_locator_scores_layers_on_two_devices_as_on_the_cpu(locator: str):
    found = []
    for places in (None, "two"):
        with pretended(places):
            vanilla, other = subjects(make("llama", places))
            lab, reference = vanilla.lab, other.model
            found.append(
                locate_behaviour(
                    vanilla.model, lab.instances, lab.tokens, locator=locator, reference=reference, batch_size=4
                ).values
            )
    np.testing.assert_allclose(found[1], found[0], rtol=0.01, atol=1e-3)


def test_divergence_is_that_of_the_cpu(pair):
    found = []
    for model in pair:
        vanilla, other = subjects(model)
        answered = [Answered("The cat sat on", " the mat"), Answered("A dog", " looked at the moon for a long time")]
        found.append(answer_kl(vanilla.model, other.model, answered))
    assert found[1].value == pytest.approx(found[0].value, rel=1e-2)


def test_shares_are_those_of_the_cpu(pair):
    found = []
    for model in pair:
        vanilla, other = subjects(model)
        margins = swap_margins(vanilla.model, other.model, vanilla.lab.queries(), 1, vanilla.lab.tokens)
        found.append(swap_shares(margins, model="other", layer=1))
    here, there = found
    for name in ("erased", "bypassed", "parallel", "downstream"):
        assert getattr(there, name).value == pytest.approx(getattr(here, name).value, abs=1e-3)
