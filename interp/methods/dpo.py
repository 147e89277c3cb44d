"""Direct preference optimisation (Rafailov et al. 2023), Y_safe chosen and Y_unsafe rejected, with TRL's `DPOTrainer`.

The paper (Sec. 5) runs it on top of SFT: pass the SFT model. Passed the vanilla model, it is DPO alone. The reference
policy is in either case the model that was passed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from interp.errors import InputError
from interp.methods._trl import Progress, TrainerParts, Training, check, pick, train
from interp.methods.base import Detoxified, Needs
from interp.models import HookedModel
from interp.records import Instance


@dataclass(frozen=True, kw_only=True)
class Dpo(Training):
    """Configuration of DPO. `Dpo.demo()` holds the values chosen on the demo's val split."""

    name: ClassVar[str] = "dpo"
    needs: ClassVar[Needs] = "the train split"

    lr: float = 1e-6
    """Peak learning rate (TRL's default for DPO; the paper gives none)."""
    beta: float = 0.1
    """How strongly the policy is held to the reference."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.beta > 0:
            raise InputError(f"beta must be positive, got {self.beta}")

    @classmethod
    def demo(cls) -> Dpo:
        """The settings for the demo, on its SFT model, that `experiments/sweep_sft_dpo_dinm.py` chose on val."""
        return cls(lr=2e-5, steps=15, batch_size=8)

    def detoxify(
        self, model: HookedModel, instances: Sequence[Instance], progress: Progress | None = None
    ) -> Detoxified:
        """Train a copy of `model` to prefer the safe over the unsafe response to each adversarial prompt.

        Args:
            model: the SFT model as in the paper, or any other; it stays as it is and is the reference policy.
            instances: the training split; of them a seeded random `steps * batch_size` are used.
            progress: called with (steps done, steps in all).

        Returns:
            A checkpoint in the cache; `log` holds losses, seconds and where it came from.

        Raises:
            InputError: no instances, or a loss that is not finite.
        """
        check(self.name, model, self, instances)
        chosen = pick(instances, self.n_examples, self.seed)
        rows = [self._row(model, i) for i in chosen]
        return train(
            self.name, model, self, rows, self._build, instance_ids=sorted(i.id for i in chosen), progress=progress
        )

    def _row(self, model: HookedModel, instance: Instance) -> dict[str, list[int]]:
        prompts, answers = zip(
            *(
                model.encode_pair(
                    instance.adversarial_prompt,
                    answer,
                    suffix=self.suffix,
                    max_prompt=self.max_prompt,
                    max_answer=self.max_answer,
                    eos=True,
                )
                for answer in (instance.safe_generation, instance.unsafe_generation)
            ),
            strict=True,
        )
        # The longer answer may have cost the prompt some tokens; the two answers must follow the same prompt.
        prompt = min(prompts, key=len)
        return {"prompt_ids": list(prompt), "chosen_ids": list(answers[0]), "rejected_ids": list(answers[1])}

    def _build(self, parts: TrainerParts) -> Any:
        # trl takes seconds to import, and a checkpoint in the cache needs none of it.
        from datasets import Dataset
        from trl import DPOConfig, DPOTrainer  # pyright: ignore[reportPrivateImportUsage]

        class TokenDpoTrainer(DPOTrainer):
            """TRL tokenises DPO's texts itself and has no switch against it: keep the ids as they are."""

            def _prepare_dataset(self, dataset: Dataset, *args: Any, **kwargs: Any) -> Dataset:  # type: ignore[override]
                return dataset

        return TokenDpoTrainer(
            model=parts.model,
            # With LoRA the reference is the same model with its adapters switched off.
            ref_model=None if parts.peft_config is not None else parts.reference(),
            args=DPOConfig(**parts.arguments, beta=self.beta),
            train_dataset=Dataset.from_list(parts.rows),
            processing_class=parts.tokenizer,
            peft_config=parts.peft_config,
        )
