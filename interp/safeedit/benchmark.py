"""The benchmark as the toolkit uses it: splits of instances, and what is measured beside them.

`load` takes the embedded demo, a file, a folder or a hub id; a user's own data in SafeEdit's layout is measured by the
same code as the released files.
"""

from __future__ import annotations

import json
import random
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from interp.errors import InputError
from interp.records import BenignRequest, Instance, LabelledText, Question, Summary
from interp.runs import write_text
from interp.safeedit.schema import parse, to_list

Split = Literal["train", "val", "test", "test_ALL"]
SPLITS: tuple[Split, ...] = get_args(Split)
FACTS = "facts.json"
"""An optional file of a data folder: knowledge questions, `[{"prompt": ..., "answers": [...]}]`."""
HUB_ID = "zjunlp/SafeEdit"
N_BENIGN = 200
"""At most so many benign requests, bare and wrapped each, are made from a benchmark's own knowledge pairs."""


@dataclass(frozen=True)
class Benchmark:
    """SafeEdit, or data of its shape: up to four splits, knowledge questions, benign requests, probe texts."""

    name: str
    train: tuple[Instance, ...] = ()
    val: tuple[Instance, ...] = ()
    test: tuple[Instance, ...] = ()
    test_all: tuple[Instance, ...] = ()
    """`SafeEdit_test_ALL`: for comparing SFT and DPO with DINM (paper, Table 3)."""
    facts: tuple[Question, ...] = ()
    """Knowledge questions (KQA); empty for the released files, which have none."""
    benign: tuple[BenignRequest, ...] = ()
    """Harmless requests, bare and inside attack templates (over-refusal)."""
    summaries: tuple[Summary, ...] = ()
    """Texts to summarise (CSum); empty for the demo and the released files."""
    probe_texts: tuple[LabelledText, ...] = ()
    """Toxic and non-toxic texts (Eq. 17); empty for the released files."""
    planted: bool = False
    """True for the demo: what its vanilla model does was put there by its data."""

    @property
    def splits(self) -> tuple[Split, ...]:
        """Names of the splits that are here."""
        return tuple(name for name in SPLITS if getattr(self, name.lower()))

    def split(self, name: str) -> tuple[Instance, ...]:
        """The instances of one split.

        Raises:
            InputError: no such split, or it is not in this benchmark.
        """
        check_split(name)
        found = getattr(self, name.lower())
        if not found:
            raise InputError(f"{self.name} has no {name} split; it has {', '.join(self.splits) or 'none'}")
        return found

    def stratified(self, split: str, n: int, seed: int = 0) -> tuple[Instance, ...]:
        """`n` instances of a split, spread over categories, then attack templates, then questions.

        Categories take turns, so their counts differ by one at most while each has instances left; within a category
        the least used attack comes first, then the least used question, then chance. The first k of n are the k that
        `stratified(split, k, seed)` gives.

        Raises:
            InputError: the split is not here, or holds fewer than `n` instances.
        """
        instances = self.split(split)
        if not 1 <= n <= len(instances):
            raise InputError(f"expected 1 to {len(instances)} instances (the {split} split of {self.name}), got {n}")
        rng = random.Random(f"{split}-{seed}")
        pools: dict[str, list[Instance]] = defaultdict(list)
        for instance in rng.sample(instances, len(instances)):
            pools[instance.category_key].append(instance)
        turns = rng.sample(sorted(pools), len(pools))
        attacks: Counter[str] = Counter()
        questions: Counter[str] = Counter()
        chosen: list[Instance] = []
        while len(chosen) < n:
            for category in turns:
                if not pools[category] or len(chosen) == n:
                    continue
                pick = min(pools[category], key=lambda i: (attacks[i.attack_name], questions[i.question]))
                pools[category].remove(pick)
                attacks[pick.attack_name] += 1
                questions[pick.question] += 1
                chosen.append(pick)
        return tuple(chosen)


def load(source: str | Path = "demo", split: str | None = None) -> Benchmark:
    """A benchmark from the demo, a JSON file, a folder of `SafeEdit_<split>.json` (any subset), or a hub id.

    Args:
        source: "demo", a path, or a hub id such as "zjunlp/SafeEdit" (gated; "safeedit" is short for it).
        split: read only this split. A single file whose name does not tell its split is taken as `split`, or "test".

    Raises:
        InputError: nothing there, no access, not JSON, a bad record (named by index and key), an empty split.
    """
    if split is not None:
        check_split(split)
    text = str(source)
    if text == "demo":
        return _demo(split)
    path = Path(text).expanduser()
    if path.is_dir():
        return _folder(path, split, path.resolve().name)
    if path.exists():
        return _file(path, split)
    hub_id = HUB_ID if text.lower() == "safeedit" else text
    if re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", hub_id) and not hub_id.endswith((".json", ".jsonl")):
        from interp.safeedit.hub import download

        return _folder(download(hub_id, [split] if split else list(SPLITS)), split, hub_id)
    raise InputError(f"no data at {text!r}: expected 'demo', a JSON file, a folder with {_file_name('*')}, or a hub id")


