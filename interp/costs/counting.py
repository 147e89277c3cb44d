"""What a run has cost: forwards and tokens counted where every model passes, the peak of memory, bytes on disk."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass
class Counted:
    """Passes of sequences through single blocks; divided by the number of blocks they are forwards and tokens."""

    passes: int = 0
    """Sequences, summed over blocks."""
    positions: int = 0
    """Positions of these sequences, padding included, summed over blocks."""
    learning: int = 0
    """Those of them that a backward pass follows."""
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def add(self, rows: int, positions: int, learning: bool) -> None:
        """Count a batch at one block (rows are decoded in several threads)."""
        with self._lock:
            self.passes += rows
            self.positions += rows * positions
            self.learning += rows * positions if learning else 0


class _Inside(threading.local):
    """Modules that have run in this thread since the attention around them was last looked at."""

    def __init__(self) -> None:
        self.ran: set[int] = set()


@contextmanager
def counting() -> Iterator[Counted]:
    """Count every forward of every model in this process while the block runs, copies and hooked twins included.

    A block counts where the modules inside its attention run: a forward that begins or ends half way counts the blocks
    it passed, what is put in the place of a block or of its attention costs nothing, and what is put around them (by
    accelerate, or to keep what an attention wrote) counts as they do.
    """
    from torch.nn.modules.module import register_module_forward_hook

    counted = Counted()
    known: dict[type, bool] = {}
    inside = _Inside()

    def count(module: Any, _: Any, output: Any) -> None:
        kind = type(module)
        if kind not in known:
            # Decoders' attention knows its layer (for the cache); what wraps it, and an encoder's, does not.
            known[kind] = kind.__name__.endswith("Attention") and hasattr(module, "layer_idx")
        if not known[kind]:
            inside.ran.add(id(module))
            return
        parts = {id(part) for part in module.children()}
        if parts & inside.ran:
            hidden = output[0] if isinstance(output, tuple) else output
            counted.add(hidden.shape[0], hidden.shape[1], hidden.requires_grad)
        inside.ran -= parts

    handle = register_module_forward_hook(count)
    try:
        yield counted
    finally:
        handle.remove()


def peak_resident() -> int | None:
    """Largest resident memory of this process so far, bytes; None where the system does not say."""
    try:
        lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    return 1024 * int(next(line for line in lines if line.startswith("VmHWM")).split()[1])


def bytes_under(*folders: Path) -> int:
    """Bytes of all files below some folders."""
    return sum(p.stat().st_size for folder in folders for p in Path(folder).rglob("*") if p.is_file())
