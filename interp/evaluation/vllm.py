"""Answers by vLLM (extra `vllm`): vanilla plus an edit, exported as a checkpoint and asked there.

For models that vLLM serves faster than this package decodes them. Nothing is measured inside: vLLM only answers,
greedily as everywhere, and its answers go through `respond`, judges and tables like any other model's.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from interp.edits import WeightEdit
from interp.errors import InputError
from interp.models import Generation, HookedModel

MISSING = "vLLM is not installed: pip install 'interp[vllm]'"


def available() -> bool:
    """Whether the extra `vllm` is installed."""
    return importlib.util.find_spec("vllm") is not None


class VllmModel:
    """A model that is asked through vLLM; `interp.evaluation.respond` takes it in the place of a `HookedModel`."""

    def __init__(self, model: HookedModel, folder: str | Path, edit: WeightEdit | None = None, **options: Any) -> None:
        """Export the model, with the edit in it, and open the checkpoint in vLLM.

        Args:
            model: stays as it is; formats the prompts and says which tokens end an answer.
            folder: where the checkpoint goes.
            edit: put into the exported weights.
            options: of `vllm.LLM`, e.g. `tensor_parallel_size=2`, or a `max_model_len` below the model's context where
                its keys and values would not fit. On a GPU `model` stays where it is: leave room for it by
                `gpu_memory_utilization`, or move it away.

        Raises:
            InputError: vLLM is not installed, an edit of another model, or the folder cannot be written.
        """
        if not available():
            raise InputError(MISSING)
        if edit is None:
            model.save(folder)
        else:
            edit.merge(model, folder)
        from vllm import LLM  # type: ignore[import-not-found]

        self.model = model
        self.name = model.name if edit is None else f"{model.name}+{edit.provenance.method}"
        asked = {"dtype": str(model.dtype).removeprefix("torch."), "max_model_len": model.context, **options}
        self.context = int(asked["max_model_len"])
        """Positions of a prompt and its answer together."""
        self.engine = LLM(model=str(folder), **asked)

    def format_prompt(self, query: str, suffix: str = "", prefix: str = "") -> str:
        """As `HookedModel.format_prompt`."""
        return self.model.format_prompt(query, suffix, prefix)

    def generate(
        self,
        prompts: Sequence[str],
        *,
        max_new_tokens: int = 64,
        batch_size: int = 32,
        progress: Callable[[int, int], None] | None = None,
    ) -> list[Generation]:
        """Greedy answers to formatted prompts, in order; `batch_size` is vLLM's own business and not used.

        vLLM is given the token ids that this package would read, cut from the left where they leave no room.

        Raises:
            InputError: `max_new_tokens` does not fit the context, or a prompt has no tokens.
        """
        from vllm import SamplingParams  # type: ignore[import-not-found]

        if not 1 <= max_new_tokens < self.context:
            raise InputError(f"expected max_new_tokens in 1..{self.context - 1}, got {max_new_tokens}")
        tokens = self.model.tokenize(prompts, max_length=self.context - max_new_tokens)
        how = SamplingParams(
            temperature=0.0, max_tokens=max_new_tokens, stop_token_ids=list(self.model.stop_ids), ignore_eos=False
        )
        asked = [{"prompt_token_ids": tokens.row(i)} for i in range(len(tokens))]
        answers = [self._generation(out.outputs[0]) for out in self.engine.generate(asked, how, use_tqdm=False)]
        if progress is not None:
            progress(len(answers), len(prompts))
        return answers

    def _generation(self, output: Any) -> Generation:
        ids, stops = list(output.token_ids), set(self.model.stop_ids)
        end = next((i for i, token in enumerate(ids) if token in stops), None)
        kept = ids if end is None else ids[:end]
        text = self.model.tokenizer.decode(kept, skip_special_tokens=True).strip()
        return Generation(text, len(kept), output.finish_reason == "stop", tuple(kept))
