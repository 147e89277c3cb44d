"""Step 4: benign instructions with their answers, for the locality constraint."""

from __future__ import annotations

from pathlib import Path

from interp.errors import InputError
from interp.records import Knowledge
from interp.safeedit import SPLITS
from interp.safeedit.rows import check_ids, read_rows

COLUMNS = (("prompt", "answer"), ("instruction", "output"))
"""Columns of a pair: SafeEdit's own, and AlpacaEval's."""


def demo_knowledge() -> list[Knowledge]:
    """The distinct pairs of the demo world's instances; none of them is a question that is evaluated."""
    from interp.demo import world

    return list(dict.fromkeys(i.knowledge for split in SPLITS for i in world.instances(split)))


def read_knowledge(path: str | Path) -> list[Knowledge]:
    """Distinct pairs from a table with `prompt` and `answer`, or AlpacaEval's `instruction` and `output`.

    Raises:
        InputError: as `read_rows`; other columns, two records with one id, or an empty text.
    """
    rows = read_rows(path)
    check_ids(rows, "id", path)
    columns = next((c for c in COLUMNS if all(name in rows[0] for name in c)), None)
    if columns is None:
        expected = " or ".join(" and ".join(c) for c in COLUMNS)
        raise InputError(f"{path}: expected the columns {expected}, found {', '.join(rows[0])}")
    found: dict[Knowledge, None] = {}
    for index, row in enumerate(rows):
        prompt, answer = (row.get(name, "").strip() for name in columns)
        if not prompt or not answer:
            raise InputError(
                f"{path}, record {index}: the text under {columns[1] if prompt else columns[0]!r} is empty"
            )
        found[Knowledge(prompt, answer)] = None
    return list(found)
