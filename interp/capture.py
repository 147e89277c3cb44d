"""Activations at named places of every block: the residual stream, h_down and what attention and MLP write.

Runs the clean Hugging Face model with hooks on its modules (or a HookedTransformer of transformer-lens 3), batched by
length. Nothing is edited here. It attends eagerly, as transformer-lens does, and gives what `HookedModel.bridge` would
without making one: residuals equal HF's `hidden_states` exactly under eager attention, but HF's last one is after the
final norm: that is "final" here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, get_args

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from interp.errors import InputError
from interp.models import HookedModel, Side, Tokens
from interp.places import hooked, is_parallel, output_hooked

Component = Literal["resid_pre", "resid_mid", "resid_post", "h_down", "attn_out", "mlp_out", "final"]
"""resid_pre / resid_mid / resid_post: the residual stream before the block, between attention and MLP, after the block.
h_down: the input of W_V. attn_out, mlp_out: what the block adds (Gemma2: after its post-norms). final: after the final
norm, keyed by the last layer."""
Pool = Literal["none", "mean", "last"]
"""none: every position; mean: over the real tokens of a text; last: its last real token."""
Key = tuple[str, int]

_HOOKS: Mapping[str, str] = {
    "resid_pre": "blocks.{}.hook_resid_pre",
    "resid_mid": "blocks.{}.hook_resid_mid",
    "resid_post": "blocks.{}.hook_resid_post",
    "h_down": "blocks.{}.mlp.hook_post",
    "attn_out": "blocks.{}.hook_attn_out",
    "mlp_out": "blocks.{}.hook_mlp_out",
}


@dataclass(frozen=True)
class CaptureBatch:
    """The activations of one batch, on the model's device."""

    acts: Mapping[Key, Float[Tensor, "batch seq width"]]
    """(component, layer) -> activations; padded positions hold numbers without meaning."""
    tokens: Tokens
    index: tuple[int, ...]
    """Which of the inputs the rows are."""


@dataclass(frozen=True)
class Activations:
    """The activations of all inputs, on the CPU, in the order of the inputs."""

    acts: Mapping[Key, Float[Tensor, "..."]]
    """(component, layer) -> [n, width] when pooled, else [n, seq, width] with zeros at padded positions."""
    pool: str
    mask: Bool[Tensor, "n seq"]
    """Which positions are real tokens."""

    def __getitem__(self, key: Key) -> Float[Tensor, "..."]:
        if key not in self.acts:
            raise InputError(f"{key} was not captured; there is {sorted(self.acts)}")
        return self.acts[key]

    def stack(self, component: str) -> Float[Tensor, "layer ..."]:
        """All captured layers of one component, lowest first."""
        layers = sorted(layer for name, layer in self.acts if name == component)
        if not layers:
            raise InputError(f"{component} was not captured; there is {sorted({name for name, _ in self.acts})}")
        return torch.stack([self.acts[component, layer] for layer in layers])


def stream(
    model: HookedModel | Any,
    inputs: Sequence[str] | Tokens,
    components: Sequence[str] | str = ("resid_post",),
    layers: Sequence[int] | int | None = None,
    *,
    batch_size: int = 8,
    side: Side = "right",
) -> Iterator[CaptureBatch]:
    """Activations batch by batch, short inputs first, so that only one batch is in memory.

    Args:
        model: a HookedModel, or a HookedTransformer of transformer-lens 3 (by its `cfg` and `run_with_cache`).
        inputs: texts (already formatted), or tokens.
        components: which places, see `Component`.
        layers: which blocks, 0-based; None means all.
        batch_size: inputs per forward.
        side: where texts are padded; real tokens see the same positions either way.

    Raises:
        InputError: unknown component, one that the architecture does not have, a layer out of range, or no inputs.
    """
    source = _source(model)
    keys = _keys(source, components, layers)
    if batch_size < 1:
        raise InputError(f"expected batch_size >= 1, got {batch_size}")
    tokens = inputs if isinstance(inputs, Tokens) else source.tokenize(list(inputs), side)
    order = sorted(range(len(tokens)), key=tokens.lengths.tolist().__getitem__)
    for start in range(0, len(order), batch_size):
        index = order[start : start + batch_size]
        batch, _ = _trimmed(tokens, index)
        yield CaptureBatch(source.run(batch, keys, _depth(keys)), batch, tuple(index))


