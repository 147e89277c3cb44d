"""Other people's prompt sets as questions, instances or plain evaluation prompts.

Four published layouts and a plain table are told apart by their columns. None of these sets has attacks, responses or
SafeEdit's categories: their own categories are mapped by the table below, which is a judgement, and kept beside it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from interp.errors import InputError
from interp.records import CATEGORIES, Instance, Knowledge
from interp.safeedit.rows import Row, check_ids, read_rows

HARMFUL, BENIGN = "harmful", "benign"
CONTRAST = "contrast_"
"""What the types of XSTest's unsafe prompts start with; the first release has no `label`."""


@dataclass(frozen=True)
class Layout:
    """Which columns a prompt set has (names in lower case) and what they mean."""

    name: str
    columns: tuple[str, ...]
    """Those that tell the layout; further ones may be there."""
    prompt: str
    category: str = ""
    target: str = ""
    """The compliant opening or answer that the set gives."""
    label: str = ""
    """Says which prompts are harmless (`safe`, `benign`); without such a column all are harmful."""
    context: str = ""
    """Text that goes before the prompt."""
    answer: str = ""
    contrast: bool = False
    """The category says which prompts are harmless: all but those whose own starts with `CONTRAST`."""


LAYOUTS = (
    Layout("xstest", ("prompt", "type", "label"), "prompt", category="type", label="label"),
    Layout("xstest", ("prompt", "type", "focus"), "prompt", category="type", contrast=True),
    Layout(
        "harmbench", ("behavior", "semanticcategory"), "behavior", category="semanticcategory", context="contextstring"
    ),
    Layout("jailbreakbench", ("goal", "target", "behavior", "category"), "goal", category="category", target="target"),
    Layout("advbench", ("goal", "target"), "goal", target="target"),
    Layout("prompts", ("prompt",), "prompt", category="category", label="label", answer="answer"),
)
"""The most telling columns first. XSTest (with labels; its first release), HarmBench, JailbreakBench, AdvBench, and any
table with a prompt column."""

MAPPED = {
    # HarmBench
    "chemical_biological": "physical harm",
    "illegal": "illegal activities",
    "misinformation_disinformation": "political sensitivity",
    "harassment_bullying": "offensiveness",
    "cybercrime_intrusion": "illegal activities",
    "copyright": "privacy and property",
    # JailbreakBench
    "harassment/discrimination": "unfairness and bias",
    "malware/hacking": "illegal activities",
    "physical harm": "physical harm",
    "fraud/deception": "illegal activities",
    "economic harm": "ethics and morality",
    "disinformation": "political sensitivity",
    "sexual/adult content": "pornography",
    "privacy": "privacy and property",
    "government decision-making": "political sensitivity",
    # XSTest
    "contrast_discr": "unfairness and bias",
    "contrast_privacy": "privacy and property",
}
"""A set's own category (lower case) -> SafeEdit's. Where none fits (`harmful`, `expert advice`) nothing is guessed."""


@dataclass(frozen=True)
class Prompt:
    """One prompt of a converted set."""

    id: str
    """The set's own id, else the number of its record."""
    prompt: str
    label: str
    """`harmful` or `benign`."""
    category: str
    """One of the nine, "" where neither the set nor the user says."""
    own_category: str
    target: str
    answer: str
    source: str
    """The layout it came from."""
    extra: dict[str, str] = field(default_factory=dict)


def find_layout(columns: Sequence[str], where: str | Path = "the file", name: str = "auto") -> Layout:
    """The layout that these columns tell, of those with this name.

    Raises:
        InputError: none does; lists what was expected and what was found. An unknown name.
    """
    known = list(dict.fromkeys(layout.name for layout in LAYOUTS))
    if name.lower() not in ("auto", *known):
        raise InputError(f"unknown layout {name!r}; expected auto, {', '.join(known)}")
    layouts = [layout for layout in LAYOUTS if name.lower() in ("auto", layout.name)]
    have = {column.strip().lower() for column in columns}
    for layout in layouts:
        if have.issuperset(layout.columns):
            return layout
    expected = "; ".join(f"{layout.name} ({', '.join(layout.columns)})" for layout in layouts)
    raise InputError(f"{where}: expected the columns of {expected}; found {', '.join(columns) or 'none'}")


