"""Supervised fine-tuning on (X, Y_safe), the paper's first baseline (Sec. 5), with TRL's `SFTTrainer`.

Unlike DINM it uses the whole training split and moves every layer. The loss is on the answer and its EOS only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from interp.errors import InputError
from interp.methods._trl import Progress, TrainerParts, Training, check, pick, train
from interp.methods.base import Detoxified, Needs
from interp.models import HookedModel
from interp.records import BenignRequest, Instance, Knowledge, Question


@dataclass(frozen=True, kw_only=True)
class Sft(Training):
    """Configuration of SFT. `Sft.demo()` holds the values chosen on the demo's val split."""

    name: ClassVar[str] = "sft"
    needs: ClassVar[Needs] = "the train split"

    lr: float = 2e-5
    """Peak learning rate (TRL's default for SFT; the paper gives none)."""
    benign_share: float = 0.0
    """Share of the training examples that are benign requests with their answers, against over-refusal; 0 in the
    paper."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0.0 <= self.benign_share < 1.0:
            raise InputError(f"benign_share must be at least 0 and below 1, got {self.benign_share}")

    @classmethod
    def demo(cls) -> Sft:
        """The settings for the demo that `experiments/sweep_sft_dpo_dinm.py` chose on val."""
        return cls(lr=5e-5, steps=25, batch_size=16)

    def detoxify(
        self,
        model: HookedModel,
        instances: Sequence[Instance],
        benign: Sequence[BenignRequest | Question | Knowledge] = (),
        progress: Progress | None = None,
    ) -> Detoxified:
        """Train a copy of `model` to give the safe response to each adversarial prompt.

        Args:
            model: stays as it is.
            instances: the training split; of them a seeded random `steps * batch_size` are used.
            benign: where `benign_share` examples come from; by default the knowledge pairs of the instances.
            progress: called with (steps done, steps in all).

        Returns:
            A checkpoint in the cache; `log` holds losses, seconds and where it came from.

        Raises:
            InputError: no instances, or a loss that is not finite.
        """
        check(self.name, model, self, instances)
        chosen = pick(instances, max(1, round(self.n_examples * (1 - self.benign_share))), self.seed)
        pairs = self._benign_pairs(instances, benign, round(len(chosen) * self.benign_share / (1 - self.benign_share)))
        rows = [self._row(model, i.adversarial_prompt, i.safe_generation) for i in chosen]
        rows += [self._row(model, prompt, answer) for prompt, answer in pairs]
        return train(self.name, model, self, rows, _build, instance_ids=sorted(i.id for i in chosen), progress=progress)

    def _benign_pairs(
        self, instances: Sequence[Instance], benign: Sequence[BenignRequest | Question | Knowledge], n: int
    ) -> list[tuple[str, str]]:
        """`n` benign (prompt, answer) pairs, repeated only where there are fewer."""
        source = benign or [i.knowledge for i in instances]
        pairs = list(dict.fromkeys((b.prompt, b.answers[0] if isinstance(b, Question) else b.answer) for b in source))
        pairs = pick(pairs, len(pairs), self.seed)
        return [pairs[i % len(pairs)] for i in range(n)]

    def _row(self, model: HookedModel, query: str, answer: str) -> dict[str, list[int]]:
        prompt_ids, answer_ids = model.encode_pair(
            query, answer, suffix=self.suffix, max_prompt=self.max_prompt, max_answer=self.max_answer, eos=True
        )
        return {"input_ids": [*prompt_ids, *answer_ids], "labels": [-100] * len(prompt_ids) + list(answer_ids)}


def _build(parts: TrainerParts) -> Any:
    # trl takes seconds to import, and a checkpoint in the cache needs none of it.
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer  # pyright: ignore[reportPrivateImportUsage]

    return SFTTrainer(
        model=parts.model,
        args=SFTConfig(**parts.arguments, dataset_kwargs={"skip_prepare_dataset": True}),
        train_dataset=Dataset.from_list(parts.rows),
        processing_class=parts.tokenizer,
        peft_config=parts.peft_config,
    )
