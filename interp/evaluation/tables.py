"""Records of a data set, from a local file of its layout or from the Hugging Face hub."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from interp.errors import InputError
from interp.safeedit.benchmark import read
from interp.safeedit.rows import read_lines, read_rows
from interp.safeedit.schema import check_text

KINDS = (".csv", ".json", ".jsonl", ".parquet")
TIMEOUT = 5.0
"""Seconds to wait for the hub's first answer: without a network the user hears so at once."""
_HUB_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")


def read_records(source: str | Path, *, config: str | None = None, split: str = "test") -> list[dict[str, Any]]:
    """The records of a `.csv`, `.json`, `.jsonl` or `.parquet` file, or of one split of a hub data set.

    Args:
        config: the hub data set's configuration, where it has several.
        split: read only from the hub; a local file is read whole.

    Raises:
        InputError: nothing there, another kind of file, no records, or a hub data set that cannot be had.
    """
    path = Path(source).expanduser()
    if path.suffix.lower() in KINDS or path.is_file():
        records = _read_file(path)
    elif _HUB_ID.fullmatch(str(source)) and not path.exists():
        records = _read_hub(str(source), config, split)
    else:
        raise InputError(f"no data at {str(source)!r}: expected a {', '.join(KINDS)} file, or a hub id")
    if not records:
        raise InputError(f"{source} holds no records")
    for index, record in enumerate(records):
        if not isinstance(record, dict):
            raise InputError(f"{source}, record {index}: expected an object, got {str(record)[:40]!r}")
    return records


def need_columns(records: Sequence[dict[str, Any]], columns: Sequence[str], source: str | Path, layout: str) -> None:
    """Raise InputError where the first record lacks a column of the layout."""
    missing = [column for column in columns if column not in records[0]]
    if missing:
        raise InputError(
            f"{source}: expected the columns {', '.join(columns)} of {layout}; found {', '.join(map(str, records[0]))}"
        )


def text_of(record: dict[str, Any], key: str, where: str) -> str:
    """A text that is there and not empty. Raises InputError otherwise."""
    value = record.get(key)
    if not isinstance(value, str) or not value.strip():
        raise InputError(f"{where}: expected a text under {key!r}, got {str(value)[:40]!r}")
    check_text(value, f"{where}, {key!r}")
    return value


def _read_file(path: Path) -> list[Any]:
    suffix = path.suffix.lower()
    if suffix == ".csv":
        return list(read_rows(path))
    if suffix == ".jsonl":
        return read_lines(path)
    if suffix == ".json":
        data = read(path)
        if not isinstance(data, list):
            raise InputError(f"{path}: expected a JSON list of records")
        return data
    if suffix != ".parquet":
        raise InputError(f"expected a {', '.join(KINDS)} file, got {str(path)!r}")
    if not path.is_file():
        raise InputError(f"no such file: {path}")
    import pyarrow as pa
    from pyarrow import parquet

    try:
        return parquet.read_table(path).to_pylist()
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{path} is not a parquet file: {str(error).splitlines()[0]}") from error


def _read_hub(hub_id: str, config: str | None, split: str) -> list[Any]:
    import huggingface_hub
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, HFValidationError, RepositoryNotFoundError

    named = f"{hub_id} ({', '.join(filter(None, (config, split)))})"
    try:
        # Asked first: where there is no network, `load_dataset` goes on trying for half a minute.
        if not huggingface_hub.constants.HF_HUB_OFFLINE:
            huggingface_hub.HfApi().dataset_info(hub_id, timeout=TIMEOUT)
        return _load(hub_id, config, split)
    except GatedRepoError as error:
        raise InputError(
            f"{hub_id} is gated: accept its terms at https://huggingface.co/datasets/{hub_id}, then run `hf auth login`"
        ) from error
    except RepositoryNotFoundError as error:
        raise InputError(f"no hub data set {hub_id!r} (private ones need `hf auth login`)") from error
    except (HFValidationError, HfHubHTTPError) as error:
        raise InputError(f"the hub refused {named}: {str(error).splitlines()[0]}") from error
    except ValueError as error:  # an unknown configuration or split; the message names those there are
        raise InputError(f"cannot read {named}: {' '.join(str(error).split())[:200]}") from error
    except Exception as error:  # the hub's client lets errors of its network library through
        if not isinstance(error, OSError) and not re.search("connect|timeout|offline", type(error).__name__.lower()):
            raise
        logging.getLogger("interp").debug("reading from the hub failed", exc_info=True)
        raise InputError(
            f"no file {hub_id!r}, and the Hugging Face hub cannot be reached to look for {named}; give a local "
            "file of the same layout (a copy that was fetched before is read with HF_HUB_OFFLINE=1)"
        ) from error


def _load(hub_id: str, config: str | None, split: str) -> list[Any]:
    import datasets

    return datasets.load_dataset(hub_id, config, split=split).to_list()  # type: ignore[union-attr]