def capture(
    model: HookedModel | Any,
    inputs: Sequence[str] | Tokens,
    components: Sequence[str] | str = ("resid_post",),
    layers: Sequence[int] | int | None = None,
    *,
    pool: Pool | str = "none",
    batch_size: int = 8,
    side: Side = "right",
) -> Activations:
    """Activations of all inputs at once, pooled over real tokens only; arguments and errors as `stream`.

    Means are taken in float32 or better and returned so; otherwise the model's dtype is kept. `pool="none"` keeps every
    position of every input in memory: 4 bytes x n x seq x width for each (component, layer).
    """
    if pool not in get_args(Pool):
        raise InputError(f"expected pool to be one of {', '.join(get_args(Pool))}, got {pool!r}")
    tokens = inputs if isinstance(inputs, Tokens) else _source(model).tokenize(list(inputs), side)
    n, width = tokens.input_ids.shape
    acts: dict[Key, Tensor] = {}
    for batch in stream(model, tokens, components, layers, batch_size=batch_size):
        rows = torch.tensor(batch.index)
        _, columns = _trimmed(tokens, list(batch.index))
        for key, x in batch.acts.items():
            part = _pooled(x, batch.tokens.attention_mask, pool).cpu()
            if key not in acts:
                acts[key] = part.new_zeros((n, width, part.shape[-1]) if pool == "none" else (n, part.shape[-1]))
            if pool == "none":
                acts[key][rows[:, None], columns[None]] = part
            else:
                acts[key][rows] = part
    return Activations(acts, pool, tokens.attention_mask.bool().cpu())


# ------------------------------------------------------------------------------------------------- sources
class _Reached(Exception):  # noqa: N818 (control flow, not an error)
    """Raised by a hook to end a forward whose rest nobody needs."""


class _Clean:
    """The Hugging Face model of a HookedModel."""

    def __init__(self, model: HookedModel) -> None:
        self.model, self.name, self.n_layers = model, model.name, model.n_layers
        self.parallel = is_parallel(model)

    def tokenize(self, texts: list[str], side: Side) -> Tokens:
        return self.model.tokenize(texts, side=side)

    def run(self, tokens: Tokens, keys: Sequence[Key], depth: int) -> dict[Key, Tensor]:
        found: dict[Key, Tensor] = {}

        def stop(_: Tensor) -> None:
            raise _Reached

        with ExitStack() as stack, torch.no_grad(), _eager(self.model.hf):
            for key in keys:
                keep = partial(found.__setitem__, key)
                if key[0] == "final":
                    stack.enter_context(output_hooked(self.model.final_norm, keep))
                else:
                    stack.enter_context(hooked(self.model, key[0], key[1], keep))  # type: ignore[arg-type]
            if depth < self.n_layers:
                stack.enter_context(output_hooked(self.model.blocks[depth - 1], stop))
            with suppress(_Reached):
                self.model.hf.base_model(
                    input_ids=tokens.input_ids,
                    attention_mask=tokens.attention_mask,
                    position_ids=tokens.position_ids,
                    use_cache=False,
                )
        return found


@contextmanager
def _eager(hf: Any) -> Iterator[None]:
    """The model with eager attention, put back afterwards."""
    before = hf.config._attn_implementation
    hf.set_attn_implementation("eager")
    try:
        yield
    finally:
        hf.set_attn_implementation(before)


