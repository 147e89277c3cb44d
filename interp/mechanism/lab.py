"""What the analyses of one comparison share: inputs, margin tokens, layers, and readings that are taken once.

An analysis is two functions (`Analysis`): `measure` looks into one model and gives a `Finding` of its panels, `read`
says in words what the panels of all models together show. `merge` joins them in between. Where two analyses need the
same activations of the same inputs, `Subject` has captured them once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, wraps

import numpy as np
from jaxtyping import Float
from torch import Tensor

from interp.capture import capture
from interp.errors import InputError
from interp.mechanism.margin import MarginTokens, batches, margins
from interp.mechanism.swaps import check_comparable
from interp.models import HookedModel, Tokens
from interp.records import Bars, BenignRequest, Curves, Finding, Instance, PromptKind


@dataclass(frozen=True)
class Lab:
    """The inputs of every analysis; the same for all models of a comparison."""

    instances: tuple[Instance, ...]
    """Test instances: whose prompts are put to the models."""
    train: tuple[Instance, ...]
    """Instances that directions, attacks and fine-tunes may learn from; disjoint from `instances`, may be empty."""
    benign: tuple[BenignRequest, ...]
    """Harmless requests with their answers, bare and wrapped; may be empty."""
    tokens: MarginTokens
    """First tokens of refusing and of complying answers."""
    layer: int
    """0-based layer where the behaviour was located on vanilla, independently of any edit."""
    toxic_layer: int
    """0-based layer of the toxic region as the paper locates it: the one that DINM edits."""
    toxic: Float[Tensor, "d_model"]
    """The probe's toxic row, before the final norm."""
    suffix: str = ""
    """The suffix S of the comparison. No analysis appends it unless it says so."""
    seed: int = 0
    batch_size: int = 16
    others: tuple[Instance, ...] = ()
    """Further instances that nothing was trained or edited on, for what needs more prompts than `instances` give."""

    def __post_init__(self) -> None:
        if not self.instances:
            raise InputError("expected at least one instance to look into models with, got none")

    def queries(self, kind: PromptKind = "DS") -> list[str]:
        """The prompts of one kind, not formatted."""
        return [i.prompt(kind) for i in self.instances]


@dataclass(eq=False)
class Subject:
    """A model under study, and what was read from it. Readings are on the CPU in float32 and are taken once."""

    name: str
    """Row of the comparison."""
    model: HookedModel
    lab: Lab
    _last: dict[str, Mapping[str, Tensor]] = field(default_factory=dict, repr=False)
    _margins: dict[str, np.ndarray] = field(default_factory=dict, repr=False)

    def prompts(self, kind: PromptKind = "DS") -> list[Tokens]:
        """The formatted prompts in batches, padded on the left: the last column is every prompt's last token."""
        return batches(self.model, self.lab.queries(kind), batch_size=self.lab.batch_size)

    def last(self, component: str, kind: PromptKind = "DS") -> Float[Tensor, "prompt layer width"]:
        """Activations at the last prompt token, where the answer begins, of every layer.

        Args:
            component: "resid_post", "h_down", "attn_out" or "mlp_out" (all four are captured in one pass).
            kind: which prompt of each instance.
        """
        if kind not in self._last:
            places = ("resid_post", "h_down", "attn_out", "mlp_out")
            texts = [self.model.format_prompt(q) for q in self.lab.queries(kind)]
            got = capture(self.model, texts, places, pool="last", batch_size=self.lab.batch_size)
            self._last[kind] = {place: got.stack(place).transpose(0, 1).float() for place in places}
        if component not in self._last[kind]:
            raise InputError(f"expected one of {', '.join(self._last[kind])}, got {component!r}")
        return self._last[kind][component]

    def margins(self, kind: PromptKind = "DS") -> Float[np.ndarray, "prompt"]:
        """The refusal margin at the last prompt token, nats: log-odds of a refusing over a complying first token."""
        if kind not in self._margins:
            self._margins[kind] = margins(self.model, self.prompts(kind), self.lab.tokens)
        return self._margins[kind]

    @cached_property
    def value_vectors(self) -> Float[Tensor, "d_mlp d_model"]:
        """W_V of the toxic layer, float32 on the CPU."""
        return self.model.value_vectors(self.lab.toxic_layer).float().cpu()


@dataclass(frozen=True)
class Analysis:
    """One question put to every model."""

    name: str
    """As `Finding.name`."""
    measure: Callable[[Subject, Subject], Finding]
    """(model, vanilla) -> its panels; called with vanilla twice for vanilla's own. Raises InputError where the two
    cannot be compared (another shape, other tokens)."""
    read: Callable[[Finding], str]
    """The merged finding -> what it says, one or two sentences."""

    def __post_init__(self) -> None:
        measure = self.measure

        @wraps(measure)
        def compared(subject: Subject, vanilla: Subject) -> Finding:
            if subject.model is not vanilla.model:
                check_comparable(vanilla.model, subject.model, subject.name, vanilla.lab.queries())
            return measure(subject, vanilla)

        object.__setattr__(self, "measure", compared)


def merge(parts: Sequence[Finding], read: Callable[[Finding], str] | None = None) -> Finding:
    """The findings of one analysis on several models as one: panels with one title become one panel.

    Curves are put side by side, groups of bars one after another, grids and token views in a row. A fact that
    several parts tell is kept in all their words. Raises InputError where there is nothing to merge or the parts are
    not of one analysis.
    """
    if not parts:
        raise InputError("expected the finding of at least one model, got none")
    first = parts[0]
    if {p.name for p in parts} != {first.name}:
        raise InputError(f"expected findings of one analysis, got {sorted({p.name for p in parts})}")
    merged = replace(
        first,
        n=min(p.n for p in parts),
        curves=_merged_curves(parts),
        bars=_merged_bars(parts),
        grids=tuple(grid for p in parts for grid in p.grids),
        tokens=tuple(view for p in parts for view in p.tokens),
        facts=merged_facts(parts),
        seconds=sum(p.seconds for p in parts),
    )
    return merged if read is None else replace(merged, reading=read(merged))


def merged_facts(parts: Sequence[Finding]) -> dict[str, str]:
    """Facts of several findings by name; what they tell differently under one name is told one after the other."""
    told: dict[str, dict[str, None]] = {}
    for name, said in (item for p in parts for item in p.facts.items()):
        told.setdefault(name, {})[said] = None
    return {name: "; ".join(said) for name, said in told.items()}


def _merged_curves(parts: Sequence[Finding]) -> tuple[Curves, ...]:
    found: dict[str, Curves] = {}
    for panel in (panel for p in parts for panel in p.curves):
        known = found.get(panel.title)
        if known is not None:  # a control that every model brings along is drawn once
            names = {c.name for c in known.curves}
            panel = replace(
                known,
                curves=(*known.curves, *(c for c in panel.curves if c.name not in names)),
                marked=tuple(dict.fromkeys((*known.marked, *panel.marked))),
            )
        found[panel.title] = panel
    return tuple(found.values())


def _merged_bars(parts: Sequence[Finding]) -> tuple[Bars, ...]:
    found: dict[str, Bars] = {}
    for panel in (panel for p in parts for panel in p.bars):
        known = found.get(panel.title)
        if known is not None:
            series = {
                name: (
                    *known.series.get(name, (None,) * len(known.groups)),
                    *panel.series.get(name, (None,) * len(panel.groups)),
                )
                for name in {**known.series, **panel.series}
            }
            panel = replace(known, groups=(*known.groups, *panel.groups), series=series)
        found[panel.title] = panel
    return tuple(found.values())
