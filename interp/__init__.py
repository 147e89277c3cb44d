"""interp: how a language model was made safe, seen from the inside.

Names are exported lazily: `import interp` costs milliseconds, and torch is imported when a name that needs it is used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from interp import capture, edits, evaluation, judges, locate, mechanism, methods, plots, records, safeedit
    from interp.edits import WeightEdit
    from interp.errors import InputError
    from interp.models import HookedModel
    from interp.runs import Run

_NAMES = {
    "HookedModel": "interp.models",
    "WeightEdit": "interp.edits",
    "InputError": "interp.errors",
    "Run": "interp.runs",
}
_MODULES = (
    "capture", "edits", "evaluation", "judges", "locate", "mechanism", "methods", "plots", "records", "safeedit",
)  # fmt: skip

__all__ = [
    "HookedModel",
    "InputError",
    "Run",
    "WeightEdit",
    "capture",
    "edits",
    "evaluation",
    "judges",
    "locate",
    "mechanism",
    "methods",
    "plots",
    "records",
    "safeedit",
]


def __getattr__(name: str) -> Any:
    if name in _NAMES:
        return getattr(import_module(_NAMES[name]), name)
    if name in _MODULES:
        return import_module(f"interp.{name}")
    raise AttributeError(f"module 'interp' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
