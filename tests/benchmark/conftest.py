"""Small benchmarks on the embedded demo, in this process and in processes of their own."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from interp.benchmark.__main__ import run

PACKAGE = Path(__file__).parents[2] / "interp"
QUICK = ["--facts", "2", "--benign", "2", "--summaries", "2", "--max-new-tokens", "8", "--no-figures"]
SMALL = ["table2", "--limit", "4", "--block", "2", "--row", "DINM", "--row", "wo/Tune", *QUICK]
ROWS = ("vanilla", "DINM", "wo/Tune")
UNITS = 2
"""Of each row of SMALL."""
RESULTS = ("responses.jsonl", *(f"table2.{kind}" for kind in ("json", "csv", "md", "tex")))
PATIENCE = 400.0
"""Seconds a process may take on a busy machine."""


def same_bytes(one: Path, other: Path, names: Sequence[str] = RESULTS) -> None:
    for name in names:
        assert (one / name).read_bytes() == (other / name).read_bytes(), name


@dataclass(frozen=True)
class Processes:
    """Starts benchmarks in processes of their own, from a copy of the package that nobody edits meanwhile."""

    root: Path
    cache: Path

    def start(self, command: Sequence[str]) -> subprocess.Popen[str]:
        env = {
            **os.environ,
            "PYTHONPATH": str(self.root),
            "INTERP_CACHE": str(self.cache),
            "HF_HUB_OFFLINE": "1",
            "OMP_NUM_THREADS": "1",
        }
        return subprocess.Popen(
            command, cwd=self.root, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def benchmark(self, *arguments: str) -> subprocess.Popen[str]:
        return self.start([sys.executable, "-m", "interp.benchmark", *arguments])

    def launched(self, *arguments: str) -> subprocess.Popen[str]:
        """By accelerate, as the README says it."""
        launch = ["-m", "accelerate.commands.launch", "--multi_gpu", "--num_machines", "1", "--num_processes", "2"]
        more = ["--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0"]
        return self.start([sys.executable, *launch, *more, "-m", "interp.benchmark", "--device", "cpu", *arguments])


def ended(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    """Exit code, stdout and stderr."""
    out, err = process.communicate(timeout=PATIENCE)
    return process.returncode, out, err


def until(holds: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    """Wait for something a running process does."""
    deadline = time.monotonic() + PATIENCE
    while not holds():
        assert process.poll() is None, f"ended early: {process.communicate()[1]}"
        assert time.monotonic() < deadline
        time.sleep(0.01)


def kill(process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=60)


def workers(process: subprocess.Popen[str]) -> list[psutil.Process]:
    """The processes that a launcher started."""
    found = psutil.Process(process.pid).children(recursive=True)
    return [p for p in found if "interp.benchmark" in p.cmdline()]


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A model cache of the test session's own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("INTERP_CACHE", str(tmp_path_factory.getbasetemp() / "interp-cache"))
        yield


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run folder of SMALL, unbroken, in this process."""
    out = tmp_path_factory.mktemp("benchmark") / "run"
    assert run([*SMALL, "--out", str(out)]) == 0
    return out


@pytest.fixture(scope="session")
def processes(tmp_path_factory: pytest.TempPathFactory) -> Processes:
    """A frozen copy of the package to start processes from."""
    root = tmp_path_factory.mktemp("frozen")
    shutil.copytree(PACKAGE, root / "interp", ignore=shutil.ignore_patterns("__pycache__"))
    return Processes(root, root / "cache")


@pytest.fixture(scope="session")
def unbroken(processes: Processes, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run folder of SMALL, unbroken, in a process of its own."""
    out = tmp_path_factory.mktemp("unbroken") / "run"
    code, _, err = ended(processes.benchmark(*SMALL, "--device", "cpu", "--out", str(out)))
    assert code == 0, err
    return out
