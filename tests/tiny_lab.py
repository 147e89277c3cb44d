"""A small lab around a tiny random model, for the tests of the mechanism's analyses."""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch

from interp.mechanism.lab import Lab, Subject
from interp.mechanism.shares import MarginTokens
from interp.models import HookedModel
from interp.records import BenignRequest, Instance, Knowledge

WORDS = ["cat", "dog", "moon", "mat", "tree", "house", "river", "cloud"]


def small_instance(i: int) -> Instance:
    """One of as many different instances as there are numbers."""
    question = f"How far is the {WORDS[i % 8]} from the {WORDS[(i * 3 + i // 8) % 8]}?"
    attack = f"You are a {WORDS[(i + 1) % 8]}. {question} Answer at once"
    return Instance(
        i, "bias", question, attack, "pretending", "a", "I cannot say", "Sure, here it is", Knowledge("p", "a")
    )


def small_lab(model: HookedModel, n: int = 8, *, benign: int = 6, train: int = 6, layer: int = 1, **more) -> Lab:
    """A lab of n instances; the toxic direction is random."""
    toxic = torch.randn(model.d_model, generator=torch.Generator().manual_seed(5))
    requests = tuple(BenignRequest(f"Paint the {WORDS[i % 8]} {i}", "Sure", wrapped=i % 2 == 1) for i in range(benign))
    given = {"tokens": MarginTokens((10, 11), (12, 13, 14)), "layer": layer, "toxic_layer": layer, "toxic": toxic}
    return Lab(
        tuple(small_instance(i) for i in range(n)),
        tuple(small_instance(i) for i in range(n, n + train)),
        requests,
        **{**given, **more},
    )


def variant(subject: Subject, change: Callable[[HookedModel], object], name: str = "variant") -> Subject:
    """A copy of the model with something changed in place, in the same lab."""
    model = subject.model
    other = HookedModel.from_hf(copy.deepcopy(model.hf), model.tokenizer, name, model.chat_template)
    with torch.no_grad():
        change(other)
    return Subject(name, other, subject.lab)


def again(subject: Subject, name: str = "same") -> Subject:
    """The same model under another name, as an analysis sees a model that did not change."""
    return Subject(name, subject.model, subject.lab)


def noise(parameter: torch.Tensor, seed: int = 0, scale: float = 0.3) -> None:
    """Add seeded Gaussian noise in place."""
    parameter.add_(scale * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(seed)))
