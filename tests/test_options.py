"""Options that command lines share: sizes of memory."""

from __future__ import annotations

import pytest

from interp.benchmark.settings import Settings
from interp.errors import InputError
from interp.options import size_in_bytes


@pytest.mark.parametrize(
    ("text", "size"),
    [("2GiB", 2 << 30), ("512 MiB", 512 << 20), ("1.5kb", 1500), ("3GB", 3 * 10**9), ("4096", 4096), ("7B", 7)],
)
def test_a_size_is_read_in_powers_of_1000_or_1024(text: str, size: int) -> None:
    assert size_in_bytes("--delta-memory", text) == size
    assert Settings("table1", delta_memory=text).delta_bytes == size


@pytest.mark.parametrize("text", ["", "much", "2 GiBi", "-1GiB", "1TiB", "iB"])
def test_what_is_no_size_is_refused_before_anything_is_loaded(text: str) -> None:
    with pytest.raises(InputError, match=r"--delta-memory: expected a size, e\.g\. 512MiB or 2GiB, got"):
        Settings("table1", delta_memory=text)


def test_without_a_size_nothing_is_bounded() -> None:
    assert Settings("table1").delta_bytes is None
