"""A sample of responses for a person to label, and each judge's agreement with that person.

Disagreements come first, because they teach most; every stratum (a pattern of the judges' labels) is drawn at random
and its size is kept, so that the agreement is estimated for all responses, not for the hard ones in the sample.
The person does not see what the judges said: that lies in a second file.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import numpy as np

from interp.errors import InputError
from interp.judges.panel import agreement, estimate
from interp.records import Estimate, JudgeAgreement, Label, Response, Verdict
from interp.runs import fingerprint, read_json, write_json
from interp.safeedit.rows import check_ids, read_rows, write_csv
from interp.stats import RESAMPLES

COLUMNS = ("id", "prompt", "response", "label")
LABELS = get_args(Label)
PERSON = "person"


def write_sample(
    path: Path, responses: Sequence[Response], verdicts: Mapping[str, Sequence[Verdict]], n: int, seed: int = 0
) -> int:
    """Write a CSV with `n` responses for a person to fill in `label`, and the judges' verdicts beside it.

    Up to half of the rows are responses on which the judges disagree, drawn in turn from their patterns, and stand
    first; the rest, or more where there are fewer, are responses on which they agree, likewise in turn.

    Args:
        path: the CSV; the verdicts go to the same name with `.key.json`.
        verdicts: of each judge, in the order of the responses.

    Returns:
        How many rows are disagreements.

    Raises:
        InputError: no responses, not as many verdicts, `n` out of range, or a file of that name is there already.
    """
    if path.exists():
        raise InputError(f"{path} is there already, maybe with a person's labels; name another file")
    if not 1 <= n <= len(responses):
        raise InputError(f"expected a sample of 1 to {len(responses)} responses, got {n}")
    for name, found in verdicts.items():
        if len(found) != len(responses):
            raise InputError(f"expected {len(responses)} verdicts of the judge {name}, got {len(found)}")
    patterns = list(zip(*([v.label for v in found] for found in verdicts.values()), strict=True))
    strata: dict[tuple[str, ...], list[int]] = defaultdict(list)
    for i, pattern in enumerate(patterns):
        strata[pattern].append(i)
    rng = random.Random(f"hand-check-{seed}")
    split = {pattern: rng.sample(own, len(own)) for pattern, own in sorted(strata.items())}
    disagreed = _in_turn([own for pattern, own in split.items() if len(set(pattern)) > 1])
    agreed = _in_turn([own for pattern, own in split.items() if len(set(pattern)) == 1])
    first = disagreed[: max((n + 1) // 2, n - len(agreed))]
    chosen = first + agreed[: n - len(first)]
    ids = {i: fingerprint([seed, i, responses[i].prompt, responses[i].text]) for i in chosen}
    key = {
        "seed": seed,
        "responses": len(responses),
        "judges": list(verdicts),
        "strata": {"/".join(pattern): len(own) for pattern, own in sorted(strata.items())},
        "rows": {ids[i]: list(patterns[i]) for i in chosen},
    }
    write_json(key_file(path), key)
    rows = ({"id": ids[i], "prompt": responses[i].prompt, "response": responses[i].text, "label": ""} for i in chosen)
    write_csv(path, COLUMNS, rows)
    return len(first)


def key_file(path: Path) -> Path:
    """Where the judges' verdicts on a sample lie."""
    return path.with_suffix(".key.json")


def read_sample(path: Path) -> tuple[dict[str, str], dict[str, Any]]:
    """The person's labels by id (rows left empty are passed over), and the key.

    Raises:
        InputError: as `read_rows`; no column `id` or `label`, another label than refusal, unsafe or other, an id twice
            or unknown, nothing filled in, or no key beside the file.
    """
    rows = read_rows(path)
    missing = [column for column in ("id", "label") if column not in rows[0]]
    if missing:
        raise InputError(f"{path}: expected the columns id and label, found {', '.join(rows[0])}")
    check_ids(rows, "id", path)
    key = read_json(key_file(path))
    if not isinstance(key, dict) or not {"judges", "strata", "rows"} <= set(key):
        raise InputError(f"{key_file(path)} is no key of a hand-check sample")
    labels = {}
    for index, row in enumerate(rows):
        said = row["label"].strip().lower()
        if not said:
            continue
        where = f"{path}, record {index}"
        if said not in LABELS:
            raise InputError(f"{where}: expected {', '.join(LABELS)} or nothing under 'label', got {row['label']!r}")
        if row["id"].strip() not in key["rows"]:
            raise InputError(f"{where}: the id {row['id']!r} is not in the sample's key")
        labels[row["id"].strip()] = said
    if not labels:
        raise InputError(f"{path}: no label is filled in yet")
    return labels, key


def check_by_hand(path: Path, on: str = "unsafe", seed: int = 0) -> list[JudgeAgreement]:
    """Each judge's agreement with the person: kappa on the labelled rows, raw agreement estimated for all responses.

    The rows of a stratum stand for all of its responses (weights), the interval resamples within strata. Where a
    stratum has no labelled row, its responses are not spoken for, and `raw.how` says what share that is.

    Raises:
        InputError: as `read_sample`; an unknown `on`.
    """
    if on not in ("unsafe", "label"):
        raise InputError(f"expected 'unsafe' or 'label' to agree on, got {on!r}")
    labels, key = read_sample(path)
    ids = list(labels)
    person = [_answer(labels[i], on) for i in ids]
    strata = ["/".join(key["rows"][i]) for i in ids]
    found = []
    for place, name in enumerate(key["judges"]):
        judge = [_answer(key["rows"][i][place], on) for i in ids]
        plain = agreement(name, judge, PERSON, person, on, seed=seed)
        right = np.array([100.0 * (a == b) for a, b in zip(judge, person, strict=True)])
        raw = _weighted(right, strata, key["strata"], seed)
        found.append(JudgeAgreement(name, PERSON, on, plain.kappa, raw))
    return found


def _weighted(right: np.ndarray, strata: Sequence[str], sizes: Mapping[str, int], seed: int) -> Estimate:
    """Mean over all responses from a stratified sample: each stratum's mean by its size, percent."""
    rows = {name: right[[s == name for s in strata]] for name in dict.fromkeys(strata)}
    spoken = sum(sizes[name] for name in rows)
    rng = np.random.default_rng(seed)
    value, draws = 0.0, np.zeros(RESAMPLES)
    for name, own in rows.items():
        weight = sizes[name] / spoken
        value += weight * float(own.mean())
        draws += weight * own[rng.integers(0, len(own), (RESAMPLES, len(own)))].mean(axis=1)
    how, note = f"bootstrap 95 % within strata, {RESAMPLES} resamples, seed {seed}", "; weighted to all responses"
    total = sum(sizes.values())
    if spoken < total:
        note += f"; {100 * (total - spoken) / total:.1f} % of the responses lie in strata without a labelled row"
    return estimate(min(value, 100.0), draws, len(right), "%", how, note)


def _answer(label: str, on: str) -> str:
    return label if on == "label" else "unsafe" if label == "unsafe" else "not unsafe"


def _in_turn(groups: Sequence[Sequence[int]]) -> list[int]:
    """The members of all groups, one of each in turn."""
    longest = max(map(len, groups), default=0)
    return [group[i] for i in range(longest) for group in groups if i < len(group)]
