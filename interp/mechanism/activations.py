"""What flows inside a model on the adversarial prompts: recorded once per model, read by `shift` and `source`.

Every prompt runs alone, without padding. Two models then see identical tokens in identical shapes by construction (the
same model in another batch shape already differs by 1e-7), and an edit can be recorded on its own prompt only and
still be compared with vanilla to the last bit. Only what a model wrote itself, which no two share, is read in batches.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from interp.capture import capture, stream
from interp.errors import InputError
from interp.models import HookedModel

OWN_BATCH = 16
"""Prompts with their own answers in one forward."""
Pooling = Literal["mean", "last"]
"""Over the tokens of a prompt: the mean over all of them, or the last one, where the answer begins.

The paper averages h_down over inputs and does not say over which tokens; the mean over all real tokens is the default,
because everything the prompt writes through the region is in it.
"""


@dataclass(frozen=True)
class PromptActivations:
    """Activations of one model (or of several edits, one per prompt) on some prompts; float32, on the CPU.

    Memory: 4 bytes x prompts x layers x (d_mlp + d_model); 27 prompts of a 7B model are 64 MB.
    """

    layer: int
    """0-based layer of the toxic region."""
    pooling: Pooling
    index: tuple[int, ...]
    """Which prompt each row is: rows of two models are paired by it."""
    h_down: Float[Tensor, "prompt layer d_mlp"]
    """What flows into W_V, pooled over the prompt's tokens."""
    resid: Float[Tensor, "prompt layer d_model"]
    """The residual stream after each block, pooled over the prompt's tokens."""
    h_mid: Float[Tensor, "prompt d_model"]
    """The residual stream in front of the MLP at `layer`, at the last prompt token (the block's input where attention
    and MLP run in parallel)."""
    strength: Float[Tensor, "prompt"]
    """How strongly the prompt activates the region: mean |h_down| over neurons at `layer`, last prompt token."""
    own: Float[Tensor, "prompt d_mlp"] | None = None
    """h_down at `layer`, mean over the tokens the model itself wrote; NaN rows where it wrote none. None: not given."""

    @property
    def h_down_mean(self) -> Float[Tensor, "d_mlp"]:
        """Mean h_down over prompts at `layer`: what `Region.of` weighs the write with."""
        return self.h_down[:, self.layer].mean(dim=0)

    def rows(self, index: Sequence[int]) -> PromptActivations:
        """The rows of these prompts, in this order. Raises InputError where one was not recorded."""
        where = {prompt: row for row, prompt in enumerate(self.index)}
        missing = [i for i in index if i not in where]
        if missing:
            raise InputError(f"expected activations of prompts {missing[:5]}, which were not recorded")
        take = torch.tensor([where[i] for i in index], dtype=torch.long)
        own = None if self.own is None else self.own[take]
        return PromptActivations(
            self.layer, self.pooling, tuple(index),
            self.h_down[take], self.resid[take], self.h_mid[take], self.strength[take], own,
        )  # fmt: skip


def record(
    model: HookedModel,
    queries: Sequence[str],
    layer: int,
    *,
    suffix: str = "",
    index: Sequence[int] | None = None,
    responses: Sequence[str] | None = None,
    pooling: Pooling = "mean",
) -> PromptActivations:
    """Record a model on some prompts, one at a time.

    Args:
        model: vanilla, a checkpoint, or the model inside `edit.applied(model)`.
        queries: the adversarial prompts, not formatted yet.
        layer: 0-based layer of the toxic region.
        suffix: the suffix S, the same for every model that is compared.
        index: the number of each prompt among those of the comparison (default 0, 1, ...). An edit is recorded on its
            own prompt: `record(model, [queries[i]], layer, index=[i])`, and the pieces go through `join`.
        responses: what this very model answered, one per query, for the activations on its own tokens.
        pooling: over the tokens of the prompt.

    Raises:
        InputError: no prompts, lengths differ, a layer out of range, activations that are not finite.
    """
    model.check_layer(layer)
    if not queries:
        raise InputError("expected at least one prompt, got none")
    for name, other in (("index", index), ("responses", responses)):
        if other is not None and len(other) != len(queries):
            raise InputError(f"expected {len(queries)} {name}, one per prompt, got {len(other)}")
    middle = "resid_pre" if getattr(model.hf.config, "use_parallel_residual", False) else "resid_mid"
    h_down, resid, h_mid, strength = [], [], [], []
    for query in queries:
        tokens = model.tokenize([model.format_prompt(query, suffix)])
        got = capture(model, tokens, ("h_down", "resid_post", middle), pool="none", batch_size=1)
        down, post = (got.stack(name)[:, 0].float().cpu() for name in ("h_down", "resid_post"))
        h_down.append(_pool(down, pooling))
        resid.append(_pool(post, pooling))
        h_mid.append(got.acts[middle, layer][0, -1].float().cpu())
        strength.append(down[layer, -1].abs().mean())
    found = PromptActivations(
        layer, pooling, tuple(range(len(queries)) if index is None else index),
        torch.stack(h_down), torch.stack(resid), torch.stack(h_mid), torch.stack(strength),
        _own_tokens(model, queries, suffix, responses, layer) if responses is not None else None,
    )  # fmt: skip
    if not (torch.isfinite(found.h_down).all() and torch.isfinite(found.h_mid).all()):
        raise InputError(f"expected finite activations of {model.name}, got NaN or infinity")
    return found


