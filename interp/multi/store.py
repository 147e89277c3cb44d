"""Many edits within a budget of memory: those beyond it lie on disk as safetensors and are read when asked for.

On disk an edit is a file of `WeightEdit.save`; nothing is dropped, rounded or compressed (deltas are not low rank).
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

from interp.edits import WeightEdit


class EditStore(Sequence[WeightEdit]):
    """A sequence of edits, of which so many are in memory as the budget holds."""

    def __init__(self, edits: Iterable[WeightEdit] = (), budget: int | None = None, folder: Path | None = None) -> None:
        """Start with some edits.

        Args:
            budget: bytes of float32 deltas held in memory, and as many again of edited matrices while they decode;
                None is no bound.
            folder: below it the others go, in a folder of this store's own; the system's temporary folder by default.
                `close` deletes what was written there.
        """
        self.budget = budget
        self.held = 0
        """Bytes of the deltas in memory."""
        self._below = folder
        self._own: tempfile.TemporaryDirectory[str] | None = None
        """Where this store writes, from the first edit on that finds no room."""
        self._edits: list[WeightEdit | Path] = []
        self._sizes: list[dict[str, int]] = []
        for edit in edits:
            self.add(edit)

    def add(self, edit: WeightEdit, file: Path | None = None) -> None:
        """Keep an edit, in memory where the budget allows it.

        Args:
            file: where it lies on disk already, if it does: read from there instead of being written again.
        """
        sizes = {name: delta.numel() for name, delta in edit.deltas.items()}
        need = 4 * sum(sizes.values())
        self._sizes.append(sizes)
        if self.budget is None or self.held + need <= self.budget:
            self.held += need
            self._edits.append(edit)
        elif file is not None:
            self._edits.append(file)
        else:
            self._edits.append(edit.save(self._where() / f"{len(self._edits)}.safetensors"))

    def __len__(self) -> int:
        return len(self._edits)

    def __getitem__(self, index: int) -> WeightEdit:  # type: ignore[override]
        kept = self._edits[index]
        return WeightEdit.load(kept) if isinstance(kept, Path) else kept

    @property
    def spilled(self) -> int:
        """How many edits are on disk alone."""
        return sum(isinstance(kept, Path) for kept in self._edits)

    def sizes(self, index: int) -> dict[str, int]:
        """Elements of each delta of an edit, by name: known without reading it."""
        return self._sizes[index]

    def waves(self, indices: Sequence[int], element_size: int) -> list[list[int]]:
        """Edits in groups whose edited matrices fit the budget together; one that does not is a group of its own."""
        waves: list[list[int]] = []
        used = 0
        for index in indices:
            need = element_size * sum(self._sizes[index].values())
            if not waves or (self.budget is not None and used + need > self.budget):
                waves.append([])
                used = 0
            waves[-1].append(index)
            used += need
        return waves

    def close(self) -> None:
        """Delete what was written; the edits on disk cannot be read any more."""
        if self._own is not None:
            self._own.cleanup()
            self._own = None

    def __enter__(self) -> EditStore:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _where(self) -> Path:
        if self._own is None:
            if self._below is not None:
                self._below.mkdir(parents=True, exist_ok=True)
            self._own = tempfile.TemporaryDirectory(prefix="spilled-", dir=self._below)
        return Path(self._own.name)
