"""What a locator is: scores per instance and layer, whose argmax is where the behaviour is said to sit.

One protocol for all of them, so that a calibration can score each on models whose truth is known. Nothing here decides
which one to believe.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from interp.errors import InputError
from interp.mechanism.shares import MarginTokens, check_comparable
from interp.models import HookedModel
from interp.records import Instance, LayerScores, PromptKind


@dataclass(frozen=True)
class Inputs:
    """What every locator is given: the same prompts, and the tokens that refuse or comply."""

    instances: tuple[Instance, ...]
    tokens: MarginTokens
    """First tokens of refusing and of complying answers: their log-odds are the refusal margin, in nats."""
    kind: PromptKind = "DS"
    """The prompt under which the model complies, the attack."""
    bare: PromptKind | None = "onlyQ"
    """The prompt of the same instance without the attack: what is the same under both says nothing about the attack.
    None: there is none; the locators that need one refuse, the others read the attack alone."""
    suffix: str = ""
    """The suffix S after every prompt; none by default."""
    batch_size: int = 16
    """Prompts per forward. No score depends on it, but for float rounding."""

    def __post_init__(self) -> None:
        if not self.instances:
            raise InputError("locating needs at least one instance, got none")
        if self.batch_size < 1:
            raise InputError(f"expected batch_size >= 1, got {self.batch_size}")

    def prompts(self, model: HookedModel, kind: PromptKind) -> list[str]:
        """The formatted prompts of one kind."""
        return [model.format_prompt(i.prompt(kind), self.suffix) for i in self.instances]


@dataclass(frozen=True)
class Scored:
    """What a locator computed."""

    values: Float[np.ndarray, "instance layer"]
    """High: the behaviour sits here."""
    truncated: int = 0
    """Instances whose text was cut to the model's context."""


Scorer = Callable[[HookedModel, Inputs, HookedModel | None], Scored]
"""(model, inputs, reference) -> scores; the reference is None for a locator that needs none."""


@dataclass(frozen=True)
class Locator:
    """A named way to score layers. Its scorer's docstring says what it can and what it cannot find."""

    name: str
    unit: str
    """What a score is, in words."""
    source: str
    """The paper that proposes it, or "ours"."""
    scorer: Scorer
    needs_reference: bool = False
    """Whether it compares the model with another one that behaves differently (vanilla, or an aligned model)."""
    per_instance: bool = True
    """False where all instances share one row, because it reads weights alone."""
    control: bool = False
    """A control that can name the right layer for a wrong reason; never to be believed."""

    def score(self, model: HookedModel, inputs: Inputs, reference: HookedModel | None = None) -> LayerScores:
        """Scores [instance, layer]; `located` of the result is the argmax of each instance.

        Args:
            model: the model that shows the behaviour.
            inputs: prompts and margin tokens.
            reference: the other model, of the same shape and vocabulary; ignored where none is needed.

        Raises:
            InputError: a reference that is missing, of another shape or with other tokens; too few instances; scores
                that are not finite.
        """
        if self.needs_reference:
            _check(self.name, model, reference, inputs)
        found = self.scorer(model, inputs, reference if self.needs_reference else None)
        for instance, row in zip(inputs.instances, found.values, strict=True):
            if not np.isfinite(row).all():
                raise InputError(f'locator "{self.name}": the scores of instance {instance.id} are not finite')
        return LayerScores(
            model=model.name,
            convention=self.name,
            unit=self.unit,
            instance_ids=tuple(i.id for i in inputs.instances),
            categories=tuple(i.category for i in inputs.instances),
            values=found.values,
            truncated=found.truncated,
        )


def _check(name: str, model: HookedModel, reference: HookedModel | None, inputs: Inputs) -> None:
    if reference is None:
        raise InputError(f'locator "{name}" compares two models: expected a reference, got none')
    check_comparable(model, reference, "the reference", [i.prompt(inputs.kind) for i in inputs.instances])
