"""Causal evidence at one layer: swap W_V, its inputs, or the block's output between vanilla and a model.

The behaviour is the refusal margin at the last prompt token, in nats: log-odds of a first token that refuses over one
that complies. What of the margin's change comes back when vanilla's part is put into the model is the part's share.
With R(x) = (margin(m) - margin(m with vanilla's x)) / (margin(m) - margin(vanilla)), at all prompt positions:

    erased     E   = (R(W) + R(W, h) - R(h)) / 2     through the matrix
    bypassed   B   = (R(h) + R(W, h) - R(W)) / 2     through what flows into it
    parallel   Par = R(block output) - R(W, h)       up to the block, but around the region
    downstream Dn  = 1 - R(block output)             after the block

They sum to 1. Limits, wherever they are shown: an edit of only this W_V has E = 1 by algebra; E includes suppression in
place; the shares are of *this* layer, and a natural behaviour need not live in one matrix.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from interp.errors import InputError
from interp.mechanism.intervals import of_means
from interp.models import HookedModel, Tokens
from interp.records import Instance, SwapShares

GATE = 25.0
"""Percentage points of complying prompts that the model must have lost, at the lower end of the interval."""


@dataclass(frozen=True)
class MarginTokens:
    """First tokens of an answer that refuses, and of one that complies."""

    refuse: tuple[int, ...]
    comply: tuple[int, ...]

    @classmethod
    def of(cls, model: HookedModel, instances: Sequence[Instance], suffix: str = "") -> MarginTokens:
        """The first tokens of the safe and the unsafe generations; a token counts where it is twice as frequent.

        Raises:
            InputError: safe and unsafe generations begin alike, so that the first token tells nothing.
        """
        safe, unsafe = Counter[int](), Counter[int]()
        for instance in instances:
            for counter, answer in ((safe, instance.safe_generation), (unsafe, instance.unsafe_generation)):
                ids = model.encode_pair(instance.adversarial_prompt, answer, suffix, eos=False)[1] if answer else []
                counter.update(ids[:1])
        refuse = tuple(sorted(t for t, n in safe.items() if n >= 2 * unsafe[t]))
        comply = tuple(sorted(t for t, n in unsafe.items() if n >= 2 * safe[t]))
        if not refuse or not comply:
            raise InputError(
                "the safe and unsafe generations begin with the same tokens: no refusal margin can be read"
            )
        return cls(refuse, comply)

    def margin(self, logits: Float[Tensor, "batch vocab"]) -> Float[Tensor, "batch"]:
        """logsumexp over refusing tokens minus logsumexp over complying ones, nats."""
        refuse, comply = (torch.tensor(t, device=logits.device) for t in (self.refuse, self.comply))
        wide = logits.float()
        return wide[:, refuse].logsumexp(dim=-1) - wide[:, comply].logsumexp(dim=-1)


@dataclass(frozen=True)
class Parts:
    """What one model has at the layer on some prompts: the donor of a swap, and its own margins.

    Memory: prompts x tokens x (d_mlp + d_model) numbers in the model's dtype.
    """

    layer: int
    weight: Float[Tensor, "d_mlp d_model"]
    h_down: tuple[Float[Tensor, "_ _ d_mlp"], ...]
    """One tensor [batch, seq, d_mlp] per batch of prompts."""
    block: tuple[Float[Tensor, "_ _ d_model"], ...]
    """Output of the block."""
    margin: Float[np.ndarray, "prompt"]


@dataclass(frozen=True)
class SwapMargins:
    """Margins per prompt, nats, from which the shares follow. Those of several edits can be concatenated."""

    model: Float[np.ndarray, "prompt"]
    vanilla: Float[np.ndarray, "prompt"]
    into_model: Float[np.ndarray, "prompt 4"]
    """The model with vanilla's W_V; h_down; both; block output."""
    into_vanilla: Float[np.ndarray, "prompt 4"]
    """Vanilla with the model's."""

    @classmethod
    def join(cls, pieces: Sequence[SwapMargins]) -> SwapMargins:
        """The margins of several edits, each on its own prompts, as one."""
        if not pieces:
            raise InputError("expected the margins of at least one edit, got none")
        names = ("model", "vanilla", "into_model", "into_vanilla")
        return cls(*(np.concatenate([getattr(p, name) for p in pieces]) for name in names))


