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
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from functools import partial
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Int
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.cache_utils import Cache

from interp import attention, heap, products
from interp.slots import Filling, Row, SlotLayer, Slots

PREFILL_TOKENS = 2048
"""Prompt tokens in one forward, padding included: more would not run faster and would need more memory."""
SMALL_WIDTH, LOOPS, MIN_ROWS = 256, 2, 16
"""Small models on a CPU are decoded by two loops side by side, from so many prompts each on."""
Rows = Callable[[list[int]], None]
"""Told, before each forward, the prompt (its index) in each row of the batch."""


@runtime_checkable
class Shared(Protocol):
    """Models that are alike up to some layer, so that one reading of a prompt serves all of them up to there.

    `interp.multi.SharedPrompts` is one. The layer's attention is still shared, what follows in it is not.
    """

    layers: Sequence[int]
    """Of each prompt, the first layer in which its model differs from the plain one; the number of layers if none."""

    def keeping(self, layers: Collection[int], last: Int[Tensor, "row"]) -> AbstractContextManager[dict[int, Any]]:
        """While open, a forward keeps what lies below the difference at these layers; `last` is each row's last token.

        Yields layer -> state, filled by the forward.
        """
        ...

    def resuming(self, state: Any, rows: Int[Tensor, "row"]) -> AbstractContextManager[None]:
        """While open, a forward starts from these rows of a state: of the last layer, from their last tokens alone."""
        ...


# ------------------------------------------------------------------------------------------------- decoding
def supports(hf: PreTrainedModel, longest: int) -> bool:
    """Whether this loop decodes the model rightly: plain attention over at most `longest` positions."""
    config = hf.config.get_text_config()
    if config._attn_implementation not in ("sdpa", "eager"):
        return False
    window = getattr(config, "sliding_window", None) or getattr(config, "window_size", None)
    windowed = "sliding_attention" in (getattr(config, "layer_types", None) or ["sliding_attention"])
    return not (window and windowed and window < longest)


