from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from interp import safeedit
from interp.building import endpoint
from interp.building.generators import Query
from interp.judges import TextJudge

from .stub import demo_like


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


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No proxy, no key, no cache of the user's; failures are retried at once."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy", "OPENAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("INTERP_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(endpoint, "FIRST_PAUSE", 0.01)


@pytest.fixture(scope="session")
def demo_judge() -> TextJudge:
    return TextJudge.train(safeedit.load("demo"))


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch, demo_judge: TextJudge) -> Scripted:
    """Builds use this generator for every role, and the demo's judge."""
    from interp.building import pipeline

    generator = Scripted()
    monkeypatch.setattr(pipeline, "open_generators", lambda settings: dict.fromkeys(("unsafe", "safe"), generator))
    monkeypatch.setattr(pipeline, "open_judge", lambda settings: demo_judge)
    return generator
