"""SafeEdit: the benchmark's instances in the released JSON layout, from a file, a folder, the hub or the demo."""

from interp.safeedit.benchmark import (
    HUB_ID,
    SPLITS,
    Benchmark,
    Split,
    benign_requests,
    load,
    read_facts,
    save,
)
from interp.safeedit.schema import parse, parse_record, to_json, to_list

__all__ = [
    "HUB_ID",
    "SPLITS",
    "Benchmark",
    "Split",
    "benign_requests",
    "load",
    "parse",
    "parse_record",
    "read_facts",
    "save",
    "to_json",
    "to_list",
]
