"""Progress for people: one bar per stage on a terminal, one line per stage elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

Report = Callable[[int, int], None]
"""Called with (done, total)."""


class Stages:
    """A live list of stages with bars; `quiet` prints nothing."""

    def __init__(self, quiet: bool = False) -> None:
        self.console = Console(stderr=True, quiet=quiet)
        self._live = self.console.is_terminal and not quiet
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=28),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),  # what is left, next to what is gone
            console=self.console,
            disable=not self._live,
        )

    def __enter__(self) -> Stages:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    @contextmanager
    def stage(self, name: str) -> Iterator[Report]:
        """Show a stage while the block runs; call what it yields with (done, total)."""
        start = time.perf_counter()
        task: TaskID = self._progress.add_task(name, total=1)

        def report(done: int, total: int) -> None:
            self._progress.update(task, completed=done, total=max(total, 1))

        try:
            yield report
        except BaseException:
            self._progress.stop()
            raise
        total = self._progress.tasks[task].total or 1
        self._progress.update(task, completed=total)
        if not self._live:
            self.console.print(f"{name}: {time.perf_counter() - start:.1f} s", highlight=False)
            sys.stderr.flush()
