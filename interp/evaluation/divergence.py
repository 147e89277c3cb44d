"""How far a model has moved on harmless answers: KL(vanilla || model) per answer token, teacher-forced, in nats.

Scores of answers (KQA, refusals) see a change only where the chosen words change; this sees it before. The answers are
vanilla's own, or gold ones; both models read the same tokens, and only the positions that predict the answer count.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.edits import WeightEdit
from interp.errors import InputError
from interp.evaluation.items import BENIGN, KQA, Item
from interp.evaluation.shares import unit_means
from interp.models import HookedModel, Tokens
from interp.multi import shareable
from interp.prefix import logits_at, logits_from_value, value_state
from interp.records import Estimate, Response
from interp.safeedit import Benchmark
from interp.stats import bootstrap


@dataclass(frozen=True)
class Answered:
    """A harmless prompt with an answer to force."""

    query: str
    answer: str
    ended: bool = True
    """Whether the EOS after the answer counts as its last token: not where the answer was cut."""


def gold_answers(benchmark: Benchmark) -> list[Answered]:
    """Knowledge questions with their first accepted answer, and benign requests that have one."""
    facts = [Answered(q.prompt, q.answers[0]) for q in benchmark.facts]
    return facts + [Answered(b.prompt, b.answer) for b in benchmark.benign if b.answer.strip()]


def own_answers(
    items: Sequence[Item], responses: Sequence[Response], kinds: Iterable[str] = (KQA, BENIGN)
) -> list[Answered]:
    """What vanilla itself answered to harmless items without S (`respond(vanilla, items)`); empty ones are left out.

    Raises:
        InputError: not one response per item.
    """
    if len(items) != len(responses):
        raise InputError(f"expected one response per item, got {len(responses)} for {len(items)}")
    kinds = set(kinds)
    return [
        Answered(item.query, r.text, r.ended)
        for item, r in zip(items, responses, strict=True)
        if item.kind in kinds and not (item.suffix or item.prefix) and r.text.strip()
    ]


@dataclass(frozen=True)
class Moved:
    """How far one harmless answer of vanilla has moved in a model."""

    kind: str
    instance_id: int
    """As in the `Response` that gave the answer: an index into the benchmark's questions or requests."""
    suffix: bool
    """Whether the model was asked with its system prompts (vanilla never is)."""
    nats: float
    """Mean KL(vanilla || model) over the answer's tokens."""
    edited_on: int | None = None
    """The id of the instance the edit was made from; None for a whole model."""


def answered_by(items: Sequence[Item], responses: Sequence[Response]) -> list[tuple[Response, Answered]]:
    """Vanilla's own answers to plain knowledge questions and bare benign requests; empty ones are left out.

    Args:
        items: which may be in any prompt state: a query is looked up among the plain responses.
        responses: vanilla's.
    """
    plain = {(r.kind, r.instance_id): r for r in responses if not r.suffix and r.text.strip()}
    asked = {(i.kind, i.ref): i.query for i in items if i.kind in (KQA, BENIGN)}
    return [
        (plain[key], Answered(query, plain[key].text, plain[key].ended)) for key, query in asked.items() if key in plain
    ]


def moved(
    vanilla: HookedModel,
    model: HookedModel,
    answered: Sequence[tuple[Response, Answered]],
    suffix: str = "",
    prefix: str = "",
    *,
    edited_on: int | None = None,
    batch_size: int = 8,
) -> list[Moved]:
    """How far each answer has moved in a model that is asked with its own system prompts. Raises as `answer_kls`."""
    if not answered:
        return []
    nats = answer_kls(vanilla, model, [a for _, a in answered], suffix, prefix, batch_size=batch_size)
    state = bool(suffix or prefix)
    return [Moved(r.kind, r.instance_id, state, float(n), edited_on) for (r, _), n in zip(answered, nats, strict=True)]


def mean_moved(found: Sequence[Moved], *, seed: int = 0) -> Estimate | None:
    """The mean of what one model's answers moved, nats: over edits where there are several, else over prompts."""
    if not found:
        return None
    edits = len({m.edited_on for m in found}) > 1
    means = unit_means(((m.edited_on if edits else (m.kind, m.instance_id)), m.nats) for m in found)
    return bootstrap(list(means.values()), over="edits" if edits else "prompts", unit="nats", seed=seed)


def answer_kl(
    vanilla: HookedModel,
    model: HookedModel,
    answered: Sequence[Answered],
    suffix: str = "",
    prefix: str = "",
    *,
    batch_size: int = 8,
    seed: int = 0,
) -> Estimate:
    """Mean over prompts of the mean KL(vanilla || model) over the answer's tokens, nats; bootstrap over prompts.

    Arguments and errors as of `answer_kls`.
    """
    found = answer_kls(vanilla, model, answered, suffix, prefix, batch_size=batch_size)
    return bootstrap(found, over="prompts", unit="nats", seed=seed)


