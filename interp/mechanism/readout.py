"""What an intervention does to behaviour: refusal margins of attacked prompts, and how harmless answers hold up.

A broken model has a margin too; so the probability of the named first tokens and the quality of harmless answers stand
beside it. Nothing here changes a model.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.mechanism.lab import Subject
from interp.mechanism.shares import MarginTokens
from interp.models import HookedModel, Tokens
from interp.prefix import logits_at
from interp.records import Estimate
from interp.stats import bootstrap, share

BENIGN = 16
"""Harmless requests that quality is measured on, evenly from all that the lab has."""
LONGEST = 64
"""Tokens of an answer that are looked at: logits of the whole vocabulary are kept for each."""


@dataclass(frozen=True)
class Readout:
    """The first token of the answers to some prompts."""

    margin: Float[np.ndarray, "prompt"]
    """Refusal margin, nats."""
    named: Float[np.ndarray, "prompt"]
    """Probability that the first token is a refusing or a complying one at all: low where the model is broken."""

    @property
    def complies(self) -> np.ndarray:
        """Which prompts a complying first token is likelier for."""
        return self.margin < 0


@torch.no_grad()
def read(model: HookedModel, prompts: Sequence[Tokens], tokens: MarginTokens) -> Readout:
    """One forward per batch of prompts that are padded on the left."""
    margins, named = [], []
    for batch in prompts:
        ends = torch.full((len(batch), 1), batch.input_ids.shape[1] - 1, device=batch.input_ids.device)
        logits = logits_at(model, batch, ends)[:, 0]
        margins.append(tokens.margin(logits).cpu())
        chosen = torch.tensor([*tokens.refuse, *tokens.comply], device=logits.device)
        named.append(logits.float().softmax(-1)[:, chosen].sum(-1).cpu())
    return Readout(torch.cat(margins).double().numpy(), torch.cat(named).double().numpy())


def compliance(margins: Float[np.ndarray, "..."]) -> Estimate:
    """Share of prompts with a complying first token, percent, Wilson.

    Args:
        margins: per prompt, nats; several rows (repeats of a control on the same prompts) are averaged per prompt.
    """
    n = margins.shape[-1]
    return share(float((margins < 0).reshape(-1, n).mean(axis=0).sum()), n)


def mean_margin(margins: Float[np.ndarray, "..."], seed: int, unit: str = "nats") -> Estimate:
    """Mean over prompts with a bootstrap over prompts; several rows are averaged per prompt first."""
    return bootstrap(margins.reshape(-1, margins.shape[-1]).mean(axis=0), over="prompts", unit=unit, seed=seed)


def percent(e: Estimate) -> str:
    """`6 % [5, 7]`; nothing below half a percent has a sign."""
    value, low, high = ("0" if round(x) == 0 else f"{x:.0f}" for x in (e.value, e.low, e.high))
    return f"{value} % [{low}, {high}]"


# --------------------------------------------------------------------------------------------- answers
@dataclass(frozen=True)
class Forced:
    """Answers after their prompts, teacher-forced: a batch padded on the left."""

    which: tuple[int, ...]
    """Number of each row's answer."""
    tokens: Tokens
    positions: Int[Tensor, "batch token"]
    """Where each answer token is predicted."""
    targets: Int[Tensor, "batch token"]
    real: Float[Tensor, "batch token"]
    """1 where the row has an answer token."""


def forced(
    model: HookedModel,
    pairs: Sequence[tuple[str, str]],
    batch_size: int = 16,
    longest: int = LONGEST,
    suffix: str = "",
) -> list[Forced]:
    """(query, answer) pairs as batches, rows of like length together; pairs without an answer are left out.

    The EOS is no part of the answers, of which the first `longest` tokens are kept; `suffix` stands after every query.
    """
    encoded = [(i, *model.encode_pair(q, a, suffix, eos=False)) for i, (q, a) in enumerate(pairs) if a.strip()]
    rows = [(i, head, tail[:longest]) for i, head, tail in encoded]
    rows = sorted((r for r in rows if r[1] and r[2]), key=lambda r: len(r[1]) + len(r[2]))
    found = []
    for start in range(0, len(rows), batch_size):
        batch = rows[start : start + batch_size]
        tokens = model.pad([head + tail for _, head, tail in batch])
        width, most = tokens.input_ids.shape[1], max(len(tail) for _, _, tail in batch)
        lengths = torch.tensor([[len(tail)] for _, _, tail in batch], device=model.device)
        steps = torch.arange(most, device=model.device)[None]
        places = (width - lengths + steps).clamp(max=width - 1)
        real = (steps < lengths).float()
        targets = tokens.input_ids.gather(1, places)
        found.append(Forced(tuple(i for i, _, _ in batch), tokens, places - 1, targets, real))
    return found


@torch.no_grad()
def log_probs(model: HookedModel, batches: Sequence[Forced]) -> Iterator[tuple[Forced, Tensor]]:
    """Log-probabilities at the answers' positions, `[batch, token, vocab]` in float32, one batch in memory."""
    for batch in batches:
        yield batch, logits_at(model, batch.tokens, batch.positions).float().log_softmax(-1)


def kl_by_token(
    p: Float[Tensor, "batch token vocab"], q: Float[Tensor, "batch token vocab"]
) -> Float[Tensor, "batch token"]:
    """KL(p || q) of two log-probabilities at each position, nats; exactly 0 where they are the same."""
    return (p.exp() * (p - q.to(p.device))).sum(-1).clamp(min=0.0)  # rounding can make a zero negative


@dataclass(frozen=True)
class Quality:
    """How harmless answers hold up, per answer."""

    right: Float[np.ndarray, "answer"]
    """Share of the answer's tokens that are predicted, percent (teacher-forced)."""
    kl: Float[np.ndarray, "answer"]
    """KL(intact || changed) per token, nats; 0 where nothing to compare with was given."""


def benign_pairs(subject: Subject, limit: int = BENIGN) -> list[tuple[str, str]]:
    """Harmless requests with their answers, evenly from the lab's; empty where it has none."""
    pairs = [(b.prompt, b.answer) for b in subject.lab.benign if b.answer.strip()]
    step = max(len(pairs) / limit, 1.0)
    return [pairs[int(i * step)] for i in range(min(limit, len(pairs)))]


def quality(model: HookedModel, batches: Sequence[Forced], intact: Sequence[Tensor] | None = None) -> Quality:
    """Quality of a model on forced answers, against the log-probabilities that `intact_log_probs` kept."""
    right: list[np.ndarray] = []
    kl: list[np.ndarray] = []
    for i, (batch, found) in enumerate(log_probs(model, batches)):
        hits = (found.argmax(-1) == batch.targets).float()
        moved = torch.zeros_like(hits) if intact is None else kl_by_token(intact[i].to(found.device), found)
        for out, values in ((right, 100.0 * hits), (kl, moved)):
            out.append(((values * batch.real).sum(-1) / batch.real.sum(-1)).double().cpu().numpy())
    return Quality(np.concatenate(right), np.concatenate(kl))


def intact_log_probs(model: HookedModel, batches: Sequence[Forced]) -> list[Tensor]:
    """What `quality` compares with; vocabulary x answer tokens numbers, on the CPU."""
    return [found.cpu() for _, found in log_probs(model, batches)]
