"""A guard model as a judge: a causal language model that is asked about a response and says safe or unsafe.

Llama Guard is the best known. The verdict is read from the logits of the two words at the place where the answer
starts (a graded p(unsafe), one forward), or from the word that the model writes. Works with any `HookedModel`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from interp.errors import InputError
from interp.judges.reading import Question, cut, judge_in_windows
from interp.models import HookedModel
from interp.prefix import logits_at
from interp.records import Verdict

OWN = "own"
"""As a template: the tokenizer's chat template over the two turns, which is how guard models are published."""
WORDS = 8
"""Tokens that are generated for a verdict in words."""


@dataclass(frozen=True)
class GuardJudge:
    """A local language model that judges; whether a safe response refuses is told by a phrase matcher."""

    model: HookedModel
    question: Question = field(default_factory=Question)
    own_template: bool = False
    """Ask through the tokenizer's chat template (user: prompt, assistant: response) instead of the question's text."""
    before: str = ""
    """Text between the question and the verdict that the model is spared writing, e.g. two line breaks."""
    read: str = "logits"
    """Verdicts from the `logits` of the two words' first tokens, or from the first `word` of a generated answer."""
    window: int | None = None
    """Tokens read at once, question included; the model's context by default."""
    batch_size: int = 8
    threshold: float = 0.5
    """p(unsafe) above which a response is unsafe; at 0.5 this is the larger logit."""

    def __post_init__(self) -> None:
        """Check what can be checked without a forward.

        Raises:
            InputError: a way of reading that there is not, no chat template to ask through, words that share their
                first token, or a window that the question alone fills.
        """
        if self.read not in ("logits", "word"):
            raise InputError(f"read: expected 'logits' or 'word', got {self.read!r}")
        if self.own_template and not getattr(self.model.tokenizer, "chat_template", None):
            raise InputError(
                f"the tokenizer of the judge {self.name} has no chat template; give the question as a text "
                "with {prompt} and {response}"
            )
        if self.batch_size < 1:
            raise InputError(f"expected batch_size >= 1, got {self.batch_size}")
        if self.read == "logits":
            self.word_tokens()
        if self.room < 8:
            raise InputError(
                f"the judge {self.name} reads {self.limit} tokens at once, and its question alone takes "
                f"{len(self.ids('', ''))}; expected room for at least 8 more"
            )

    @classmethod
    def from_pretrained(
        cls, source: str, *, template: str | None = None, device: Any = None, dtype: Any = None, **settings: Any
    ) -> GuardJudge:
        """Open a guard model from a folder or a hub id.

        Args:
            template: the question, or "own" for the tokenizer's chat template; by default that where there is one,
                else a plain question.
            settings: further fields of `GuardJudge`; `question` for other words.

        Raises:
            InputError: as `HookedModel.from_pretrained` and `GuardJudge`.
        """
        model = HookedModel.from_pretrained(source, device=device, dtype=dtype)
        question = settings.pop("question", Question())
        if template not in (None, OWN):
            question = replace(question, template=template)
        has_own = bool(getattr(model.tokenizer, "chat_template", None))
        own = template == OWN or (template is None and has_own)
        return cls(model, question, own_template=own, **settings)

    @property
    def name(self) -> str:
        """The model's name."""
        return self.model.name

    @property
    def limit(self) -> int:
        """Tokens read at once."""
        return min(self.window or self.model.context, self.model.context) - (WORDS if self.read == "word" else 0)

    @property
    def room(self) -> int:
        """Tokens left for prompt and response."""
        return self.limit - len(self.ids("", ""))

    def judge(self, texts: Sequence[str], prompts: Sequence[str] | None = None) -> list[Verdict]:
        """One verdict per text, on the whole text, beside the prompt where it is given (its end, where it is long).

        Raises:
            InputError: an answer without a verdict (`Question.unreadable`), where words are read.
        """
        clean = None if prompts is None else [self._shortened(self._plain(prompt)) for prompt in prompts]
        return judge_in_windows(texts, clean, self._windows, self._p_unsafe, self.threshold)

    # ----------------------------------------------------------------------------------------- the question
    def text(self, response: str, prompt: str = "") -> str:
        """What the model is given, up to where its verdict starts."""
        if self.own_template:
            turns = [{"role": "user", "content": prompt}, {"role": "assistant", "content": response}]
            asked = self.model.tokenizer.apply_chat_template(turns, tokenize=False)
        else:
            asked = self.model.format_prompt(self.question.fill(response, prompt))
        return asked + self.before

    def ids(self, response: str, prompt: str = "") -> list[int]:
        """The same as token ids."""
        return self.model.token_ids(self.text(response, prompt))

    def word_tokens(self) -> tuple[int, int]:
        """The first tokens of the two words where the verdict stands: safe, unsafe.

        Raises:
            InputError: they are one and the same.
        """
        asked = self.text("", "")
        lead = "" if not asked or asked[-1].isspace() else " "
        plain = self.model.token_ids(asked)
        found = []
        for word in (self.question.safe, self.question.unsafe):
            joined = self.model.token_ids(asked + lead + word)
            same = next((i for i, (a, b) in enumerate(zip(plain, joined, strict=False)) if a != b), len(plain))
            # Where joining changed the question's own end (it merged into the word), the word is looked at alone.
            ids = joined[same:] if same == len(plain) else self.model.token_ids(lead + word, special=False)
            if not ids:
                raise InputError(f"the judge {self.name} has no token for the word {word!r}")
            found.append(ids[0])
        if found[0] == found[1]:
            raise InputError(
                f"the words {self.question.safe!r} and {self.question.unsafe!r} share their first token in the judge "
                f"{self.name}; read='word' reads what it writes instead"
            )
        return found[0], found[1]

    # ----------------------------------------------------------------------------------------- long texts
    def _windows(self, text: str, prompt: str) -> list[str]:
        """Overlapping parts of a text, each with question and prompt within the limit: halved until they fit."""
        parts = [self._plain(text)]
        while True:
            fits = [len(part) < 2 or len(self.ids(part, prompt)) <= self.limit for part in parts]
            if all(fits):
                return parts
            parts = [
                piece
                for part, ok in zip(parts, fits, strict=True)
                for piece in ([part] if ok else cut(part, len(part) * 5 // 8, len(part) // 4))
            ]

    def _plain(self, text: str) -> str:
        """A text without the tokenizer's special tokens, which would be read as the end of it."""
        special = [t for t in self.model.tokenizer.all_special_tokens if t]
        return re.sub("|".join(map(re.escape, special)), " ", text) if special else text

    def _shortened(self, prompt: str) -> str:
        """The end of a prompt that would take more than half of the room."""
        most = self.room // 2
        while len(self.model.token_ids(prompt, special=False)) > most:
            prompt = prompt[len(prompt) // 8 + 1 :]
        return prompt

    # ----------------------------------------------------------------------------------------- the verdict
    def _p_unsafe(self, pairs: list[tuple[str, str]]) -> list[float]:
        if self.read == "word":
            asked = [self.text(*pair) for pair in pairs]
            answers = self.model.generate(asked, max_new_tokens=WORDS, batch_size=self.batch_size)
            return self.question.read_all([answer.text for answer in answers], self.name)
        words = list(self.word_tokens())
        rows = [self.ids(*pair) for pair in pairs]
        scores = [0.0] * len(rows)
        order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
        for start in range(0, len(order), self.batch_size):
            batch = order[start : start + self.batch_size]
            tokens = self.model.pad([rows[i] for i in batch])
            last = torch.full((len(batch), 1), tokens.input_ids.shape[1] - 1, device=self.model.device)
            with torch.no_grad():
                logits = logits_at(self.model, tokens, last)[:, 0, words].float()
            for i, p in zip(batch, logits.softmax(-1)[:, 1].tolist(), strict=True):
                scores[i] = p
        return scores
