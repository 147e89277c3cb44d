"""Who answers: any local model, or a model behind an endpoint, through one small protocol."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol, runtime_checkable

from interp.building.settings import DEMO, LOCAL, BuildSettings
from interp.endpoint import Budget, EndpointGenerator, Query
from interp.errors import InputError

INSTRUCTION = (
    "You are a careful assistant. The request below is harmful. Begin with an apology, decline to answer, "
    "and say in one or two sentences why."
)
"""Step 3's instruction for safe responses: to apologise, to decline, and to say why."""

Report = Callable[[int, int], None]
"""Called with (done, total)."""


Answer = Callable[[Sequence[Query]], list[str]]
"""Queries in, one answer each out."""


@runtime_checkable
class Generator(Protocol):
    """Answers queries. The same queries in the same call give the same answers."""

    @property
    def identity(self) -> dict[str, Any]:
        """What decides its answers, as plain JSON types without keys and paths: for the config and the card."""
        ...

    @property
    def chunk(self) -> int:
        """Queries put to it at once; what a killed build loses at most."""
        ...

    def answer(self, queries: Sequence[Query]) -> list[str]:
        """One answer per query, in order. Raises InputError where an answer cannot be had."""
        ...


class LocalGenerator:
    """Greedy answers of a `HookedModel`."""

    def __init__(self, model: Any, max_new_tokens: int, batch_size: int) -> None:
        """Wrap an open model."""
        self.model = model
        self.max_new_tokens = max_new_tokens
        self.batch_size = batch_size
        self.chunk = 2 * batch_size
        self.identity = {
            "kind": "local",
            "name": model.name,
            "weights": model.weight_hash(),
            "max_new_tokens": max_new_tokens,
            "batch_size": batch_size,
            "decoding": "greedy",
        }

    def answer(self, queries: Sequence[Query]) -> list[str]:
        """One answer per query. Raises InputError as `HookedModel.generate`."""
        prompts = [self.model.format_prompt(q.text, q.suffix, q.instruction) for q in queries]
        made = self.model.generate(prompts, max_new_tokens=self.max_new_tokens, batch_size=self.batch_size)
        return [generation.text for generation in made]


def open_budget(settings: BuildSettings) -> Budget | None:
    """What the build has spent at its endpoint, None without one. Raises InputError as `Budget`."""
    if settings.endpoint is None:
        return None
    return Budget(settings.out / "usage.jsonl", settings.endpoint.max_requests, settings.endpoint.max_tokens)


def open_generators(settings: BuildSettings, budget: Budget | None) -> dict[str, Generator]:
    """The generators of a build by role (unsafe, safe and, where questions are generated, question); each opened once.

    Raises:
        InputError: a model that cannot be opened, or no endpoint for it.
    """
    names = settings.models
    opened = {name: _open(name, settings, budget) for name in dict.fromkeys(names.values())}
    return {role: opened[name] for role, name in names.items()}


def _open(name: str, settings: BuildSettings, budget: Budget | None) -> Generator:
    local = name.removeprefix(LOCAL)
    if settings.endpoint is not None and budget is not None and settings.is_endpoint_model(name):
        return EndpointGenerator(settings.endpoint, name, settings.max_new_tokens, budget)
    if not local:
        raise InputError(f"expected a model after {LOCAL!r}")
    import torch

    from interp.models import HookedModel

    device = "cuda" if torch.cuda.is_available() and local != DEMO else None
    batch_size = settings.batch_size or (96 if local == DEMO else 8)
    return LocalGenerator(HookedModel.from_pretrained(local, device=device), settings.max_new_tokens, batch_size)


def safe_query(question: str, settings: BuildSettings) -> Query:
    """The query for a safe response: the question under the instruction; the demo model knows its suffix S1 only."""
    if settings.instruction:
        return Query(question, instruction=settings.instruction)
    if (settings.safe_model or settings.model).removeprefix(LOCAL) == DEMO:
        from interp.demo import SUFFIX

        return Query(question, suffix=SUFFIX)
    return Query(question, instruction=INSTRUCTION)
