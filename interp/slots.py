"""A key/value cache with a slot for each row, in which a row's keys and values stay where they were written.

Rows that are asked the same prompt by models that are alike up to some layer have the same keys and values of the
prompt up to there. These are kept once, and beside them what is a row's own: its answer, and its prompt above that
layer.
`interp.decode` says which rows the next forward has and where they lie; the layers of the cache follow.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Bool, Int
from torch import Tensor
from transformers.cache_utils import CacheLayerMixin

PADDED = 2
"""Prompts are attended to side by side as long as at most so many times their rows are computed."""


@dataclass(frozen=True)
class Filling:
    """A row whose prompt is being read, or a prompt that rows will share."""

    slot: int
    source: int
    """The row of the forward that reads it."""
    layers: range
    """The layers whose keys and values are taken from there."""


@dataclass
class Row:
    """A row that is being answered."""

    length: int
    """Tokens so far, prompt included."""
    alike: int = -1
    """The last layer in which the row's keys and values of the prompt are a shared prompt's."""
    shared: int = -1
    """Which."""
    prompt: int = 0
    """Tokens of that prompt."""

    def own(self, layer: int) -> int:
        """Tokens whose keys and values are the row's own in a layer."""
        return self.length - self.prompt if layer <= self.alike else self.length


@dataclass(frozen=True)
class Asked:
    """Shared prompts that lie side by side, with the rows that look at them: as many for each, padded."""

    first: int
    rows: Int[Tensor, "prompt row"]
    real: Bool[Tensor, "prompt row"] | None
    """False for padding; None where there is none."""
    into: Int[Tensor, "real"]
    """The rows without padding, prompt by prompt."""
    width: int
    """Tokens of the longest."""
    seen: Bool[Tensor, "prompt 1 1 position"] | None
    """False beyond a prompt's last token; None where all are as long."""


@dataclass(frozen=True)
class View:
    """Where the rows of one step lie in the layers up to some layer."""

    row: Int[Tensor, "row"]
    at: Int[Tensor, "row"]
    """Where each row's new token goes among its own."""
    width: int
    """Tokens of its own that the longest row has, the new one included."""
    level: bool
    """Whether every row has as many."""
    asked: tuple[Asked, ...]
    """Empty where every row has its prompt itself."""

    @cached_property
    def seen(self) -> Bool[Tensor, "row 1 1 position"] | None:
        """A row's own tokens; None where all rows have as many."""
        if self.level:
            return None
        return (torch.arange(self.width, device=self.at.device)[None] <= self.at[:, None])[:, None, None]


@dataclass
class Slots:
    """Where the rows of the next forward lie; shared by the layers of a cache."""

    size: int
    longest: int
    """Tokens of the longest prompt."""
    new: int
    """Tokens of the longest answer."""
    alike: Sequence[int] = ()
    """The last layers in which rows share their prompts, of all rows to come, ascending, each once."""
    filling: list[Filling] | None = None
    """The prompts being read; None in a step."""
    sharing: list[Filling] = field(default_factory=list)
    """Those of them that rows will share."""
    rows: Sequence[Row] = ()
    """The rows of a step, in slots 0..n-1."""
    lengths: Sequence[int] = ()
    """Tokens of each shared prompt."""
    _views: dict[tuple[int, torch.device], View] = field(default_factory=dict)

    def step(self, rows: Sequence[Row], lengths: Sequence[int]) -> None:
        """The next forward gives each of these rows one more token."""
        self.filling, self.rows, self.lengths = None, rows, lengths
        self._views.clear()

    def capacity(self, layer: int) -> int:
        """Tokens of its own that a row can have."""
        return self.new if self.alike and layer <= self.alike[0] else self.longest + self.new

    def view(self, layer: int, device: torch.device) -> View:
        """Where the rows of this step lie in a layer; the same for all layers that are shared alike."""
        key = bisect_left(self.alike, layer), device
        if key not in self._views:
            own = [row.own(layer) for row in self.rows]
            row, at = torch.arange(len(own), device=device), torch.tensor(own, device=device)
            asked = tuple(self._asked(layer, device))
            self._views[key] = View(row, at, max(own) + 1, min(own) == max(own), asked)
        return self._views[key]

    def _asked(self, layer: int, device: torch.device) -> list[Asked]:
        rows: list[list[int]] = [[] for _ in self.lengths]
        for index, row in enumerate(self.rows):
            if layer <= row.alike:
                rows[row.shared].append(index)
        runs = side_by_side([len(asking) for asking in rows])
        return [self._batch(run.start, rows[run.start : run.stop], device) for run in runs]

    def _batch(self, first: int, rows: list[list[int]], device: torch.device) -> Asked:
        most, lengths = max(map(len, rows)), self.lengths[first : first + len(rows)]
        width = max(lengths)
        padded = torch.tensor([[*r, *[0] * (most - len(r))] for r in rows], device=device)
        into = torch.tensor([row for r in rows for row in r], device=device)
        real = None
        if min(map(len, rows)) < most:
            real = (torch.arange(most)[None] < torch.tensor([len(r) for r in rows])[:, None]).to(device)
        seen = None
        if min(lengths) < width:
            seen = (torch.arange(width)[None] < torch.tensor(lengths)[:, None])[:, None, None].to(device)
        return Asked(first, padded, real, into, width, seen)


