"""What a benchmark is asked to do: parsed and checked before anything is loaded or computed."""

from __future__ import annotations

import re
from dataclasses import dataclass

from interp.demo import is_demo
from interp.errors import InputError
from interp.options import Shared, choose

ARTEFACTS = {
    "table1": "methods x metrics: what each method gives for a single instance",
    "table2": "DINM's ablations: without S, constraint, location, or the edit itself",
    "table3": "SafeEdit_test_ALL: a few edits against trained models on unseen inputs; also Table 14, the mean and "
    "standard deviation over edits",
    "table11": "category edited on x category defended, on inputs that broke vanilla",
    "table12": "suffix S1 against S2",
    "table13": "DINM at every layer",
    "fig7": "peak memory and seconds of every method, each in processes of its own",
    "layers": "how many instances locate each layer, under every convention",
}
"""What can be made -> what it is."""
ALIASES = {"table14": "table3"}
"""The paper's Table 14 is its Table 3 with the deviation of each mean: one artefact holds both."""
INSTANCES = {"table1": 108, "table2": 108, "table3": 9, "table11": 36, "table12": 54, "table13": 36, "layers": 270}
"""Instances of the demo where none are asked for: edits of table3 and table11, else instances measured."""


@dataclass(frozen=True)
class Settings(Shared):
    """Everything a benchmark depends on; the command line's options, one to one."""

    artefact: str
    instances: int | None = None
    """Instances; None is the whole test split, on the demo what `INSTANCES` says."""
    methods: tuple[str, ...] = ()
    """Only these rows (vanilla is always there); none: all of the artefact."""
    repeats: int = 3
    """Processes that measure each row of fig7."""
    block: int = 18
    """Instances in a unit of work: what a killed run loses at most, and what processes share out."""
    shard: tuple[int, int] | None = None
    """(index from 0, shards): do only this share, and merge nothing."""
    merge: bool = False
    """Compute nothing: make the table from what is there."""

    def __post_init__(self) -> None:
        """Raises InputError for an unknown artefact or choice, or a number that makes no sense."""
        super().__post_init__()
        choose("artefact", self.artefact, tuple(ARTEFACTS))
        for name, low in (("instances", 2), ("block", 1), ("repeats", 1), ("batch_size", 1), ("max_new_tokens", 1)):
            value = getattr(self, name)
            if value is not None and value < low:
                raise InputError(f"expected --{name.replace('_', '-')} >= {low}, got {value}")
        if self.shard is not None and self.merge:
            raise InputError("--shard computes a share and --merge only merges: give one of them")

    @property
    def batch(self) -> int:
        """Prompts decoded at a time."""
        return self.batch_size or (128 if is_demo(self.model) else 16)

    def identity(self) -> dict[str, object]:
        """What two processes must agree on to work on one run: all but where and which share."""
        same = {k: v for k, v in super().identity().items() if k not in ("shard", "merge")}
        return {**same, "methods": sorted(set(self.methods))}


def parse_shard(text: str | None) -> tuple[int, int] | None:
    """ "1/4" -> (0, 4), the first of four. Raises InputError for anything else."""
    if text is None:
        return None
    match = re.fullmatch(r"(\d+)/(\d+)", text.strip())
    if match is None or not 1 <= int(match[1]) <= int(match[2]):
        raise InputError(f"--shard: expected I/N with I from 1 to N, e.g. 2/4, got {text!r}")
    return int(match[1]) - 1, int(match[2])
