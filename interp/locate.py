"""Locate the toxic layer: how far apart a safe and an unsafe response lie in each layer (Eq. 6 of the DINM paper).

toxic layer = argmax over l of || h_l(safe) - h_l(unsafe) ||_2. The formula leaves open what the responses follow, how a
sequence becomes one vector, and whether the last layer is read before or after the final norm; each answer is a field
of `Convention`, and the published numbers differ by it. Nothing here runs the vocabulary projection.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from interp.errors import InputError
from interp.models import HookedModel, Tokens
from interp.records import Instance, LayerScores

Given = Literal["nothing", "query"]
Over = Literal["mean", "last", "matrix", "common"]
_UNITS: dict[Over, str] = {
    "mean": "L2 distance of the mean hidden state over the response's own tokens",
    "last": "L2 distance of the hidden state at the response's last token",
    "matrix": "Frobenius distance over all columns of the padded pair, padding included",
    "common": "Frobenius distance over the columns where both responses have a token",
}


@dataclass(frozen=True)
class Convention:
    """One reading of Eq. 6. Use a named one (`CONVENTIONS`), or build another."""

    name: str
    """How records and figures call it."""
    given: Given = "query"
    """What a response follows: the adversarial query X in the model's prompt format, or nothing (the response is
    tokenised alone)."""
    suffix: str = ""
    """The suffix system prompt S after X; "" for none, which is how the paper locates."""
    over: Over = "mean"
    """How two sequences of different length are compared.

    "mean": the hidden states of the response's own tokens are averaged, so that length and padding play no part.
    "last": the hidden state at its last token.
    "matrix": the Frobenius norm of the difference of the whole padded [T, d_model] matrices, position by position.
    "common": the same over the positions that are real in both.
    """
    final_norm: bool = False
    """Read the last layer after the model's final norm (what Hugging Face calls the last hidden state) instead of
    before it. Without the norm all layers are residual streams of one kind."""
    padding: Literal["left", "right"] = "right"
    """Side of the padding inside a pair. It matters for "matrix" alone: elsewhere no number depends on padding."""

    def __post_init__(self) -> None:
        if self.over in ("matrix", "common") and self.given != "nothing":
            raise InputError(f'over="{self.over}" compares responses tokenised alone: expected given="nothing"')
        if self.suffix and self.given == "nothing":
            raise InputError('a suffix follows the query: expected given="query" with it')
        if self.padding == "left" and self.over != "matrix":
            raise InputError('left padding changes nothing but over="matrix"; expected padding="right"')

    @property
    def unit(self) -> str:
        """What a score is, in words."""
        return _UNITS[self.over] + (", last layer after the final norm" if self.final_norm else "")


PAPER = Convention("paper")
"""The paper's, read literally: responses to X, own tokens, their mean, residual streams before the final norm."""
PAPER_FINAL_NORM = Convention("paper, after the final norm", final_norm=True)
"""The same with the last layer after the final norm, which alone can decide whether the last layer is located."""
REFERENCE_RIGHT = Convention("reference, right padding", given="nothing", over="matrix", final_norm=True)
"""What the authors' code computes with a tokenizer that pads right: responses alone, padded matrices as they are."""
REFERENCE_LEFT = Convention(
    "reference, left padding", given="nothing", over="matrix", final_norm=True, padding="left"
)  # fmt: skip
"""The same padded left. The padded rows then see no key at all, and what comes out of them is up to the attention
backend: `sdpa` (torch 2.13, CPU) gives the authors' numbers, `eager` differs by up to 15 %."""

CONVENTIONS: dict[str, Convention] = {c.name: c for c in (PAPER, PAPER_FINAL_NORM, REFERENCE_RIGHT, REFERENCE_LEFT)}


