"""One small comparison on the embedded demo, shared by the tests that read it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from small_run import SMALL

from interp.compare import run


@contextmanager
def cache_of_the_session(folder: Path) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("INTERP_CACHE", str(folder / "interp-cache"))
        yield


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A model cache of the test session's own."""
    with cache_of_the_session(tmp_path_factory.getbasetemp()):
        yield


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run folder of `compare dinm`, unbroken."""
    out = tmp_path_factory.mktemp("compare") / "run"
    with cache_of_the_session(tmp_path_factory.getbasetemp()):  # made before `cache` is
        assert run(["dinm", *SMALL, "--out", str(out)]) == 0
    return out
