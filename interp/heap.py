"""Memory that one forward frees is kept for the next one, and not given back to the system to be asked for again.

glibc gives the top of its heap back when twice the largest block it has seen freed lies unused there. A forward over
long prompts frees more than that many times over, and each page that it is given anew costs a fault: up to a tenth of
the time in which the model of the benchmark reads its prompts. Blocks beyond `LARGEST` stay the system's affair, so the
widest models gain nothing (2,048 tokens of an MLP wider than 4,096).
"""

from __future__ import annotations

import ctypes
import os
from functools import cache

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3
"""glibc's names of what `mallopt` sets (malloc.h)."""
KEPT = 2**28
"""Bytes that may lie unused at the top of the heap."""
LARGEST = 2**25
"""Bytes from which a block is the system's own affair: the most that glibc allows."""
USERS = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "MALLOC_TOP_PAD_", "MALLOC_MMAP_MAX_", "GLIBC_TUNABLES")
"""Where a user says how glibc keeps memory."""


@cache
def keep_freed() -> bool:
    """Ask glibc for it, for the rest of the process, unless the user has said how; returns whether it was done."""
    if any(name in os.environ for name in USERS):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # another library, or none that can be asked
        return False
    return all(mallopt(name, size) == 1 for name, size in ((TRIM_THRESHOLD, KEPT), (MMAP_THRESHOLD, LARGEST)))
