"""FT-L, constrained fine-tuning of one layer's MLP on one instance (Meng et al. 2022), a baseline of the paper.

Adam on -log P(Y_safe | X); after every step each element of the change is clamped to +-epsilon (an L_inf ball, after
Zhu et al. 2020). It has no constraint on other prompts and, by default, no suffix S. Where the sources differ (the ROME
paper, its code, what the paper runs) there is one field each.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import ClassVar, Literal

from interp.edits import Provenance, WeightEdit
from interp.locate import PAPER, Convention
from interp.methods._config import Progress, check, edit_each, layers_of, most_located
from interp.methods._linears import forward_of, mlp_names
from interp.methods._losses import Format, Supervised, edit_sequence
from interp.methods._tail import Logits, logits_of
from interp.methods._training import Objective, Recipe, train
from interp.methods.base import Detoxified, Needs
from interp.models import HookedModel
from interp.records import Instance

Matrices = Literal["value", "mlp"]
Likelihood = Literal["answer", "prompt end"]


@dataclass(frozen=True, kw_only=True)
class FtL:
    """Configuration of FT-L. Defaults are those of the ROME code for its constrained run, as far as they carry over."""

    name: ClassVar[str] = "ft-l"
    needs: ClassVar[Needs] = "one instance"

    # ------------------------------------------------------------------------------------- training
    steps: int = 25
    """Adam steps at most (ROME code: 25)."""
    lr: float = 5e-4
    """Learning rate (ROME code: 5e-4)."""
    norm_constraint: float | None = 5e-4
    """Epsilon of the L_inf ball around the old weights, clamped after every step; None is plain FT. The size depends on
    the model: of the order of the elements of its matrices times a percent. Choose it on the val split."""
    stop_below: float = 1e-2
    """Stop before a step when the loss is below this, in nats (ROME code: 1e-2)."""
    weight_decay: float = 0.0
    """Adam's L2 penalty (ROME code: 0)."""
    likelihood: Likelihood = "answer"
    """Where the answer's tokens are supervised.

    "answer": each after the ones before it, teacher-forced, the mean over them.
    "prompt end": as in the ROME code, all of them at the prediction after the prompt; made for answers of one token, on
    longer ones it teaches a bag of words.
    """

    # ------------------------------------------------------------------------------------- where
    layer: int | None = None
    """Edit this layer (0-based; the ROME code fixes one per model); None: the located one of each instance (Eq. 6)."""
    convention: Convention = PAPER
    """How the layer is located where it is not fixed."""
    matrices: Matrices = "value"
    """"value": W_V alone, as the ROME code. "mlp": every matrix of the layer's MLP."""
    edit_bias: bool = False
    """Train the biases beside these matrices, where there are any, as the ROME code does on GPT-2."""

    # ------------------------------------------------------------------------------------- prompt
    suffix: str = ""
    """S, appended to the query while editing; the paper's FT-L has none."""
    max_prompt: int = 1000
    """Longest prompt in tokens; more is cut from the left, and told."""
    max_answer: int = 600
    """Longest answer in tokens; more is cut from the right, and told."""
    eos: bool = True
    """Supervise also that the safe response ends, as for DINM here; the ROME code has no EOS in it."""

    # ------------------------------------------------------------------------------------- how
    fast: bool = True
    """Run what lies below the trained matrices once. False runs the whole model at every step."""

    def __post_init__(self) -> None:
        check(
            self,
            counts=("steps", "max_prompt", "max_answer"),
            positive=("lr",),
            optional=("norm_constraint",),
            not_negative=("weight_decay", "stop_below"),
            choices={"matrices": ("value", "mlp"), "likelihood": ("answer", "prompt end")},
        )

    @classmethod
    def demo(cls) -> FtL:
        """The epsilon for the demo that `experiments/sweep_rivals.py` chose on val, with a rate that can reach it."""
        return cls(norm_constraint=2e-2, lr=2e-3)

    def detoxify(self, model: HookedModel, data: Instance | Sequence[Instance]) -> Detoxified:
        """One edit from one instance, or from many: then the loss is the mean over the instances.

        Args:
            model: stays as it is, to the last bit.
            data: many instances share the layer that most of them locate.

        Returns:
            The edit of one layer's matrices; `log` holds `l_edit` before each step in nats, and `seconds`.

        Raises:
            InputError: no instances, an empty prompt or response, `layer` out of range, a loss that is not finite.
        """
        instances = [data] if isinstance(data, Instance) else list(data)
        return self._edit(model, instances, most_located(self._layers(model, instances)))

    def detoxify_many(
        self, model: HookedModel, instances: Sequence[Instance], progress: Progress | None = None
    ) -> list[Detoxified]:
        """One independent edit for each instance, every one on the model as it is. Layers are located in batches.

        Raises as `detoxify`. `progress` is called with (edits done, edits in all).
        """
        layers = self._layers(model, instances)
        return edit_each(lambda instance, layer: self._edit(model, [instance], layer), instances, layers, progress)

    # ------------------------------------------------------------------------------------- inside
    def _layers(self, model: HookedModel, instances: Sequence[Instance]) -> list[int]:
        limits = {"max_prompt": self.max_prompt, "max_answer": self.max_answer}
        return layers_of(model, instances, self.layer, self.convention, **limits, method="FT-L")

    def _edit(self, model: HookedModel, instances: Sequence[Instance], layer: int) -> Detoxified:
        started, cut = time.perf_counter(), model.truncated
        names = self._names(model, layer)
        old = {name: model.hf.get_parameter(name).detach().float() for name in names}
        trained, log = train(
            old,
            [self._objective(model, layer, instance) for instance in instances],
            self._recipe,
            f"FT-L on instance {', '.join(str(i.id) for i in instances)}",
        )
        provenance = Provenance(
            method=self.name,
            model=model.source,
            weight_hash=model.weight_hash(),
            instance_ids=tuple(i.id for i in instances),
            config=asdict(self),
            layer=layer,
        )
        record = {
            "l_edit": log["l_edit"],
            "seconds": time.perf_counter() - started,
            "truncated": model.truncated - cut,
        }
        edit = WeightEdit.between(old, trained, provenance)
        return Detoxified(self.name, edit, suffix=self.suffix, layer=layer, log=record)

    def _names(self, model: HookedModel, layer: int) -> list[str]:
        """State-dict names of what is trained."""
        value = model.value_name(layer)
        names = mlp_names(model, layer, self.edit_bias)
        own = value.removesuffix("weight")
        return names if self.matrices == "mlp" else [name for name in names if name.startswith(own)]

    def _objective(self, model: HookedModel, layer: int, instance: Instance) -> Objective:
        how = Format(
            suffix=self.suffix,
            max_prompt=self.max_prompt,
            max_answer=self.max_answer,
            eos=self.eos,
            raw_text=False,
            labels_alone=False,
            constraint_on="next token",
        )
        sequence = edit_sequence(model, instance, how)
        targets = sequence.targets
        if self.likelihood == "prompt end":
            first = sequence.positions[0]
            sequence = Supervised(sequence.ids[: first + 1], (first,))
        losses = self._logits(model, layer, sequence)
        if self.likelihood == "answer":
            return Objective(losses, targets, None, self._recipe)
        return Objective(lambda w: [x.expand(len(targets), -1) for x in losses(w)], targets, None, self._recipe)

    def _logits(self, model: HookedModel, layer: int, sequence: Supervised) -> Logits:
        """The logits given other weights, by the shortest way there is."""
        if self.matrices == "value":
            way = logits_of(model, layer, [sequence], self.fast)
            return lambda weights: way({name.rpartition(".")[2]: w for name, w in weights.items()})
        return forward_of(model, layer if self.fast else 0, [sequence])

    @property
    def _recipe(self) -> Recipe:
        own = {f.name: getattr(self, f.name) for f in fields(Recipe) if hasattr(self, f.name)}
        fixed = {"c_edit": 1.0, "betas": (0.9, 0.999), "adam_eps": 1e-8, "constraint_gradient": True}
        return Recipe(**own, **fixed, constraint_direction="edited from base", constraint_every_step=True)
