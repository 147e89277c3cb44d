"""What the parts of the decoding benchmark share: prompts, random edits, two ways of answering, lines of its table."""

from __future__ import annotations

import random
import statistics
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from common import WORDS, cpu_seconds
from torch import nn

from interp import products
from interp.edits import Provenance, WeightEdit
from interp.models import HookedModel
from interp.multi import generate_edited

EDITS, ASKED, PROMPT, NEW, SLOTS = 16, 5, 300, 64, 80
SHORT = 128
"""Tokens of a shorter prompt: the more of them are read, the nearer are all ways of answering."""
LAST, MIDDLE = 11, 6
T = TypeVar("T")
Tokens = list[tuple[int, ...]]
Measured = tuple[list[dict[str, Any]], dict[str, Any]]
"""Lines of the table, and what else is worth telling."""


def texts(n: int, low: int = PROMPT, high: int = PROMPT, seed: int = 0) -> list[str]:
    """Prompts of random words, of so many tokens."""
    rng = random.Random(seed)
    return [" ".join(f"w{rng.randrange(WORDS)}" for _ in range(rng.randint(low, high))) for _ in range(n)]


def random_edit(model: HookedModel, layer: int, seed: int) -> WeightEdit:
    """A delta of the size that ten steps of Adam at 5e-4 may reach."""
    generator, weight = torch.Generator().manual_seed(seed), model.value_weight(layer)
    delta = 5e-3 * (2 * torch.rand(weight.shape, generator=generator) - 1)
    made_on = Provenance("random", model.source, model.weight_hash(), layer=layer)
    return WeightEdit({model.value_name(layer): delta}, made_on)


def hf_generate(model: HookedModel, prompts: list[str], n: int = NEW) -> Tokens:
    """One batch with transformers' own `generate`, answers cut before the end-of-text token."""
    tokens = model.pad([model.token_ids(p) for p in prompts], side="left")
    hf: Any = model.hf
    with torch.no_grad():
        out = hf.generate(
            input_ids=tokens.input_ids, attention_mask=tokens.attention_mask, do_sample=False, max_new_tokens=n
        )
    return [_ended(model, row) for row in out[:, tokens.input_ids.shape[1] :].tolist()]


def _ended(model: HookedModel, row: list[int]) -> tuple[int, ...]:
    return tuple(row[: next((i for i, t in enumerate(row) if t in model.stop_ids), len(row))])


def ours(model: HookedModel, asked: list[list[str]], edits: list[WeightEdit], vanilla: bool = False) -> list[Tokens]:
    """What each edited model answers its own list (then what vanilla answers each list), all decoded together."""
    owners = [*range(len(edits)), *([None] * len(asked) if vanilla else [])]
    lists = [*asked, *(asked if vanilla else [])]
    rows = list(dict.fromkeys((owner, p) for owner, own in zip(owners, lists, strict=True) for p in own))
    which, prompts = [owner for owner, _ in rows], [p for _, p in rows]
    answers = generate_edited(model, prompts, which, edits, max_new_tokens=NEW, batch_size=SLOTS)
    found = dict(zip(rows, (a.token_ids for a in answers), strict=True))
    return [[found[owner, p] for p in own] for owner, own in zip(owners, lists, strict=True)]


@contextmanager
def plain_products() -> Iterator[None]:
    """While open, products are PyTorch's own, as in the baseline."""
    before, products.worthwhile = products.worthwhile, lambda: False
    try:
        yield
    finally:
        products.worthwhile = before


def products_alone(model: HookedModel, read: int, steps: float) -> float:
    """CPU seconds of nothing but products with the model's matrices, a call each: `read` tokens, then steps of rows.

    Of the last block a prompt needs keys and values alone. Edits of the last layer multiply once more each than what is
    counted here, so this is less than any loop needs that does not fuse the model's matrices.
    """
    part = 6 * PROMPT
    spared = {id(inner) for module in model.spared() for inner in module.modules()}
    layers = [(block is model.blocks[-1], m) for block in model.blocks for m in block.modules() if type(m) is nn.Linear]
    reading = [m for last, m in layers if not (last and id(m) in spared)]
    stepping: list[Any] = [*(m for _, m in layers), model.unembedding]
    inputs = {m.in_features: torch.randn(part, m.in_features) for m in stepping}
    with torch.no_grad(), products.faster(model.hf):
        one = min(cpu_seconds(lambda: [m(inputs[m.in_features]).shape for m in reading]) for _ in range(5))
        step = min(cpu_seconds(lambda: [m(inputs[m.in_features][:SLOTS]).shape for m in stepping]) for _ in range(5))
    return one * read / part + step * steps


def row(what: str, against: str, base: float, own: float, claim: float | None, **more: Any) -> dict[str, Any]:
    """One line of the table; tokens have been found equal by then."""
    facts = {"what": what, "against": against, "baseline s": base, "ours s": own, "times cheaper": base / own}
    return {**facts, "claim": claim, "holds": claim is None or base / own >= claim, **more}


def seconds(call: Callable[[], T], rounds: int = 1) -> tuple[float, T]:
    """Median CPU seconds of some rounds, and what the last one gave."""
    times, found = [], []
    for _ in range(rounds):
        times.append(cpu_seconds(lambda: found.append(call())))
    return statistics.median(times), found[-1]
