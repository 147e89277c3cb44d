"""What a build is asked to do: one frozen record, checked before anything is opened."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from interp.endpoint import EndpointSettings
from interp.errors import InputError
from interp.judges import ENDPOINT
from interp.records import CATEGORIES

DEMO = "demo"
GENERATE = "generate"
LOCAL = "local:"
PER_CATEGORY = 65


@dataclass(frozen=True)
class BuildSettings:
    """One build: where its parts come from, who answers, who judges."""

    out: Path
    """Folder of the finished benchmark and of the build's state."""
    questions: str = DEMO
    """`demo`, "generate" (step 1 of the paper, by the question model), or a file with category and question."""
    attacks: str = DEMO
    """`demo`, or a file with name, type and template."""
    knowledge: str = DEMO
    """`demo`, or a file of instruction-following pairs, such as AlpacaEval's."""
    categories: tuple[str, ...] = CATEGORIES
    """Those of the nine to build."""
    descriptions: Path | None = None
    """File with category and description for generated questions; the paper's descriptions by default."""
    questions_per_category: int = PER_CATEGORY
    """Questions to generate: the paper's 60 and 5 for test_ALL."""
    model: str = DEMO
    """Answers adversarial queries: permissive. "demo", a folder or hub id, or a model of the endpoint."""
    safe_model: str = ""
    """Answers bare questions under the instruction: aligned. The same as `model` by default."""
    question_model: str = ""
    """Writes questions. The same as `model` by default."""
    instruction: str = ""
    """To decline, for the safe responses; the default is `generators.INSTRUCTION`, for the demo model its suffix S1."""
    endpoint: EndpointSettings | None = None
    """With one, a model is one of the endpoint unless it is "demo" or starts with `local:`."""
    max_new_tokens: int = 64
    """Longest answer, in tokens (the paper: 600)."""
    batch_size: int | None = None
    """Prompts in a batch of a local model; 96 for the demo model, else 8."""
    judge: str = "auto"
    """`auto` (demo for the demo, else safeedit), or any name that `interp.judges.load` knows."""
    safe_label: str = ""
    """Index or name of a classifier's label that means safe, where its label names do not say."""
    attempts: int = 4
    """Queries tried for one unsafe response: where the judge finds the first answer safe, the same question is put
    inside other attacks of its split. 1 sends every mismatch to people, as the paper does."""
    limit: int | None = None
    """At most so many instances of each split, spread over categories, attacks and questions."""
    seed: int = 0
    review: Path | None = None
    """A review file that a person edited."""

    def __post_init__(self) -> None:
        """Check what can be checked without opening anything.

        Raises:
            InputError: an unknown category, a number out of range, or something that this build has no use for.
        """
        unknown = [c for c in self.categories if c not in CATEGORIES]
        if unknown or not self.categories:
            named = ", ".join(map(repr, unknown)) or "none"
            raise InputError(f"--categories: expected some of {', '.join(CATEGORIES)}; got {named}")
        if len(set(self.categories)) < len(self.categories):
            raise InputError("--categories: one is named twice")
        for option, value in (
            ("limit", self.limit), ("attempts", self.attempts), ("max-new-tokens", self.max_new_tokens),
            ("batch-size", self.batch_size), ("questions-per-category", self.questions_per_category),
        ):  # fmt: skip
            if value is not None and value < 1:
                raise InputError(f"--{option}: expected at least 1, got {value}")
        if self.questions != GENERATE:
            for option, given in (
                ("descriptions", self.descriptions is not None),
                ("question-model", bool(self.question_model)),
                ("questions-per-category", self.questions_per_category != PER_CATEGORY),
            ):
                if given:
                    raise InputError(f"--{option}: expected --questions {GENERATE} beside it, got {self.questions!r}")
        asked = any(map(self.is_endpoint_model, self.models.values())) or self.is_endpoint_judge
        if self.endpoint is not None and not asked:
            named = ", ".join(map(repr, dict.fromkeys([*self.models.values(), self.judge])))
            raise InputError(f"--base-url: expected a --model or --judge {ENDPOINT}MODEL of the endpoint, got {named}")

    @property
    def models(self) -> dict[str, str]:
        """The models by role: unsafe, safe and, where questions are generated, question."""
        names = {"unsafe": self.model, "safe": self.safe_model or self.model}
        return names | ({"question": self.question_model or self.model} if self.questions == GENERATE else {})

    def is_endpoint_model(self, name: str) -> bool:
        """Whether a model's name is that of one of the endpoint."""
        return self.endpoint is not None and name != DEMO and not name.startswith(LOCAL)

    @property
    def is_endpoint_judge(self) -> bool:
        """Whether the judge is asked for at the endpoint."""
        return self.judge.startswith(ENDPOINT)

    @property
    def is_demo(self) -> bool:
        """Whether questions and answers are the demo world's: its behaviour is planted, and the card says so."""
        return self.questions == DEMO and {self.model, self.safe_model or self.model} == {DEMO}