class _Hooked3:
    """A HookedTransformer of transformer-lens 3, by duck typing; folded or not is its maker's choice."""

    def __init__(self, model: Any) -> None:
        self.model, self.n_layers = model, int(model.cfg.n_layers)
        self.name = str(getattr(model.cfg, "model_name", "") or type(model).__name__)
        self.parallel = bool(getattr(model.cfg, "parallel_attn_mlp", False))

    def tokenize(self, texts: list[str], side: Side) -> Tokens:
        rows = [self.model.to_tokens(text)[0].tolist() for text in texts]
        if not rows or not all(rows):
            raise InputError("expected texts of at least one token each")
        width = max(len(row) for row in rows)
        blank = [[0] * (width - len(row)) for row in rows]
        pairs = [
            (b + r, b + [1] * len(r)) if side == "left" else (r + b, [1] * len(r) + b)
            for r, b in zip(rows, blank, strict=True)
        ]
        return Tokens(torch.tensor([ids for ids, _ in pairs]), torch.tensor([mask for _, mask in pairs]))

    def run(self, tokens: Tokens, keys: Sequence[Key], depth: int) -> dict[Key, Tensor]:
        last = _HOOKS["resid_post"].format(self.n_layers - 1)
        names = {key: last if key[0] == "final" else _HOOKS[key[0]].format(key[1]) for key in keys}
        with torch.no_grad():
            _, cache = self.model.run_with_cache(
                tokens.input_ids,
                attention_mask=tokens.attention_mask,
                names_filter=list(dict.fromkeys(names.values())),
                stop_at_layer=depth,
                return_type=None,
            )
            return {key: self.model.ln_final(cache[n]) if key[0] == "final" else cache[n] for key, n in names.items()}


_Source = _Clean | _Hooked3


def _source(model: HookedModel | Any) -> _Source:
    if isinstance(model, HookedModel):
        return _Clean(model)
    if hasattr(model, "run_with_cache") and hasattr(getattr(model, "cfg", None), "n_layers"):
        if type(model).__name__ == "TransformerBridge":
            raise InputError(
                "expected a HookedModel, got a TransformerBridge: wrap the HF model, HookedModel.from_hf(...)"
            )
        return _Hooked3(model)
    raise InputError(
        f"expected a HookedModel or a HookedTransformer, got {type(model).__name__}; see HookedModel.from_hf"
    )


# ------------------------------------------------------------------------------------------------- small things
def _keys(source: _Source, components: Sequence[str] | str, layers: Sequence[int] | int | None) -> list[Key]:
    """The (component, layer) pairs asked for."""
    components = [components] if isinstance(components, str) else list(components)
    wanted = range(source.n_layers) if layers is None else [layers] if isinstance(layers, int) else list(layers)
    for layer in wanted:
        if not 0 <= layer < source.n_layers:
            raise InputError(f"layer {layer} out of range: the model has layers 0..{source.n_layers - 1}")
    keys: list[Key] = []
    for component in components:
        if component not in get_args(Component):
            raise InputError(f"unknown component {component!r}; expected one of {', '.join(get_args(Component))}")
        if component == "resid_mid" and source.parallel:
            raise InputError(
                f"{source.name} has no resid_mid: its attention and MLP run in parallel on the same input "
                "(GPT-NeoX), so nothing lies between them; take resid_pre"
            )
        keys += [(component, source.n_layers - 1)] if component == "final" else [(component, int(i)) for i in wanted]
    if not keys:
        raise InputError("expected at least one component and one layer to capture, got none")
    return list(dict.fromkeys(keys))


def _depth(keys: Sequence[Key]) -> int:
    return 1 + max(layer for _, layer in keys)


def _trimmed(tokens: Tokens, index: list[int]) -> tuple[Tokens, Int[Tensor, "column"]]:
    """Some rows without the columns that are padding in all of them, and the columns that stay."""
    mask = tokens.attention_mask[index]
    columns = mask.any(dim=0).nonzero()[:, 0]
    return Tokens(tokens.input_ids[index][:, columns], mask[:, columns]), columns.cpu()


def _pooled(x: Float[Tensor, "batch seq width"], mask: Int[Tensor, "batch seq"], pool: str) -> Tensor:
    real = mask.bool().to(x.device)
    if pool == "none":
        return x.masked_fill(~real[..., None], 0.0)
    if pool == "last":
        last = mask.shape[1] - 1 - real.flip(1).int().argmax(dim=1)
        return x[torch.arange(len(x), device=x.device), last]
    x = x if x.dtype == torch.float64 else x.float()
    return x.masked_fill(~real[..., None], 0.0).sum(dim=1) / real.sum(dim=1, keepdim=True)
