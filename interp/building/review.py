"""The review file: every response that the judge rejected, for a person to correct or accept, and back again."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Literal

from interp.building.questions import check_columns
from interp.errors import InputError
from interp.runs import fingerprint
from interp.safeedit.rows import check_ids, read_rows, write_csv

REVIEW = "review.csv"
Kind = Literal["unsafe", "safe"]
Answer = Literal["yes", "no", ""]
ANSWERS: dict[str, Answer] = {"yes": "yes", "no": "no", "": ""}


@dataclass(frozen=True)
class Rejected:
    """One rejected response: a row of the review file, all texts."""

    id: str
    kind: Kind
    """Which response it was to be."""
    split: str
    category: str
    question: str
    attack: str
    """Name of the attack, "" for a safe response: that one answers the question alone, for all its attacks."""
    prompt: str
    response: str
    reason: str
    p_unsafe: str


@dataclass(frozen=True)
class Decision:
    """What a person said of a rejected response: a better text, that it is right as it is, or that it is not."""

    said: Answer
    correction: str = ""
    """Enters the build, whatever was said beside it."""

    @property
    def accepted(self) -> bool:
        """Whether the response is taken as it is."""
        return self.said == "yes"


FOR_PEOPLE = ("fate", "accept", "correction")
"""Further columns: what the build did; `yes` to take the response as it is, `no` not to; a better response."""
COLUMNS = (*(f.name for f in fields(Rejected)), *FOR_PEOPLE)


def review_id(kind: Kind, question: str, attack: str = "") -> str:
    """The id of a response, the same in every build that asks the same."""
    return f"{kind}-{fingerprint([question, attack])}"


def write_review(
    path: Path, rejected: Iterable[Rejected], fates: Mapping[str, str], decisions: Mapping[str, Decision]
) -> None:
    """Write the review file, with the decisions that were already made in it. Raises InputError where it cannot be."""
    rows = []
    for row in rejected:
        decision = decisions.get(row.id)
        rows.append(
            asdict(row)
            | {
                "fate": fates[row.id],
                "accept": decision.said if decision is not None else "",
                "correction": decision.correction if decision is not None else "",
            }
        )
    write_csv(path, COLUMNS, rows)


def read_review(path: Path) -> dict[str, Decision]:
    """The decisions in a review file (CSV, JSON or JSON lines); rows without one are passed over.

    Raises:
        InputError: as `read_rows`; a column is missing, two records have one id, `accept` is neither yes nor no nor
            empty, or a record is both accepted and corrected.
    """
    rows = read_rows(path)
    check_columns(rows, ("id", "accept", "correction"), path)
    check_ids(rows, "id", path)
    found = {}
    for index, row in enumerate(rows):
        said, correction = ANSWERS.get(row["accept"].strip().lower()), row["correction"].strip()
        where = f"{path}, record {index}"
        if said is None:
            raise InputError(f"{where}: expected yes, no or nothing under 'accept', got {row['accept']!r}")
        if said == "yes" and correction:
            raise InputError(f"{where}: both accepted and corrected; expected one of the two")
        if said or correction:
            found[row["id"].strip()] = Decision(said, correction)
    return found


def decisions_for(folder: Path, review: Path | None) -> dict[str, Decision]:
    """The decisions that a build is given; those lying in its own folder must not be overwritten unread.

    Raises:
        InputError: as `read_review`; no review is given, and the folder's own holds decisions.
    """
    if review is not None:
        return read_review(review)
    own = folder / REVIEW
    if own.exists() and own.stat().st_size and (n := len(_own(own))):
        raise InputError(f"{own} holds {n} decisions; give it with --review to use them, or move it away")
    return {}


def _own(path: Path) -> dict[str, Decision]:
    text = path.read_text(encoding="utf-8-sig")
    return read_review(path) if text.strip().count("\n") else {}  # the header alone: nothing was rejected


def check_known(decisions: Mapping[str, Decision], known: Iterable[str], path: Path | None) -> None:
    """Raise InputError where a decision is about a response that this build did not reject."""
    unknown = [i for i in decisions if i not in set(known)]
    if unknown:
        raise InputError(
            f"{path}: {len(unknown)} of {len(decisions)} decisions are about no rejected response of this build, "
            f"e.g. {unknown[0]!r}"
        )
