"""The rows of each table: a method, and the state its model is asked in."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from interp.errors import InputError
from interp.methods.base import SUFFIX_S1, SUFFIX_S2, Detoxified, Method, Needs
from interp.models import HookedModel
from interp.pipeline.study import CONVENTIONS
from interp.records import Instance


@dataclass(frozen=True)
class Arm:
    """One row of a table."""

    name: str
    method: Method | None = None
    """None: the model as it is."""
    suffix: str = ""
    """What is appended to every query where there is no method to say so."""

    @property
    def plain(self) -> bool:
        """Whether this is vanilla as it is: what the others are held against."""
        return self.method is None and not self.suffix

    @property
    def edits(self) -> bool:
        """Whether every instance has a model of its own."""
        return self.method is not None and self.method.needs == "one instance"


@dataclass(frozen=True)
class DpoOnSft:
    """DPO as the paper trains it: on top of SFT."""

    name: ClassVar[str] = "dpo"
    needs: ClassVar[Needs] = "the train split"

    sft: Any
    dpo: Any

    def detoxify(self, model: HookedModel, data: Sequence[Instance]) -> Detoxified:
        """Train both (or take them from the cache). Raises as they do."""
        with self.sft.detoxify(model, data).applied(model) as base:
            return self.dpo.detoxify(base, data)


def arms(artefact: str, demo: bool, n_layers: int, seed: int = 0, only: Sequence[str] = ()) -> list[Arm]:
    """The rows of an artefact, vanilla first.

    Args:
        demo: take the settings that were chosen on the demo's val split.
        only: names of rows to keep; vanilla stays, with and without S.

    Raises:
        InputError: a name in `only` that the artefact does not have.
    """
    from interp.methods.ablations import dinm_ablations
    from interp.methods.dinm import Dinm

    dinm = Dinm.demo() if demo else Dinm()
    plain, suffixed = Arm("vanilla"), Arm("vanilla + S", suffix=SUFFIX_S1)
    if artefact == "table1":
        found = [plain, suffixed, *(Arm(name, m) for name, m in all_methods(demo).items())]
    elif artefact == "table2":
        names = ("DINM", "wo/SyPrompt", "wo/Constraint", "wo/Location", "wo/Tune")
        ablations = dinm_ablations(dinm, seed)
        found = [plain, *(Arm(name, ablations[name]) for name in names)]  # wo/Tune is vanilla + S
    elif artefact == "table3":
        methods = all_methods(demo)
        chosen = {name: methods[name] for name in ("SFT", "DPO", "Self-Reminder", "DINM")}
        found = [plain, suffixed, *(Arm(name, m) for name, m in chosen.items())]
    elif artefact == "table11":
        found = [plain, Arm("DINM", dinm)]
    elif artefact == "table12":
        ablations = dinm_ablations(dinm, seed)
        second = Arm("vanilla + S2", suffix=SUFFIX_S2)
        found = [
            plain,
            suffixed,
            second,
            *(Arm(f"DINM, {name}", ablations[name]) for name in ("suffix S1", "suffix S2")),
        ]
    elif artefact == "table13":
        layers = dinm_ablations(dinm, seed, range(n_layers))
        found = [
            plain,
            suffixed,
            Arm("DINM", dinm),
            *(Arm(f"layer {i}", layers[f"layer {i}"]) for i in range(n_layers)),
        ]
    else:
        found = [Arm(name) for name in CONVENTIONS]
    check_rows(artefact, only, [a.name for a in found])
    return [a for a in found if not only or a.name in only or a.name.startswith(plain.name)]


def check_rows(artefact: str, only: Sequence[str], names: Sequence[str]) -> None:
    """Raise InputError for a row that is none of the artefact's: they are listed, the nearest is suggested."""
    for name in only:
        if name not in names:
            lower = {n.lower(): n for n in names}
            near = difflib.get_close_matches(name.lower(), lower, n=1, cutoff=0.5)
            hint = f" (did you mean {lower[near[0]]!r}?)" if near else ""
            raise InputError(f"{artefact} has no row {name!r}{hint}; expected some of {', '.join(names)}")


def all_methods(demo: bool) -> dict[str, Method]:
    """Every method by its name in the paper's tables, then the two rivals that the paper does not have."""
    from interp.methods.dinm import Dinm
    from interp.methods.direction import Direction
    from interp.methods.dpo import Dpo
    from interp.methods.ext_sub import ExtSub
    from interp.methods.ft_l import FtL
    from interp.methods.mend import Mend
    from interp.methods.profs import Profs
    from interp.methods.self_reminder import SelfReminder
    from interp.methods.sft import Sft

    def preset(kind: Any) -> Any:
        return kind.demo() if demo and hasattr(kind, "demo") else kind()

    return {
        "SFT": preset(Sft),
        "DPO": DpoOnSft(preset(Sft), preset(Dpo)),
        "Self-Reminder": preset(SelfReminder),
        "FT-L": preset(FtL),
        "Ext-Sub": preset(ExtSub),
        "MEND": preset(Mend),
        "DINM": preset(Dinm),
        "ProFS": preset(Profs),
        "direction ablation": preset(Direction),
    }
