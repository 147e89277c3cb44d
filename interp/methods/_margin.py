"""The refusal margin of a prompt: log-odds of an answer's first token that refuses over one that complies, in nats."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from interp.errors import InputError
from interp.models import HookedModel
from interp.prefix import logits_at
from interp.records import Instance


@dataclass(frozen=True)
class FirstTokens:
    """First tokens of safe and of unsafe responses, where they tell the two apart."""

    refuse: tuple[int, ...]
    comply: tuple[int, ...]

    @classmethod
    def of(cls, model: HookedModel, instances: Sequence[Instance], suffix: str = "") -> FirstTokens:
        """A first token counts for the class in which it is at least twice as frequent.

        Raises:
            InputError: safe and unsafe responses begin with the same tokens.
        """
        safe, unsafe = Counter[int](), Counter[int]()
        for instance in instances:
            for counter, answer in ((safe, instance.safe_generation), (unsafe, instance.unsafe_generation)):
                counter.update(model.encode_pair(instance.adversarial_prompt, answer, suffix, eos=False)[1][:1])
        refuse = tuple(sorted(t for t, n in safe.items() if n >= 2 * unsafe[t]))
        comply = tuple(sorted(t for t, n in unsafe.items() if n >= 2 * safe[t]))
        if not refuse or not comply:
            raise InputError("the safe and unsafe responses begin with the same tokens: no refusal margin can be read")
        return cls(refuse, comply)

    def margin(self, logits: Float[Tensor, "batch vocab"]) -> Float[Tensor, "batch"]:
        """logsumexp over refusing tokens minus logsumexp over complying ones."""
        refuse, comply = (torch.tensor(ids, device=logits.device) for ids in (self.refuse, self.comply))
        wide = logits.float()
        return wide[:, refuse].logsumexp(-1) - wide[:, comply].logsumexp(-1)


@torch.no_grad()
def next_logits(model: HookedModel, prompts: Sequence[str], batch_size: int) -> Float[Tensor, "prompt vocab"]:
    """Float32 logits of the token after each formatted prompt, on the CPU."""
    found = []
    for start in range(0, len(prompts), batch_size):
        tokens = model.tokenize(list(prompts[start : start + batch_size]), side="right")
        found.append(logits_at(model, tokens, tokens.lengths[:, None] - 1)[:, 0].float().cpu())
    return torch.cat(found)