def save(instances: Iterable[Instance], path: str | Path, indent: int | None = 4) -> None:
    """Write a split in the released layout, atomically; the bytes are those of `json.dump(..., indent=indent)`.

    Raises:
        InputError: the file cannot be written.
    """
    write_text(Path(path), json.dumps(to_list(instances), indent=indent))


def read_facts(path: str | Path) -> tuple[Question, ...]:
    """Knowledge questions from a JSON list of `{"prompt", "answers"}` (`topic` optional), e.g. a slice of TriviaQA.

    Raises:
        InputError: missing, not JSON, or a bad record (named by index and key).
    """
    path = Path(path)
    data = read(path)
    if not isinstance(data, list) or not data:
        raise InputError(f"{path}: expected a JSON list of questions")
    facts = []
    for index, record in enumerate(data):
        where = f"{path}, record {index}"
        if not isinstance(record, dict) or not isinstance(record.get("prompt"), str):
            raise InputError(f"{where}: expected an object with a text under 'prompt'")
        answers = record.get("answers")
        if not isinstance(answers, list) or not answers or not all(isinstance(a, str) and a.strip() for a in answers):
            raise InputError(f"{where}: expected a list of texts under 'answers'")
        facts.append(Question(record["prompt"], tuple(answers), str(record.get("topic", ""))))
    return tuple(facts)


def benign_requests(instances: Iterable[Instance], limit: int = N_BENIGN) -> tuple[BenignRequest, ...]:
    """Benign requests from a benchmark's own parts: each knowledge prompt bare, and inside the attack of its record.

    The wrapped one is the adversarial prompt with the harmful question replaced by the knowledge prompt, where the
    question stands in it word for word exactly once. Up to `limit` of each, without repeats.
    """
    bare: dict[str, BenignRequest] = {}
    wrapped: dict[str, BenignRequest] = {}
    for instance in instances:
        prompt, answer = instance.knowledge.prompt, instance.knowledge.answer
        if not prompt.strip():
            continue
        if len(bare) < limit:
            bare.setdefault(prompt, BenignRequest(prompt, answer, wrapped=False))
        if instance.adversarial_prompt.count(instance.question) == 1 and len(wrapped) < limit:
            text = instance.adversarial_prompt.replace(instance.question, prompt)
            wrapped.setdefault(text, BenignRequest(text, answer, wrapped=True))
    return (*bare.values(), *wrapped.values())


def check_split(name: str) -> None:
    """Raise InputError unless `name` is one of SafeEdit's four splits."""
    if name not in SPLITS:
        raise InputError(f"unknown split {name!r}; expected one of {', '.join(SPLITS)}")


def read(path: Path) -> Any:
    """Decoded strict JSON of a data file.

    Raises:
        InputError: missing, a git-lfs pointer, truncated or otherwise not JSON; one line that names the file.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise InputError(f"no such file: {path}") from None
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not JSON: not UTF-8 text at byte {error.start}") from error
    if text.startswith("version https://git-lfs"):
        raise InputError(f"{path} is a git-lfs pointer, not the data; fetch the file itself (git lfs pull)")
    try:
        return json.loads(text, parse_constant=_no_constant)
    except json.JSONDecodeError as error:
        if not text.strip() or error.pos >= len(text.rstrip()) or error.msg.startswith("Unterminated"):
            raise InputError(f"{path} is truncated: the JSON stops at line {error.lineno}") from error
        raise InputError(f"{path} is not JSON: {error}") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is not JSON: {error}") from error


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not a JSON number")


def _file_name(split: str) -> str:
    return f"SafeEdit_{split}.json"


def _demo(split: str | None) -> Benchmark:
    from interp.demo import world

    data = {name: world.instances(name) for name in SPLITS if split in (None, name)}
    return Benchmark(
        "demo",
        **_fields(data),
        facts=world.facts(),
        benign=world.benign(),
        probe_texts=world.probe_texts(),
        planted=True,
    )


def _file(path: Path, split: str | None) -> Benchmark:
    told = re.search(r"(?:^|_)(train|val|test|test_ALL)$", path.stem)
    name = split or (told.group(1) if told else "test")
    return _benchmark(path.stem, {name: parse(read(path), str(path))}, ())


def _folder(path: Path, split: str | None, name: str) -> Benchmark:
    found = {s: path / _file_name(s) for s in SPLITS if split in (None, s) and (path / _file_name(s)).exists()}
    if not found:
        expected = " or ".join(_file_name(s) for s in SPLITS if split in (None, s))
        raise InputError(f"no data in {path}: expected {expected}")
    facts = read_facts(path / FACTS) if (path / FACTS).exists() else ()
    return _benchmark(name, {s: parse(read(file), str(file)) for s, file in found.items()}, facts)


def _benchmark(name: str, data: Mapping[str, tuple[Instance, ...]], facts: tuple[Question, ...]) -> Benchmark:
    # Over-refusal is measured on what is held out, where there is such a split.
    held_out = next((data[s] for s in ("test", "test_ALL", "val", "train") if s in data), ())
    return Benchmark(name, **_fields(data), facts=facts, benign=benign_requests(held_out))


def _fields(data: Mapping[str, tuple[Instance, ...]]) -> dict[str, Any]:
    """Splits by their name in the files -> by their field in `Benchmark`."""
    return {split.lower(): instances for split, instances in data.items()}
