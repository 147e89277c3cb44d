"""A build's memory: work done a chunk at a time, each chunk one file, so that a killed build goes on from there."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from interp.building.generators import Answer, Generator, Report
from interp.endpoint import Query
from interp.errors import InputError
from interp.records import Verdict, from_dict, to_dict
from interp.runs import Run, fingerprint, read_json, write_json

T = TypeVar("T")

JUDGED = 512
"""Texts judged in one chunk."""


def in_chunks(
    run: Run,
    step: str,
    items: Sequence[T],
    work: Callable[[Sequence[T]], list[Any]],
    chunk: int,
    report: Report | None = None,
) -> list[Any]:
    """`work` over the items, in their order; its plain JSON results are kept in `parts/<step>-<digest>.json`.

    A chunk is named by its content, and chunks are cut the same way whenever a build is resumed: the same items meet
    in one batch, so that the results round the same.

    Raises:
        InputError: as `work`; a part file is damaged.
    """
    found: list[Any] = []
    for start in range(0, len(items), chunk):
        part = items[start : start + chunk]
        plain = [dataclasses.asdict(i) if dataclasses.is_dataclass(i) else i for i in part]  # type: ignore[arg-type]
        file = run.path / "parts" / f"{step}-{fingerprint(plain)}.json"
        if file.exists():
            results = read_json(file)
            if not isinstance(results, list) or len(results) != len(part):
                raise InputError(f"{file} is damaged; delete it and run again")
        else:
            results = work(part)
            write_json(file, results)
        found += results
        if report is not None:
            report(len(found), len(items))
    return found


def answering(run: Run, step: str, generator: Generator, report: Report | None = None) -> Answer:
    """The generator's `answer`, made resumable: equal queries are asked once, queries of like length together."""

    known: dict[Query, str] = {}

    def answer(queries: Sequence[Query]) -> list[str]:
        new = {query for query in queries if query not in known}
        order = sorted(new, key=lambda q: (len(q.text), q.text, q.instruction, q.suffix))
        texts = in_chunks(run, step, order, generator.answer, generator.chunk, report)
        known.update(zip(order, texts, strict=True))
        return [known[query] for query in queries]

    return answer


def judging(run: Run, judge: Any, report: Report | None = None) -> Callable[[Sequence[str]], list[Verdict]]:
    """The judge's verdicts on texts, made resumable: equal texts are judged once."""
    step = f"verdicts-{fingerprint(run.config['judge'])}"

    def verdicts(texts: Sequence[str]) -> list[Verdict]:
        order = list(dict.fromkeys(texts))
        made = in_chunks(run, step, order, lambda part: [to_dict(v) for v in judge.judge(part)], JUDGED, report)
        known = dict(zip(order, (from_dict(Verdict, v) for v in made), strict=True))
        return [known[text] for text in texts]

    return verdicts