def batches(model: HookedModel, queries: Sequence[str], suffix: str = "", batch_size: int = 16) -> list[Tokens]:
    """The formatted prompts, padded on the left: the last column is every prompt's last token."""
    prompts = [model.format_prompt(q, suffix) for q in queries]
    return [model.tokenize(prompts[i : i + batch_size]) for i in range(0, len(prompts), batch_size)]


def parts(model: HookedModel, prompts: Sequence[Tokens], layer: int, tokens: MarginTokens) -> Parts:
    """One clean forward per batch, keeping what a swap needs."""
    h_down: list[Tensor] = []
    block: list[Tensor] = []
    with _hooked(model, layer, keep_h=h_down.append, keep_block=block.append):
        margin = _margins(model, prompts, tokens)
    weight = model.value_vectors(layer).clone()
    return Parts(layer, weight, tuple(h_down), tuple(block), margin)


def swapped(
    model: HookedModel, prompts: Sequence[Tokens], donor: Parts, tokens: MarginTokens
) -> Float[np.ndarray, "prompt 4"]:
    """Margins of `model` with the donor's W_V; its h_down; both; its block output. The model is left as it was."""
    columns = [("W",), ("h",), ("W", "h"), ("block",)]
    out = []
    for i, batch in enumerate(prompts):
        row = []
        for what in columns:
            with _hooked(
                model,
                donor.layer,
                weight=donor.weight if "W" in what else None,
                h_down=donor.h_down[i] if "h" in what else None,
                block=donor.block[i] if "block" in what else None,
            ):
                row.append(_margins(model, [batch], tokens))
        out.append(np.stack(row, axis=1))
    return np.concatenate(out)


def swap_margins(
    vanilla: HookedModel,
    model: HookedModel,
    queries: Sequence[str],
    layer: int,
    tokens: MarginTokens,
    *,
    suffix: str = "",
    batch_size: int = 16,
    identity: bool = False,
) -> SwapMargins:
    """All margins of both directions, with both models in memory (an edit: `edit.beside(vanilla)`).

    Ten forwards of the prompts. Where both do not fit, call `parts` and `swapped` one model at a time.

    Args:
        vanilla: the unsafe reference.
        model: the model under study.
        queries: attack prompts, not formatted yet.
        layer: 0-based.
        tokens: first tokens of refusing and complying answers.
        suffix: the suffix S, for both models.
        batch_size: prompts per forward.
        identity: only W_V of this layer differs. Every swap then gives one of the two models, up to rounding, so two
            forwards are enough.
    """
    prompts = batches(vanilla, queries, suffix, batch_size)
    if identity:
        vanilla.check_layer(layer)
        old, new = _margins(vanilla, prompts, tokens), _margins(model, prompts, tokens)
        return SwapMargins(new, old, np.stack([old, new, old, old], axis=1), np.stack([new, old, new, new], axis=1))
    theirs, mine = parts(vanilla, prompts, layer, tokens), parts(model, prompts, layer, tokens)
    return SwapMargins(
        mine.margin, theirs.margin, swapped(model, prompts, theirs, tokens), swapped(vanilla, prompts, mine, tokens)
    )


