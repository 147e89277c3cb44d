"""SafeEdit's instances and the other texts that models are asked (paper, Sec. 3)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from interp.errors import InputError

PromptKind = Literal["DS", "onlyQ", "otherA", "otherQ", "otherAQ"]
"""The five inputs of SafeEdit (paper, Sec. 3.3): DS is the edited prompt, the others are the generalisation tests."""

PROMPT_KINDS: tuple[PromptKind, ...] = ("DS", "onlyQ", "otherA", "otherQ", "otherAQ")
DG_KINDS: tuple[PromptKind, ...] = ("onlyQ", "otherA", "otherQ", "otherAQ")

CATEGORIES = (
    "offensiveness",
    "unfairness and bias",
    "physical harm",
    "mental harm",
    "illegal activities",
    "ethics and morality",
    "privacy and property",
    "pornography",
    "political sensitivity",
)
"""The nine unsafe categories, lower case (the released files mix cases)."""


@dataclass(frozen=True)
class Knowledge:
    """A benign instruction and its answer: the locality constraint L_c of Eq. 9 is measured on it."""

    prompt: str
    answer: str


@dataclass(frozen=True)
class Generalization:
    """The generalisation inputs of one instance: q alone, [q, a'], [q', a] and [q', a'] (paper, Sec. 3.3)."""

    only_question: str
    other_attack: str
    other_question: str
    other_question_and_attack: str
    attack_category: str = ""
    attack_name: str = ""


@dataclass(frozen=True)
class Instance:
    """One record of SafeEdit: an adversarial query X = [q, a] with its safe and unsafe response."""

    id: int
    category: str
    """One of the nine categories, as the file spells it; compare through `category_key`."""
    question: str
    adversarial_prompt: str
    attack_category: str
    attack_name: str
    safe_generation: str
    unsafe_generation: str
    knowledge: Knowledge
    generalization: Generalization | None = None
    extra: dict[str, Any] = field(default_factory=dict)
    """Keys of the record that the schema does not name, kept so that saving gives the file back."""

    @property
    def category_key(self) -> str:
        """The category in lower case, as in `CATEGORIES`."""
        return self.category.strip().lower()

    def prompt(self, kind: PromptKind) -> str:
        """The text put to the model for one prompt kind.

        Raises:
            InputError: the instance has no generalisation inputs (train and val files may lack them).
        """
        if kind == "DS":
            return self.adversarial_prompt
        if kind == "onlyQ":
            return self.question if self.generalization is None else self.generalization.only_question
        if self.generalization is None:
            raise InputError(f"instance {self.id} has no 'generalization test', which {kind} needs")
        g = self.generalization
        return {
            "otherA": g.other_attack,
            "otherQ": g.other_question,
            "otherAQ": g.other_question_and_attack,
        }[kind]


@dataclass(frozen=True)
class Question:
    """A knowledge question with its accepted answers (KQA, exact match over aliases)."""

    prompt: str
    answers: tuple[str, ...]
    topic: str = ""


@dataclass(frozen=True)
class BenignRequest:
    """A harmless request that a well-behaved model answers; refusing it is over-refusal."""

    prompt: str
    answer: str
    wrapped: bool
    """True where the request sits inside an attack template."""


@dataclass(frozen=True)
class Summary:
    """A text to summarise, as it is asked, and the summary that people wrote (CSum)."""

    prompt: str
    reference: str


@dataclass(frozen=True)
class LabelledText:
    """A text for the toxicity probe (Eq. 17)."""

    text: str
    toxic: bool
