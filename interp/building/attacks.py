"""Step 2: attack templates, each a text with a placeholder for the question, a name and a type."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from interp.building.questions import check_columns, check_pinned, pinned
from interp.errors import InputError
from interp.safeedit import SPLITS
from interp.safeedit.rows import check_ids, read_rows

PLACEHOLDERS = ("[INSERT PROMPT HERE]", "[QUESTION]", "{question}", "{q}")
"""Where the question goes; a template has one of them, once or more."""
OUT_OF_DOMAIN = "ood"
TYPES = ("pretending", "attention shifting", "privilege escalation", "emotion control")
"""SafeEdit's types (38, 3, 5 and 2 of its 48 templates); another type is kept as it is and shown on the card."""


@dataclass(frozen=True)
class AttackTemplate:
    """One attack prompt a; `wrap` makes X = [q, a]. `split` is "" where the build draws it."""

    name: str
    kind: str
    """The type, `attack category` in the released files."""
    template: str
    placeholder: str
    split: str = ""

    def wrap(self, question: str) -> str:
        """The adversarial query (step 3)."""
        return self.template.replace(self.placeholder, question)


def attack_template(name: str, kind: str, template: str, split: str = "", where: str = "attack") -> AttackTemplate:
    """A template with its placeholder found.

    Raises:
        InputError: no placeholder, two kinds of them, or nothing but the placeholder.
    """
    found = [p for p in PLACEHOLDERS if p in template]
    if len(found) != 1:
        came = " and ".join(found) if found else "none"
        raise InputError(
            f"{where} ({name!r}): expected a placeholder for the question, one of {', '.join(PLACEHOLDERS)}; got {came}"
        )
    if not template.replace(found[0], "").strip():
        raise InputError(f"{where} ({name!r}): the template holds nothing beside the placeholder")
    return AttackTemplate(name, kind, template, found[0], split)


def demo_attacks() -> list[AttackTemplate]:
    """The demo world's 63 templates in the splits they have there."""
    from interp.demo import grammar

    return [
        attack_template(a.name, a.category, a.template, split)
        for split, attacks in grammar.benchmark_attacks().items()
        for a in attacks
    ]


def read_attacks(path: str | Path) -> list[AttackTemplate]:
    """Templates from a table with `name`, `type` and `template` (`id` and `split` optional).

    Raises:
        InputError: as `read_rows`; a column is missing or empty, two records have one id or name, a template without
            placeholder, an unknown split, or a split for some only.
    """
    rows = read_rows(path)
    check_columns(rows, ("name", "type", "template"), path)
    check_ids(rows, "id", path)
    check_ids(rows, "name", path)
    found = []
    for index, row in enumerate(rows):
        where = f"{path}, record {index}"
        for column in ("name", "type"):
            if not row[column].strip():
                raise InputError(f"{where}: the {column} is empty")
        split = pinned(row, (*SPLITS, OUT_OF_DOMAIN), where)
        found.append(attack_template(row["name"].strip(), row["type"].strip(), row["template"], split, where))
    check_pinned([a.split for a in found], path)
    return found
