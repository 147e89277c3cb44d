"""One small comparison on the embedded demo, shared by the tests that read it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from small_run import SMALL

from interp.compare import run


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A model cache of the test session's own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("INTERP_CACHE", str(tmp_path_factory.getbasetemp() / "interp-cache"))
        yield


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run folder of `compare dinm`, unbroken."""
    out = tmp_path_factory.mktemp("compare") / "run"
    assert run(["dinm", *SMALL, "--out", str(out)]) == 0
    return out
