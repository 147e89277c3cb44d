"""What a part of a row leaves on disk, so that a killed run need neither run its models again nor forget what it told.

A part is complete when its responses are there; they are written last. Its seconds stand beside them, and what a model
warned of is kept per model, so that a resumed run reports the sum of both runs and every warning.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

from torch import Tensor

from interp.errors import InputError
from interp.mechanism.activations import PromptActivations
from interp.models import HookedModel
from interp.records import Response
from interp.runs import Run, atomic_path, read_json, write_json


def keep(run: Run, part: str, responses: Sequence[Response], seconds: dict[str, float]) -> None:
    """Write a part: what it took, then its responses."""
    keep_seconds(run, part, seconds)
    run.save_all(part, responses)


def keep_seconds(run: Run, part: str, seconds: dict[str, float]) -> None:
    """Write what a part took."""
    write_json(run.path / f"{part}.seconds.json", seconds)


def kept(run: Run, part: str, seconds: dict[str, float]) -> list[Response]:
    """The responses of a part that is complete, with what it took added to `seconds`; [] where it is not.

    Raises:
        InputError: a file of the part is damaged.
    """
    responses = run.load_all(part, Response)
    if responses:
        add_kept(run, part, seconds)
    return responses


def add_kept(run: Run, part: str, seconds: dict[str, float]) -> None:
    """Add what a part took to `seconds`. Raises InputError where the file that says it is damaged."""
    file = run.path / f"{part}.seconds.json"
    if not file.exists():
        return
    took = read_json(file)
    if not isinstance(took, dict) or not all(isinstance(s, int | float) for s in took.values()):
        raise InputError(f"{file} is damaged: expected seconds by stage; delete it and run again")
    add(seconds, took)


def add(seconds: dict[str, float], more: dict[str, float]) -> None:
    """Add the seconds of each stage to those of the same name."""
    for stage, took in more.items():
        seconds[stage] = round(seconds.get(stage, 0.0) + took, 3)


def keep_warnings(run: Run, name: str, model: HookedModel) -> None:
    """Write what a model has warned of so far; called before the result that the warnings are about is written."""
    if model.warnings:
        write_json(run.path / "parts" / f"{name}.warnings.json", model.warnings)


def recall_warnings(run: Run, name: str, model: HookedModel) -> None:
    """Give a model the warnings of an earlier, killed run, in their order. Raises InputError for a damaged file."""
    file = run.path / "parts" / f"{name}.warnings.json"
    earlier = read_json(file) if file.exists() else []
    if not isinstance(earlier, list) or not all(isinstance(line, str) for line in earlier):
        raise InputError(f"{file} is damaged: expected a list of lines; delete it and run again")
    model.warnings += [line for line in earlier if line not in model.warnings]


def save_activations(path: Path, acts: PromptActivations) -> None:
    """Write a recording as safetensors, atomically."""
    from safetensors.torch import save_file

    values = {f.name: getattr(acts, f.name) for f in fields(acts)}
    tensors = {k: v.detach().cpu().contiguous() for k, v in values.items() if isinstance(v, Tensor)}
    rest = {k: v for k, v in values.items() if not isinstance(v, Tensor)}
    with atomic_path(path) as temporary:
        save_file(tensors, temporary, {"values": json.dumps(rest)})


def load_activations(path: Path) -> PromptActivations:
    """Read a recording. Raises InputError where it is missing or damaged."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(path), framework="pt") as file:
            rest = json.loads(file.metadata()["values"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError, KeyError, TypeError, json.JSONDecodeError) as error:
        raise InputError(f"{path} is missing or damaged ({error}); delete it and run again") from error
    rest["index"] = tuple(rest["index"])
    return PromptActivations(**rest, **tensors)
