"""What configurations of methods have in common: checks of their fields, and how single edits find their layer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from interp.errors import InputError
from interp.locate import Convention, layer_distances
from interp.methods.base import Detoxified
from interp.models import HookedModel
from interp.records import Instance

Progress = Callable[[int, int], None]
"""Called with (edits done, edits in all)."""


def check(
    config: Any,
    *,
    counts: Sequence[str] = (),
    positive: Sequence[str] = (),
    optional: Sequence[str] = (),
    not_negative: Sequence[str] = (),
    choices: Mapping[str, Sequence[str]] | None = None,
) -> None:
    """Check fields of a configuration by name.

    Args:
        counts: at least 1.
        positive: above 0.
        optional: above 0, or None.
        not_negative: at least 0.
        choices: field -> the values it may have.

    Raises:
        InputError: the first field that fails, with what was expected and what came.
    """
    for name in counts:
        if getattr(config, name) < 1:
            raise InputError(f"{name} must be at least 1, got {getattr(config, name)}")
    for name in (*positive, *optional):
        value = getattr(config, name)
        none = " or None" if name in optional else ""
        if not (none and value is None) and not (value is not None and value > 0):
            raise InputError(f"{name} must be positive{none}, got {value}")
    for name in not_negative:
        if not getattr(config, name) >= 0:  # also what is no number
            raise InputError(f"{name} must not be negative, got {getattr(config, name)}")
    for name, known in (choices or {}).items():
        if getattr(config, name) not in known:
            raise InputError(f"{name} must be one of {tuple(known)}, got {getattr(config, name)!r}")


def layers_of(
    model: HookedModel,
    instances: Sequence[Instance],
    fixed: int | None,
    convention: Convention,
    *,
    max_prompt: int,
    max_answer: int,
    method: str,
) -> list[int]:
    """The layer to edit for each instance: the fixed one, or the one that it locates (Eq. 6).

    Raises:
        InputError: no instances, or a layer out of range.
    """
    if not instances:
        raise InputError(f"{method} needs at least one instance, got none")
    if fixed is not None:
        return [model.check_layer(fixed)] * len(instances)
    return list(layer_distances(model, instances, convention, max_prompt=max_prompt, max_answer=max_answer).located)


def most_located(layers: Sequence[int]) -> int:
    """The layer that most instances locate, the lowest of several."""
    return max(sorted(set(layers)), key=layers.count)


def edit_each(
    edit: Callable[[Instance, int], Detoxified],
    instances: Sequence[Instance],
    layers: Sequence[int],
    progress: Progress | None = None,
) -> list[Detoxified]:
    """One independent edit for each instance at its layer."""
    edits = []
    for instance, layer in zip(instances, layers, strict=True):
        edits.append(edit(instance, layer))
        if progress is not None:
            progress(len(edits), len(instances))
    return edits
