"""What each method costs in forwards and tokens, from its configuration and the lengths of the data.

Nothing is run: sequences are tokenised as the methods do. Where a method locates its layer, the last one is assumed,
which the paper's convention names most often; lower layers cost more.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from interp.costs.work import NOTHING, Work, passed, total
from interp.methods._losses import Format, constraint_sequence, edit_sequence
from interp.methods._trl import Training, pick
from interp.methods.ablations import RandomLayer
from interp.methods.dinm import Dinm
from interp.methods.direction import Direction
from interp.methods.dpo import Dpo
from interp.methods.ext_sub import ExtSub
from interp.methods.ft_l import FtL
from interp.methods.mend import Mend
from interp.methods.profs import Profs
from interp.methods.sft import Sft
from interp.models import HookedModel
from interp.records import Instance

LOCATING = 8
"""Sequences in a forward where methods locate."""


# ------------------------------------------------------------------------------------------------- made once
def made_once(method: Any, model: HookedModel, train: Sequence[Instance], val: Sequence[Instance] = ()) -> Work:
    """What a method does before anything is asked of it: training, or reading the train split; nothing for edits.

    MEND's editor counts here, trained to its last step: it may stop earlier.
    """
    if not train:
        return NOTHING  # the run says what is missing
    if isinstance(method, Sft):
        return _batches(method, training_lengths(method, model, train), learning=True)
    if isinstance(method, Dpo):  # policy and reference read both answers
        rows = training_lengths(method, model, train)
        return 2 * (_batches(method, rows, learning=True) + _batches(method, rows, learning=False))
    if isinstance(method, ExtSub):
        chosen = _chosen(method, train)
        good = [(i.adversarial_prompt, i.safe_generation) for i in chosen]
        if method.expert_on == "knowledge":
            good = [(i.knowledge.prompt, i.knowledge.answer) for i in chosen]
        bad = [(i.adversarial_prompt, i.unsafe_generation) for i in chosen]
        return _supervised(method, model, good) + _supervised(method, model, bad)
    if isinstance(method, Profs):
        texts = [
            _length(model, i.adversarial_prompt, answer, method)
            for i in pick(train, method.pairs, method.seed)
            for answer in (i.safe_generation, i.unsafe_generation)
        ]
        return passed(texts, batch=method.batch_size)
    if isinstance(method, Direction):
        return _direction(method, model, train)
    if isinstance(method, Mend):
        return _mend(method, model, train, val)
    return NOTHING


def _chosen(method: Training, train: Sequence[Instance]) -> list[Instance]:
    """Examples of all epochs."""
    chosen = pick(train, method.n_examples, method.seed)
    return [chosen[i % len(chosen)] for i in range(method.n_examples)] if chosen else []


def training_lengths(method: Training, model: HookedModel, train: Sequence[Instance]) -> list[int]:
    """Tokens of each example, the longer answer's where there are two."""
    answers = [
        (i.safe_generation, i.unsafe_generation) if isinstance(method, Dpo) else (i.safe_generation,)
        for i in _chosen(method, train)
    ]
    return [
        max(_length(model, i.adversarial_prompt, a, method, eos=1) for a in own)
        for i, own in zip(_chosen(method, train), answers, strict=True)
    ]


def _supervised(method: Training, model: HookedModel, pairs: Sequence[tuple[str, str]]) -> Work:
    lengths = [_length(model, query, answer, method, eos=1) for query, answer in pairs]
    return _batches(method, lengths, learning=True)


def _batches(method: Training, lengths: Sequence[int], learning: bool) -> Work:
    """Batches in the order of drawing, each padded to its longest."""
    size = method.batch_size // method.accumulate
    chunks = [lengths[start : start + size] for start in range(0, len(lengths), size)]
    return total(passed(chunk, batch=size, learning=learning) for chunk in chunks)


def _direction(method: Direction, model: HookedModel, train: Sequence[Instance]) -> Work:
    """All prompts are assumed to pass the filter."""
    fit, held = method._parts(train)
    top = 1 + method.layer if method.layer is not None else max(1, int(method.highest_layer * model.n_layers))
    sides = ([i.adversarial_prompt for i in fit], list(dict.fromkeys(i.question for i in fit)))
    lengths = [[_prompt(model, query, method.suffix) for query in side] for side in sides]
    size = method.batch_size
    means = total(passed(side, share=top / model.n_layers, batch=size) for side in lengths)
    filtering = total(passed(side, batch=size) for side in lengths) if method.filtered else NOTHING
    attacked = passed([_prompt(model, i.adversarial_prompt, method.suffix) for i in held], batch=size)
    harmless = passed([_prompt(model, i.knowledge.prompt, method.suffix) for i in held], batch=size)
    candidates = (1 if method.layer is not None else top) * method.positions
    return means + filtering + (candidates + 1) * (attacked + harmless)