def layer_distances(
    model: HookedModel,
    instances: Sequence[Instance] | Instance,
    convention: Convention = PAPER,
    batch_size: int = 8,
    *,
    max_prompt: int = 1000,
    max_answer: int = 600,
    progress: Callable[[int, int], None] | None = None,
) -> LayerScores:
    """Distance between the safe and the unsafe response in every layer, for each instance.

    The numbers do not depend on `batch_size`, but for float rounding.

    Args:
        batch_size: sequences per forward pass; an instance has two. Padded matrices run pair by pair whatever it is,
            since their padding is part of the number.
        max_prompt: longest prompt in tokens (the paper's 1,000); a longer one is cut from the left, and told.
        max_answer: longest response in tokens (the paper's 600); a longer one is cut from the right, and told.
        progress: called with (instances done, instances in all) after each batch.

    Returns:
        Scores [instance, layer], column l for the output of block l (layer l + 1 of the paper), and how many instances
        were cut.

    Raises:
        InputError: no instances, an empty response, a batch size below 1, or hidden states that are not finite.
    """
    instances = [instances] if isinstance(instances, Instance) else list(instances)
    if not instances:
        raise InputError("locating needs at least one instance, got none")
    if batch_size < 1:
        raise InputError(f"expected batch_size >= 1, got {batch_size}")
    pairs = [_encode(model, instance, convention, max_prompt, max_answer) for instance in instances]
    values = np.zeros((len(pairs), model.n_layers))
    order = sorted(range(len(pairs)), key=lambda i: pairs[i].width)
    step = 1 if convention.over == "matrix" else max(1, batch_size // 2)
    for start in range(0, len(order), step):
        batch = order[start : start + step]
        values[batch] = _distances(model, [pairs[i] for i in batch], convention).cpu().numpy()
        if progress is not None:
            progress(start + len(batch), len(order))
    for i, row in enumerate(values):
        if not np.isfinite(row).all():
            raise InputError(f"the hidden states of instance {instances[i].id} are not finite in {model.name}")
    return LayerScores(
        model=model.name,
        convention=convention.name,
        unit=convention.unit,
        instance_ids=tuple(i.id for i in instances),
        categories=tuple(i.category for i in instances),
        values=values,
        truncated=sum(pair.cut for pair in pairs),
    )


# ------------------------------------------------------------------------------------------------- sequences
@dataclass(frozen=True)
class _Pair:
    """Token ids of the safe and the unsafe sequence of one instance."""

    rows: tuple[list[int], list[int]]
    starts: tuple[int, int]
    """Where each response begins in its row."""
    cut: bool

    @property
    def width(self) -> int:
        return max(len(row) for row in self.rows)


def _encode(model: HookedModel, instance: Instance, convention: Convention, max_prompt: int, max_answer: int) -> _Pair:
    before = model.truncated
    rows, starts = [], []
    for kind, answer in (("safe", instance.safe_generation), ("unsafe", instance.unsafe_generation)):
        if not answer.strip():
            raise InputError(f"instance {instance.id} has an empty {kind} response; locating needs both")
        if convention.given == "nothing":
            row = model.tokenize([answer], side="right", max_length=max_answer, truncation_side="right").row(0)
            start = 0
        else:
            prompt, reply = model.encode_pair(
                instance.adversarial_prompt, answer, convention.suffix, max_prompt, max_answer, eos=False
            )
            row, start = prompt + reply, len(prompt)
        rows.append(row)
        starts.append(start)
    return _Pair((rows[0], rows[1]), (starts[0], starts[1]), model.truncated > before)


# ------------------------------------------------------------------------------------------------- distances
Distance = Callable[[Float[Tensor, "row seq d_model"]], Float[Tensor, "pair"]]
"""Hidden states of the safe rows, then the unsafe ones -> one distance per pair."""


def _distances(model: HookedModel, pairs: Sequence[_Pair], convention: Convention) -> Float[Tensor, "pair layer"]:
    rows = [p.rows[0] for p in pairs] + [p.rows[1] for p in pairs]
    starts = [p.starts[0] for p in pairs] + [p.starts[1] for p in pairs]
    tokens = model.pad(rows, side=convention.padding)
    distance = _distance(tokens, starts, convention)
    with _reading(model, distance, convention.final_norm) as by_layer, torch.no_grad():
        # No position ids: right padding needs none, and the authors' code gives none where it pads left.
        model.hf.base_model(input_ids=tokens.input_ids, attention_mask=tokens.attention_mask, use_cache=False)
    return torch.stack([by_layer[layer].to(tokens.input_ids.device) for layer in range(model.n_layers)], dim=1)


def _distance(tokens: Tokens, starts: Sequence[int], convention: Convention) -> Distance:
    lengths = tokens.lengths
    pairs, width = len(tokens) // 2, tokens.input_ids.shape[1]
    columns = torch.arange(width, device=lengths.device)
    if convention.over in ("mean", "last"):
        first = torch.tensor(starts, device=lengths.device) if convention.over == "mean" else lengths - 1
        own = (columns >= first[:, None]) & (columns < lengths[:, None])
        return lambda h: _apart_in_mean(h, own.to(h.device))
    longer = torch.maximum(lengths[:pairs], lengths[pairs:])
    shorter = torch.minimum(lengths[:pairs], lengths[pairs:])
    ends = longer if convention.over == "matrix" else shorter
    # A left-padded pair is alone in its batch: all of its columns count, and they are exactly `longer` many.
    return lambda h: _apart_in_matrix(h, (columns < ends[:, None]).to(h.device))


def _apart_in_mean(h: Float[Tensor, "row seq d_model"], own: Bool[Tensor, "row seq"]) -> Float[Tensor, "pair"]:
    weights = own.float() / own.sum(-1, keepdim=True)
    # Rows of padding are zeroed first: weight 0 does not silence a NaN there.
    pooled = torch.einsum("rs,rsd->rd", weights, h.float().masked_fill(~own[..., None], 0.0))
    safe, unsafe = pooled.chunk(2)
    return (safe - unsafe).norm(dim=-1)


def _apart_in_matrix(h: Float[Tensor, "row seq d_model"], kept: Bool[Tensor, "pair seq"]) -> Float[Tensor, "pair"]:
    safe, unsafe = h.float().chunk(2)
    return (safe - unsafe).masked_fill(~kept[..., None], 0.0).flatten(1).norm(dim=-1)


@contextmanager
def _reading(model: HookedModel, distance: Distance, final_norm: bool) -> Iterator[dict[int, Float[Tensor, "pair"]]]:
    """Fill a dict with the distance at each block's output while a forward pass runs; the hooks go in `finally`.

    Reduced on the spot: no layer's activations outlive the next layer.
    """
    found: dict[int, Float[Tensor, "pair"]] = {}
    modules: list[nn.Module] = [*model.blocks[:-1], model.final_norm if final_norm else model.blocks[-1]]

    def read(layer: int) -> Callable[..., None]:
        def hook(_module: nn.Module, _inputs: Any, output: Any) -> None:
            found[layer] = distance(output[0] if isinstance(output, tuple) else output)

        return hook

    handles = [module.register_forward_hook(read(layer)) for layer, module in enumerate(modules)]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()
