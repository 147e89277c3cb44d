"""What of a comparison is there already: rows in its run folder, trained models in the cache."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from interp.costs.comparison import Planned, method_of, trainings
from interp.errors import InputError
from interp.methods._trl import PROVENANCE, RECIPE, pick
from interp.pipeline.study import identify
from interp.runs import cache_dir, read_json, versions


def rows_done(plan: Planned) -> tuple[Path, list[str]]:
    """Where the comparison is written, and the rows of it that are there. Nothing is created."""
    path, config = identify(plan.settings, plan.benchmark, plan.model, plan.instances)
    file = path / "config.json"
    if not file.is_file() or read_json(file) != json.loads(json.dumps(config, default=str)):
        return path, []
    names = ["vanilla", *(s.name for s in plan.settings.specs())]
    return path, [name for name in names if (path / "records" / f"row-{name}.json").exists()]


def trained(plan: Planned) -> list[str]:
    """Methods whose training is in the cache: of these weights, settings, instances and versions.

    Read off what each checkpoint says of itself, without making its training data again.
    """
    found: list[str] = []
    base: Any = plan.model.weight_hash()
    for name in trainings(plan):
        log = _log(plan, name, base)
        if log is not None:
            found.append(name)
        if name == "sft" and plan.settings.dpo_from == "sft":
            base = log and log["weight_hash"]  # DPO stands on it
    return found


def _log(plan: Planned, name: str, base: str | None) -> dict[str, Any] | None:
    method, known = method_of(plan, name), versions()
    chosen = pick(plan.benchmark.train, method.n_examples, method.seed)
    wanted = {
        "base_hash": base,
        "recipe": RECIPE,
        "config": json.loads(json.dumps(asdict(method))),
        "instance_ids": sorted(i.id for i in chosen),
    }
    for file in sorted((cache_dir() / "models").glob(f"{name}-*/{PROVENANCE}")):
        try:
            log = read_json(file)
            same = all(log["versions"][n] == known[n] for n in ("torch", "transformers", "trl", "peft"))
            if same and all(log[key] == value for key, value in wanted.items()):
                return log
        except (InputError, KeyError, TypeError):
            continue  # what is damaged is made again
    return None
