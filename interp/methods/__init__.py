"""Detoxification methods: one file each, one frozen config class each, one protocol. Names are loaded on first use."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from interp.methods.ablations import dinm_ablations
    from interp.methods.base import DEFAULT_SUFFIX, SUFFIX_S1, SUFFIX_S2, Detoxified, Method
    from interp.methods.dinm import Dinm
    from interp.methods.direction import Direction
    from interp.methods.dpo import Dpo
    from interp.methods.ext_sub import ExtSub
    from interp.methods.ft_l import FtL
    from interp.methods.mend import Mend
    from interp.methods.profs import Profs
    from interp.methods.self_reminder import SelfReminder
    from interp.methods.sft import Sft

_HOME = {
    "DEFAULT_SUFFIX": "base",
    "SUFFIX_S1": "base",
    "SUFFIX_S2": "base",
    "Detoxified": "base",
    "Mend": "mend",
    "Method": "base",
    "Dinm": "dinm",
    "Direction": "direction",
    "Dpo": "dpo",
    "ExtSub": "ext_sub",
    "FtL": "ft_l",
    "Profs": "profs",
    "SelfReminder": "self_reminder",
    "Sft": "sft",
    "dinm_ablations": "ablations",
}

__all__ = [
    "DEFAULT_SUFFIX",
    "SUFFIX_S1",
    "SUFFIX_S2",
    "Detoxified",
    "Dinm",
    "Direction",
    "Dpo",
    "ExtSub",
    "FtL",
    "Mend",
    "Method",
    "Profs",
    "SelfReminder",
    "Sft",
    "dinm_ablations",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return __all__
