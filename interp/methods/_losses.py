"""The two losses of DINM (Eq. 8 and 9) and the token sequences they are measured on.

A sequence goes through the model as one unpadded row, so padding cannot enter an edit. Positions are those of the
logits: position t predicts token t + 1.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import cross_entropy

from interp.errors import InputError
from interp.models import HookedModel
from interp.records import Instance

ConstraintOn = Literal["next token", "answer", "reference"]


# ------------------------------------------------------------------------------------------------- losses
def likelihood_loss(logits: Float[Tensor, "position vocab"], targets: tuple[int, ...]) -> Float[Tensor, ""]:
    """L_e (Eq. 8): -log P(Y_safe | [X; S]) in nats, averaged over the answer's tokens."""
    return cross_entropy(logits, torch.tensor(targets, device=logits.device))


def divergence(log_p: Float[Tensor, "position vocab"], log_q: Float[Tensor, "position vocab"]) -> Float[Tensor, ""]:
    """KL(p || q) in nats, averaged over positions."""
    return (log_p.exp() * (log_p - log_q)).sum(-1).mean()


# ------------------------------------------------------------------------------------------------- sequences
@dataclass(frozen=True)
class Supervised:
    """One row of token ids and the positions whose logits enter a loss."""

    ids: tuple[int, ...]
    positions: tuple[int, ...]
    """Ascending and without gaps."""
    targets: tuple[int, ...] = ()
    """The token each position should predict; empty where the loss compares two models instead."""

    def __post_init__(self) -> None:
        if not self.positions or not 0 <= self.positions[0] <= self.positions[-1] < len(self.ids):
            raise ValueError(f"positions {self.positions[:3]}... do not lie in a row of {len(self.ids)} tokens")
        if self.targets and len(self.targets) != len(self.positions):
            raise ValueError(f"{len(self.targets)} targets for {len(self.positions)} positions")

    @property
    def inputs(self) -> tuple[int, ...]:
        """The ids up to the last position that counts: what follows cannot change the loss."""
        return self.ids[: self.positions[-1] + 1]


@dataclass(frozen=True)
class Format:
    """How texts become sequences: the part of DINM's configuration that tokenizing needs."""

    suffix: str
    max_prompt: int
    max_answer: int
    eos: bool
    raw_text: bool
    labels_alone: bool
    constraint_on: ConstraintOn


def edit_sequence(model: HookedModel, instance: Instance, how: Format) -> Supervised:
    """[X; S] followed by Y_safe, supervised on Y_safe (Eq. 8).

    Raises:
        InputError: the prompt or the answer has no tokens.
    """
    answer = instance.safe_generation
    if not answer.strip():
        raise InputError(f"instance {instance.id} has an empty safe response; the edit needs one to train on")
    query, suffix = instance.adversarial_prompt, how.suffix
    if how.raw_text:  # a space more after the prompt; the answer brings its own
        query, suffix = (query, f"{suffix} ") if suffix else (f"{query} ", suffix)
    with _template(model, how.raw_text) as view:
        head, tail = view.encode_pair(query, answer, suffix, how.max_prompt, how.max_answer, how.eos)
    ids = _row(head, tail, instance)
    if not how.labels_alone:
        return Supervised(ids, _span(len(head) - 1, len(tail)), tuple(tail))
    labels = model.token_ids(f" {answer}")[: min(how.max_answer, len(ids) - 1)]
    if how.eos and tail[-1] == model.tokenizer.eos_token_id:
        labels = [*labels, tail[-1]]
    return Supervised(ids, _span(len(ids) - 1 - len(labels), len(labels)), tuple(labels))


def constraint_sequence(model: HookedModel, instance: Instance, how: Format) -> Supervised:
    """[q_cons; S], and its answer where the constraint is measured there (Eq. 9).

    Raises:
        InputError: the prompt, or the answer where it is needed, has no tokens.
    """
    query, answer = instance.knowledge.prompt, instance.knowledge.answer
    with _template(model, how.raw_text) as view:
        if how.constraint_on == "next token":
            prompt = view.format_prompt(query, how.suffix)
            row = view.tokenize([prompt], side="right", max_length=how.max_prompt, truncation_side="left").row(0)
            return Supervised(tuple(row), (len(row) - 1,))
        if not answer.strip():
            raise InputError(
                f'instance {instance.id} has no knowledge answer, which constraint_on="{how.constraint_on}" needs'
            )
        head, tail = view.encode_pair(query, answer, how.suffix, how.max_prompt, how.max_answer, eos=False)
    ids = _row(head, tail, instance)
    if how.constraint_on == "answer":
        return Supervised(ids, _span(len(head) - 1, len(tail)))
    n = min(len(model.token_ids(answer)), how.max_answer, len(ids))
    return Supervised(ids, _span(len(ids) - n, n))


@contextmanager
def _template(model: HookedModel, raw: bool) -> Iterator[HookedModel]:
    """The model, or where raw text is asked for the same model without its chat template."""
    if not raw or model.template.mode == "plain":
        yield model
        return
    view = HookedModel(model.hf, model.tokenizer, model.name, model.source, "none", check=False)
    yield view
    model.truncated += view.truncated
    model.warnings += [line for line in view.warnings if line not in model.warnings]


def _row(head: list[int], tail: list[int], instance: Instance) -> tuple[int, ...]:
    if not head:
        raise InputError(f"instance {instance.id} has an empty prompt; the edit needs at least one token")
    return (*head, *tail)


def _span(start: int, n: int) -> tuple[int, ...]:
    return tuple(range(start, start + n))
