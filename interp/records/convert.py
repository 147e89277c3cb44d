"""Records to plain JSON types and back."""

from __future__ import annotations

import json
import math
from dataclasses import fields, is_dataclass
from functools import cache
from typing import Any, TypeVar

import numpy as np

from interp.errors import InputError

T = TypeVar("T")


@cache
def _converter() -> Any:
    from cattrs import Converter

    converter = Converter(forbid_extra_keys=True)
    converter.register_unstructure_hook_func(_is_array, lambda a: None if a is None else _finite(a.tolist()))
    converter.register_structure_hook_func(_is_array, lambda data, _: _array(data))
    converter.register_unstructure_hook(float, lambda x: x if math.isfinite(x) else None)
    converter.register_structure_hook(float, lambda data, _: math.nan if data is None else float(data))
    converter.register_structure_hook_func(
        lambda kind: kind == dict[int, int], lambda data, _: {int(k): int(v) for k, v in data.items()}
    )
    return converter


def _is_array(kind: Any) -> bool:
    return kind is np.ndarray or getattr(kind, "array_type", None) is np.ndarray


def _finite(value: Any) -> Any:
    if isinstance(value, list):
        return [_finite(v) for v in value]
    return value if not isinstance(value, float) or math.isfinite(value) else None


def _array(data: Any) -> np.ndarray:
    return np.asarray(
        [[np.nan if v is None else v for v in row] if isinstance(row, list) else row for row in data], float
    )


def to_dict(record: Any) -> Any:
    """A record as plain JSON types. NaN and infinities become null."""
    if not is_dataclass(record) or isinstance(record, type):
        raise TypeError(f"expected a record, got {type(record).__name__}")
    return _converter().unstructure(record)


def from_dict(kind: type[T], data: Any) -> T:
    """The record of type `kind` that `to_dict` gave.

    Raises:
        InputError: `data` lacks a field, has an unknown one, or one of another type.
    """
    try:
        return _converter().structure(data, kind)
    except Exception as error:  # cattrs raises exception groups of many kinds
        from cattrs import transform_error

        try:
            reason = "; ".join(transform_error(error))
        except Exception:
            reason = str(error)
        expected = ", ".join(f.name for f in fields(kind))  # type: ignore[arg-type]
        raise InputError(f"not a {kind.__name__} record ({reason}); expected the fields {expected}") from error


def dumps(record: Any, indent: int | None = 1) -> str:
    """A record as JSON text (strict JSON: no NaN)."""
    return json.dumps(to_dict(record), indent=indent, ensure_ascii=False, allow_nan=False)


def loads(kind: type[T], text: str) -> T:
    """The record in a JSON text. Raises InputError where the text is not JSON or not that record."""
    try:
        data = json.loads(text)
    except json.JSONDecodeError as error:
        raise InputError(f"not JSON: {error}") from error
    return from_dict(kind, data)
