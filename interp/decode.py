"""Greedy decoding by our own loop: one cache with a slot for each row, refilled as rows end.

`generate` of transformers keeps a batch until its longest answer ends and copies the whole cache at every step. Here a
row's keys and values stay where they were written, a row that ends leaves at once, and the next prompts take its place.
The tokens are those of `generate(do_sample=False)` (rounding apart: batches have other shapes). Nothing here knows of
tokenizers or edits; whoever lets rows belong to different weights is told before each forward which rows it has.
"""

from __future__ import annotations

import os
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.cache_utils import Cache, CacheLayerMixin

PREFILL_TOKENS = 4096
"""Prompt tokens in one forward, padding included: more would not run faster and would need more memory."""
SMALL_WIDTH, LOOPS, MIN_ROWS = 256, 2, 16
"""Small models on a CPU are decoded by two loops side by side, from so many prompts each on."""
Rows = Callable[[list[int]], None]
"""Told, before each forward, the prompt (its index) in each row of the batch."""


# ------------------------------------------------------------------------------------------------- cache
class SlotLayer(CacheLayerMixin):
    """Keys and values of one layer, `[slot, head, position, head_dim]`: a token lies at its own position."""

    is_sliding = False

    def __init__(self, slots: Slots) -> None:
        super().__init__()
        self.slots = slots

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Make room, on the device of the layer."""

        def room(states: Tensor) -> Tensor:
            return states.new_zeros((self.slots.size, states.shape[1], self.slots.capacity, states.shape[3]))

        self.keys, self.values = room(key_states), room(value_states)
        self.is_initialized = True

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """Write the new keys and values at their positions; returns what the new tokens may look at."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        assert self.keys is not None
        assert self.values is not None
        here, n = self.slots, key_states.shape[0]
        if here.filling is not None:  # whole prompts, in new slots: they see themselves alone
            new = slice(here.filling, here.filling + n)
            self.keys[new, :, : key_states.shape[2]] = key_states
            self.values[new, :, : value_states.shape[2]] = value_states
            return key_states, value_states
        row, at = here.row.to(self.keys.device), here.at.to(self.keys.device)
        self.keys[row, :, at] = key_states[:, :, 0]
        self.values[row, :, at] = value_states[:, :, 0]
        return self.keys[:n, :, : here.width], self.values[:n, :, : here.width]

    def move(self, source: int, target: int, length: int) -> None:
        """Copy one slot over another."""
        for states in (self.keys, self.values):
            assert states is not None
            states[target, :, :length] = states[source, :, :length]

    def get_seq_length(self) -> int:
        """No past while prompts are read; one less than the width in a step."""
        return 0 if self.slots.filling is not None else self.slots.width - 1

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Length and offset of the keys that a mask covers."""
        return self.get_seq_length() + query_length, 0

    def get_max_length(self) -> int:
        """Positions in a slot."""
        return self.slots.capacity


@dataclass
class Slots:
    """Where the rows of the next forward lie; shared by the layers of a cache."""

    size: int
    capacity: int
    filling: int | None = None
    """First slot of the prompts being read; None in a step."""
    row: Int[Tensor, "row"] = field(default_factory=lambda: torch.zeros(0, dtype=torch.long))
    at: Int[Tensor, "row"] = field(default_factory=lambda: torch.zeros(0, dtype=torch.long))
    """Position of each row's new token."""
    width: int = 0
    """Positions that the longest row has."""


# ------------------------------------------------------------------------------------------------- decoding
def supports(hf: PreTrainedModel, longest: int) -> bool:
    """Whether this loop decodes the model rightly: plain attention over at most `longest` positions."""
    config = hf.config.get_text_config()
    if config._attn_implementation not in ("sdpa", "eager"):
        return False
    window = getattr(config, "sliding_window", None)
    windowed = "sliding_attention" in (getattr(config, "layer_types", None) or ["sliding_attention"])
    return not (window and windowed and window < longest)