def side_by_side(counts: Sequence[int]) -> list[range]:
    """Runs of shared prompts that are attended to at once: each has about as many rows. Those without are left out."""
    runs: list[range] = []
    for place, count in enumerate(counts):
        if not count:
            continue
        longer = range(runs[-1].start, place + 1) if runs and runs[-1].stop == place else range(place, place)
        own = counts[longer.start : longer.stop]
        if own and len(own) * max(own) <= PADDED * sum(own):
            runs[-1] = longer
        else:
            runs.append(range(place, place + 1))
    return runs


class SlotLayer(CacheLayerMixin):
    """Keys and values of one layer, `[slot, head, position, head_dim]`, and of the prompts that rows share in it."""

    is_sliding = False

    def __init__(self, slots: Slots, layer: int) -> None:
        super().__init__()
        self.slots, self.layer = slots, layer
        self.shared_keys: Tensor | None = None
        self.shared_values: Tensor | None = None
        self.given = 0, 0
        """Which keys and values were given back last, by identity."""

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Make room, on the device of the layer. It is cleared where rows are written: clearing all costs more."""
        self.keys, self.values = (
            self._room(s, self.slots.size, self.slots.capacity(self.layer)) for s in (key_states, value_states)
        )
        self.is_initialized = True

    def _room(self, states: Tensor, size: int, capacity: int) -> Tensor:
        return states.new_empty((size, states.shape[1], capacity, states.shape[3]))

    @torch.compiler.disable
    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """Write the new keys and values; returns what new tokens may look at among their rows' own."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        assert self.keys is not None
        assert self.values is not None
        here, n = self.slots, key_states.shape[0]
        if here.filling is not None:  # whole prompts, in new slots: they see themselves alone
            for row in here.filling:
                inside = self.layer in row.layers
                for store, states in ((self.keys, key_states), (self.values, value_states)):
                    _fill(store[row.slot], states[row.source] if inside else None)
            self._share(key_states, value_states)
            self.given = id(key_states), id(value_states)
            return key_states, value_states
        view = here.view(self.layer, self.keys.device)
        self.keys[view.row, :, view.at] = key_states[:, :, 0]
        self.values[view.row, :, view.at] = value_states[:, :, 0]
        keys, values = self.keys[:n, :, : view.width], self.values[:n, :, : view.width]
        self.given = id(keys), id(values)
        return keys, values

    def _share(self, key_states: Tensor, value_states: Tensor) -> None:
        here = [prompt for prompt in self.slots.sharing if self.layer in prompt.layers]
        if not here:
            return
        size, longest = max(prompt.slot for prompt in here) + 1, self.slots.longest
        for name, states in (("shared_keys", key_states), ("shared_values", value_states)):
            store = getattr(self, name)
            if store is None or len(store) < size:
                larger = self._room(states, size, longest)
                if store is not None:
                    larger[: len(store)] = store
                setattr(self, name, larger)
                store = larger
            for prompt in here:
                _fill(store[prompt.slot], states[prompt.source])

    def move(self, source: int, target: int, length: int) -> None:
        """Copy one slot over another."""
        for states in (self.keys, self.values):
            assert states is not None
            states[target, :, :length] = states[source, :, :length]

    def move_shared(self, source: int, target: int, length: int) -> None:
        """Copy one shared prompt over another, in layers that have it."""
        for states in (self.shared_keys, self.shared_values):
            if states is not None and source < len(states):
                states[target, :, :length] = states[source, :, :length]

    def get_seq_length(self) -> int:
        """No past while prompts are read; in a step the tokens before the new one of the longest row."""
        return 0 if self.slots.filling is not None else max(row.length for row in self.slots.rows)

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Length and offset of the keys that a mask covers."""
        return self.get_seq_length() + query_length, 0

    def get_max_length(self) -> int:
        """Positions that a row can have."""
        return self.slots.longest + self.slots.new


def _fill(slot: Tensor, states: Tensor | None) -> None:
    """Write a prompt and clear what follows: it is never looked at, but what is not finite would spoil sums."""
    length = 0 if states is None else min(states.shape[1], slot.shape[1])
    if states is not None:
        slot[:, :length] = states[:, :length]
    slot[:, length:] = 0
