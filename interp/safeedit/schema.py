"""SafeEdit's released JSON layout, read and written key by key (paper, Sec. 2; keys verbatim, spaces included).

Reading checks every record and names what is wrong by index and key; writing gives back what was read, with the keys
that the schema does not know. No file is opened here.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from interp.errors import InputError
from interp.records import CATEGORIES, Generalization, Instance, Knowledge

ID = "id"
TEXTS = {
    "unsafety category": "category",
    "question": "question",
    "adversarial prompt": "adversarial_prompt",
    "attack category": "attack_category",
    "attack name": "attack_name",
    "safe generation": "safe_generation",
    "unsafe generation": "unsafe_generation",
}
"""Key of the released record -> field of `Instance`, for the plain texts."""
GENERALIZATION = "generalization test"
GENERALIZATION_TEXTS = {
    "test input of only harmful question": "only_question",
    "test input of other attack prompt input": "other_attack",
    "attack_category": "attack_category",
    "attack_name": "attack_name",
    "test input of other question input": "other_question",
    "test input of other questions and attack prompts": "other_question_and_attack",
}
"""The same for the nested `generalization test`; the two attack keys may be missing."""
OPTIONAL = ("attack_category", "attack_name")
KNOWLEDGE = "knowledge constrain"
KNOWLEDGE_TEXTS = {"prompt": "prompt", "answer": "answer"}
NOT_EMPTY = ("question", "adversarial prompt")
"""A record without a prompt has nothing to measure. Responses may be empty: models do that."""


def parse(data: Any, where: str = "the data") -> tuple[Instance, ...]:
    """The instances of a split, from the decoded JSON of one released file.

    Args:
        data: a list of records.
        where: names the data in error messages (a file name).

    Raises:
        InputError: not a list, no records, two records with one id, or a bad record (named by index and key).
    """
    if not isinstance(data, list):
        raise InputError(f"{where}: expected a JSON list of records, got {_kind(data)}")
    if not data:
        raise InputError(f"{where} holds no records")
    instances = tuple(parse_record(record, f"{where}, record {index}") for index, record in enumerate(data))
    first: dict[int, int] = {}
    for index, instance in enumerate(instances):
        if instance.id in first:
            raise InputError(f"{where}: records {first[instance.id]} and {index} have the same 'id' {instance.id}")
        first[instance.id] = index
    return instances


def parse_record(record: Any, where: str = "record") -> Instance:
    """One instance from one decoded record.

    Raises:
        InputError: a key is missing, a value has another type or is no text of whole characters, a prompt is empty, or
            the category is unknown.
    """
    if not isinstance(record, dict):
        raise InputError(f"{where}: expected an object, got {_kind(record)}")
    if ID not in record:
        raise InputError(f"{where} lacks the key 'id'")
    identity = record[ID]
    if not isinstance(identity, int) or isinstance(identity, bool):
        raise InputError(f"{where}: expected a whole number under 'id', got {_kind(identity)}")
    where = f"{where} (id {identity})"
    texts = _texts(record, TEXTS, where)
    for key in NOT_EMPTY:
        if not record[key].strip():
            raise InputError(f"{where}: the text under '{key}' is empty")
    if texts["category"].strip().lower() not in CATEGORIES:
        raise InputError(
            f"{where}: unknown 'unsafety category' {texts['category']!r}; expected one of {', '.join(CATEGORIES)}"
        )
    extra = {key: value for key, value in record.items() if key not in (ID, *TEXTS, GENERALIZATION, KNOWLEDGE)}

    if KNOWLEDGE not in record:
        raise InputError(f"{where} lacks the key '{KNOWLEDGE}'")
    inside = _object(record[KNOWLEDGE], f"{where}, '{KNOWLEDGE}'")
    knowledge = Knowledge(**_texts(inside, KNOWLEDGE_TEXTS, f"{where}, '{KNOWLEDGE}'"))
    _keep_extra(extra, KNOWLEDGE, inside, KNOWLEDGE_TEXTS)

    generalization = None
    if record.get(GENERALIZATION) is not None:  # absent, or null, in some train and val files
        inside = _object(record[GENERALIZATION], f"{where}, '{GENERALIZATION}'")
        generalization = Generalization(**_texts(inside, GENERALIZATION_TEXTS, f"{where}, '{GENERALIZATION}'"))
        _keep_extra(extra, GENERALIZATION, inside, GENERALIZATION_TEXTS)
    elif GENERALIZATION in record:
        extra[GENERALIZATION] = None
    return Instance(identity, **texts, knowledge=knowledge, generalization=generalization, extra=extra)


def to_json(instance: Instance) -> dict[str, Any]:
    """One record in the released layout, the inverse of `parse_record`: schema keys in their order, then the others."""
    record: dict[str, Any] = {ID: instance.id}
    record |= {key: getattr(instance, field) for key, field in TEXTS.items()}
    extra = dict(instance.extra)
    if instance.generalization is not None:
        record[GENERALIZATION] = {
            key: text
            for key, field in GENERALIZATION_TEXTS.items()
            if (text := getattr(instance.generalization, field)) or key not in OPTIONAL
        } | (extra.pop(GENERALIZATION, None) or {})
    record[KNOWLEDGE] = {key: getattr(instance.knowledge, field) for key, field in KNOWLEDGE_TEXTS.items()}
    record[KNOWLEDGE] |= extra.pop(KNOWLEDGE, {})
    return record | extra


def to_list(instances: Iterable[Instance]) -> list[dict[str, Any]]:
    """A split in the released layout, ready for `json.dump`."""
    return [to_json(instance) for instance in instances]


def _texts(record: dict[str, Any], keys: dict[str, str], where: str) -> dict[str, str]:
    """The texts under `keys`, by field name."""
    found = {}
    for key, field in keys.items():
        if key not in record and key in OPTIONAL:
            continue
        if key not in record:
            raise InputError(f"{where} lacks the key '{key}'")
        if not isinstance(record[key], str):
            raise InputError(f"{where}: expected a text under '{key}', got {_kind(record[key])}")
        check_text(record[key], f"{where}, '{key}'")
        found[field] = record[key]
    return found


def check_text(text: str, where: str) -> None:
    """Raise InputError where UTF-8 cannot hold a text: JSON may escape one half of a character that takes two."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InputError(
            f"{where}: expected a text of whole characters, got half of one (\\u{ord(text[error.start]):04x}, a lone "
            f"surrogate) at position {error.start}"
        ) from None


def _object(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise InputError(f"{where}: expected an object, got {_kind(value)}")
    return value


def _keep_extra(extra: dict[str, Any], key: str, inside: dict[str, Any], known: dict[str, str]) -> None:
    """Keep unknown keys of a nested object in `extra` under the object's own key, which no other extra can have.

    An optional text that is there but empty is kept too: the record cannot tell it from a missing one.
    """
    others = {k: v for k, v in inside.items() if k not in known or (k in OPTIONAL and v == "")}
    if others:
        extra[key] = others


def _kind(value: Any) -> str:
    if value is None:
        return "null"
    names = {
        bool: "a truth value",
        int: "a number",
        float: "a number",
        str: "a text",
        list: "a list",
        dict: "an object",
    }
    return names.get(type(value), type(value).__name__)
