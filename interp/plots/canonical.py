"""A figure as text that can be committed and compared: plain lists, 6 significant digits, sorted keys, no template.

Pixels differ between machines and arrays are stored as base64 by plotly; neither makes a useful diff. Two figures are
the same where their canonical JSON is, within tolerances.
"""

from __future__ import annotations

import base64
import json
import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import plotly.graph_objects as go

RTOL, ATOL = 1e-4, 1e-6
DIGITS = 6
_NUMBER = re.compile(r"\d+(?:\.\d+)?(?:e[+-]?\d+)?")


def canonical(figure: go.Figure) -> dict[str, Any]:
    """A figure as plain JSON types."""
    plain = figure.to_plotly_json()
    layout = {key: value for key, value in plain["layout"].items() if key != "template"}
    return rounded({"data": plain["data"], "layout": layout})


def dumps(figure: go.Figure) -> str:
    """The canonical JSON text; ends with a newline."""
    return _text(canonical(figure)) + "\n"


def rounded(value: Any) -> Any:
    """Arrays as lists (base64 decoded), floats with 6 significant digits, NaN and infinities as None."""
    if isinstance(value, Mapping):
        if "bdata" in value and "dtype" in value:
            return rounded(decoded(value))
        return {str(key): rounded(item) for key, item in value.items()}
    if isinstance(value, np.ndarray):
        return rounded(value.tolist())
    if isinstance(value, list | tuple):
        return [rounded(item) for item in value]
    if isinstance(value, np.generic):
        return rounded(value.item())
    if isinstance(value, float):
        if not math.isfinite(value):
            return None
        value = float(f"{value:.{DIGITS}g}")
        return int(value) if value == int(value) and abs(value) < 1e15 else value
    return value


def decoded(array: Mapping[str, Any]) -> np.ndarray:
    """plotly's `{dtype, bdata, shape}` as an array."""
    flat = np.frombuffer(base64.b64decode(array["bdata"]), dtype=np.dtype(array["dtype"]).newbyteorder("<"))
    shape = array.get("shape")
    return flat if shape is None else flat.reshape([int(n) for n in str(shape).split(",")])


def differences(new: Any, old: Any, where: str = "", *, rtol: float = RTOL, atol: float = ATOL) -> Iterator[str]:
    """What differs between two canonical figures, one line each: where, what is now, what was committed.

    Numbers are compared with tolerances. Texts may differ in the last digit of a printed decimal, because a value at
    the edge of rounding can fall on either side.
    """
    new, old = rounded(new), rounded(old)
    if isinstance(new, dict) and isinstance(old, dict):
        for key in sorted({*new, *old}):
            path = f"{where}.{key}" if where else key
            if key not in new or key not in old:
                yield f"{path}: {'missing' if key in old else 'not in the committed figure'}"
            else:
                yield from differences(new[key], old[key], path, rtol=rtol, atol=atol)
    elif isinstance(new, list) and isinstance(old, list):
        if len(new) != len(old):
            yield f"{where}: {len(new)} entries, committed {len(old)}"
            return
        for i, (a, b) in enumerate(zip(new, old, strict=True)):
            yield from differences(a, b, f"{where}[{i}]", rtol=rtol, atol=atol)
    elif not _same(new, old, rtol, atol):
        yield f"{where}: {_brief(new)}, committed {_brief(old)}"


def _same(new: Any, old: Any, rtol: float, atol: float) -> bool:
    if _is_number(new) and _is_number(old):
        return abs(new - old) <= atol + rtol * abs(old)
    if isinstance(new, str) and isinstance(old, str):
        return new == old or _same_text(new, old)
    return type(new) is type(old) and new == old


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _same_text(new: str, old: str) -> bool:
    """Equal but for the last digit of decimals, and one step of a colour's channel."""
    if _NUMBER.sub("#", new) != _NUMBER.sub("#", old):
        return False
    color = new.startswith("rgb(")
    for a, b in zip(_NUMBER.findall(new), _NUMBER.findall(old), strict=True):
        step = 1.0 if color else max(_step(a), _step(b))
        if a != b and abs(float(a) - float(b)) > 1.001 * step:
            return False
    return True


def _step(number: str) -> float:
    """One unit in the last place of a printed number; 0 for whole numbers: counts are exact."""
    mantissa, _, exponent = number.partition("e")
    decimals = len(mantissa.partition(".")[2])
    return 0.0 if not decimals and not exponent else 10.0 ** (int(exponent or 0) - decimals)


def _brief(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _text(value: Any, indent: int = 0) -> str:
    """JSON with one line per key, and lists without structure inside on one line."""
    pad = " " * (indent + 1)
    if isinstance(value, dict) and value:
        items = (f"{pad}{json.dumps(k, ensure_ascii=False)}: {_text(value[k], indent + 1)}" for k in sorted(value))
        return "{\n" + ",\n".join(items) + "\n" + " " * indent + "}"
    if isinstance(value, list) and any(isinstance(item, dict | list) for item in value):
        return "[\n" + ",\n".join(pad + _text(item, indent + 1) for item in value) + "\n" + " " * indent + "]"
    return json.dumps(value, ensure_ascii=False, allow_nan=False)