def answer_kls(
    vanilla: HookedModel,
    model: HookedModel,
    answered: Sequence[Answered],
    suffix: str = "",
    prefix: str = "",
    *,
    batch_size: int = 8,
) -> Float[np.ndarray, "prompt"]:
    """Mean KL(vanilla || model) over the tokens of each answer, nats.

    Vanilla reads the plain prompt, the model its own: a prompt that changes harmless answers is a side effect too, and
    vanilla itself with that prompt is the control.

    Args:
        suffix: S, appended to the model's prompt.
        prefix: a system prompt before it, likewise.

    Raises:
        InputError: no answers, or the model turns them into other tokens than vanilla, or has another vocabulary.
    """
    rows, own = _encode(vanilla, answered), _encode(model, answered, suffix, prefix)
    plain = not (suffix or prefix)
    same = own == rows if plain else [tail for _, tail in own] == [tail for _, tail in rows]
    if model.vocab_size != vanilla.vocab_size or not same:
        raise InputError(
            f"{model.name} turns the same answers into other tokens than {vanilla.name}: no KL between them"
        )
    found = np.zeros(len(rows))
    with torch.no_grad():
        for which in _alike(rows, batch_size):
            tokens, positions, real = _batch(vanilla, [rows[i] for i in which])
            base = logits_at(vanilla, tokens, positions)
            theirs, where, _ = _batch(model, [own[i] for i in which])
            found[which] = mean_kl(base, logits_at(model, theirs, where), real)
    return found


def answer_kl_of_edits(
    vanilla: HookedModel,
    edits: Sequence[WeightEdit],
    answered: Sequence[Answered],
    suffix: str = "",
    *,
    batch_size: int = 8,
    seed: int = 0,
) -> Estimate:
    """The same for edits of `vanilla`, each on all prompts; over edits where there are several, else over prompts.

    An edit of W_V of one layer shares everything below that matrix with vanilla, which runs once for all edits.

    Raises:
        InputError: no answers, no edits, or an edit of another model.
    """
    if not edits:
        raise InputError("expected at least one edit, got none")
    rows = _encode(vanilla, answered, suffix)
    layers = [_single_layer(vanilla, edit) for edit in edits]
    found = np.zeros((len(edits), len(rows)))
    with torch.no_grad():
        for which in _alike(rows, batch_size):
            tokens, positions, real = _batch(vanilla, [rows[i] for i in which])
            for layer in sorted(set(layers), key=lambda x: -1 if x is None else x):
                if layer is None:
                    way = lambda t=tokens, p=positions: logits_at(vanilla, t, p)  # noqa: E731
                else:
                    state = value_state(vanilla, tokens, layer)
                    way = lambda s=state, p=positions: logits_from_value(vanilla, s, p)  # noqa: E731
                base = way()
                for index in (i for i, own in enumerate(layers) if own == layer):
                    with edits[index].applied(vanilla):
                        found[index, which] = mean_kl(base, way(), real)
    means, over = (found.mean(axis=1), "edits") if len(edits) > 1 else (found[0], "prompts")
    return bootstrap(means, over=over, unit="nats", seed=seed)


def mean_kl(
    vanilla: Float[Tensor, "batch token vocab"],
    other: Float[Tensor, "batch token vocab"],
    real: Float[Tensor, "batch token"],
) -> Float[np.ndarray, "batch"]:
    """Mean KL(vanilla || other) over each row's real tokens, nats, in float32."""
    p = vanilla.float().log_softmax(-1)
    q = other.to(vanilla.device).float().log_softmax(-1)
    kl = (p.exp() * (p - q)).sum(-1).clamp(min=0.0)  # rounding can make a zero negative
    real = real.to(kl.device)
    return ((kl * real).sum(-1) / real.sum(-1)).double().cpu().numpy()


def _encode(
    model: HookedModel, answered: Sequence[Answered], suffix: str = "", prefix: str = ""
) -> list[tuple[list[int], list[int]]]:
    if not answered:
        raise InputError("expected at least one answered prompt to compare models on, got none")
    eos = model.tokenizer.eos_token_id is not None
    rows = [model.encode_pair(a.query, a.answer, suffix, eos=eos and a.ended, prefix=prefix) for a in answered]
    for index, (head, tail) in enumerate(rows):
        if not head or not tail:
            raise InputError(f"answered prompt {index} has no tokens; expected a prompt and an answer")
    return rows


def _alike(rows: Sequence[tuple[list[int], list[int]]], batch_size: int) -> Iterator[list[int]]:
    """Indices of rows of like length, batch by batch."""
    if batch_size < 1:
        raise InputError(f"expected batch_size >= 1, got {batch_size}")
    order = sorted(range(len(rows)), key=lambda i: len(rows[i][0]) + len(rows[i][1]))
    return (order[start : start + batch_size] for start in range(0, len(order), batch_size))


def _batch(
    model: HookedModel, rows: Sequence[tuple[list[int], list[int]]]
) -> tuple[Tokens, Int[Tensor, "batch token"], Float[Tensor, "batch token"]]:
    """Rows as one batch: tokens, the positions that predict each answer, and which of these are real."""
    tokens = model.pad([head + tail for head, tail in rows])
    width, longest = tokens.input_ids.shape[1], max(len(tail) for _, tail in rows)
    # Padded on the left: the answer's n tokens are predicted at the n places before the last.
    lengths = torch.tensor([[len(tail)] for _, tail in rows])
    steps = torch.arange(longest)[None]
    positions = (width - 1 - lengths + steps).clamp(max=width - 2)
    real = (steps < lengths).float()
    return tokens, positions.to(model.device), real.to(model.device)


def _single_layer(model: HookedModel, edit: WeightEdit) -> int | None:
    """The layer of an edit of one W_V alone, else None."""
    if not shareable(model, edit):
        return None
    own = {
        layer
        for layer in range(model.n_layers)
        for name in edit.deltas
        if name.startswith(model.value_name(layer).removesuffix("weight"))
    }
    return own.pop() if len(own) == 1 else None
