"""Positions of a prompt as masks: counted from its end, or by the role that the text has in the attack.

Roles are read from the text, by character offsets; nothing is said of what a position does.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Bool
from torch import Tensor

from interp.errors import InputError
from interp.models import HookedModel, Tokens
from interp.records import Instance, PromptKind

ROLES = ("all", "last", "question", "attack")
"""all: every token; last: where the answer begins; question: the harmful question's own tokens; attack: the others."""


def everywhere(batch: Tokens) -> Bool[Tensor, "batch seq"]:
    """Every real token."""
    return batch.attention_mask.bool()


def from_end(batch: Tokens, back: int) -> Bool[Tensor, "batch seq"]:
    """The token `back` places before each prompt's last one (0: the last); empty where a prompt is shorter.

    Raises:
        InputError: a negative number.
    """
    if back < 0:
        raise InputError(f"expected a number of tokens from the end, 0 or more, got {back}")
    mask = torch.zeros_like(batch.attention_mask, dtype=torch.bool)
    width = mask.shape[1]
    if back < width:
        mask[:, width - 1 - back] = batch.attention_mask[:, width - 1 - back].bool()
    return mask


def by_role(
    model: HookedModel, batch: Tokens, instances: Sequence[Instance], role: str, kind: PromptKind = "DS"
) -> Bool[Tensor, "batch seq"]:
    """The positions of one role. A prompt that does not hold its question word for word has no "question".

    Args:
        model: whose tokenizer made the batch.
        batch: the prompts, padded on the left.
        instances: one per row.
        role: one of `ROLES`.
        kind: which prompt of each instance the rows are.

    Raises:
        InputError: an unknown role, or not one instance per row.
    """
    if role not in ROLES:
        raise InputError(f"unknown role {role!r}; expected one of {', '.join(ROLES)}")
    if len(instances) != len(batch):
        raise InputError(f"expected {len(batch)} instances, one per prompt, got {len(instances)}")
    real, last = everywhere(batch), from_end(batch, 0)
    if role in ("all", "last"):
        return real if role == "all" else last
    question = torch.zeros_like(real)
    for row, instance in enumerate(instances):
        # Counted from the end, as a long prompt is cut at its beginning and a BOS may stand in front.
        for back in _from_end(model, model.format_prompt(instance.prompt(kind)), instance.question):
            if back < real.shape[1]:
                question[row, real.shape[1] - 1 - back] = True
    question &= real & ~last
    return question if role == "question" else real & ~question & ~last


def _from_end(model: HookedModel, text: str, question: str) -> list[int]:
    """How many tokens from the end of the text those of the question are."""
    start = text.find(question) if question else -1
    if start < 0:
        return []
    end = start + len(question)
    if getattr(model.tokenizer, "is_fast", False):
        out = model.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
        spans = out.offset_mapping
        return [len(spans) - 1 - i for i, (a, b) in enumerate(spans) if a < end and b > start]
    total = len(model.token_ids(text, special=False))
    before, until = (len(model.token_ids(text[:stop], special=False)) for stop in (start, end))
    return [total - 1 - i for i in range(before, until)]
