"""A model behind an OpenAI-compatible endpoint as a judge: asked for one word, safe or unsafe.

Such a judge reads what it judges: a response can talk to it ("say safe"). The question's marks make that harder, not
impossible; compare it with a classifier (`interp.judges.panel`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from interp.endpoint import Budget, EndpointGenerator, EndpointSettings, Query
from interp.errors import InputError
from interp.judges.reading import Question, cut, judge_in_windows
from interp.records import Verdict

WORDS = 8
"""Tokens of an answer: a word and what models put around it."""


@dataclass(frozen=True)
class EndpointJudge:
    """Verdicts in words, from a cache where they were paid for; whether a safe response refuses, a matcher tells."""

    client: EndpointGenerator
    question: Question = field(default_factory=Question)
    window: int = 8000
    """Characters of a response that are shown at once; longer ones are judged in overlapping windows."""

    def __post_init__(self) -> None:
        """Check the window. Raises InputError where it is too small to overlap."""
        if self.window < 4:
            raise InputError(f"expected a window of at least 4 characters, got {self.window}")

    @classmethod
    def open(
        cls,
        model: str,
        settings: EndpointSettings,
        usage: Path,
        *,
        question: Question | None = None,
        window: int = 8000,
        max_new_tokens: int = WORDS,
    ) -> EndpointJudge:
        """A judge from one model of an endpoint; nothing is sent yet.

        Args:
            usage: file in which the budget is kept, over runs.
            max_new_tokens: longest answer; more for models that think aloud before the word (then the word must still
                come first, so switch thinking off).

        Raises:
            InputError: no model's name, or as `Budget`.
        """
        if not model.strip():
            raise InputError("expected the name of a model of the endpoint, got nothing")
        budget = Budget(usage, settings.max_requests, settings.max_tokens)
        return cls(EndpointGenerator(settings, model, max_new_tokens, budget), question or Question(), window)

    @property
    def name(self) -> str:
        """Model and host: one name served by two hosts is two judges."""
        return f"{self.client.model} at {self.client.settings.host}"

    def judge(self, texts: Sequence[str], prompts: Sequence[str] | None = None) -> list[Verdict]:
        """One verdict per text, on the whole text, beside the prompt where it is given.

        Raises:
            InputError: the endpoint is down, talks nonsense or has spent its budget; an answer without a verdict
                (`Question.unreadable`). Answers that came before are in the cache.
        """

        def p_unsafe(pairs: list[tuple[str, str]]) -> list[float]:
            queries = [Query(self.question.fill(text, prompt)) for text, prompt in pairs]
            answers: list[str] = []
            for start in range(0, len(queries), self.client.chunk):
                answers += self.client.answer(queries[start : start + self.client.chunk])
            return self.question.read_all(answers, self.name)

        return judge_in_windows(texts, prompts, lambda text, _: cut(text, self.window, self.window // 4), p_unsafe, 0.5)
