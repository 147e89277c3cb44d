"""Options that several command lines share: each is defined here once, and `Shared` is the record that they become.

What one command alone asks stands in that command. Nothing here loads anything.
"""

from __future__ import annotations

import difflib
import inspect
import re
from collections.abc import Callable
from dataclasses import MISSING, dataclass, fields
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer

from interp.errors import InputError

DTYPES = ("auto", "float32", "bfloat16", "float16")
JUDGES = "demo, safeedit, refusal (phrases), a classifier's hub id or folder, guard:MODEL or endpoint:MODEL"

# ------------------------------------------------------------------------------------------------- of judges
SafeLabel = Annotated[
    str | None,
    typer.Option("--judge-safe-label", help="Label of a classifier that means safe (index or name), if unclear."),
]
BaseUrl = Annotated[str | None, typer.Option(help="OpenAI-compatible endpoint of endpoint judges, https://HOST/v1.")]
KeyEnv = Annotated[str, typer.Option(help="Environment variable that holds the endpoint's key.")]
MaxRequests = Annotated[
    int | None, typer.Option(min=1, help="Budget of the endpoint in requests; of each process, if several.")
]
# ------------------------------------------------------------------------------------------------- of general items
Kqa = Annotated[
    str | None, typer.Option(help="Knowledge questions in TriviaQA's layout (rc.nocontext): JSON, parquet, hub id.")
]
Csum = Annotated[str | None, typer.Option(help="Texts to summarise in XSum's layout (document, summary), likewise.")]
Xstest = Annotated[
    str | None, typer.Option(help="Harmless requests in XSTest's layout (prompt, type, label), likewise or CSV.")
]
# ------------------------------------------------------------------------------------------------- of any measurement
Seed = Annotated[int, typer.Option(min=0, help="Seed of every random choice.")]
MaxNewTokens = Annotated[int, typer.Option(min=1, help="Longest answer, in tokens.")]


@dataclass(frozen=True, kw_only=True)
class Shared:
    """What a comparison and a benchmark both depend on; the options of their command lines, one to one."""

    model: Annotated[str, typer.Option(help="Vanilla model: demo, a hub id, a folder or a state dict.")] = "demo"
    data: Annotated[
        str, typer.Option(help="SafeEdit data: demo, a JSON file, a folder of SafeEdit_<split>.json, or a hub id.")
    ] = "demo"
    out: Annotated[Path | None, typer.Option(help="Run folder [default: a new one under runs/].")] = None
    seed: Seed = 0
    judge: Annotated[
        tuple[str, ...],
        typer.Option(
            "--judge",
            help=f"Safety judge: auto (demo's on the demo, else safeedit), {JUDGES}. Repeat: the first decides, and "
            "its agreement with each other one is told.",
        ),
    ] = ("auto",)
    judge_safe_label: SafeLabel = None
    base_url: BaseUrl = None
    key_env: KeyEnv = "OPENAI_API_KEY"
    max_requests: MaxRequests = None
    facts: Annotated[int, typer.Option(min=0, help="Knowledge questions asked of each row.")] = 60
    benign: Annotated[int, typer.Option(min=0, help="Benign requests asked of each row, half of them wrapped.")] = 60
    summaries: Annotated[int, typer.Option(min=0, help="Texts that each row is asked to summarise.")] = 30
    kqa: Kqa = None
    csum: Csum = None
    xstest: Xstest = None
    max_new_tokens: MaxNewTokens = 64
    batch_size: Annotated[
        int | None, typer.Option(min=1, help="Prompts in a batch [default: many on the demo, else few; see README].")
    ] = None
    delta_memory: Annotated[
        str | None,
        typer.Option(help="Memory for the deltas of many edits, e.g. 2GiB; others wait on disk [default: no bound]."),
    ] = None
    dtype: Annotated[str, typer.Option(help=f"{', '.join(DTYPES)}.")] = "auto"
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps ...")] = "auto"
    device_map: Annotated[str | None, typer.Option(help="Passed to transformers, e.g. auto, for several GPUs.")] = None
    chat_template: Annotated[
        str, typer.Option(help="default (what the checkpoint says), auto (the tokenizer's template), or none.")
    ] = "default"

    def __post_init__(self) -> None:
        """Check what can be checked without loading anything.

        Raises:
            InputError: an unknown choice, no judge or one twice, or an endpoint judge without an endpoint.
        """
        choose("--dtype", self.dtype, DTYPES)
        choose("--chat-template", self.chat_template, ("default", "auto", "none"))
        _ = self.delta_bytes
        if not self.judge or len(set(self.judge)) < len(self.judge):
            raise InputError(f"--judge: expected one judge or different ones, got {', '.join(self.judge) or 'none'}")
        served = [name for name in self.judge if name.startswith("endpoint:")]
        if served and self.base_url is None:
            raise InputError(f"the judge {served[0]!r} needs an endpoint: --base-url https://HOST/v1")

    @property
    def delta_bytes(self) -> int | None:
        """`delta_memory` in bytes. Raises InputError where it is no size."""
        return None if self.delta_memory is None else size_in_bytes("--delta-memory", self.delta_memory)

    def identity(self) -> dict[str, object]:
        """What results depend on: all but where they are written, and how an endpoint is paid."""
        return {k: v for k, v in vars(self).items() if k not in ("out", "key_env", "max_requests")}


