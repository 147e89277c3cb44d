"""Swaps at one layer between two models: W_V, its inputs, both, or the block's output; what the margin becomes.

The forwards of a swap begin where the swap is: below it nothing changes, so that is run once per model. No parameter
is written to; shares and verdicts are made from the margins in `shares`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from interp.errors import InputError
from interp.mechanism.margin import MarginTokens, batches, last_margin, margins
from interp.models import HookedModel, Tokens
from interp.prefix import ValueState, from_layer, from_value, replaced

BATCH = 16


@dataclass(frozen=True)
class SwapMargins:
    """Margins per prompt, nats, from which the shares follow, so that a rule can be changed without a forward.

    A plain record: `records.dumps` writes it.
    """

    model: Float[np.ndarray, "prompt"]
    vanilla: Float[np.ndarray, "prompt"]
    into_model: Float[np.ndarray, "prompt 4"]
    """The model with the reference's W_V; h_down; both; block output."""
    into_vanilla: Float[np.ndarray, "prompt 4"]
    """The reference with the model's."""
    unit: tuple[int, ...] = ()
    """Which model or edit each margin is of; () where all are of one."""
    prompt: tuple[int, ...] = ()
    """Which prompt each margin is on, where several models were asked the same ones; () where none is shared."""

    def __post_init__(self) -> None:
        n = len(self.model)
        sizes = {len(self.vanilla), len(self.into_model), len(self.into_vanilla)}
        sizes |= {len(x) for x in (self.unit, self.prompt) if x}
        if sizes != {n}:
            raise ValueError(f"expected {n} rows everywhere, got {sorted(sizes)}")

    @classmethod
    def join(cls, pieces: Sequence[SwapMargins], *, same_prompts: bool = False) -> SwapMargins:
        """The margins of several models or edits as one; each becomes a unit that intervals resample.

        Args:
            pieces: one per model or edit.
            same_prompts: all were asked the same prompts in the same order (intervals then resample those too).

        Raises:
            InputError: no pieces, or pieces of other lengths where the prompts are said to be the same.
        """
        if not pieces:
            raise InputError("expected the margins of at least one edit, got none")
        lengths = [len(p.model) for p in pieces]
        if same_prompts and len(set(lengths)) > 1:
            raise InputError(f"expected the same prompts for every model, got {sorted(set(lengths))} of them")
        names = ("model", "vanilla", "into_model", "into_vanilla")
        joined = (np.concatenate([getattr(p, name) for p in pieces]) for name in names)
        unit = tuple(i for i, n in enumerate(lengths) for _ in range(n))
        prompt = tuple(i for n in lengths for i in range(n)) if same_prompts else ()
        return cls(*joined, unit=unit, prompt=prompt)


@dataclass(frozen=True)
class Parts:
    """What one model has at the layer on some prompts: the donor or the receiver of a swap, and its own margins.

    Memory: prompts x tokens x (d_mlp + 3 d_model) numbers in the model's dtype.
    """

    layer: int
    weight: Float[Tensor, "d_mlp d_model"]
    states: tuple[ValueState, ...]
    """What lies below W_V, one per batch of prompts."""
    block: tuple[Float[Tensor, "_ _ d_model"], ...]
    """Output [batch, seq, d_model] of the block."""
    margin: Float[np.ndarray, "prompt"]


@torch.no_grad()
def parts(model: HookedModel, prompts: Sequence[Tokens], layer: int, tokens: MarginTokens) -> Parts:
    """One clean forward per batch, keeping what a swap needs. Raises InputError where there is no such layer."""
    states, block, found = [], [], []
    for batch in prompts:
        kept: dict[str, Tensor] = {}
        with _kept(model, layer, kept):
            found.append(last_margin(model, batch, tokens))
        states.append(ValueState(batch, layer, kept["resid"], kept["attn_out"], kept["h_down"]))
        block.append(kept["block"])
    weight = model.value_vectors(layer).clone()
    return Parts(layer, weight, tuple(states), tuple(block), torch.cat(found).cpu().double().numpy())


@torch.no_grad()
def swapped(model: HookedModel, own: Parts, donor: Parts, tokens: MarginTokens) -> Float[np.ndarray, "prompt 4"]:
    """Margins of `model` with the donor's W_V; its h_down; both; its block output. The model is left as it was.

    W_V is the matrix alone, as everywhere: a bias beside it (GPT-2, GPT-NeoX) stays the receiver's, so that a change of
    that bias is counted as parallel.

    Args:
        model: the receiver.
        own: its `parts` on the prompts.
        donor: the other model's, on the same prompts.
        tokens: first tokens of refusing and complying answers.
    """
    if own.layer != donor.layer or len(own.states) != len(donor.states):
        raise InputError(f"expected parts of one layer on one set of prompts, got layers {own.layer}, {donor.layer}")
    layer, out, start = own.layer, [], 0
    bias = getattr(model.value_module(layer), "bias", None)
    same_weight = _same(own.weight, donor.weight)
    for mine, theirs, before, block in zip(own.states, donor.states, own.block, donor.block, strict=True):
        # A donor that was changed elsewhere may hold the receiver's own bits here: the same forward is run once.
        same_h, found, row = _same(mine.h_down, theirs.h_down), {}, []
        for new_h, new_weight in ((False, True), (True, False), (True, True)):
            key = (new_h and not same_h, new_weight and not same_weight)
            if key not in found:
                h, weight = (theirs if key[0] else mine).h_down, donor.weight if key[1] else own.weight
                wrote = h.to(mine.h_down) @ weight.to(mine.h_down)
                with _mlp_wrote(model, mine, wrote if bias is None else wrote + bias):
                    found[key] = last_margin(model, mine.tokens, tokens).cpu().double()
            row.append(found[key])
        if _same(before, block):
            row.append(torch.from_numpy(own.margin[start : start + len(mine.tokens)]))
        else:
            with from_layer(model, layer + 1, block.to(mine.resid)):
                row.append(last_margin(model, mine.tokens, tokens).cpu().double())
        out.append(torch.stack(row, dim=1))
        start += len(mine.tokens)
    return torch.cat(out).numpy()


