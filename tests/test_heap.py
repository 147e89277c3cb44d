"""What a forward frees is there for the next one."""

from __future__ import annotations

import ctypes
import platform
import subprocess
import sys

import pytest

from interp import heap

FORWARDS = """
import resource, sys
import torch
from interp import heap
torch.set_num_threads(1)
if sys.argv[1] == "kept":
    assert heap.keep_freed()
def forward():
    parts = [torch.ones(16 * 2**18) for _ in range(6)]  # 16 MiB each
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
forward(), forward()
before = faults()
for _ in range(5):
    forward()
print(faults() - before)
"""


def test_forwards_find_the_memory_of_the_one_before():
    if platform.libc_ver()[0] != "glibc":
        assert not heap.keep_freed()
        return
    found = {}
    for way in ("kept", "given back"):
        run = subprocess.run([sys.executable, "-c", FORWARDS, way], capture_output=True, text=True, check=True)
        found[way] = int(run.stdout)
    page, of_a_forward = 4096, 6 * 2**24
    assert found["kept"] < of_a_forward / page / 10 < found["given back"]


@pytest.mark.parametrize("error", [AttributeError, OSError, TypeError])
def test_where_nobody_can_be_asked_nothing_is(monkeypatch, error):
    def refuse(name: object) -> None:
        raise error("no such library")

    heap.keep_freed.cache_clear()
    monkeypatch.setattr(ctypes, "CDLL", refuse)
    assert not heap.keep_freed()
    heap.keep_freed.cache_clear()
