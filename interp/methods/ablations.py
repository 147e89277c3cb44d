"""DINM's ablations (paper, Tables 2, 12 and 13) as methods: each leaves out or exchanges one part of a DINM.

The one file of this folder that builds on another method's. What each ablation is asked with afterwards is in its own
`Detoxified.suffix`: without S where the ablation has none.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from interp.errors import InputError
from interp.methods._config import Progress, edit_each, layers_of
from interp.methods.base import SUFFIX_S1, SUFFIX_S2, Detoxified, Method, Needs
from interp.methods.dinm import Dinm
from interp.models import HookedModel
from interp.records import Instance


def dinm_ablations(base: Dinm, seed: int = 0, layers: Sequence[int] = ()) -> dict[str, Method]:
    """Every ablation of `base` by the name that the paper's tables give it; the first entry is `base` itself.

    Args:
        base: the DINM that is whole, e.g. `Dinm()` or `Dinm.demo()`.
        seed: of the random layer of wo/Location.
        layers: 0-based; one "layer l" each (Table 13 has the located one against 0, 14 and 30 of Mistral's 32).

    Raises:
        InputError: `base` lacks what an ablation leaves out (S, the constraint, or locating): it would be no ablation.
    """
    missing = [
        what
        for what, there in (("S", base.suffix), ("the constraint", base.constrain), ("locating", base.layer is None))
        if not there
    ]
    if missing:
        raise InputError(f"expected a whole DINM to ablate, got one without {' and '.join(missing)}")
    return {
        "DINM": base,
        "wo/SyPrompt": replace(base, suffix=""),
        "wo/Constraint": replace(base, constrain=False),
        "wo/Location": RandomLayer(base=base, seed=seed),
        "wo/Tune": SuffixAlone(suffix=base.suffix),
        "suffix S1": replace(base, suffix=SUFFIX_S1),
        "suffix S2": replace(base, suffix=SUFFIX_S2),
        **{f"layer {layer}": replace(base, layer=layer) for layer in layers},
    }


@dataclass(frozen=True, kw_only=True)
class RandomLayer:
    """wo/Location: DINM on a random layer other than the located one, drawn anew for each instance."""

    name: ClassVar[str] = "dinm-wo-location"
    needs: ClassVar[Needs] = "one instance"

    base: Dinm
    """The DINM whose layer is exchanged."""
    seed: int = 0
    """Of the draw. An instance gets the same layer whatever other instances there are."""

    def detoxify(self, model: HookedModel, data: Instance | Sequence[Instance]) -> Detoxified:
        """As `Dinm.detoxify`, in the drawn layer; of many instances the first one's draw, off the layer most locate.

        `log` holds `located` and `layer_seed` besides.

        Raises:
            InputError: a model with one layer only; else as `Dinm.detoxify`.
        """
        instances = [data] if isinstance(data, Instance) else list(data)
        located = self._located(model, instances)
        return self._edit(model, data, instances[0].id, max(sorted(set(located)), key=located.count))

    def detoxify_many(
        self, model: HookedModel, instances: Sequence[Instance], progress: Progress | None = None
    ) -> list[Detoxified]:
        """One independent edit for each instance. Raises as `detoxify`; `progress` is called with (done, in all)."""
        located = self._located(model, instances)
        return edit_each(lambda one, layer: self._edit(model, one, one.id, layer), instances, located, progress)

    def _located(self, model: HookedModel, instances: Sequence[Instance]) -> list[int]:
        if model.n_layers < 2:
            raise InputError(f"wo/Location needs a model of at least two layers, {model.name} has {model.n_layers}")
        limits = {"max_prompt": self.base.max_prompt, "max_answer": self.base.max_answer}
        return layers_of(model, instances, None, self.base.convention, **limits, method="DINM")

    def _edit(self, model: HookedModel, data: Any, number: int, located: int) -> Detoxified:
        others = [layer for layer in range(model.n_layers) if layer != located]
        layer = random.Random(f"wo/Location {self.seed} {number}").choice(others)
        edited = replace(self.base, layer=layer).detoxify(model, data)
        return replace(edited, method=self.name, log={**edited.log, "located": located, "layer_seed": self.seed})


@dataclass(frozen=True, kw_only=True)
class SuffixAlone:
    """wo/Tune: S after every query, and no edit."""

    name: ClassVar[str] = "dinm-wo-tune"
    needs: ClassVar[Needs] = "nothing"

    suffix: str = SUFFIX_S1
    """S."""

    def detoxify(self, model: HookedModel, data: Any = None) -> Detoxified:
        """S as a `Detoxified` without edit; model and data are not looked at."""
        return Detoxified(self.name, suffix=self.suffix)