def greedy(
    hf: PreTrainedModel,
    unembedding: nn.Module,
    prompts: Sequence[Sequence[int]],
    *,
    max_new_tokens: int,
    stop_ids: Sequence[int] = (),
    slots: int = 64,
    rows: Rows | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> list[list[int]]:
    """The greedy continuation of each prompt, in order.

    Args:
        hf: a causal language model that `supports` its longest prompt and answer.
        unembedding: the module whose input is the last hidden state.
        prompts: token ids, none empty.
        max_new_tokens: longest continuation.
        stop_ids: a row ends with the first of these, which stays in its continuation.
        slots: rows decoded at a time.
        rows: told before each forward which prompt each row belongs to, in the thread that runs the forward.
        progress: called with (prompts ended, prompts in all).
    """
    answers: list[list[int]] = [[] for _ in prompts]
    # The split does not depend on how many processors there are: the same batches give the same rounding everywhere.
    split = LOOPS if small(hf) and len(prompts) >= LOOPS * MIN_ROWS else 1
    order = sorted(range(len(prompts)), key=lambda i: -len(prompts[i]))  # longest first: the width only shrinks
    last, stop, ended = _Last(), threading.Event(), Counter[int]()

    @torch.no_grad()
    def decode(share: int) -> None:
        mine = order[share::split]
        told = None if rows is None else partial(_tell, rows, mine)
        loop = _Loop(hf, last, [prompts[i] for i in mine], max_new_tokens, stop_ids, max(1, slots // split), told)
        for done in loop.run():
            if stop.is_set():
                return
            if progress is not None and done > ended[share]:
                ended[share] = done
                if share == 0:  # a caller need not expect two threads
                    progress(sum(ended.values()), len(prompts))
        for i, answer in zip(mine, loop.answers, strict=True):
            answers[i] = answer

    with last.shown(unembedding):
        if split > 1 and processors() > 1:
            _side_by_side(decode, split, stop)
        else:
            for share in range(split):
                decode(share)
    if progress is not None and sum(ended.values()) and split > 1:
        progress(len(prompts), len(prompts))
    return answers


def _tell(rows: Rows, mine: Sequence[int], batch: list[int]) -> None:
    rows([mine[i] for i in batch])


def small(hf: PreTrainedModel) -> bool:
    """Whether a forward keeps one processor busy and no more: two threads in one product would wait for each other."""
    return hf.device.type == "cpu" and hf.config.get_text_config().hidden_size <= SMALL_WIDTH


def processors() -> int:
    """Processors that this process may use: what it is bound to, or OMP_NUM_THREADS where that says fewer."""
    here = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    asked = os.environ.get("OMP_NUM_THREADS", "")
    return min(here, int(asked)) if asked.isdigit() and int(asked) > 0 else here


def settle_threads(hf: PreTrainedModel) -> None:
    """One thread in each operation of a small model, for the rest of the process: two would wait for each other.

    On two processors a forward of the demo's model takes 1.5 times as long on two threads as on one.
    """
    if small(hf):
        torch.set_num_threads(1)


def _side_by_side(decode: Callable[[int], None], n: int, stop: threading.Event) -> None:
    """Call decode(0..n-1), each in a thread of its own with one processor; an error in one of them ends all."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with ThreadPoolExecutor(n) as pool:
            try:
                for future in as_completed([pool.submit(decode, share) for share in range(n)]):
                    future.result()
            except BaseException:
                stop.set()
                raise
    finally:
        torch.set_num_threads(before)


class _Loop:
    """The state of `greedy`: which prompt is in which slot, and what it has answered."""

    def __init__(
        self,
        hf: PreTrainedModel,
        last: _Last,
        prompts: Sequence[Sequence[int]],
        max_new_tokens: int,
        stop_ids: Sequence[int],
        slots: int,
        rows: Rows | None,
    ) -> None:
        self.hf: Any = hf
        self.last = last
        self.prompts = prompts
        self.limit = max_new_tokens
        self.stops = frozenset(stop_ids)
        self.rows = rows
        longest = max((len(p) for p in prompts), default=0)
        self.slots = Slots(max(1, min(slots, len(prompts))), longest + max_new_tokens)
        self.cache = Cache(layers=[SlotLayer(self.slots) for _ in range(hf.config.get_text_config().num_hidden_layers)])
        self.answers: list[list[int]] = [[] for _ in prompts]
        self.active: list[int] = []
        """The prompt in each slot that is in use: slots 0..n-1, without gaps."""
        self.lengths: list[int] = []
        """Tokens in each of these slots."""
        self.ended = 0
        self.eager = hf.config.get_text_config()._attn_implementation == "eager"
        self.waiting = list(range(len(prompts)))
        self.device: torch.device = next(hf.get_input_embeddings().parameters()).device

    # ------------------------------------------------------------------------------------- forwards
    def run(self) -> Iterator[int]:
        """Decode; yields after each forward how many prompts have ended."""
        while self.waiting or self.active:
            free = self.slots.size - len(self.active)
            # Refilling a few at a time keeps the prompt forwards full; each of them makes every other row wait.
            if self.waiting and free >= min(len(self.waiting), max(1, self.slots.size // 4)):
                self.fill()
            else:
                self.step()
            yield self.ended

    def fill(self) -> None:
        """Read the next prompts into free slots, as many as one forward takes, and their first tokens."""
        first = len(self.active)
        room = min(self.slots.size - first, max(1, PREFILL_TOKENS // len(self.prompts[self.waiting[0]])))
        taken, self.waiting = self.waiting[:room], self.waiting[room:]
        lengths = [len(self.prompts[i]) for i in taken]
        longest = max(lengths)
        # Padding on the right: with causal attention no real token sees it, and every token is at its own position.
        ids = torch.tensor([[*self.prompts[i], *[0] * (longest - n)] for i, n in zip(taken, lengths, strict=True)])
        last = torch.tensor(lengths, device=self.device) - 1
        self.slots.filling = first
        if self.rows is not None:
            self.rows(taken)
        with self.last.of(last):
            logits = self.hf(
                input_ids=ids.to(self.device),
                attention_mask=torch.ones(len(taken), longest, dtype=torch.long, device=self.device),
                position_ids=torch.arange(longest, device=self.device)[None].expand(len(taken), -1),
                past_key_values=self.cache,
                use_cache=True,
            ).logits
        self.active += taken
        self.lengths += lengths
        self._take(logits[:, -1].argmax(-1).tolist(), first)

    def step(self) -> None:
        """One more token for every active row."""
        n, here = len(self.active), self.slots
        here.filling, here.row = None, torch.arange(n)
        here.at = torch.tensor(self.lengths)
        here.width = max(self.lengths) + 1
        ids = torch.tensor([[self.answers[i][-1]] for i in self.active], device=self.device)
        at = here.at.to(self.device)
        seen = (torch.arange(here.width, device=self.device)[None] <= at[:, None])[:, None, None]
        if self.eager:
            dtype = self.hf.dtype
            seen = torch.zeros(seen.shape, dtype=dtype, device=self.device).masked_fill(~seen, torch.finfo(dtype).min)
        if self.rows is not None:
            self.rows(self.active)
        logits = self.hf(
            input_ids=ids,
            attention_mask=seen,
            position_ids=at[:, None],
            past_key_values=self.cache,
            use_cache=True,
        ).logits
        self.lengths = [length + 1 for length in self.lengths]
        self._take(logits[:, -1].argmax(-1).tolist(), 0)

    # ------------------------------------------------------------------------------------- bookkeeping
    def _take(self, tokens: list[int], first: int) -> None:
        """Note the new tokens of the slots from `first` on, and free the slots of rows that have ended."""
        ended = []
        for slot, token in enumerate(tokens, start=first):
            answer = self.answers[self.active[slot]]
            answer.append(token)
            if token in self.stops or len(answer) == self.limit:
                ended.append(slot)
        for slot in reversed(ended):
            self._free(slot)
        self.ended += len(ended)

    def _free(self, slot: int) -> None:
        """Move the last active row into a slot that is no longer needed."""
        last = len(self.active) - 1
        if slot != last:
            for layer in self.cache.layers:
                layer.move(last, slot, self.lengths[last])  # type: ignore[attr-defined]
            self.active[slot], self.lengths[slot] = self.active[last], self.lengths[last]
        self.active.pop()
        self.lengths.pop()


class _Last(threading.local):
    """One position of each row for the unembedding to see: the vocabulary product over whole prompts would be wasted.

    The positions belong to the thread, as several loops may share a model.
    """

    positions: Int[Tensor, "row"] | None = None

    @contextmanager
    def of(self, positions: Int[Tensor, "row"]) -> Iterator[None]:
        """The positions of the forward inside."""
        self.positions = positions
        try:
            yield
        finally:
            self.positions = None

    @contextmanager
    def shown(self, unembedding: nn.Module) -> Iterator[None]:
        """While open, forwards inside `of` compute logits at its positions alone."""

        def pick(_: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
            if self.positions is None:
                return None
            hidden = args[0]
            at = self.positions.to(hidden.device)
            return (hidden[torch.arange(len(at), device=hidden.device), at][:, None],)

        handle = unembedding.register_forward_pre_hook(pick)
        try:
            yield
        finally:
            handle.remove()
