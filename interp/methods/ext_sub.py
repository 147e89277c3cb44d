"""Ext-Sub, extraction before subtraction (Hu et al. 2023, "Separate the Wheat from the Chaff"), a paper's baseline.

Two LoRA modules are trained on the same model: an expert, and an anti-expert on unsafe responses. The anti-expert's
update W- is split, row by row, into its part along the direction it shares with the expert's W+ (what both had to
learn) and the rest (the deficiency), and only the rest is subtracted:

    c = unit(unit(w+) + unit(w-)),   w = w+ - alpha * (w- - (w- . c) c)     for the rows of W = B A * lora_alpha / rank

Both trainings are TRL's SFT through PEFT, cached like those of SFT.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Float
from safetensors.torch import load_file
from torch import Tensor

from interp.edits import Provenance, WeightEdit
from interp.errors import InputError
from interp.methods import _config
from interp.methods._linears import as_weight
from interp.methods._trl import Lora, Progress, TrainerParts, Training, check, pick, train
from interp.methods.base import Detoxified, Needs
from interp.models import HookedModel
from interp.records import Instance
from interp.runs import read_json


@dataclass(frozen=True, kw_only=True)
class _Module(Training):
    """One of the two trainings: what its cache key holds besides the data."""

    targets: str | tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class ExtSub(Training):
    """Configuration of Ext-Sub; the training of both modules is described by the same fields."""

    name: ClassVar[str] = "ext-sub"
    needs: ClassVar[Needs] = "the train split"

    lr: float = 2e-5
    """Peak learning rate of both trainings (released script: 2e-5)."""
    lora: Lora | None = Lora(rank=8, alpha=16.0, save="adapter")  # noqa: RUF009 (frozen)
    """Rank and scale of both modules. The adapters are kept in the cache, whatever `save` says."""
    targets: str | tuple[str, ...] = "all-linear"
    """Names of the linear modules that get one, as PEFT takes them (("q_proj", "v_proj")), or "all-linear". The edit
    holds a dense float32 delta for each, so choose fewer where that does not fit into memory."""
    alpha: float = 1.0
    """How much of the deficiency is subtracted (released code: 1)."""
    common: Literal["bisector", "expert"] = "bisector"
    """The direction a row shares: the unit sum of both unit rows (paper and released code), or the expert's row."""
    expert_on: Literal["safe responses", "knowledge"] = "safe responses"
    """What the expert is trained on: (X, Y_safe), or the instances' harmless knowledge pairs, which are nearer to the
    instruction data of the original (Alpaca)."""
    keep_expert: bool = True
    """False leaves w+ out of the result: only the deficiency is taken from the model."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.lora is None:
            raise InputError("Ext-Sub operates on LoRA modules: lora must not be None")
        choices = {"common": ("bisector", "expert"), "expert_on": ("safe responses", "knowledge")}
        _config.check(self, not_negative=("alpha",), choices=choices)
        if not self.targets:
            raise InputError('targets must name modules or be "all-linear", got none')

    @classmethod
    def demo(cls) -> ExtSub:
        """The settings for the demo that `experiments/sweep_rivals.py` chose on val."""
        return cls(lr=1e-3, steps=20, batch_size=16, alpha=0.5)

    def detoxify(
        self, model: HookedModel, instances: Sequence[Instance], progress: Progress | None = None
    ) -> Detoxified:
        """Train expert and anti-expert, and subtract from the one what the other has of its own.

        Args:
            model: stays as it is.
            instances: the training split; of them a seeded random `steps * batch_size` are used, the same for both.
            progress: called with (steps done, steps in all), counted over both trainings.

        Returns:
            An edit of all targeted matrices. `log`: "expert" and "anti_expert" (the trainings' logs), "shared" (by
            matrix, the part of the anti-expert's squared norm that lies along the common direction).

        Raises:
            InputError: no instances, an empty response, no such module, or a loss that is not finite.
        """
        check(self.name, model, self, instances)
        chosen = pick(instances, self.n_examples, self.seed)
        good = [(i.adversarial_prompt, i.safe_generation) for i in chosen]
        if self.expert_on == "knowledge":
            good = [(i.knowledge.prompt, i.knowledge.answer) for i in chosen]
        bad = [(i.adversarial_prompt, i.unsafe_generation) for i in chosen]
        made = [
            self._train(model, side, pairs, chosen, _part(progress, half))
            for half, (side, pairs) in enumerate((("expert", good), ("anti-expert", bad)))
        ]
        expert, anti = (updates(model, _folder(m)) for m in made)
        deltas, shared = {}, {}
        for name, plus in expert.items():
            rest = deficiency(plus, anti[name], self.common)
            combined = (plus if self.keep_expert else torch.zeros_like(plus)) - self.alpha * rest
            deltas[name] = as_weight(model, name, combined.T).contiguous()
            size = float(anti[name].norm()) ** 2
            shared[name] = 1 - float(rest.norm()) ** 2 / size if size > 0 else 0.0
        provenance = Provenance(
            method=self.name,
            model=model.source,
            weight_hash=model.weight_hash(),
            instance_ids=tuple(sorted(i.id for i in chosen)),
            config=asdict(self),
            layer=None,
        )
        log = {"expert": made[0].log, "anti_expert": made[1].log, "shared": shared}
        return Detoxified(self.name, WeightEdit(deltas, provenance), suffix=self.suffix, log=log)

    # ------------------------------------------------------------------------------------- inside
    def _train(
        self,
        model: HookedModel,
        side: str,
        pairs: Sequence[tuple[str, str]],
        chosen: Sequence[Instance],
        progress: Progress | None,
    ) -> Detoxified:
        """One module, as an adapter in the cache."""
        rows = []
        for instance, (query, answer) in zip(chosen, pairs, strict=True):
            if not answer.strip():
                raise InputError(f"instance {instance.id} has an empty response for the {side} to learn")
            head, tail = model.encode_pair(query, answer, self.suffix, self.max_prompt, self.max_answer, eos=True)
            rows.append({"input_ids": [*head, *tail], "labels": [-100] * len(head) + list(tail)})
        own = {f.name: getattr(self, f.name) for f in fields(Training)}
        assert self.lora is not None
        lora = Lora(self.lora.rank, self.lora.alpha, self.lora.dropout, "adapter")
        config = _Module(**{**own, "lora": lora}, targets=self.targets)
        ids = sorted(i.id for i in chosen)
        return train(f"{self.name}-{side}", model, config, rows, self._build, instance_ids=ids, progress=progress)

    def _build(self, parts: TrainerParts) -> Any:
        # trl takes seconds to import, and an adapter in the cache needs none of it.
        from datasets import Dataset
        from trl import SFTConfig, SFTTrainer  # pyright: ignore[reportPrivateImportUsage]

        parts.peft_config.target_modules = self.targets if isinstance(self.targets, str) else set(self.targets)
        try:
            return SFTTrainer(
                model=parts.model,
                args=SFTConfig(**parts.arguments, dataset_kwargs={"skip_prepare_dataset": True}),
                train_dataset=Dataset.from_list(parts.rows),
                processing_class=parts.tokenizer,
                peft_config=parts.peft_config,
            )
        except ValueError as error:
            if "arget modules" not in str(error):
                raise
            raise InputError(f"no linear modules {self.targets} to put LoRA on: {error}") from error


def updates(model: HookedModel, folder: Path) -> dict[str, Float[Tensor, "d_out d_in"]]:
    """The dense update B A * alpha / rank of each matrix of a PEFT adapter, float32, by its state-dict name."""
    config = read_json(folder / "adapter_config.json")
    tensors = load_file(folder / "adapter_model.safetensors")
    found = {}
    for key, a in tensors.items():
        if not key.endswith(".lora_A.weight"):
            continue
        b = tensors[key.replace(".lora_A.", ".lora_B.")]
        name = key.removeprefix("base_model.model.").replace(".lora_A.weight", ".weight")
        found[name] = (b.double() @ a.double() * (config["lora_alpha"] / config["r"])).float()
        model.hf.get_parameter(name)
    return found


def deficiency(
    plus: Float[Tensor, "d_out d_in"],
    minus: Float[Tensor, "d_out d_in"],
    common: Literal["bisector", "expert"] = "bisector",
) -> Float[Tensor, "d_out d_in"]:
    """The anti-expert's rows without their part along the common direction (the paper's extraction).

    Where there is no such direction (opposite rows, or a row of zeros in the expert) nothing is kept back.
    """
    direction = _unit(plus.double())
    if common == "bisector":
        direction = _unit(direction + _unit(minus.double()))
    along = (minus.double() * direction).sum(-1, keepdim=True)
    return (minus.double() - along * direction).float()


def _unit(rows: Float[Tensor, "row width"]) -> Float[Tensor, "row width"]:
    length = rows.norm(dim=-1, keepdim=True)
    return torch.where(length > 1e-12, rows / length.clamp(min=1e-12), torch.zeros_like(rows))


def _folder(made: Detoxified) -> Path:
    assert made.checkpoint is not None
    return made.checkpoint


def _part(progress: Progress | None, half: int) -> Progress | None:
    """Progress of one of two trainings as that of both."""
    return None if progress is None else lambda done, total: progress(half * total + done, 2 * total)
