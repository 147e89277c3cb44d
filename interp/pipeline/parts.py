"""Activations of one part of a row on disk, so that a killed run need not run its models again."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path

from torch import Tensor

from interp.errors import InputError
from interp.mechanism.activations import PromptActivations
from interp.runs import atomic_path


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
        raise InputError(f"{path} is missing or damaged ({error}); delete its folder and run again") from error
    rest["index"] = tuple(rest["index"])
    return PromptActivations(**rest, **tensors)
