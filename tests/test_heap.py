"""What a forward frees is there for the next one."""

from __future__ import annotations

import ctypes
import platform
import subprocess
import sys

import pytest

from interp import heap

FORWARDS = """
import ctypes, resource, sys
from interp import heap
if sys.argv[1] == "kept":
    assert heap.keep_freed()
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_size_t], [ctypes.c_void_p]
def forward():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    blocks = [libc.malloc(2**24) for _ in range(6)]
    for block in blocks:
        ctypes.memset(block, 1, 2**24)
    for block in blocks:
        libc.free(block)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
print(*(forward() for _ in range(5)))
"""
PAGES = 6 * 2**24 // 4096
"""Of one forward."""


def test_a_forward_finds_the_memory_of_the_one_before():
    if platform.libc_ver()[0] != "glibc":
        assert not heap.keep_freed()
        return
    faults = {}
    for way in ("kept", "given back"):
        run = subprocess.run([sys.executable, "-c", FORWARDS, way], capture_output=True, text=True, check=True)
        faults[way] = [int(n) for n in run.stdout.split()]
    assert min(faults["given back"]) > PAGES / 2 > max(faults["kept"][1:])


@pytest.mark.parametrize("name", ["MALLOC_TRIM_THRESHOLD_", "GLIBC_TUNABLES"])
def test_what_the_user_has_set_stays(monkeypatch, name):
    heap.keep_freed.cache_clear()
    monkeypatch.setenv(name, "1")
    monkeypatch.setattr(ctypes, "CDLL", lambda name: pytest.fail("asked all the same"))
    assert not heap.keep_freed()
    heap.keep_freed.cache_clear()


@pytest.mark.parametrize("error", [AttributeError, OSError, TypeError])
def test_where_nobody_can_be_asked_nothing_is(monkeypatch, error):
    def refuse(name: object) -> None:
        raise error("no such library")

    heap.keep_freed.cache_clear()
    monkeypatch.setattr(ctypes, "CDLL", refuse)
    assert not heap.keep_freed()
    heap.keep_freed.cache_clear()
