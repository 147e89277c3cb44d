"""DINM, detoxifying with intraoperative neural monitoring (Wang et al. 2024): one matrix, one instance, ten steps.

The toxic layer is located, and its W_V alone is trained to give the safe response to the adversarial prompt, held back
by a constraint on a harmless one: L_total = c_edit * L_e + L_c (Eq. 8-10). The default is the paper's text;
`Dinm.reference()` is what the authors' released code computes, and every difference between the two is one field.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, fields
from typing import Any, ClassVar, Literal, TypeVar, get_args

from torch import Tensor, nn

from interp.edits import Provenance, WeightEdit
from interp.errors import InputError
from interp.locate import PAPER, REFERENCE_LEFT, REFERENCE_RIGHT, Convention
from interp.methods._config import Progress, check, edit_each, layers_of, most_located
from interp.methods._losses import ConstraintOn, Format, constraint_sequence, edit_sequence
from interp.methods._tail import logits_of
from interp.methods._together import logits_of_each, train_together
from interp.methods._training import Direction, Objective, Recipe, Weights, train
from interp.methods.base import SUFFIX_S1, Detoxified, Needs
from interp.models import HookedModel
from interp.records import Instance

P = TypeVar("P", Format, Recipe)


@dataclass(frozen=True, kw_only=True)
class Dinm:
    """Configuration of DINM. The defaults are the paper's; `Dinm.reference()` holds the released code's."""

    name: ClassVar[str] = "dinm"
    needs: ClassVar[Needs] = "one instance"

    # ------------------------------------------------------------------------------------- training
    steps: int = 10
    """T, the number of Adam steps (paper: 10)."""
    lr: float = 5e-4
    """Learning rate (paper: 5e-4 for LLaMA2-7B-Chat and gpt2-xl, 1e-5 for Mistral-7B). Choose it on the val split."""
    c_edit: float = 0.1
    """Weight of L_e in L_total (Eq. 10; paper: 0.1)."""
    weight_decay: float = 0.0
    """Adam's L2 penalty (paper: 0)."""
    betas: tuple[float, float] = (0.9, 0.999)
    """Adam's decay rates (released code: 0.9, 0.999). The optimiser is fresh for each edit."""
    adam_eps: float = 1e-8
    """Adam's epsilon (released code: 1e-8)."""

    # ------------------------------------------------------------------------------------- prompt
    suffix: str = SUFFIX_S1
    """S, appended to every query while editing (paper: S1); "" is the ablation wo/SyPrompt."""
    max_prompt: int = 1000
    """Longest prompt in tokens; more is cut from the left, and told (paper: 1,000)."""
    max_answer: int = 600
    """Longest answer in tokens; more is cut from the right, and told (paper: 600; gpt2-xl 300)."""
    eos: bool = True
    """Supervise also that the safe response ends. The paper does not say; the released code has no EOS in it."""

    # ------------------------------------------------------------------------------------- where
    layer: int | None = None
    """Edit this layer (0-based) instead of the located one: the ablation wo/Location, and any other locator, e.g.
    `interp.mechanism.localise.locate_behaviour(model, val, tokens).toxic_layer`."""
    convention: Convention = PAPER
    """How the toxic layer is located."""
    reuse_first_layer: bool = False
    """Use the layer of the first instance for all (released code, departure 4)."""
    edit_bias: bool = False
    """Train the bias beside W_V where there is one, as in GPT-2 (released code, departure 7)."""

    # ------------------------------------------------------------------------------------- losses
    constrain: bool = True
    """Measure L_c at all; False is the ablation wo/Constraint."""
    constraint_gradient: bool = True
    """L_c takes part in the update. In the released code it does not: it is only logged and added to the total that the
    stop test sees (departure 1)."""
    constraint_direction: Direction = "edited from base"
    """KL(edited || base) as in Eq. 9, or KL(base || edited) as in the released code (departure 2)."""
    constraint_on: ConstraintOn = "next token"
    """Where L_c compares the two models (departure 2).

    "next token": the prediction after [q_cons; S], Eq. 9 read literally.
    "answer": the mean over the tokens of the gold answer, teacher-forced.
    "reference": as the released code, the last len(tok(answer)) positions of prompt and answer, not shifted by one and
    with the BOS counted in the length.
    """
    constraint_every_step: bool = True
    """Measure L_c at every step also where it has no gradient. False looks at it only where the stop test depends on
    it (L_c >= 0, so not while c_edit * L_e alone is above the threshold); the log has None elsewhere, and the delta is
    the same."""
    raw_text: bool = False
    """Join query, S and answer as raw text, with two spaces before the safe response and without chat template
    (released code, departure 3)."""
    labels_alone: bool = False
    """Take as labels the answer tokenised alone, aligned to the end of the sequence: a tokenizer that adds BOS then
    trains the model to emit BOS before the answer (released code, departure 3)."""

    # ------------------------------------------------------------------------------------- stopping
    stop_below: float = 0.0
    """Stop before a step when L_total is below this (released code: 1e-4, departure 10)."""
    norm_constraint: float | None = None
    """Clamp each element of the delta to this size after every step (released code: an option, off by default)."""

    # ------------------------------------------------------------------------------------- how
    fast: bool = True
    """Run what lies below W_V once and only the supervised positions through the vocabulary. False runs the whole model
    at every step; both give the same delta but for float rounding."""

    def __post_init__(self) -> None:
        check(
            self,
            counts=("steps", "max_prompt", "max_answer"),
            positive=("lr",),
            optional=("norm_constraint",),
            not_negative=("c_edit", "weight_decay"),
            choices={"constraint_direction": get_args(Direction), "constraint_on": get_args(ConstraintOn)},
        )

    @classmethod
    def demo(cls) -> Dinm:
        """The paper's settings with the learning rate that `experiments/sweep_sft_dpo_dinm.py` chose on val."""
        return cls(lr=2e-3)

    @classmethod
    def reference(cls, padding: Literal["right", "left"] = "right", **changes: Any) -> Dinm:
        """What the authors' released code computes, for comparison with published numbers.

        Args:
            padding: the side its tokenizer pads on. It enters through locating alone: an edit has one unpadded row.
            changes: fields that differ, e.g. `constraint_gradient=True` to undo one departure.
        """
        fields: dict[str, Any] = {
            "convention": REFERENCE_LEFT if padding == "left" else REFERENCE_RIGHT,
            "reuse_first_layer": True,
            "edit_bias": True,
            "constraint_gradient": False,
            "constraint_direction": "base from edited",
            "constraint_on": "reference",
            "raw_text": True,
            "labels_alone": True,
            "eos": False,
            "stop_below": 1e-4,
        }
        return cls(**{**fields, **changes})

    # ------------------------------------------------------------------------------------- editing
    def detoxify(self, model: HookedModel, data: Instance | Sequence[Instance]) -> Detoxified:
        """One edit from one instance, or from many: then both losses are means over the instances.

        Args:
            model: stays as it is, to the last bit; apply the result with `Detoxified.applied`.
            data: many instances share the layer that most of them locate.

        Returns:
            The edit of W_V of one layer, with provenance; `log` holds `l_edit`, `l_constraint` and `total` before each
            step in nats, and `seconds`.

        Raises:
            InputError: no instances, an empty prompt or response, `layer` out of range, a loss that is not finite.
        """
        instances = [data] if isinstance(data, Instance) else list(data)
        layers = self._layers(model, instances)
        layer = layers[0] if self.reuse_first_layer else most_located(layers)
        return self._edit(model, instances, layer)

    def detoxify_many(
        self, model: HookedModel, instances: Sequence[Instance], progress: Progress | None = None, *, together: int = 1
    ) -> list[Detoxified]:
        """One independent edit for each instance, every one on the model as it is. Layers are located in batches.

        Args:
            progress: called with (edits done, edits in all).
            together: at most so many edits of one layer are trained as one, with equal deltas but for float rounding
                (only with `fast`). On a CPU this gains nothing (experiments/benchmarks/decode.py): the default is 1.

        Raises:
            InputError: as `detoxify`.
        """
        layers = self._layers(model, instances)
        if together > 1 and self.fast:
            found: dict[int, Detoxified] = {}
            for layer in sorted(set(layers)):
                mine = [i for i, own in enumerate(layers) if own == layer]
                for part in (mine[start : start + together] for start in range(0, len(mine), together)):
                    made = self._edit_together(model, [instances[i] for i in part], layer)
                    found |= zip(part, made, strict=True)
                    if progress is not None:
                        progress(len(found), len(instances))
            return [found[i] for i in range(len(instances))]
        return edit_each(lambda instance, layer: self._edit(model, [instance], layer), instances, layers, progress)

    def sequential(self, model: HookedModel, instances: Sequence[Instance]) -> Iterator[Detoxified]:
        """Edits one on top of the other: yields, after each instance, the sum of all edits so far.

        Each sum applies to `model` as it is; between two yields `model` is untouched. A layer is located, and the
        constraint measured, on the model as the edits before have left it. The last one yielded holds the whole.
        Raises as `detoxify`.
        """
        if not instances:
            raise InputError("DINM needs at least one instance, got none")
        done: Detoxified | None = None
        layers: list[int] = []
        for instance in instances:
            before = done.edit if done is not None else None
            if not (layers and self.reuse_first_layer):
                with before.applied(model) if before is not None else nullcontext():
                    layers = self._layers(model, [instance])
            done = self._edit(model, [instance], layers[0], before)
            yield done

    # ------------------------------------------------------------------------------------- inside
    def _layers(self, model: HookedModel, instances: Sequence[Instance]) -> list[int]:
        """The layer to edit for each instance."""
        asked = instances[:1] if self.reuse_first_layer else instances
        limits = {"max_prompt": self.max_prompt, "max_answer": self.max_answer}
        layers = layers_of(model, asked, self.layer, self.convention, **limits, method="DINM")
        return layers * (len(instances) if self.reuse_first_layer else 1)

    def _edit(
        self, model: HookedModel, instances: Sequence[Instance], layer: int, before: WeightEdit | None = None
    ) -> Detoxified:
        """Train one layer, on the model with `before` in it; the result is relative to the model without."""
        started, cut = time.perf_counter(), model.truncated
        vanilla = {name: p.detach().float().cpu() for name, p in self._edited(model, layer).items()}
        with before.applied(model) if before is not None else nullcontext():
            edited = self._edited(model, layer)
            trained, log = train(
                {name.rpartition(".")[2]: p.detach().float() for name, p in edited.items()},
                [self._objective(model, layer, instance) for instance in instances],
                self._part(Recipe),
                _named(instances),
            )
        record = {**log, "seconds": time.perf_counter() - started, "truncated": model.truncated - cut}
        return self._result(model, instances, layer, before, vanilla, trained, record)

    def _edit_together(self, model: HookedModel, instances: Sequence[Instance], layer: int) -> list[Detoxified]:
        """An edit of one layer for each instance, trained as one."""
        started, cut, n = time.perf_counter(), model.truncated, len(instances)
        how, recipe = self._part(Format), self._part(Recipe)
        edited = self._edited(model, layer)
        sequences = [edit_sequence(model, i, how) for i in instances]
        held = [constraint_sequence(model, i, how) for i in instances] if self.constrain else []
        found = train_together(
            {name.rpartition(".")[2]: p.detach().float() for name, p in edited.items()},
            logits_of_each(model, layer, sequences),
            logits_of_each(model, layer, held) if held else None,
            [Objective(lambda _: [], sequence.targets, None, recipe) for sequence in sequences],
            recipe,
            [_named([i]) for i in instances],
        )
        vanilla = {name: p.detach().float().cpu() for name, p in edited.items()}
        took = {"seconds": (time.perf_counter() - started) / n, "truncated": (model.truncated - cut) / n}
        return [
            self._result(model, [instance], layer, None, vanilla, trained, {**log, **took})
            for instance, (trained, log) in zip(instances, found, strict=True)
        ]

    def _result(
        self,
        model: HookedModel,
        instances: Sequence[Instance],
        layer: int,
        before: WeightEdit | None,
        vanilla: dict[str, Tensor],
        trained: Weights,
        record: dict[str, Any],
    ) -> Detoxified:
        """Trained weights as an edit relative to `vanilla`, on top of what was there `before`."""
        deltas = dict(before.deltas) if before is not None else {}
        deltas |= {name: trained[name.rpartition(".")[2]].cpu() - vanilla[name] for name in vanilla}
        provenance = Provenance(
            method=self.name,
            model=model.source,
            weight_hash=model.weight_hash(),
            instance_ids=(*(before.provenance.instance_ids if before else ()), *(i.id for i in instances)),
            config=asdict(self),
            layer=layer if len(deltas) == len(vanilla) else None,
        )
        return Detoxified(self.name, WeightEdit(deltas, provenance), suffix=self.suffix, layer=layer, log=record)

    def _objective(self, model: HookedModel, layer: int, instance: Instance) -> Objective:
        how, recipe = self._part(Format), self._part(Recipe)
        edit = edit_sequence(model, instance, how)
        if not self.constrain:
            return Objective(logits_of(model, layer, [edit], self.fast), edit.targets, None, recipe)
        constraint = constraint_sequence(model, instance, how)
        if self.constraint_gradient:
            return Objective(logits_of(model, layer, [edit, constraint], self.fast), edit.targets, None, recipe)
        watched = logits_of(model, layer, [constraint], self.fast)
        return Objective(logits_of(model, layer, [edit], self.fast), edit.targets, watched, recipe)

    def _edited(self, model: HookedModel, layer: int) -> dict[str, nn.Parameter]:
        """The parameters under training by their names in the state dict: W_V, and its bias where asked for."""
        name, bias = model.value_name(layer), getattr(model.value_module(layer), "bias", None)
        found = {name: model.value_weight(layer)}
        if self.edit_bias and bias is not None:
            found[name.removesuffix("weight") + "bias"] = bias
        return found

    def _part(self, kind: type[P]) -> P:
        """The fields of the configuration that another module needs."""
        return kind(**{f.name: getattr(self, f.name) for f in fields(kind)})  # type: ignore[arg-type]


def _named(instances: Sequence[Instance]) -> str:
    return f"DINM on instance {', '.join(str(i.id) for i in instances)}"
