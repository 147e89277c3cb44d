"""Tables that people hand in: CSV, a JSON list of objects or JSON lines, all read as rows of texts.

Reading checks the shape and names file and row; what the columns mean is the caller's business.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from interp.errors import InputError
from interp.runs import write_text
from interp.safeedit.benchmark import read
from interp.safeedit.schema import check_text

Row = dict[str, str]
"""One record: column name (as the file spells it) -> text, "" where nothing stands."""


def read_rows(path: str | Path) -> list[Row]:
    """The rows of a `.csv`, `.jsonl` or `.json` file; numbers become texts, null and missing values "".

    Raises:
        InputError: missing, unreadable, another kind of file, no rows, a row that does not fit the header, or a value
            that is no text (named by file and row).
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in (".csv", ".json", ".jsonl"):
        raise InputError(f"expected a .csv, .json or .jsonl file, got {str(path)!r}")
    rows = _read_csv(path) if suffix == ".csv" else _read_json(path, lines=suffix == ".jsonl")
    if not rows:
        raise InputError(f"{path} holds no rows")
    return rows


def write_csv(path: Path, columns: Sequence[str], rows: Iterable[Row]) -> None:
    """Write rows as CSV (UTF-8, quoted where needed, "\\n" between rows), atomically."""
    out = io.StringIO()
    writer = csv.DictWriter(out, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, out.getvalue())


def check_ids(rows: Sequence[Row], key: str, where: str | Path) -> None:
    """Raise InputError where two rows have one value under `key`; rows without one are not looked at."""
    first: dict[str, int] = {}
    for index, row in enumerate(rows):
        value = row.get(key, "").strip()
        if value and first.setdefault(value, index) != index:
            raise InputError(f"{where}: records {first[value]} and {index} have the same {key!r} {value}")


def _read_csv(path: Path) -> list[Row]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, strict=True)
            width = len(reader.fieldnames or ())
            found = list(reader)
    except FileNotFoundError:
        raise InputError(f"no such file: {path}") from None
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 text at byte {error.start}; save it as CSV in UTF-8") from error
    except csv.Error as error:
        raise InputError(f"{path} is not CSV: {error}") from error
    for index, row in enumerate(found):
        # DictReader files fields beyond the header under None, and fills missing ones with None.
        if None in row or None in row.values():
            raise InputError(f"{path}, record {index}: expected {width} fields, as in the header")
    return found


def _read_json(path: Path, lines: bool) -> list[Row]:
    data = read_lines(path) if lines else read(path)
    if not isinstance(data, list):
        raise InputError(f"{path}: expected a JSON list of objects")
    rows = []
    for index, record in enumerate(data):
        if not isinstance(record, dict):
            raise InputError(f"{path}, record {index}: expected an object, got {json.dumps(record)[:40]}")
        for key in record:
            check_text(key, f"{path}, record {index}, the key {key!r}")
        rows.append({key: _text(value, f"{path}, record {index}, {key!r}") for key, value in record.items()})
    return rows


def read_lines(path: Path) -> list[Any]:
    """The decoded values of a JSON-lines file. Raises InputError where it is missing or no such file."""
    return [value for _, value in numbered_lines(path)]


def numbered_lines(path: Path) -> list[tuple[int, Any]]:
    """As `read_lines`, each value behind the number of its line (from 1; empty lines count)."""
    try:
        # Not splitlines(): a text may hold U+2028, at which that would break a line of JSON.
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except FileNotFoundError:
        raise InputError(f"no such file: {path}") from None
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 text at byte {error.start}") from error
    found = []
    for number, line in enumerate(lines, 1):
        if line.strip():
            try:
                found.append((number, json.loads(line)))
            except ValueError as error:
                raise InputError(f"{path} is not JSON lines: line {number}: {error}") from error
    return found


def _text(value: Any, where: str) -> str:
    if value is None:
        return ""
    if isinstance(value, str | int | float | bool):
        check_text(str(value), where)
        return str(value)
    raise InputError(f"{where}: expected a text, got {json.dumps(value)[:40]}")
