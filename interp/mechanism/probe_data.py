"""Texts for the toxic probe: the demo's, a Jigsaw CSV, or a dataset on the hub.

Jigsaw's toxic-comment file (the paper's source) has the columns `comment_text` and `toxic`; a few common other names
are understood too.
"""

from __future__ import annotations

import csv
import random
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from interp.errors import InputError
from interp.records import LabelledText

TEXT_COLUMNS = ("comment_text", "text", "comment")
LABEL_COLUMNS = ("toxic", "toxicity", "label")


def load_probe_texts(source: str | Path = "demo", *, limit: int | None = None, seed: int = 0) -> list[LabelledText]:
    """Labelled texts from "demo", a CSV or TSV file, or a hub id ("owner/name", its train split).

    Args:
        source: where from.
        limit: keep a seeded random sample of at most this many (Jigsaw has 160,000).
        seed: of that sample.

    Raises:
        InputError: nothing there, a column is missing, or a label is not a number in [0, 1]; names the row.
    """
    name = str(source)
    if name == "demo":
        from interp.demo.world import probe_texts

        texts = list(probe_texts())
    elif Path(name).is_file():
        texts = _from_csv(Path(name))
    elif Path(name).suffix in (".csv", ".tsv") or name.count("/") != 1 or Path(name).exists():
        raise InputError(f'no probe data at {name}: expected "demo", a CSV file, or a hub id like owner/name')
    else:
        texts = _from_hub(name)
    if limit is not None and limit < len(texts):
        texts = random.Random(seed).sample(texts, limit)
    return texts


def _from_csv(path: Path) -> list[LabelledText]:
    csv.field_size_limit(min(sys.maxsize, 2**31 - 1))
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, delimiter="\t" if path.suffix == ".tsv" else ",")
            return _labelled(reader, reader.fieldnames or (), str(path))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"cannot read the probe data {path}: {error}") from error


def _from_hub(name: str) -> list[LabelledText]:
    from datasets import load_dataset

    try:
        data: Any = load_dataset(name, split="train")
    except Exception as error:  # the hub client raises many kinds
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"cannot load the probe data {name} from the hub: {reason}") from error
    return _labelled(data, data.column_names, name)


def _labelled(rows: Iterable[Mapping[str, Any]], columns: Iterable[str], source: str) -> list[LabelledText]:
    columns = list(columns)
    text = next((c for c in TEXT_COLUMNS if c in columns), None)
    label = next((c for c in LABEL_COLUMNS if c in columns), None)
    if text is None or label is None:
        raise InputError(f"{source}: expected the columns comment_text and toxic, got {', '.join(columns) or 'none'}")
    found = []
    for number, row in enumerate(rows, start=1):
        try:
            value = float(row[label])
        except (TypeError, ValueError):
            value = -1.0
        if not 0.0 <= value <= 1.0 or not isinstance(row[text], str):
            raise InputError(
                f"{source}, record {number}: expected a text and a label in [0, 1], got {label}={row[label]!r}"
            )
        found.append(LabelledText(row[text], value >= 0.5))
    if not found:
        raise InputError(f"{source} holds no texts")
    return found
