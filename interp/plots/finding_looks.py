"""The colour, dash and pattern of every name in a finding: models as everywhere, controls grey, the rest apart."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from interp.plots.text import relabelled
from interp.plots.theme import styles
from interp.records import Bars, Finding

DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")
GREYS = ("#7A7A7A", "#A6A6A6", "#5A5A5A", "#BDBDBD")
SERIES = (
    ("#009E73", ""), ("#CC79A7", "/"), ("#D55E00", "."), ("#F0E442", "\\"), ("#4D4D4D", ""), ("#A6761D", "x"),
    ("#7570B3", "-"), ("#BDBDBD", "|"),
)  # fmt: skip
"""Bars that are not models: none of the models' own colours."""
SHARES = {"erased": "#0072B2", "bypassed": "#E69F00", "parallel": "#999999", "downstream": "#009E73",
          "around": "#999999", "after": "#009E73", "masked": "#CC79A7"}  # fmt: skip
"""The parts of a change as the figure of the swap shares draws them."""


@dataclass(frozen=True)
class Look:
    """How one name is drawn in every panel of a finding."""

    label: str
    color: str
    dash: str = "solid"
    symbol: str = "circle"
    pattern: str = ""


@dataclass(frozen=True)
class Looks:
    """The looks of all names of a finding: models as everywhere, controls grey, other bars in colours of no model."""

    models: Mapping[str, Look]
    controls: Mapping[str, Look]

    @classmethod
    def of(cls, finding: Finding) -> Looks:
        """A model's second curve ("sft, benign") keeps the model's colour and takes the next dash.

        A control that every model brings along ("random directions, sft"; "sft, random") is one look and one entry of
        the legend: the grey bands belong to the models of their panel.
        """
        curves = [c for panel in finding.curves for c in panel.curves]
        controls = list(dict.fromkeys(c.name for c in curves if c.control))
        named = [c.name for c in curves if not c.control] + [g for panel in finding.bars for g in panel.groups]
        names = list(dict.fromkeys(named))
        whole = [name for name in names if _base(name, names) == name]
        house = styles(whole)
        seen: dict[str, int] = {}
        models = {}
        for name in names:
            base = _base(name, names)
            turn = seen[base] = seen.get(base, -1) + 1
            style = house[base] if base in house else styles([base])[base]
            again = whole.index(base) // 9 if base in whole else 0
            text = relabelled(name)
            models[name] = Look(text, style.color, DASHES[(turn + again) % 6], style.symbol, style.pattern)
        kinds = {name: _kind(name, whole) for name in controls}
        turns = {kind: i for i, kind in enumerate(dict.fromkeys(kinds.values()))}
        greys = {
            name: Look(relabelled(kind), GREYS[turns[kind] % 4], DASHES[1 + turns[kind] % 5], "line-ns-open")
            for name, kind in kinds.items()
        }
        return cls(models, greys)

    def curve(self, name: str) -> Look:
        """A curve's look, control or not."""
        return self.controls.get(name) or self.models[name]

    def series(self, panel: Bars, name: str) -> Look:
        """The look of one series of a panel of bars."""
        if name in self.models:
            return self.models[name]
        if name in ("vanilla", "sft", "dpo", "dinm"):
            style = styles([name])[name]
            return Look(style.label, style.color, pattern=style.pattern)
        color, pattern = SERIES[list(panel.series).index(name) % len(SERIES)]
        word = re.split(r"\W", name.lower())[0]
        text = relabelled(name)
        return Look(text, SHARES[word]) if word in SHARES else Look(text, color, pattern=pattern)


def _kind(name: str, models: Sequence[str]) -> str:
    """A control without the model it belongs to; vanilla's own stay by name, as there is one of each."""
    for model in models:
        if model != "vanilla":
            for kind in (name.removeprefix(f"{model}, "), name.removesuffix(f", {model}")):
                if kind != name:
                    return f"{kind} (each model's)"
    return name


def _base(name: str, names: Sequence[str]) -> str:
    """The model that a name begins with: "sft" of "sft, benign"; the name itself where it begins with none."""
    known = ("vanilla", "sft", "dpo", "dinm", *names)
    found = [k for k in known if name != k and re.match(re.escape(k) + r"[\s,:(]", name)]
    return max(found, key=len) if found else name
