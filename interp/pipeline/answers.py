"""Judged answers of a model or of its edits, from the cache where the same question was answered before.

A greedy answer depends on weights, tokens, code and the kind of machine, and on nothing else. It is kept beside the
trained models under the hash of all of these, with the seconds it took and what the model warned of. Verdicts are not
kept: judges are asked anew.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from typing import Any

import torch

from interp.edits import WeightEdit
from interp.errors import InputError
from interp.evaluation import Item, judged, respond, respond_edited
from interp.judges import Judge
from interp.models import HookedModel
from interp.pipeline.progress import Report
from interp.pipeline.settings import Settings
from interp.pipeline.study import digest, timed
from interp.records import Response, from_dict, to_dict
from interp.runs import cache_dir, fingerprint, read_json, source_hash, versions, write_json

Answers = list[list[Response]]


def answers_of(
    settings: Settings,
    model: HookedModel,
    items: Sequence[Item],
    judge: Judge,
    *,
    name: str,
    took: dict[str, float],
    progress: Report | None = None,
) -> list[Response]:
    """One judged response per item, in order; `took["evaluate"]` grows by the seconds, remembered ones included.

    Raises:
        InputError: as `respond`, or a damaged file in the cache.
    """

    def answer() -> Answers:
        options: dict[str, Any] = {"max_new_tokens": settings.max_new_tokens, "batch_size": settings.batch}
        return [respond(model, items, name=name, progress=progress, **options)]

    [found] = _remembered(settings, model, [], [items], answer, took)
    with timed(took, "evaluate"):
        return judged([replace(r, model=name) for r in found], judge)


def answers_of_edits(
    settings: Settings,
    model: HookedModel,
    edits: Sequence[WeightEdit],
    items: Sequence[Sequence[Item]],
    judge: Judge,
    *,
    name: str,
    edited_on: Sequence[int],
    took: dict[str, float],
    progress: Report | None = None,
) -> Answers:
    """`answers_of` for several edits of one model, each asked its own items; all are decoded together.

    Raises:
        InputError: as `respond_edited`, or a damaged file in the cache.
    """

    def answer() -> Answers:
        options: dict[str, Any] = {"max_new_tokens": settings.max_new_tokens, "batch_size": settings.batch}
        return respond_edited(model, edits, items, name=name, edited_on=edited_on, progress=progress, **options)

    found = _remembered(settings, model, edits, items, answer, took)
    with timed(took, "evaluate"):
        asked = [replace(r, model=name, edited_on=on) for on, own in zip(edited_on, found, strict=True) for r in own]
        verdicts = iter(judged(asked, judge))  # judged in one batch
        return [[next(verdicts) for _ in own] for own in found]


def _remembered(
    settings: Settings,
    model: HookedModel,
    edits: Sequence[WeightEdit],
    items: Sequence[Sequence[Item]],
    answer: Callable[[], Answers],
    took: dict[str, float],
) -> Answers:
    """What `answer` says, or said before."""
    key = [
        _identity(model),
        [_digest(edit) for edit in edits],
        [[(asdict(i), _ids(model, i)) for i in own] for own in items],
        settings.max_new_tokens,
        settings.batch,
        source_hash(),
        versions(),
    ]
    file = cache_dir() / "answers" / f"{fingerprint(key)}.json"
    if file.exists():
        found = read_json(file)
        try:
            answers = [[from_dict(Response, r) for r in own] for own in found["answers"]]
            warnings, earlier = [str(line) for line in found["warnings"]], float(found["seconds"])
        except (KeyError, TypeError, ValueError, InputError) as error:
            raise InputError(f"{file} is damaged ({error}); delete it and run again") from error
        for line in warnings:
            model.note(line)
        took["evaluate"] = round(took.get("evaluate", 0.0) + earlier, 2)
        return answers
    here: dict[str, float] = {}
    with _own_warnings(model) as warnings, timed(here, "evaluate"):
        answers = answer()
    took["evaluate"] = round(took.get("evaluate", 0.0) + here["evaluate"], 2)
    said = [[to_dict(r) for r in own] for own in answers]
    write_json(file, {"seconds": here["evaluate"], "warnings": warnings, "answers": said})
    return answers


@contextmanager
def _own_warnings(model: HookedModel) -> Iterator[list[str]]:
    """What the model warns of inside, whether or not it did so before."""
    before, model.warnings = model.warnings, []
    try:
        yield model.warnings
    finally:
        model.warnings = [*before, *(line for line in model.warnings if line not in before)]


# ------------------------------------------------------------------------------------------------- identities
def _identity(model: HookedModel) -> list[Any]:
    """Everything about a model that its answers depend on."""
    config = {k: v for k, v in model.hf.config.to_dict().items() if k != "_name_or_path"}
    backend = getattr(model.tokenizer, "backend_tokenizer", None)
    tokenizer = backend.to_str() if backend is not None else digest(sorted(model.tokenizer.get_vocab().items()))
    device = model.device
    return [
        model.weight_hash(),
        digest([config, model.hf.config._attn_implementation, model.stop_ids]),
        hashlib.sha256(f"{type(model.tokenizer).__name__} {tokenizer}".encode()).hexdigest(),
        str(model.dtype),
        torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
    ]


def _ids(model: HookedModel, item: Item) -> list[int]:
    return model.token_ids(model.format_prompt(item.query, item.suffix, item.prefix))


def _digest(edit: WeightEdit) -> str:
    """Of an edit's deltas: what they change of the model that the key names beside them."""
    total = hashlib.sha256()
    for name in sorted(edit.deltas):
        delta = edit.deltas[name].detach().cpu().contiguous()
        total.update(f"{name} {tuple(delta.shape)} ".encode() + delta.numpy().tobytes())
    return total.hexdigest()
