"""Harmless requests that sound harmful (over-refusal): XSTest's layout, Röttger et al. 2024."""

from __future__ import annotations

from pathlib import Path

from interp.errors import InputError
from interp.evaluation.tables import read_records, text_of
from interp.records import BenignRequest
from interp.safeedit.adapters import is_contrast


def load_benign(source: str | Path, *, split: str = "train") -> tuple[BenignRequest, ...]:
    """The safe prompts of a file or hub data set in XSTest's layout (`prompt`, `type`, `label`).

    Its unsafe contrasts are left out: refusing those is right. Without a label column the type tells them.

    Raises:
        InputError: as `read_records`; no prompt column, neither label nor type, another label than safe or unsafe, an
            empty prompt, or no safe one at all.
    """
    records = read_records(source, split=split)
    columns = {str(key).strip().lower() for key in records[0]}
    if "prompt" not in columns or not columns & {"label", "type"}:
        raise InputError(
            f"{source}: expected the columns prompt, type, label of XSTest; found {', '.join(map(str, records[0]))}"
        )
    found = []
    for index, raw in enumerate(records):
        record = {str(key).strip().lower(): value for key, value in raw.items()}
        where = f"{source}, record {index}"
        prompt = text_of(record, "prompt", where).strip()
        if "label" in columns:
            label = text_of(record, "label", where).strip().lower()
        else:
            label = "unsafe" if is_contrast(text_of(record, "type", where)) else "safe"
        if label not in ("safe", "unsafe"):
            raise InputError(f"{where}: expected safe or unsafe under 'label', got {label!r}")
        if label == "safe":
            found.append(BenignRequest(prompt, "", wrapped=False))
    if not found:
        raise InputError(f"{source}: none of the {len(records)} prompts is safe; over-refusal needs harmless ones")
    return tuple(found)