def swap_margins(
    vanilla: HookedModel,
    model: HookedModel,
    queries: Sequence[str],
    layer: int,
    tokens: MarginTokens,
    *,
    suffix: str = "",
    batch_size: int = BATCH,
    identity: bool = False,
) -> SwapMargins:
    """All margins of both directions, with both models in memory (an edit: `edit.beside(vanilla)`).

    Two whole forwards of the prompts, and up to eight that begin at the layer: fewer where the models hold the same
    bits there. Where both models do not fit, call `parts` and `swapped` one model at a time.

    Args:
        vanilla: the unsafe reference: vanilla, or any model that shows the behaviour (a planted one).
        model: the model under study.
        queries: attack prompts, not formatted yet.
        layer: 0-based.
        tokens: first tokens of refusing and complying answers.
        suffix: the suffix S, for both models.
        batch_size: prompts per forward.
        identity: only W_V of this layer differs. Every swap then gives one of the two models, up to rounding, so two
            forwards are enough.

    Raises:
        InputError: the reference has another shape, vocabulary or tokenization; no such layer; no prompts.
    """
    if not queries:
        raise InputError("expected at least one attack prompt to swap on, got none")
    check_comparable(vanilla, model, model.name, queries)
    vanilla.check_layer(layer)
    prompts = batches(vanilla, queries, suffix, batch_size)
    if identity:
        old, new = margins(vanilla, prompts, tokens), margins(model, prompts, tokens)
        return SwapMargins(new, old, np.stack([old, new, old, old], axis=1), np.stack([new, old, new, new], axis=1))
    theirs, mine = parts(vanilla, prompts, layer, tokens), parts(model, prompts, layer, tokens)
    return SwapMargins(
        mine.margin, theirs.margin, swapped(model, mine, theirs, tokens), swapped(vanilla, theirs, mine, tokens)
    )


def check_comparable(vanilla: HookedModel, model: HookedModel, name: str, queries: Iterable[str]) -> None:
    """Raise InputError where a model cannot be compared with its reference matrix by matrix, on the same tokens."""

    def shape(m: HookedModel) -> dict[str, int | str]:
        layers = m.layout.blocks.split(".")[0]
        return {"layers": m.n_layers, "d_model": m.d_model, "d_mlp": m.d_mlp, "vocabulary": m.vocab_size,
                "modules under": layers}  # fmt: skip

    ours, theirs = shape(vanilla), shape(model)
    if ours != theirs:
        differ = ", ".join(f"{k} {theirs[k]} instead of {ours[k]}" for k in ours if ours[k] != theirs[k])
        raise InputError(f"{name} does not have the shape of the vanilla model {vanilla.name}: {differ}")
    if vanilla.tokenizer is model.tokenizer and vanilla.chat_template == model.chat_template:
        return
    for query in queries:
        if vanilla.token_ids(vanilla.format_prompt(query)) != model.token_ids(model.format_prompt(query)):
            raise InputError(
                f"{name} turns the same prompt into other tokens than the vanilla model: expected its tokenizer and "
                "chat template (see --chat-template)"
            )


def _same(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors hold the same bits in the same place."""
    return one.device == other.device and one.dtype == other.dtype and torch.equal(one, other)


# --------------------------------------------------------------------------------------------- hooks
@contextmanager
def _mlp_wrote(model: HookedModel, state: ValueState, out: Float[Tensor, "batch seq d_model"]) -> Iterator[None]:
    """The forward from `state` on, with `out` in the place of what W_V makes of it."""
    with from_value(model, state), replaced(model.mlp(state.layer), lambda *_, **__: out):
        yield


@contextmanager
def _kept(model: HookedModel, layer: int, kept: dict[str, Tensor]) -> Iterator[None]:
    """Keep the block's input, what its attention wrote, W_V's input and the block's output."""

    def keep_resid(_: nn.Module, args: tuple, kwargs: dict) -> None:
        kept["resid"] = args[0] if args else kwargs["hidden_states"]

    def keep_h_down(_: nn.Module, args: tuple) -> None:
        kept["h_down"] = args[0]

    def keep_output(name: str):
        def keep(_: nn.Module, __: tuple, out: object) -> None:
            kept[name] = out[0] if isinstance(out, tuple) else out  # type: ignore[assignment]

        return keep

    block = model.blocks[model.check_layer(layer)]
    handles = [
        block.register_forward_pre_hook(keep_resid, with_kwargs=True),
        model.attention(layer).register_forward_hook(keep_output("attn_out")),
        model.value_module(layer).register_forward_pre_hook(keep_h_down),
        block.register_forward_hook(keep_output("block")),
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
