"""Which general items a benchmark is asked: its own, or those of files in the layouts of TriviaQA, XSum and XSTest."""

from __future__ import annotations

from dataclasses import replace

from interp.evaluation.knowledge import load_questions
from interp.evaluation.refusals import load_benign
from interp.evaluation.summaries import load_summaries
from interp.safeedit import Benchmark


def with_files(
    benchmark: Benchmark, kqa: str | None = None, csum: str | None = None, xstest: str | None = None
) -> Benchmark:
    """The benchmark with the questions, texts and harmless requests of these files or hub ids instead of its own.

    Raises:
        InputError: as `load_questions`, `load_summaries` and `load_benign`.
    """
    if kqa is not None:
        benchmark = replace(benchmark, facts=load_questions(kqa))
    if csum is not None:
        benchmark = replace(benchmark, summaries=load_summaries(csum))
    if xstest is not None:
        benchmark = replace(benchmark, benign=load_benign(xstest))
    return benchmark
