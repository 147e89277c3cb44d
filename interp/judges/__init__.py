"""Judges: was a response a refusal, unsafe, or something else? Learned here, made elsewhere, or several."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from interp.errors import InputError
from interp.judges.base import EMPTY, Judge, JudgeReport
from interp.judges.degeneration import is_degenerate
from interp.judges.demo import TextJudge
from interp.judges.refusal import RefusalJudge, is_refusal
from interp.runs import cache_dir
from interp.safeedit import Benchmark

if TYPE_CHECKING:
    from interp.endpoint import EndpointSettings
    from interp.judges.classifier import ClassifierJudge
    from interp.judges.endpoint import EndpointJudge
    from interp.judges.guard import GuardJudge
    from interp.judges.panel import Panel

__all__ = [
    "EMPTY",
    "ClassifierJudge",
    "EndpointJudge",
    "GuardJudge",
    "Judge",
    "JudgeReport",
    "Panel",
    "RefusalJudge",
    "TextJudge",
    "is_degenerate",
    "is_refusal",
    "load",
    "load_several",
]


GUARD, ENDPOINT = "guard:", "endpoint:"
_LAZY = {
    "ClassifierJudge": "interp.judges.classifier",
    "EndpointJudge": "interp.judges.endpoint",
    "GuardJudge": "interp.judges.guard",
    "Panel": "interp.judges.panel",
}
"""Names whose modules import torch, scikit-learn or an HTTP client: only where such a judge is used."""


def load(
    name: str,
    benchmark: Benchmark,
    *,
    safe_label: int | str | None = None,
    device: Any = "cpu",
    endpoint: EndpointSettings | None = None,
    usage: Path | None = None,
) -> Judge:
    """A judge by name.

    "demo" is learned from the benchmark's train split, "refusal" matches phrases, "guard:SOURCE" is a guard model,
    "endpoint:MODEL" a model of the endpoint; "safeedit" or another name is a sequence classifier's folder or id.

    Args:
        safe_label: index or name of a classifier's label that means safe, where its config does not tell.
        endpoint: how the endpoint is asked.
        usage: file that keeps the endpoint's budget; one beside its cache by default.

    Raises:
        InputError: as the judge's own `train`, `from_pretrained` or `open`; a safe label for a judge that is no
            classifier; "endpoint:" without an endpoint.
    """
    kind = next((k for k in (GUARD, ENDPOINT) if name.startswith(k)), name)
    if safe_label is not None and not is_classifier(name):
        why = "which learns its labels from the data" if kind == "demo" else "which has none"
        raise InputError(f"a safe label ({safe_label!r}) is for a classifier, not for the judge {name!r}, {why}")
    if kind == "demo":
        return TextJudge.cached(benchmark)
    if kind == "refusal":
        return RefusalJudge()
    if kind == GUARD:
        from interp.judges.guard import GuardJudge

        return GuardJudge.from_pretrained(name.removeprefix(GUARD), device=device)
    if kind == ENDPOINT:
        from interp.judges.endpoint import EndpointJudge

        if endpoint is None:
            raise InputError(f"the judge {name!r} needs an endpoint: --base-url https://HOST/v1")
        kept = usage or (endpoint.cache or cache_dir()) / "judge-usage.jsonl"
        return EndpointJudge.open(name.removeprefix(ENDPOINT), endpoint, kept)
    from interp.judges.classifier import ClassifierJudge

    return ClassifierJudge.from_pretrained(name, safe_label=safe_label, device=device)


def load_several(
    names: Sequence[str],
    benchmark: Benchmark,
    *,
    safe_label: int | str | None = None,
    device: Any = "cpu",
    endpoint: EndpointSettings | None = None,
    usage: Path | None = None,
) -> tuple[Judge, ...]:
    """Judges by name, to judge the same responses; arguments as of `load`, the safe label being the classifiers'.

    Raises:
        InputError: as `load`; two judges of one name.
    """
    labelled = [name for name in names if safe_label is not None and is_classifier(name)] or names[:1]
    found = tuple(
        load(
            name,
            benchmark,
            safe_label=safe_label if name in labelled else None,
            device=device,
            endpoint=endpoint,
            usage=usage,
        )
        for name in names
    )
    if len(found) > 1:
        from interp.judges.panel import Panel

        Panel(found)  # checks their names
    return found


def is_classifier(name: str) -> bool:
    """Whether a judge's name is that of a sequence classifier."""
    return name not in ("demo", "refusal") and not name.startswith((GUARD, ENDPOINT))


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'interp.judges' has no attribute {name!r}")