def join(pieces: Iterable[PromptActivations]) -> PromptActivations:
    """The recordings of several edits, each on its own prompts, as one.

    Raises:
        InputError: nothing to join, the same prompt twice, or recordings of another layer or pooling.
    """
    parts = list(pieces)
    if not parts:
        raise InputError("expected at least one recording, got none")
    if len({(p.layer, p.pooling, p.own is None) for p in parts}) > 1:
        raise InputError("expected recordings of one layer and pooling, all with or all without responses")
    index = tuple(i for p in parts for i in p.index)
    if len(set(index)) < len(index):
        raise InputError("expected every prompt once, got one twice; record each edit on its own prompts")
    own = None if parts[0].own is None else torch.cat([p.own for p in parts if p.own is not None])
    return PromptActivations(
        parts[0].layer, parts[0].pooling, index,
        torch.cat([p.h_down for p in parts]), torch.cat([p.resid for p in parts]),
        torch.cat([p.h_mid for p in parts]), torch.cat([p.strength for p in parts]), own,
    )  # fmt: skip


def inputs_untouched(model: HookedModel, changed: Iterable[str], layer: int) -> bool:
    """Whether a change of these parameters cannot reach what flows into W_V of `layer`, on any given tokens.

    True for W_V of the layer itself and whatever `output_untouched` allows. This is what makes the shift of a DINM edit
    zero at its layer: an identity, not a finding.
    """
    here = model.value_name(layer).removesuffix("weight")
    return output_untouched(model, (name for name in changed if not name.startswith(here)), layer)


def output_untouched(model: HookedModel, changed: Iterable[str], layer: int) -> bool:
    """Whether a change of these parameters cannot reach the output of block `layer`, on any given tokens.

    True for later blocks, the final norm and an unembedding of its own (one that is tied writes the embeddings too).
    """
    head = getattr(model.hf.get_output_embeddings(), "weight", None)
    tied = head is getattr(model.hf.get_input_embeddings(), "weight", None)
    own_head = {name for name, p in model.hf.named_parameters(remove_duplicate=False) if p is head and not tied}
    later = tuple(f"{model.layout.blocks}.{above}." for above in range(layer + 1, model.n_layers))
    safe = (*later, f"{model.layout.final_norm}.")
    return all(name in own_head or name.startswith(safe) for name in changed)


def _pool(acts: Float[Tensor, "layer seq d"], pooling: Pooling) -> Float[Tensor, "layer d"]:
    return acts.mean(dim=1) if pooling == "mean" else acts[:, -1].clone()


def _own_tokens(
    model: HookedModel, queries: Sequence[str], suffix: str, responses: Sequence[str], layer: int
) -> Float[Tensor, "prompt d_mlp"]:
    """Mean h_down over the tokens of each response; NaN where it is empty."""
    own = torch.full((len(queries), model.d_mlp), float("nan"))
    rows, starts = {}, []
    for n, (query, response) in enumerate(zip(queries, responses, strict=True)):
        if response.strip():
            prompt, answer = model.encode_pair(
                query, response, suffix, max_prompt=model.context, max_answer=model.context, eos=False
            )
            rows[n] = [*prompt, *answer]
            starts.append(len(prompt))
    if not rows:
        return own
    tokens = model.pad(list(rows.values()), side="right")
    place, start = torch.tensor(list(rows)), torch.tensor(starts)
    for batch in stream(model, tokens, ("h_down",), layers=[layer], batch_size=OWN_BATCH):
        acts, index = batch.acts["h_down", layer].float().cpu(), list(batch.index)
        answered = torch.arange(acts.shape[1])[None] >= start[index][:, None]
        kept = (answered & batch.tokens.attention_mask.bool().cpu())[..., None]
        own[place[index]] = (acts * kept).sum(1) / kept.sum(1)
    return own
