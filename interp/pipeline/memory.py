"""What a model says or holds depends on weights, tokens, code and the kind of machine alone: computed once and kept.

Files lie in the cache beside the trained models, each under the hash of everything it depends on, with the seconds it
took and what the model warned of. Only results of a deterministic computation belong here; nothing random, no verdicts.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import torch

from interp.edits import WeightEdit
from interp.errors import InputError
from interp.models import HookedModel
from interp.pipeline.study import digest, timed
from interp.products import worthwhile
from interp.records import from_dict, to_dict
from interp.runs import cache_dir, fingerprint, read_json, source_hash, versions, write_json

T = TypeVar("T")


def remembered(
    folder: str,
    key: Any,
    kind: type[T],
    model: HookedModel,
    make: Callable[[], Sequence[T]],
    took: dict[str, float],
    stage: str = "evaluate",
    count: int | None = None,
) -> list[T]:
    """The records that `make` gives, or gave under the same key, source code and versions.

    Args:
        folder: where in the cache.
        key: everything else that the records depend on, JSON types.
        model: is given the warnings of then where nothing is computed now.
        took: `took[stage]` grows by the seconds it takes, or took then.
        stage: of a row, that the seconds count in.
        count: how many records there must be, where that is known.

    Raises:
        InputError: a damaged file in the cache, or as `make`.
    """
    file = _file(folder, key)
    if file.exists():
        try:
            found = read_json(file)
            records = [from_dict(kind, r) for r in found["records"]]
            if count is not None and len(records) != count:
                raise ValueError(f"expected {count} records, got {len(records)}")
            warnings, earlier = [str(line) for line in found["warnings"]], float(found["seconds"])
        except (KeyError, TypeError, ValueError, InputError) as error:
            raise InputError(f"{file} is damaged ({error}); delete it and run again") from error
        for line in warnings:
            model.note(line)
        took[stage] = round(took.get(stage, 0.0) + earlier, 2)
        return records
    here: dict[str, float] = {}
    with _own_warnings(model) as warnings, timed(here, stage):
        records = list(make())
    took[stage] = round(took.get(stage, 0.0) + here[stage], 2)
    said = [to_dict(r) for r in records]
    write_json(file, {"seconds": here[stage], "warnings": warnings, "records": said})
    return records


def remembered_file(
    folder: str, key: Any, model: HookedModel, write: Callable[[Path], object], took: dict[str, float], stage: str
) -> Path:
    """The safetensors file that `write` makes at the path it is given, or made under the same key.

    It lies in the cache: to be read or copied, not changed. Arguments and errors as `remembered`.
    """
    file = _file(folder, key).with_suffix(".safetensors")

    def make() -> tuple[()]:
        write(file)
        return ()

    if not file.exists():
        file.with_suffix(".json").unlink(missing_ok=True)
    remembered(folder, key, object, model, make, took, stage)
    return file


def _file(folder: str, key: Any) -> Path:
    return cache_dir() / folder / f"{fingerprint([key, source_hash(), versions()])}.json"


@contextmanager
def _own_warnings(model: HookedModel) -> Iterator[list[str]]:
    """What the model warns of inside, whether or not it did so before."""
    before, model.warnings = model.warnings, []
    try:
        yield model.warnings
    finally:
        model.warnings = [*before, *(line for line in model.warnings if line not in before)]


def identity(model: HookedModel) -> list[Any]:
    """Everything about a model that its answers depend on."""
    config = {k: v for k, v in model.hf.config.to_dict().items() if k != "_name_or_path"}
    backend = getattr(model.tokenizer, "backend_tokenizer", None)
    tokenizer = backend.to_str() if backend is not None else digest(sorted(model.tokenizer.get_vocab().items()))
    device = model.device
    products = "oneDNN" if device.type == "cpu" and worthwhile() else ""
    special = [model.tokenizer.bos_token_id, model.tokenizer.eos_token_id]
    return [
        model.weight_hash(),
        digest([config, model.hf.config._attn_implementation, model.stop_ids]),
        digest(
            [type(model.tokenizer).__name__, tokenizer, model.chat_template, model.tokenizer.chat_template, special]
        ),
        str(model.dtype),
        torch.cuda.get_device_name(device) if device.type == "cuda" else device.type + products,
    ]


def identity_of_edit(edit: WeightEdit) -> str:
    """Hash of an edit's deltas: what they change of the model that a key names beside them."""
    total = hashlib.sha256()
    for name in sorted(edit.deltas):
        delta = edit.deltas[name].detach().cpu().contiguous()
        total.update(f"{name} {tuple(delta.shape)} ".encode() + delta.numpy().tobytes())
    return total.hexdigest()
