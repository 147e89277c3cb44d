"""HookedModel: the one place that loads, tokenizes, formats, runs and hooks models.

A HookedModel holds a clean Hugging Face model, frozen and in eval mode, and builds on demand a transformer-lens
`TransformerBridge` over a twin that shares every parameter with it: the clean model generates, trains and saves, the
bridge captures, and an edit is seen by both. Weights are raw everywhere: nothing is folded or centred.
"""

from __future__ import annotations

import copy
import hashlib
import logging
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import GenerationConfig, PreTrainedModel
from transformers.pytorch_utils import Conv1D

from interp import decode
from interp.checkpoints import open_checkpoint, quiet, save_checkpoint
from interp.errors import InputError
from interp.layouts import find, layout_of
from interp.texts import Generation, PromptTemplate, Tokens

log = logging.getLogger("interp")

Side = Literal["left", "right"]
ChatTemplate = Literal["auto", "none"]


class HookedModel:
    """A frozen Hugging Face decoder with its tokenizer, prompt format and parameter-sharing hooks."""

    def __init__(
        self,
        hf: PreTrainedModel | Any,
        tokenizer: Any,
        name: str = "model",
        source: str = "",
        chat_template: ChatTemplate | None = None,
        check: bool = True,
    ) -> None:
        """Wrap a model. It is put in eval mode and frozen; nothing is copied.

        Args:
            hf: a causal language model of transformers.
            tokenizer: its tokenizer, used as it is.
            name: how tables call it.
            source: where it came from.
            chat_template: "auto" renders prompts with the tokenizer's chat template where it has one, "none" never;
                None does what the checkpoint's config says (`interp_chat_template`), else "none".
            check: look for weights that are not finite.

        Raises:
            InputError: no transformers model, an unsupported architecture, quantized, NaN or infinite weights, or a
                tokenizer without padding and EOS.
        """
        if not isinstance(hf, PreTrainedModel):
            raise InputError(
                f"expected a transformers model, got {type(hf).__name__}: a HookedTransformer is only for capture "
                "(which takes it as it is), a PEFT model must be merged first (merge_and_unload)"
            )
        if getattr(hf, "is_quantized", False):
            raise InputError(
                f"the weights of {name} are quantized and cannot be edited; open it in bfloat16 or float32"
            )
        said = chat_template or getattr(hf.config, "interp_chat_template", None) or "none"
        if said not in ("auto", "none"):
            raise InputError(f'expected chat_template "auto" or "none", got {said!r}')
        if tokenizer.pad_token_id is None and tokenizer.eos_token_id is None:
            raise InputError(
                f"the tokenizer of {name} has neither a padding nor an EOS token; set one, "
                "e.g. tokenizer.pad_token = tokenizer.unk_token"
            )
        self.layout = layout_of(hf)
        self.hf = hf.eval().requires_grad_(False)
        self.tokenizer = tokenizer
        self.name = name
        self.source = source or name
        self.chat_template: ChatTemplate = said  # type: ignore[assignment]
        self.truncated = 0
        """How many texts were cut to fit."""
        self.warnings: list[str] = []
        """One line for each thing the user should know, e.g. what was truncated from which side."""
        self._digests: dict[str, tuple[tuple[int, int], bytes]] = {}
        self._bridge: tuple[Any, list[int] | None] | None = None
        if check:
            self.check_finite()

    @classmethod
    def from_pretrained(
        cls,
        source: str | Path,
        *,
        base: str | Path | None = None,
        dtype: torch.dtype | str | None = None,
        device: torch.device | str | None = None,
        device_map: Any = None,
        chat_template: ChatTemplate | None = None,
        name: str | None = None,
    ) -> HookedModel:
        """Open "demo", "demo-llama" or "demo-replica", a hub id, a folder, a PEFT adapter (merged onto its base), or a
        state-dict file (which needs `base`).

        `dtype=None` means float32 on a CPU and for the demo, else the checkpoint's own ("auto").

        Raises:
            InputError: the source is not there, is damaged, or does not fit its base.
        """
        opened = open_checkpoint(source, base=base, dtype=dtype, device=device, device_map=device_map)
        model = cls(opened.hf, opened.tokenizer, name or opened.name, opened.source, chat_template)
        for note in opened.notes:
            model.note(note)
        return model

    @classmethod
    def from_hf(
        cls, hf: PreTrainedModel | Any, tokenizer: Any, name: str = "model", chat_template: ChatTemplate | None = None
    ) -> HookedModel:
        """Wrap a model that is already in memory (it is frozen and put in eval mode, not copied)."""
        return cls(hf, tokenizer, name, name, chat_template)

    def __repr__(self) -> str:
        shape = f"{self.n_layers} layers, d_model {self.d_model}, d_mlp {self.d_mlp}, {self.dtype}"
        return f"HookedModel({self.name}: {shape})"

    # ----------------------------------------------------------------------------------------- shape
    @property
    def n_layers(self) -> int:
        """Number of blocks."""
        return len(self.blocks)

    @property
    def d_model(self) -> int:
        """Width of the residual stream."""
        return self.value_vectors(0).shape[1]

    @property
    def d_mlp(self) -> int:
        """Number of neurons of one MLP."""
        return self.value_vectors(0).shape[0]

    @property
    def vocab_size(self) -> int:
        """Rows of the logits."""
        return int(self.unembedding.weight.shape[0])  # type: ignore[arg-type]

    @property
    def context(self) -> int:
        """The most positions a sequence may have."""
        return int(self.hf.config.max_position_embeddings)

    @property
    def device(self) -> torch.device:
        """Where token ids go."""
        return self.hf.device

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the weights."""
        return self.hf.dtype

    @property
    def pad_id(self) -> int:
        """The id that fills padded positions (the EOS where the tokenizer has no padding token)."""
        pad = self.tokenizer.pad_token_id
        return int(self.tokenizer.eos_token_id if pad is None else pad)

    @property
    def stop_ids(self) -> tuple[int, ...]:
        """The ids that end an answer: the tokenizer's EOS and those of the model's generation config."""
        own = getattr(self.hf.generation_config, "eos_token_id", None)
        ids = [self.tokenizer.eos_token_id, *(own if isinstance(own, (list, tuple)) else [own])]
        return tuple(dict.fromkeys(int(i) for i in ids if i is not None))

    # ----------------------------------------------------------------------------------------- modules
    @property
    def blocks(self) -> list[nn.Module]:
        """The decoder blocks of the clean model."""
        return list(find(self.hf, self.layout.blocks))

    @property
    def final_norm(self) -> nn.Module:
        """The norm between the last block and the unembedding."""
        return find(self.hf, self.layout.final_norm)

    @property
    def unembedding(self) -> nn.Module:
        """The module that turns the normed residual stream into logits."""
        return self.hf.get_output_embeddings()  # type: ignore[return-value]

    def check_layer(self, layer: int) -> int:
        """`layer` itself. Raises InputError where the model has no such layer (0-based; no negative indices)."""
        if isinstance(layer, bool) or not isinstance(layer, int):
            raise InputError(f"expected a layer number, got {layer!r}")
        if not 0 <= layer < self.n_layers:
            raise InputError(f"layer {layer} out of range: the model has layers 0..{self.n_layers - 1}")
        return layer

    def attention(self, layer: int) -> nn.Module:
        """The attention module of a layer."""
        return find(self.blocks[self.check_layer(layer)], self.layout.attention)

    def mlp(self, layer: int) -> nn.Module:
        """The MLP module of a layer."""
        return find(self.blocks[self.check_layer(layer)], self.layout.mlp)

    def value_module(self, layer: int) -> nn.Module:
        """The module that holds W_V of a layer (Llama `down_proj`, GPT-2 `c_proj`); its input is h_down."""
        return find(self.mlp(layer), self.layout.value)

    def value_weight(self, layer: int) -> nn.Parameter:
        """W_V of a layer in its own layout: [d_mlp, d_model] on GPT-2, [d_model, d_mlp] elsewhere."""
        return self.value_module(layer).weight  # type: ignore[return-value]

    def value_name(self, layer: int) -> str:
        """The name of W_V in the state dict."""
        return f"{self.layout.blocks}.{self.check_layer(layer)}.{self.layout.mlp}.{self.layout.value}.weight"

    def value_vectors(self, layer: int) -> Float[Tensor, "d_mlp d_model"]:
        """W_V as the paper writes it: row i is the value vector of neuron i. A view: writing to it edits the model."""
        weight = self.value_weight(layer).detach()
        return weight if isinstance(self.value_module(layer), Conv1D) else weight.T

    @property
    def bridge(self) -> Any:
        """A transformer-lens TransformerBridge over a twin of `hf` that shares every parameter and buffer.

        Made on first use (1-2 s) and kept. It attends eagerly, so compare two models through the same path only. On
        GPT-NeoX it holds its own copy of the fused attention weights, and is made anew after those have changed.
        """
        stamp = [p._version for name, p in self.hf.named_parameters() if f".{self.layout.attention}." in name]
        if self._bridge is None or self._bridge[1] not in (None, stamp):
            bridge = self._make_bridge()
            own = {t.untyped_storage().data_ptr() for t in [*self.hf.parameters(), *self.hf.buffers()]}
            shares_all = all(p.untyped_storage().data_ptr() in own for p in bridge.parameters())
            self._bridge = (bridge, None if shares_all else stamp)
        return self._bridge[0]

    def _make_bridge(self) -> Any:
        from transformer_lens.model_bridge import TransformerBridge

        shared: dict[int, Any] = {id(t): t for t in [*self.hf.parameters(), *self.hf.buffers()]}
        twin = copy.deepcopy(self.hf, shared)
        # The boot fills in padding and wants a tokenizer with BOS, else it opens another one by name: a copy that says
        # it has one is left alone, and encodes as the user's does.
        tokenizer = copy.deepcopy(self.tokenizer)
        tokenizer.init_kwargs = {"name_or_path": "", **tokenizer.init_kwargs, "add_bos_token": True}
        placed = {} if getattr(self.hf, "hf_device_map", None) else {"device": str(self.device)}
        with quiet():
            bridge = TransformerBridge.boot_transformers(
                "interp", hf_model=twin, tokenizer=tokenizer, dtype=self.dtype, **placed
            )
        for parameter in bridge.parameters():  # on GPT-2 there are more than those of `hf`: views of the fused q, k, v
            parameter.requires_grad_(False)
        return bridge.eval()

    def weights_touched(self, names: Iterable[str]) -> None:
        """To be told by whoever changes weights past autograd (`.data`), so that no copy of them is used on."""
        copies = self._bridge is not None and self._bridge[1] is not None
        if copies and any(f".{self.layout.attention}." in name for name in names):
            self._bridge = None

    # ----------------------------------------------------------------------------------------- text
    @property
    def template(self) -> PromptTemplate:
        """The prompt format in force."""
        chat = self.chat_template == "auto" and bool(getattr(self.tokenizer, "chat_template", None))
        return PromptTemplate("chat" if chat else "plain", self.tokenizer)

    def format_prompt(self, query: str, suffix: str = "", prefix: str = "") -> str:
        """The prompt for a query, between the system prompts of a method where they are given (never by itself)."""
        return self.template.prompt(query, suffix, prefix)

    def format_answer(self, query: str, answer: str, suffix: str = "") -> str:
        """The text that follows `format_prompt(query, suffix)` when the model answers `answer`; no EOS."""
        return self.template.answer(query, answer, suffix)

    @cached_property
    def _bos(self) -> list[int]:
        """The BOS, where this tokenizer puts one in front of a text."""
        bos = self.tokenizer.bos_token_id
        first = self.tokenizer("a").input_ids[:1]
        return [bos] if bos is not None and first == [bos] else []

    def token_ids(self, text: str, *, special: bool | None = None) -> list[int]:
        """The ids of one text: BOS in front where the tokenizer adds one (`special=False`: never), no EOS.

        A text that already begins with the BOS, as rendered chat templates do, does not get a second one.
        """
        ids = list(self.tokenizer(text, add_special_tokens=False, verbose=False).input_ids)
        bos = [] if special is False else self._bos if special else self._bos_before(ids)
        return bos + ids

    def _bos_before(self, ids: list[int]) -> list[int]:
        """The BOS that belongs in front of these ids: none where they begin with it."""
        return [] if ids[:1] == self._bos else self._bos

    def tokenize(
        self,
        texts: Sequence[str],
        *,
        side: Side = "left",
        max_length: int | None = None,
        truncation_side: Side = "left",
        special: bool | None = None,
    ) -> Tokens:
        """Token ids of some texts, padded on `side`, on the model's device.

        Texts longer than `max_length` (and the model's context) are cut from `truncation_side`; the BOS stays. Each cut
        is counted in `truncated` and told in `warnings`.

        Raises:
            InputError: no texts, or a text without a single token.
        """
        limit = min(max_length or self.context, self.context)
        rows = [self.token_ids(text, special=special) for text in texts]
        return self.pad(self._cut(rows, limit, truncation_side, "texts"), side=side)

    def pad(self, rows: Sequence[Sequence[int]], *, side: Side = "left") -> Tokens:
        """Rows of token ids as one padded batch on the model's device.

        Raises:
            InputError: no rows, an empty one, or one that is longer than the context (nothing is cut here).
        """
        if not rows:
            raise InputError("expected at least one text, got none")
        for index, row in enumerate(rows):
            if not row:
                raise InputError(f"text {index} has no tokens; expected at least one")
            if len(row) > self.context:
                raise InputError(
                    f"text {index} has {len(row)} tokens, more than the {self.context} of the model's context"
                )
        width = max(len(row) for row in rows)
        ids = torch.full((len(rows), width), self.pad_id, dtype=torch.long)
        mask = torch.zeros_like(ids)
        for i, row in enumerate(rows):
            where = slice(width - len(row), width) if side == "left" else slice(0, len(row))
            ids[i, where] = torch.tensor(row, dtype=torch.long)
            mask[i, where] = 1
        return Tokens(ids, mask).to(self.device)

    def _cut(self, rows: list[list[int]], limit: int, side: Side, what: str) -> list[list[int]]:
        if limit < 1:
            raise InputError(f"expected room for at least one token, got a limit of {limit}")
        long = sum(len(row) > limit for row in rows)
        if not long:
            return rows
        kept = "last" if side == "left" else "first"
        self.truncated += long
        self.note(
            f"{long} of {len(rows)} {what} had more than {limit} tokens: cut from the {side}, the {kept} {limit} kept",
        )
        return [self._shorten(row, limit, side) for row in rows]

    def _shorten(self, row: list[int], limit: int, side: Side) -> list[int]:
        if len(row) <= limit:
            return row
        if side == "right":
            return row[:limit]
        bos = row[:1] if row[:1] == self._bos else []
        return bos + row[len(row) - (limit - len(bos)) :]

    def note(self, line: str) -> None:
        """Keep a line for the user in `warnings`, and log it once."""
        if line not in self.warnings:
            self.warnings.append(line)
            log.warning("%s: %s", self.name, line)

    def encode_pair(
        self,
        query: str,
        answer: str,
        suffix: str = "",
        max_prompt: int = 1000,
        max_answer: int = 600,
        eos: bool = True,
        prefix: str = "",
    ) -> tuple[list[int], list[int]]:
        """Token ids of a prompt and of the answer after it, as the model meets them in one sequence.

        They are tokenized together and parted where the answer's text begins. A long prompt is cut from the left, a
        long answer from the right (then it gets no EOS), and the prompt once more where both exceed the context.

        Returns:
            The prompt's ids (BOS included) and the answer's (EOS included where `eos`).
        """
        prompt, reply = self.format_prompt(query, suffix, prefix), self.format_answer(query, answer, suffix)
        bare = self.token_ids(prompt, special=False)
        ids, split = self._joint_ids(prompt, reply)
        head, tail = [*self._bos_before(bare), *ids[:split]], ids[split:]
        if eos:
            if self.tokenizer.eos_token_id is None:
                raise InputError(f"the tokenizer of {self.name} has no EOS token to end an answer with; pass eos=False")
            tail = [*tail, self.tokenizer.eos_token_id]
        [tail] = self._cut([tail], min(max_answer, self.context - 1), "right", "answers")
        [head] = self._cut([head], min(max_prompt, self.context - len(tail)), "left", "prompts")
        return head, tail

    def _joint_ids(self, prompt: str, reply: str) -> tuple[list[int], int]:
        """Ids of prompt + reply without special tokens, and the index of the reply's first token."""
        if getattr(self.tokenizer, "is_fast", False):
            out = self.tokenizer(prompt + reply, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
            split = next((i for i, (_, end) in enumerate(out.offset_mapping) if end > len(prompt)), len(out.input_ids))
            return list(out.input_ids), split
        alone = self.token_ids(prompt, special=False)
        both = self.token_ids(prompt + reply, special=False)
        same = next(
            (i for i, (a, b) in enumerate(zip(alone, both, strict=False)) if a != b), min(len(alone), len(both))
        )
        return both, same

    # ----------------------------------------------------------------------------------------- running
    def logits(self, tokens: Tokens) -> Float[Tensor, "batch seq vocab"]:
        """Next-token logits of the clean model. Differentiable where a caller has unfrozen a weight."""
        forward: Any = self.hf
        out = forward(
            input_ids=tokens.input_ids,
            attention_mask=tokens.attention_mask,
            position_ids=tokens.position_ids,
            use_cache=False,
        )
        return out.logits

    def generate(
        self,
        prompts: Sequence[str] | str,
        *,
        max_new_tokens: int = 64,
        batch_size: int = 32,
        progress: Callable[[int, int], None] | None = None,
        rows: Callable[[list[int]], None] | None = None,
        shared: decode.Shared | None = None,
    ) -> list[Generation]:
        """Greedy answers to prompts that are already formatted (`format_prompt`), in their order.

        Batched by length, each row replaced as it ends (`interp.decode`; models whose attention has a window shorter
        than the text go through transformers' own `generate`); the answer is cut by tokens, and ends before the first
        stop token.
        The checkpoint's own generation settings (sampling, penalties) are not used. Prompts that do not leave room for
        `max_new_tokens` in the context are cut from the left, and told.

        Args:
            batch_size: rows decoded at a time.
            progress: called with (done, total) as answers end.
            rows: told before each forward which prompt (its index) each row of the batch is, for hooks that treat rows
                differently (`interp.multi`).
            shared: lets equal prompts of such rows be read once.

        Raises:
            InputError: `max_new_tokens` does not fit the context, or a prompt has no tokens.
        """
        prompts = [prompts] if isinstance(prompts, str) else list(prompts)
        if not 1 <= max_new_tokens < self.context:
            raise InputError(
                f"expected max_new_tokens in 1..{self.context - 1} (the context less one), got {max_new_tokens}"
            )
        if batch_size < 1:
            raise InputError(f"expected batch_size >= 1, got {batch_size}")
        ids = self._cut([self.token_ids(p) for p in prompts], self.context - max_new_tokens, "left", "prompts")
        if not all(ids):
            raise InputError(f"text {ids.index([])} has no tokens; expected at least one")
        if decode.supports(self.hf, max(map(len, ids), default=0) + max_new_tokens):
            answers = decode.greedy(
                self.hf,
                self.unembedding,
                ids,
                max_new_tokens=max_new_tokens,
                spared=self.spared(),
                stop_ids=self.stop_ids,
                slots=batch_size,
                rows=rows,
                shared=shared,
                progress=progress,
            )
            return [self._generation(answer) for answer in answers]
        order = sorted(range(len(ids)), key=lambda i: len(ids[i]))
        found: dict[int, Generation] = {}
        for start in range(0, len(order), batch_size):
            batch = order[start : start + batch_size]
            if rows is not None:
                rows(batch)
            found |= zip(batch, self._decode(self.pad([ids[i] for i in batch]), max_new_tokens), strict=True)
            if progress is not None:
                progress(len(found), len(ids))
        return [found[i] for i in range(len(ids))]

    def spared(self) -> list[nn.Module]:
        """What the last block need not do for tokens that no answer needs; nothing where somebody watches it."""
        watched = [*self.blocks[-1].modules(), self.final_norm, self.hf.base_model]
        if any(module._forward_hooks or module._forward_pre_hooks for module in watched):
            return []
        last = self.n_layers - 1
        parts = [self.mlp(last), *(find(self.attention(last), path) for path in self.layout.by_token)]
        places = Counter(id(module) for _, module in self.hf.named_modules(remove_duplicate=False))
        # A module that stands in another place, too, is needed there for every token.
        return [part for part in parts if part is not None and places[id(part)] == 1]

    def _decode(self, tokens: Tokens, max_new_tokens: int) -> list[Generation]:
        own = self.hf.generation_config
        plain = GenerationConfig(
            do_sample=False,
            num_beams=1,
            max_new_tokens=max_new_tokens,
            pad_token_id=self.pad_id,
            bos_token_id=self.tokenizer.bos_token_id,
            eos_token_id=list(self.stop_ids) or None,
        )
        try:
            self.hf.generation_config = plain  # transformers fills what is unset from the model's own: replace that
            generate: Any = self.hf.generate
            with torch.no_grad():
                out = generate(
                    input_ids=tokens.input_ids,
                    attention_mask=tokens.attention_mask,
                    position_ids=tokens.position_ids,
                    use_cache=True,
                )
        finally:
            self.hf.generation_config = own
        return [self._generation(row) for row in out[:, tokens.input_ids.shape[1] :].tolist()]

    def _generation(self, ids: list[int]) -> Generation:
        stops = set(self.stop_ids)
        end = next((i for i, t in enumerate(ids) if t in stops), None)
        kept = ids[:end] if end is not None else ids
        text = self.tokenizer.decode(kept, skip_special_tokens=True).strip()
        return Generation(text, len(kept), end is not None, tuple(kept))

    # ----------------------------------------------------------------------------------------- weights
    def check_finite(self) -> None:
        """Raise InputError naming the first weight that is NaN, infinite or not here (offloaded)."""
        for name, parameter in self.hf.named_parameters():
            if parameter.is_meta:
                raise InputError(
                    f"{name} of {self.name} was offloaded: its device_map leaves it to the CPU or the disk while it is "
                    "not needed, and such weights can be neither read nor edited; take bfloat16, more GPUs, or the CPU"
                )
            if parameter.is_floating_point() and not bool(torch.isfinite(parameter).all()):
                kind = "NaN" if bool(torch.isnan(parameter).any()) else "infinite"
                raise InputError(f"{self.name} has {kind} weights in {name}; the checkpoint is damaged or diverged")

    def weight_hash(self, *, fresh: bool = False) -> str:
        """16 hex digits of the SHA-256 over every parameter's name, shape, dtype and bytes.

        Digests are kept per tensor and recomputed where the tensor was changed; an applied WeightEdit does not count as
        a change, so the hash is always that of the model underneath. `fresh=True` recomputes everything.
        """
        total = hashlib.sha256()
        for name, parameter in self.hf.named_parameters():
            stamp = (parameter.data_ptr(), parameter._version)
            known = self._digests.get(name)
            if fresh or known is None or known[0] != stamp:
                known = self._digests[name] = (stamp, tensor_digest(parameter))
            total.update(name.encode() + known[1])
        return total.hexdigest()[:16]

    def save(self, folder: str | Path) -> None:
        """Write an ordinary transformers checkpoint (weights, config with the chat setting, tokenizer) atomically.

        Raises:
            InputError: the folder cannot be written, the disk is full, or it holds something that is no checkpoint.
        """
        self.hf.config.interp_chat_template = self.chat_template
        save_checkpoint(self.hf, self.tokenizer, Path(folder))


def tensor_digest(tensor: Tensor) -> bytes:
    """SHA-256 over a tensor's shape, dtype and bytes."""
    flat = tensor.detach().cpu().contiguous().view(-1)
    head = f"{tuple(tensor.shape)} {tensor.dtype}".encode()
    return hashlib.sha256(head + b"|").digest() + hashlib.sha256(flat.view(torch.uint8).numpy()).digest()  # type: ignore[arg-type]