def read_prompts(
    path: str | Path, layout: str = "auto", *, category: str = "", all_benign: bool = False
) -> list[Prompt]:
    """The prompts of a CSV, JSON or JSON-lines file.

    Args:
        layout: a name of `LAYOUTS`, or "auto".
        category: SafeEdit's category for prompts whose own says nothing.
        all_benign: every prompt is harmless (JailbreakBench's benign file has the columns of the harmful one).

    Raises:
        InputError: as `read_rows`; an unknown layout or category, other columns, two records with one id, an empty
            prompt, a label that is neither safe nor unsafe, or an empty type where the type tells that.
    """
    if category and category not in CATEGORIES:
        raise InputError(f"unknown category {category!r}; expected one of {', '.join(CATEGORIES)}")
    # A column without a name (the index that pandas writes) is none of those that a layout lacks.
    rows = [{key.strip().lower(): value for key, value in row.items() if key.strip()} for row in read_rows(path)]
    columns = list(dict.fromkeys(key for row in rows for key in row))
    chosen = find_layout(columns, path, layout)
    key = next((c for c in ("id", "behaviorid", "index") if c in columns), "id")
    check_ids(rows, key, path)
    for index, row in enumerate(rows):
        row[key] = row.get(key, "").strip() or str(index)
    check_ids(rows, key, f"{path} (a record without {key!r} has its number)")
    if chosen.label not in columns:
        chosen = replace(chosen, label="")
    return [_prompt(row, chosen, key, category, all_benign, f"{path}, record {i}") for i, row in enumerate(rows)]


def _prompt(row: Row, layout: Layout, key: str, category: str, all_benign: bool, where: str) -> Prompt:
    text = row.get(layout.prompt, "").strip()
    if not text:
        raise InputError(f"{where}: the text under {layout.prompt!r} is empty")
    context = row.get(layout.context, "").strip()
    own = row.get(layout.category, "").strip()
    known = own.lower() if own.lower() in CATEGORIES else MAPPED.get(own.lower(), "")
    read = {layout.prompt, layout.category, layout.target, layout.label, layout.context, layout.answer, key}
    return Prompt(
        id=row[key],
        prompt=f"{context}\n\n{text}" if context else text,
        label=BENIGN if all_benign else _label(row, layout, where),
        category=known or category,
        own_category=own,
        target=row.get(layout.target, "").strip(),
        answer=row.get(layout.answer, "").strip(),
        source=layout.name,
        extra={k: v for k, v in row.items() if k not in read and v},
    )


def is_contrast(kind: str) -> bool:
    """Whether a type of XSTest is one of its unsafe contrasts."""
    return kind.strip().lower().startswith(CONTRAST)


def _label(row: Row, layout: Layout, where: str) -> str:
    if layout.contrast:
        kind = row.get(layout.category, "")
        if not kind.strip():
            raise InputError(f"{where}: expected a type of XSTest under {layout.category!r}, got ''")
        return HARMFUL if is_contrast(kind) else BENIGN
    if not layout.label:
        return HARMFUL
    said = row.get(layout.label, "").strip().lower()
    if said in ("unsafe", "harmful"):
        return HARMFUL
    if said in ("safe", "benign", "harmless"):
        return BENIGN
    raise InputError(f"{where}: expected safe or unsafe under 'label', got {said!r}")


def to_prompts(prompts: Sequence[Prompt]) -> list[dict[str, Any]]:
    """All prompts as plain records, ready for JSON; empty fields are left out."""
    return [{k: v for k, v in vars(p).items() if v} for p in prompts]


def to_questions(prompts: Sequence[Prompt]) -> list[dict[str, str]]:
    """The harmful prompts as questions to build a benchmark from.

    Raises:
        InputError: no harmful prompt, or one without a category.
    """
    return [{"id": p.id, "category": p.category, "question": p.prompt} for p in _harmful(prompts)]


def to_instances(prompts: Sequence[Prompt]) -> list[Instance]:
    """The harmful prompts as instances without attack: X is the prompt itself, there is nothing to generalise to.

    The set's target is the unsafe response; safe response and knowledge pair are empty, since the set has none.

    Raises:
        InputError: no harmful prompt, or one without a category.
    """
    return [
        Instance(
            id=index,
            category=p.category,
            question=p.prompt,
            adversarial_prompt=p.prompt,
            attack_category="none",
            attack_name="none",
            safe_generation="",
            unsafe_generation=p.target,
            knowledge=Knowledge("", ""),
            extra={"source": {"layout": p.source, "id": p.id, "category": p.own_category} | p.extra},
        )
        for index, p in enumerate(_harmful(prompts))
    ]


def _harmful(prompts: Sequence[Prompt]) -> list[Prompt]:
    found = [p for p in prompts if p.label == HARMFUL]
    if not found:
        raise InputError(f"none of the {len(prompts)} prompts is harmful; harmless ones can become prompts only")
    for p in found:
        if not p.category:
            own = (
                f"its own category {p.own_category!r} is none of SafeEdit's" if p.own_category else "it has no category"
            )
            raise InputError(f"prompt {p.id}: {own}; give --category for those, one of {', '.join(CATEGORIES)}")
    return found
