from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from endpoint.stub import alone, demo_like

from interp import safeedit
from interp.endpoint import Query
from interp.judges import TextJudge

__all__ = ["alone"]  # a fixture


class Scripted:
    """A generator that answers as the demo world does, at once; counts what it is asked."""

    chunk = 7

    def __init__(self, answer: Callable[[Query], str] | None = None) -> None:
        self.identity = {"kind": "scripted"}
        self.calls: list[tuple[Query, ...]] = []
        self.one = answer or (lambda q: demo_like(q.text, bool(q.instruction or q.suffix)))

    def answer(self, queries: Any) -> list[str]:
        self.calls.append(tuple(queries))
        return [self.one(query) for query in queries]

    @property
    def asked(self) -> int:
        return sum(map(len, self.calls))


@pytest.fixture(scope="session")
def demo_judge() -> TextJudge:
    return TextJudge.train(safeedit.load("demo"))


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch, demo_judge: TextJudge) -> Scripted:
    """Builds use this generator for every role, and the demo's judge."""
    from interp.building import pipeline

    generator = Scripted()
    monkeypatch.setattr(
        pipeline, "open_generators", lambda settings, budget: dict.fromkeys(("unsafe", "safe"), generator)
    )
    monkeypatch.setattr(pipeline, "open_judge", lambda settings, budget: demo_judge)
    return generator
