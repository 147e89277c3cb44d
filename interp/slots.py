"""A key/value cache with a slot for each row, in which a row's keys and values stay where they were written.

`interp.decode` says which rows the next forward has and where they lie; the layers of the cache follow.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor
from transformers.cache_utils import CacheLayerMixin


@dataclass(frozen=True)
class Filling:
    """A row whose prompt is being read."""

    slot: int
    source: int
    """The row of the forward that reads it."""
    upto: int
    """The last layer whose keys and values the row takes from there."""


@dataclass
class Slots:
    """Where the rows of the next forward lie; shared by the layers of a cache."""

    size: int
    capacity: int
    """Positions in a slot."""
    filling: list[Filling] | None = None
    """The prompts being read; None in a step."""
    row: Int[Tensor, "row"] = field(default_factory=lambda: torch.zeros(0, dtype=torch.long))
    at: Int[Tensor, "row"] = field(default_factory=lambda: torch.zeros(0, dtype=torch.long))
    """Position of each row's new token."""
    width: int = 0
    """Positions that the longest row has."""


class SlotLayer(CacheLayerMixin):
    """Keys and values of one layer, `[slot, head, position, head_dim]`: a token lies at its own position."""

    is_sliding = False

    def __init__(self, slots: Slots, layer: int) -> None:
        super().__init__()
        self.slots, self.layer = slots, layer

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
            for row in here.filling:
                if self.layer <= row.upto:
                    self.keys[row.slot, :, : key_states.shape[2]] = key_states[row.source]
                    self.values[row.slot, :, : value_states.shape[2]] = value_states[row.source]
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
