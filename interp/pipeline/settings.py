"""What a comparison is asked to do: parsed and checked before anything is loaded or computed."""

from __future__ import annotations

import dataclasses
import difflib
import json
import re
from dataclasses import dataclass
from typing import Any

from interp.demo import is_demo
from interp.errors import InputError
from interp.options import Shared, choose

METHODS = ("sft", "dpo", "dinm")
"""The methods that `compare` can run by name."""
CONVENTIONS = ("paper", "paper-after-norm", "reference")


@dataclass(frozen=True)
class Spec:
    """One row of the comparison: a method to run, or a model made elsewhere."""

    name: str
    source: str | None = None
    """Folder, hub id, adapter or state dict; None: the method `name` is run."""


@dataclass(frozen=True)
class Settings(Shared):
    """Everything a comparison depends on; the command line's options, one to one."""

    methods: tuple[str, ...]
    instances: int = 27
    layer: int | None = None
    per_instance: bool = False
    convention: str = "paper"
    suffix: str = "S1"
    dpo_from: str = "sft"
    overrides: tuple[str, ...] = ()
    probe_data: str = "demo"
    refuse_token: tuple[str, ...] = ()
    comply_token: tuple[str, ...] = ()
    figures: bool = True
    keep_edits: bool = True
    deep: bool = False

    def __post_init__(self) -> None:
        """Check what can be checked without loading anything.

        Raises:
            InputError: an unknown method, choice or override.
        """
        super().__post_init__()
        choose("--convention", self.convention, CONVENTIONS)
        choose("--dpo-from", self.dpo_from, ("sft", "vanilla"))
        if self.instances < 2:
            raise InputError(f"expected at least 2 instances for an interval, got {self.instances}")
        self.specs()
        self.method_overrides()

    @property
    def batch(self) -> int:
        """Prompts in a batch: the demo's small model is fastest with many, a large one must fit in memory."""
        return self.batch_size or (96 if is_demo(self.model) else 8)

    def identity(self) -> dict[str, object]:
        """What the numbers depend on: not pictures, and not what is kept of the edits."""
        return {k: v for k, v in super().identity().items() if k not in ("figures", "keep_edits", "deep")}

    def specs(self) -> tuple[Spec, ...]:
        """The rows asked for, in order.

        Raises:
            InputError: an unknown method (the known ones are listed, the nearest suggested), a name given twice.
        """
        specs: list[Spec] = []
        for text in self.methods:
            name, equals, source = text.partition("=")
            if equals and not source:
                raise InputError(f"expected NAME=SOURCE, got {text!r}: the source is missing")
            if equals and not re.fullmatch(r"[A-Za-z0-9][\w.-]*", name):
                raise InputError(f"expected a name of letters, digits, '-', '_' or '.' before '=', got {name!r}")
            if not equals and name not in METHODS:
                near = difflib.get_close_matches(name.lower(), METHODS, n=1, cutoff=0.5)
                hint = f" (did you mean {near[0]}?)" if near else ""
                raise InputError(
                    f"unknown method {name!r}{hint}; expected {', '.join(METHODS)}, or NAME=SOURCE for a model of yours"
                )
            if name == "vanilla":
                raise InputError("the vanilla model is always compared; give it with --model, not as a method")
            if name in [s.name for s in specs]:
                raise InputError(f"{name!r} is given twice; give the second one another name, e.g. {name}-2=SOURCE")
            specs.append(Spec(name, source or None))
        return tuple(specs)

    def method_overrides(self) -> dict[str, dict[str, str]]:
        """`--set` options as {method: {field: text}}. Raises InputError where one is not METHOD.FIELD=VALUE."""
        found: dict[str, dict[str, str]] = {}
        for text in self.overrides:
            match = re.fullmatch(r"(\w+)\.(\w+)=(.*)", text)
            if match is None or match[1] not in METHODS:
                raise InputError(
                    f"expected --set METHOD.FIELD=VALUE with a method of {', '.join(METHODS)}, got {text!r}"
                )
            found.setdefault(match[1], {})[match[2]] = match[3]
        return found


def with_overrides(config: Any, changes: dict[str, str]) -> Any:
    """A method's frozen config with some fields replaced by values given as text.

    Raises:
        InputError: no such field, or a value of another type.
    """
    values: dict[str, Any] = {}
    fields = {f.name: f for f in dataclasses.fields(config)}
    for name, text in changes.items():
        where = f"--set {config.name}.{name}"
        if name not in fields:
            near = difflib.get_close_matches(name, fields, n=1)
            hint = f" (did you mean {near[0]}?)" if near else ""
            raise InputError(f"{where}: no such setting{hint}; expected one of {', '.join(fields)}")
        value = _parse(text, getattr(config, name), where)
        values[name] = _lora(value, where) if name == "lora" else value
    return dataclasses.replace(config, **values)


def _lora(value: Any, where: str) -> Any:
    """A rank, or LoRA's fields as JSON; null for full parameters. Raises InputError for anything else."""
    if value is None:
        return None
    from interp.methods._trl import Lora

    fields: Any = {"rank": value} if isinstance(value, int) and not isinstance(value, bool) else value
    names = [f.name for f in dataclasses.fields(Lora)]
    if not isinstance(fields, dict) or not set(fields) <= set(names):
        raise InputError(f"{where}: expected a rank or a JSON object of {', '.join(names)}, got {value!r}")
    try:
        return Lora(**fields)
    except TypeError as error:
        raise InputError(f"{where}: {error}") from error


def _parse(text: str, current: Any, where: str) -> Any:
    if isinstance(current, str):
        return text
    try:
        value = json.loads(text)
    except json.JSONDecodeError:
        value = text
    if current is None:
        return value
    if isinstance(current, bool) or isinstance(value, bool):
        fits = isinstance(current, bool) and isinstance(value, bool)
    elif isinstance(current, int):
        fits = isinstance(value, int)
    elif isinstance(current, float):
        fits = isinstance(value, int | float)
        value = float(value) if fits else value
    else:
        raise InputError(f"{where} cannot be set from the command line (it is a {type(current).__name__})")
    if not fits:
        raise InputError(f"{where}: expected a {type(current).__name__}, got {text!r}")
    return value