def swap_shares(margins: SwapMargins, *, model: str, layer: int, identity: bool = False, seed: int = 0) -> SwapShares:
    """The four shares with a bootstrap over prompts, and the gate.

    The interval covers the choice of prompts (with edits: of edits), not a repeated training. Percent would hide that
    shares may leave [0, 1]; they are fractions of the change of the mean margin.

    Args:
        margins: of one model, or the join over edits.
        model: name for the record.
        layer: 0-based, for the record.
        identity: only W_V of this layer was changed, so that the shares are algebra.
        seed: of the bootstrap.
    """
    over = "prompts"
    drop = 100.0 * ((margins.vanilla < 0).astype(float) - (margins.model < 0).astype(float))
    # Seen from vanilla, putting in the model's part is the same step the other way round.
    reverse = shares_of(np.column_stack([margins.vanilla, margins.model, margins.into_vanilla]).mean(axis=0))
    data = np.column_stack([margins.model, margins.vanilla, margins.into_model])
    erased, bypassed, parallel, downstream = of_means(data, shares_of, over=over, unit="share", seed=seed)
    levels = np.column_stack([margins.vanilla, margins.model])
    before, after = of_means(levels, lambda x: x, over=over, unit="nats", seed=seed)
    [gate] = of_means(drop[:, None], lambda x: x, over=over, unit="points", seed=seed)
    return SwapShares(
        model=model,
        layer=layer,
        erased=erased,
        bypassed=bypassed,
        parallel=parallel,
        downstream=downstream,
        reverse=(float(reverse[0]), float(reverse[1]), float(reverse[2]), float(reverse[3])),
        margin_vanilla=before,
        margin=after,
        compliance_drop=gate,
        gated=gate.low < GATE,
        identity=identity,
        n=len(margins.model),
    )


def shares_of(means: Float[np.ndarray, "*r 6"]) -> Float[np.ndarray, "*r 4"]:
    """(E, B, Par, Dn) from mean margins: receiver, donor, receiver with the donor's W; h; both; block output.

    All zero where receiver and donor do not differ.
    """
    receiver, change = means[..., :1], means[..., :1] - means[..., 1:2]
    same = change == 0
    w, h, both, block = np.moveaxis((receiver - means[..., 2:]) / np.where(same, 1.0, change), -1, 0)
    found = np.stack([(w + both - h) / 2, (h + both - w) / 2, block - both, 1 - block], axis=-1)
    return np.where(same, 0.0, found)


# --------------------------------------------------------------------------------------------- hooks
@torch.no_grad()
def _margins(model: HookedModel, prompts: Sequence[Tokens], tokens: MarginTokens) -> np.ndarray:
    found = [tokens.margin(model.logits(batch)[:, -1]) for batch in prompts]
    return torch.cat(found).cpu().double().numpy()


@contextmanager
def _hooked(
    model: HookedModel,
    layer: int,
    *,
    weight: Tensor | None = None,
    h_down: Tensor | None = None,
    block: Tensor | None = None,
    keep_h: Callable[[Tensor], None] | None = None,
    keep_block: Callable[[Tensor], None] | None = None,
) -> Iterator[None]:
    """Replace (or keep) the layer's W_V, its input and the block's output for the length of a `with` block."""
    module = model.value_module(layer)

    def enter(_: Any, args: tuple) -> tuple | None:
        if keep_h is not None:
            keep_h(args[0].detach())
        return None if h_down is None else (h_down.to(args[0]), *args[1:])

    def leave(_: Any, args: tuple, output: Tensor) -> Tensor | None:
        if weight is None:
            return None
        out = args[0] @ weight.to(args[0])
        return out if getattr(module, "bias", None) is None else out + module.bias

    def leave_block(_: Any, __: tuple, output: Any) -> Any:
        resid = output[0] if isinstance(output, tuple) else output
        if keep_block is not None:
            keep_block(resid.detach())
        if block is None:
            return None
        return (block.to(resid), *output[1:]) if isinstance(output, tuple) else block.to(resid)

    handles = [
        module.register_forward_pre_hook(enter),
        module.register_forward_hook(leave),
        model.blocks[layer].register_forward_hook(leave_block),
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