def _mend(method: Mend, model: HookedModel, train: Sequence[Instance], val: Sequence[Instance]) -> Work:
    above = method.layers / model.n_layers
    edit = _mean([_length(model, i.adversarial_prompt, i.safe_generation, method, eos=1) for i in train[:200]])
    local = _mean([_length(model, i.knowledge.prompt, i.knowledge.answer, method) for i in train[:200]])
    plain = (1 + above) * (edit + local)  # the blocks below once; those above without the edit and with it
    measured = plain + edit
    learned = above * (2 * edit.tokens + local.tokens)  # gradients stop below the edited layers
    looks = min(method.val_size, len(val)) * (1 + method.steps // method.val_every)
    untouched = min(method.val_size, len(val)) * plain
    return (
        min(method.normalise_on, len(train)) * edit
        + method.steps * method.accumulate * replace(measured, learning=learned)
        + looks * measured
        + untouched
    )


def _mean(lengths: Sequence[int]) -> Work:
    """One sequence of the mean length."""
    return Work(1.0, sum(lengths) / max(len(lengths), 1))


# ------------------------------------------------------------------------------------------------- edits
def edit_work(method: Any, model: HookedModel, instance: Instance) -> Work:
    """One edit of one instance."""
    if isinstance(method, RandomLayer):
        # The draw is known, but for the located layer that it leaves out.
        others = list(range(model.n_layers - 1)) or [0]
        layer = random.Random(f"wo/Location {method.seed} {instance.id}").choice(others)
        return _dinm(method.base, model, instance, layer) + located(method.base, model, instance)
    if isinstance(method, Dinm):
        layer = assumed_layer(method, model)
        return _dinm(method, model, instance, layer) + (
            located(method, model, instance) if method.layer is None else NOTHING
        )
    if isinstance(method, FtL):
        sequence = edit_sequence(model, instance, _format(method))
        length = len(sequence.inputs) if method.likelihood == "answer" else sequence.positions[0] + 1
        found = _steps([length], method.steps, model.n_layers, assumed_layer(method, model))
        return found + (located(method, model, instance) if method.layer is None else NOTHING)
    if isinstance(method, Mend):
        length = len(edit_sequence(model, instance, _format(method)).inputs)
        above = method.layers / model.n_layers
        below = passed([length], share=1 - above)
        return below + passed([length], share=above, learning=True) + 2 * passed([length])
    return NOTHING


def assumed_layer(method: Any, model: HookedModel) -> int:
    """The layer that is edited: the fixed one, else the last."""
    return model.n_layers - 1 if method.layer is None else int(method.layer)


def located(method: Any, model: HookedModel, instance: Instance) -> Work:
    """Both responses of an instance, in one batch."""
    return locating(model, [instance], method.convention, LOCATING, method.max_prompt, method.max_answer)


def locating(
    model: HookedModel,
    instances: Sequence[Instance],
    convention: Any,
    batch: int,
    max_prompt: int = 1000,
    max_answer: int = 600,
) -> Work:
    """Layer distances of some instances; an instance's two rows share a batch."""
    pairs = []
    for i in instances:
        rows = []
        for answer in (i.safe_generation, i.unsafe_generation):
            if convention.given == "nothing":
                rows.append(min(len(model.token_ids(answer)), max_answer))
            else:
                rows.append(_cut(model, i.adversarial_prompt, answer, convention.suffix, max_prompt, max_answer))
        pairs.append(max(rows))
    size = 1 if convention.over == "matrix" else max(1, batch // 2)
    return 2 * passed(pairs, batch=size)


def _dinm(method: Dinm, model: HookedModel, instance: Instance, layer: int) -> Work:
    how = _format(method)
    learned = [len(edit_sequence(model, instance, how).inputs)]
    watched = [_constrained(method, model, instance)] if method.constrain else []
    if not method.fast:
        return method.steps * (passed(learned, learning=True) + passed(watched))
    return _steps([*learned, *watched], method.steps, model.n_layers, layer)


def _constrained(method: Dinm, model: HookedModel, instance: Instance) -> int:
    if method.constraint_on == "next token":  # said here again: the sequence itself would be put on the model's device
        return min(_prompt(model, instance.knowledge.prompt, method.suffix), method.max_prompt)
    return len(constraint_sequence(model, instance, _format(method)).inputs)


def _steps(lengths: Sequence[int], steps: int, depth: int, layer: int) -> Work:
    """The blocks up to the edited matrix once, then those above it at every step."""
    below, above = (layer + 1) / depth, (depth - 1 - layer) / depth
    return passed(lengths, share=below) + steps * passed(lengths, share=above, learning=True)


def _format(method: Any) -> Format:
    def of(name: str, default: Any) -> Any:
        return getattr(method, name, default)

    return Format(
        suffix=method.suffix,
        max_prompt=method.max_prompt,
        max_answer=method.max_answer,
        eos=method.eos,
        raw_text=of("raw_text", False),
        labels_alone=of("labels_alone", False),
        constraint_on=of("constraint_on", "next token"),
    )


# ------------------------------------------------------------------------------------------------- lengths
def _prompt(model: HookedModel, query: str, suffix: str = "") -> int:
    return min(len(model.token_ids(model.format_prompt(query, suffix))), model.context)


def _length(model: HookedModel, query: str, answer: str, method: Any, eos: int = 0) -> int:
    return _cut(model, query, answer, method.suffix, method.max_prompt, method.max_answer) + eos


def _cut(model: HookedModel, query: str, answer: str, suffix: str, max_prompt: int, max_answer: int) -> int:
    """Tokens of a prompt and its answer, cut as `HookedModel.encode_pair` does."""
    tail = min(len(model.token_ids(model.format_answer(query, answer, suffix), special=False)), max_answer)
    head = min(len(model.token_ids(model.format_prompt(query, suffix))), max_prompt)
    return min(head + tail, model.context)