def greedy(
    hf: PreTrainedModel,
    unembedding: nn.Module,
    prompts: Sequence[Sequence[int]],
    *,
    max_new_tokens: int,
    spared: Sequence[nn.Module] = (),
    stop_ids: Sequence[int] = (),
    slots: int = 64,
    rows: Rows | None = None,
    shared: Shared | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> list[list[int]]:
    """The greedy continuation of each prompt, in order.

    Args:
        hf: a causal language model that `supports` its longest prompt and answer.
        unembedding: the module whose input is the last hidden state.
        prompts: token ids, none empty.
        max_new_tokens: longest continuation.
        spared: modules of the last block whose output at a token no other token needs, none inside another: they then
            run on each prompt's last token alone, and what they and whatever follows give elsewhere means nothing.
        stop_ids: a row ends with the first of these, which stays in its continuation.
        slots: rows decoded at a time.
        rows: told before each forward which prompt each row belongs to, in the thread that runs the forward.
        shared: equal prompts are read once, as far as the models of their rows are alike.
        progress: called with (prompts ended, prompts in all).
    """
    answers: list[list[int]] = [[] for _ in prompts]
    # The split does not depend on how many processors there are: the same batches give the same rounding everywhere.
    split = LOOPS if small(hf) and len(prompts) >= LOOPS * MIN_ROWS else 1
    if torch.is_autocast_enabled(hf.device.type):  # it belongs to the thread that asked for it
        split = 1
    dealt = _dealt(prompts, split, shared is not None)
    last, stop, ended = _Last(), threading.Event(), Counter[int]()
    ours = attention.shareable(hf)
    if ours:
        attention.install()
    if hf.device.type == "cpu" and not small(hf):
        heap.keep_freed()

    @torch.no_grad()
    def decode(share: int) -> None:
        mine = dealt[share]
        told = None if rows is None else partial(_tell, rows, mine)
        differs = None if shared is None else [shared.layers[i] for i in mine]
        size = max(1, slots // split)
        own = [prompts[i] for i in mine]
        loop = _Loop(hf, last, own, max_new_tokens, stop_ids, size, told, shared, differs, ours)
        for done in loop.run():
            if stop.is_set():
                return
            if progress is not None and done > ended[share]:
                ended[share] = done
                if share == 0:  # a caller need not expect two threads
                    progress(sum(ended.values()), len(prompts))
        for i, answer in zip(mine, loop.answers, strict=True):
            answers[i] = answer

    with last.shown(unembedding, spared), products.faster(hf):
        if split > 1 and processors() > 1:
            _side_by_side(decode, split, stop)
        else:
            for share in range(split):
                decode(share)
    if progress is not None and sum(ended.values()) and split > 1:
        progress(len(prompts), len(prompts))
    return answers


def _dealt(prompts: Sequence[Sequence[int]], split: int, shared: bool) -> list[list[int]]:
    """The prompts of each loop, longest first (so the width only shrinks); equal ones beside each other if shared."""
    if not shared:
        order = sorted(range(len(prompts)), key=lambda i: -len(prompts[i]))
        return [order[share::split] for share in range(split)]
    equal: dict[tuple[int, ...], list[int]] = {}
    for i, prompt in enumerate(prompts):
        equal.setdefault(tuple(prompt), []).append(i)
    groups = sorted(equal.values(), key=lambda group: -len(prompts[group[0]]))
    return [[i for group in groups[share::split] for i in group] for share in range(split)]


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
        shared: Shared | None = None,
        differs: Sequence[int] | None = None,
        ours: bool = False,
    ) -> None:
        self.hf: Any = hf
        self.last = last
        self.prompts = prompts
        self.limit = max_new_tokens
        self.stops = frozenset(stop_ids)
        self.told = rows
        self.shared = shared
        self.n_layers: int = hf.config.get_text_config().num_hidden_layers
        self.differs = differs or [self.n_layers] * len(prompts)
        """The first layer in which each prompt's model differs from the plain one."""
        self.ours = ours
        """Whether attention runs through `interp.attention`."""
        self._make_room(max(1, min(slots, len(prompts))), ours and shared is not None)
        self.answers: list[list[int]] = [[] for _ in prompts]
        self.active: list[int] = []
        """The prompt in each slot that is in use: slots 0..n-1, without gaps."""
        self.rows: list[Row] = []
        """What these slots hold."""
        self.lengths: list[int] = []
        """Tokens of each shared prompt."""
        self.ended = 0
        self.eager = hf.config.get_text_config()._attn_implementation == "eager"
        self.waiting = list(range(len(prompts)))
        self.device: torch.device = next(hf.get_input_embeddings().parameters()).device

    def _make_room(self, size: int, beside: bool) -> None:
        self.beside = beside
        """Whether rows of equal prompts keep its keys and values once, and not a copy each."""
        longest = max((len(p) for p in self.prompts), default=0)
        together = tuple(sorted({min(layer, self.n_layers - 1) for layer in self.differs})) if beside else ()
        self.slots = Slots(size, longest, self.limit, together)
        self.cache = Cache(layers=[SlotLayer(self.slots, layer) for layer in range(self.n_layers)])

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
        taken, source = self._next(self.slots.size - first)
        n = max(source) + 1
        # Each prompt is read by the row whose model is the plain one longest: the others follow it up to their own.
        differs = [self.differs[i] for i in taken]
        reader = [max((k for k, s in enumerate(source) if s == r), key=differs.__getitem__) for r in range(n)]
        followers = [k for k in range(len(taken)) if k not in reader]
        lengths = [len(self.prompts[i]) for i in taken]
        longest = max(lengths)
        # Padding on the right: with causal attention no real token sees it, and every token is at its own position.
        ids = torch.tensor([[*self.prompts[taken[k]], *[0] * (longest - lengths[k])] for k in reader])
        last = torch.tensor([lengths[k] - 1 for k in reader], device=self.device)
        alike = [min(layer, self.n_layers - 1) for layer in differs]
        layers = sorted({differs[k] for k in followers} - {self.n_layers})
        self.slots.filling = [
            Filling(first + k, source[k], self._taken(alike[k], k in followers)) for k in range(len(taken))
        ]
        if self.beside:
            begin = len(self.lengths)
            self.slots.sharing = [Filling(begin + r, r, range(alike[k] + 1)) for r, k in enumerate(reader)]
            self.rows += [Row(n, alike[k], begin + source[k], n) for k, n in enumerate(lengths)]
            self.lengths += [lengths[k] for k in reader]
        else:
            self.rows += [Row(n) for n in lengths]
        with self._keeping(layers, last) as kept, self._watched() as seen:
            read = self._read(ids, [taken[k] for k in reader], last)
        if self.beside and len(seen) < self.n_layers:  # its attention goes its own ways: every row gets its own copy
            self._make_room(self.slots.size, beside=False)
            self.rows, self.lengths, self.waiting = [], [], taken + self.waiting
            return self.fill()
        self.slots.sharing = []
        tokens = [read[source[k]] for k in range(len(taken))]
        for layer in layers:
            mine = [k for k in followers if differs[k] == layer]
            size = len(mine) if layer == self.n_layers - 1 else max(1, PREFILL_TOKENS // longest)
            for part in (mine[i : i + size] for i in range(0, len(mine), size)):
                rows = torch.tensor([source[k] for k in part])
                self.slots.filling = [Filling(first + k, row, range(self.n_layers)) for row, k in enumerate(part)]
                with self._resuming(kept[layer], rows), self._watched():
                    read = self._read(ids[rows], [taken[k] for k in part], last[rows.to(last.device)], layer)
                for k, token in zip(part, read, strict=True):
                    tokens[k] = token
        self.active += taken
        return self._take(tokens, first)

    def _taken(self, alike: int, follows: bool) -> range:
        """Layers whose keys and values a row's slot takes from the reading of its prompt."""
        if self.beside:  # a follower's own ones come when it goes on from its layer
            return range(self.n_layers if follows else alike + 1, self.n_layers)
        return range(alike + 1 if follows else self.n_layers)

    def _next(self, free: int) -> tuple[list[int], list[int]]:
        """The next prompts that fit `free` slots and one forward, and for each which of its rows reads it."""
        room = max(1, PREFILL_TOKENS // len(self.prompts[self.waiting[0]]))
        found: dict[Any, int] = {}
        source: list[int] = []
        for i in self.waiting[:free]:
            row = found.setdefault(tuple(self.prompts[i]) if self.shared is not None else i, len(found))
            if row == room:
                break
            source.append(row)
        taken, self.waiting = self.waiting[: len(source)], self.waiting[len(source) :]
        return taken, source

    def _read(
        self, ids: Int[Tensor, "row seq"], prompts: list[int], last: Int[Tensor, "row"], layer: int | None = None
    ) -> list[int]:
        """The first token after each prompt; with `layer`, from that layer on (set up by the caller)."""
        at = torch.arange(ids.shape[1], device=self.device)[None].expand(len(ids), -1)
        if layer == self.n_layers - 1:  # nothing above it attends: the last token alone
            at, ids = last[:, None], ids.gather(1, last[:, None].to(ids.device))
            last = torch.zeros_like(last)
        if self.told is not None:
            self.told(prompts)
        with self.last.of(last):
            logits = self.hf(
                input_ids=ids.to(self.device),
                attention_mask=torch.ones(ids.shape, dtype=torch.long, device=self.device),
                position_ids=at,
                past_key_values=self.cache,
                use_cache=True,
            ).logits
        return logits[:, -1].argmax(-1).tolist()

    def _watched(self) -> AbstractContextManager[set[int]]:
        return attention.reading(self.cache) if self.ours else nullcontext(set())

    def _keeping(self, layers: list[int], last: Int[Tensor, "row"]) -> AbstractContextManager[dict[int, Any]]:
        return self.shared.keeping(layers, last) if self.shared is not None and layers else nullcontext({})

    def _resuming(self, state: Any, rows: Int[Tensor, "row"]) -> AbstractContextManager[None]:
        assert self.shared is not None
        return self.shared.resuming(state, rows)

    def step(self) -> None:
        """One more token for every active row."""
        self.slots.step(self.rows, self.lengths)
        ids = torch.tensor([[self.answers[i][-1]] for i in self.active], device=self.device)
        at = torch.tensor([row.length for row in self.rows], device=self.device)
        width = max(row.length for row in self.rows) + 1
        seen = (torch.arange(width, device=self.device)[None] <= at[:, None])[:, None, None]
        if self.eager:
            dtype = self.hf.dtype
            seen = torch.zeros(seen.shape, dtype=dtype, device=self.device).masked_fill(~seen, torch.finfo(dtype).min)
        if self.told is not None:
            self.told(self.active)
        with attention.stepping(self.cache) if self.beside else nullcontext():
            logits = self.hf(
                input_ids=ids,
                attention_mask=seen,
                position_ids=at[:, None],
                past_key_values=self.cache,
                use_cache=True,
            ).logits
        for row in self.rows:
            row.length += 1
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
        """Move the last active row into a slot that is no longer needed, and so with a prompt that nobody shares."""
        gone, last = self.rows[slot], len(self.active) - 1
        if slot != last:
            for layer, kept in enumerate(self._layers()):
                kept.move(last, slot, self.rows[last].own(layer))
            self.active[slot], self.rows[slot] = self.active[last], self.rows[last]
        self.active.pop()
        self.rows.pop()
        if gone.shared < 0 or any(row.shared == gone.shared for row in self.rows):
            return
        last = len(self.lengths) - 1
        if gone.shared != last:
            for kept in self._layers():
                kept.move_shared(last, gone.shared, self.lengths[last])
            self.lengths[gone.shared] = self.lengths[last]
            for row in self.rows:
                row.shared = gone.shared if row.shared == last else row.shared
        self.lengths.pop()

    def _layers(self) -> list[SlotLayer]:
        return self.cache.layers  # type: ignore[return-value]


class _Last(threading.local):
    """One position of each row for the unembedding to see: the vocabulary product over whole prompts would be wasted.

    The positions belong to the thread, as several loops may share a model.
    """

    positions: Int[Tensor, "row"] | None = None
    cut: int | None = None
    """Tokens that the module which runs now was spared, and the picked one."""

    @contextmanager
    def of(self, positions: Int[Tensor, "row"]) -> Iterator[None]:
        """The positions of the forward inside."""
        self.positions = positions
        try:
            yield
        finally:
            self.positions = None

    @contextmanager
    def shown(self, unembedding: nn.Module, spared: Sequence[nn.Module] = ()) -> Iterator[None]:
        """While open, forwards inside `of` compute logits, and what these modules give, at its positions alone."""

        def pick(_: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
            return None if self.positions is None else (self._picked(args[0]), *args[1:])

        def spare(_: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
            self.cut = args[0].shape[1] if self.positions is not None and args and args[0].shape[1] > 1 else None
            return None if self.cut is None else (self._picked(args[0]), *args[1:])

        def spread(_: nn.Module, args: tuple[Any, ...], out: Tensor) -> Tensor | None:
            if self.cut is None or self.positions is None:
                return None
            wide = out.new_zeros((len(out), self.cut, out.shape[-1]))
            wide[torch.arange(len(out), device=out.device), self.positions.to(out.device)] = out[:, 0]
            return wide

        # Hooks and not another forward: several threads may decode with one model, and copies of it stay whole.
        with ExitStack() as stack:
            stack.callback(unembedding.register_forward_pre_hook(pick).remove)
            for module in spared:
                stack.callback(module.register_forward_pre_hook(spare).remove)
                stack.callback(module.register_forward_hook(spread).remove)
            yield

    def _picked(self, hidden: Tensor) -> Tensor:
        assert self.positions is not None
        at = self.positions.to(hidden.device)
        return hidden[torch.arange(len(at), device=hidden.device), at][:, None]
