"""The refusal margin: log-odds of a first token that refuses over one that complies, at the last prompt token, in nats.

It reads one token of the answer and no more: what the model would have gone on to write is for a judge.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from interp.errors import InputError
from interp.models import HookedModel, Tokens
from interp.prefix import logits_at
from interp.records import Instance

NAMING = "name words that answers begin with: --refuse-token and --comply-token (here: refuse=, comply=)"


@dataclass(frozen=True)
class MarginTokens:
    """First tokens of an answer that refuses, and of one that complies."""

    refuse: tuple[int, ...]
    comply: tuple[int, ...]

    @classmethod
    def of(
        cls,
        model: HookedModel,
        instances: Sequence[Instance],
        suffix: str = "",
        *,
        refuse: Sequence[str] = (),
        comply: Sequence[str] = (),
    ) -> MarginTokens:
        """The first tokens of the safe and the unsafe generations; a token counts where it is twice as frequent.

        Args:
            model: whose tokenizer and prompt format decide.
            instances: where answers come from, and (the first one) the prompt that named words are put after.
            suffix: the suffix S after every prompt.
            refuse: words that refusals begin with, instead of the safe generations' first tokens.
            comply: the same for answers that comply.

        Raises:
            InputError: safe and unsafe generations begin alike, so that the first token tells nothing; a word that is
                empty, or of which the vocabulary has no more than a blank or a letter; a token on both sides.
        """
        if not instances:
            raise InputError(
                "expected at least one instance to read refusing and complying first tokens from, got none"
            )
        safe, unsafe = Counter[int](), Counter[int]()
        for instance in instances:
            for counter, answer in ((safe, instance.safe_generation), (unsafe, instance.unsafe_generation)):
                ids = model.encode_pair(instance.adversarial_prompt, answer, suffix, eos=False)[1] if answer else []
                counter.update(ids[:1])
        prompt = instances[0].adversarial_prompt
        refusing = {_first_token(model, prompt, word, suffix, "refuse") for word in refuse}
        complying = {_first_token(model, prompt, word, suffix, "comply") for word in comply}
        if both := refusing & complying:
            same = model.tokenizer.decode([min(both)])
            raise InputError(f"a refusing and a complying word begin with the same token, {same!r}: {NAMING}")
        refusing = refusing or {t for t, n in safe.items() if n >= 2 * unsafe[t]} - complying
        complying = complying or {t for t, n in unsafe.items() if n >= 2 * safe[t]} - refusing
        for side, found in (("refusing", refusing), ("complying", complying)):
            if not found:
                raise InputError(
                    f"no {side} first token: the safe and unsafe generations begin with the same tokens; {NAMING}"
                )
        return cls(tuple(sorted(refusing)), tuple(sorted(complying)))

    def words(self, model: HookedModel) -> dict[str, list[str]]:
        """The tokens as texts, for the record."""
        sides = (("refuse", self.refuse), ("comply", self.comply))
        return {side: [model.tokenizer.decode([token]) for token in ids] for side, ids in sides}

    def margin(self, logits: Float[Tensor, "batch vocab"]) -> Float[Tensor, "batch"]:
        """logsumexp over refusing tokens minus logsumexp over complying ones, nats."""
        refuse, comply = (torch.tensor(t, device=logits.device) for t in (self.refuse, self.comply))
        wide = logits.float()
        return wide[:, refuse].logsumexp(dim=-1) - wide[:, comply].logsumexp(dim=-1)


def _first_token(model: HookedModel, prompt: str, word: str, suffix: str, side: str) -> int:
    """The token that an answer beginning with `word` begins with."""
    ids = model.encode_pair(prompt, word, suffix, eos=False)[1] if word.strip() else []
    piece = model.tokenizer.decode(ids[:1]).strip() if ids and ids[0] != model.tokenizer.unk_token_id else ""
    # A tokenizer of bytes splits any word: its first piece must say more than that some word begins.
    if not piece or len(piece) < min(2, len(word.split()[0])):
        begins = f", which begins with the piece {model.tokenizer.decode(ids[:1])!r}" if ids else ""
        raise InputError(f"--{side}-token: expected a word of {model.name}'s vocabulary, got {word!r}{begins}")
    return ids[0]


def batches(model: HookedModel, queries: Sequence[str], suffix: str = "", batch_size: int = 16) -> list[Tokens]:
    """The formatted prompts, padded on the left: the last column is every prompt's last token."""
    prompts = [model.format_prompt(q, suffix) for q in queries]
    return [model.tokenize(prompts[i : i + batch_size]) for i in range(0, len(prompts), batch_size)]


def last_margin(model: HookedModel, batch: Tokens, tokens: MarginTokens) -> Float[Tensor, "batch"]:
    """Margins of a batch padded on the left; the vocabulary product is computed at the last position alone.

    Differentiable where a hook of the caller's has put something that needs a gradient into the forward.
    """
    ids = batch.input_ids
    last = torch.full((len(ids), 1), ids.shape[1] - 1, device=ids.device)
    return tokens.margin(logits_at(model, batch, last)[:, 0])


def read_off(model: HookedModel, resid: Float[Tensor, "batch d_model"], tokens: MarginTokens) -> Float[Tensor, "batch"]:
    """The margin of residual streams as if the model ended there: final norm, unembedding, Gemma2's bend of logits."""
    logits = model.unembedding(model.final_norm(resid))
    cap = getattr(model.hf.config, "final_logit_softcapping", None)
    return tokens.margin(logits if cap is None else cap * torch.tanh(logits / cap))


@torch.no_grad()
def margins(model: HookedModel, prompts: Sequence[Tokens], tokens: MarginTokens) -> Float[np.ndarray, "prompt"]:
    """One forward per batch."""
    return torch.cat([last_margin(model, batch, tokens) for batch in prompts]).cpu().double().numpy()