def takes_shared(command: Callable[..., None]) -> Callable[..., None]:
    """A command whose parameter `shared: Shared` becomes one option for each field of `Shared`, behind its own ones."""
    own = inspect.signature(command)
    hints, mine = get_type_hints(Shared, include_extras=True), get_type_hints(command, include_extras=True)
    options = [
        inspect.Parameter(
            f.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=list(f.default) if isinstance(f.default, tuple) else f.default,
            # typer reads a repeated option as a list
            annotation=_listed(hints[f.name]),
        )
        for f in fields(Shared)
        if f.default is not MISSING
    ]

    @wraps(command)
    def with_options(**given: Any) -> None:
        common: dict[str, Any] = {p.name: given.pop(p.name) for p in options}
        common["judge"] = tuple(common["judge"])
        command(**given, shared=Shared(**common))

    kept = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY, annotation=mine[n]) for n, p in own.parameters.items()]
    parameters = [*(p for p in kept if p.name != "shared"), *options]
    with_options.__signature__ = own.replace(parameters=parameters)  # type: ignore[attr-defined]
    with_options.__annotations__ = {p.name: p.annotation for p in parameters}
    return with_options


def choose(option: str, value: str, choices: tuple[str, ...]) -> str:
    """`value`, if it is one of the choices; else an InputError that lists them and suggests the nearest."""
    if value in choices:
        return value
    near = difflib.get_close_matches(value, choices, n=1)
    hint = f" (did you mean {near[0]}?)" if near else ""
    raise InputError(f"{option}: expected one of {', '.join(choices)}, got {value!r}{hint}")


def size_in_bytes(option: str, text: str) -> int:
    """ "2GiB" -> 2147483648. Raises InputError for anything but a number and B, KB, MB, GB, KiB, MiB or GiB."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?) *(?:([KMG])(i?))?B?", text.strip(), re.IGNORECASE)
    if match is None:
        raise InputError(f"{option}: expected a size, e.g. 512MiB or 2GiB, got {text!r}")
    power = " KMG".index((match[2] or " ").upper())
    return int(float(match[1]) * (1024 if match[3] else 1000) ** power)


def _listed(annotation: Any) -> Any:
    """`Annotated[tuple[str, ...], option]` as `Annotated[list[str], option]`; anything else as it is."""
    kind, *more = (annotation.__origin__, *annotation.__metadata__)
    return Annotated[list[str], *more] if kind == tuple[str, ...] else annotation
