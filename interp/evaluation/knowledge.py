"""Knowledge questions (KQA): TriviaQA's questions without context, zero-shot, exact match over aliases.

Source: Joshi et al. 2017; the normalisation is that of TriviaQA's evaluation: underscores, case, punctuation, articles
and white space. Beside the exact match stands a looser one (`performance.matches`): chat models answer in sentences.
"""

from __future__ import annotations

import re
import string
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from interp.errors import InputError
from interp.evaluation.tables import read_records, text_of
from interp.records import Question

HUB_ID, CONFIG, SPLIT = "mandarjoshi/trivia_qa", "rc.nocontext", "validation"
TEMPLATE = "Question: {question}\nAnswer:"
"""Zero-shot: no examples before the question."""
_PUNCTUATION = str.maketrans(dict.fromkeys(string.punctuation + "‘’´`", " "))


def load_questions(
    source: str | Path = HUB_ID, *, split: str = SPLIT, template: str = TEMPLATE
) -> tuple[Question, ...]:
    """Knowledge questions from a file or hub data set in TriviaQA's layout, or the toolkit's `prompt`, `answers`.

    TriviaQA's `question` goes into the template; accepted is the answer's value and every alias. A record of the
    toolkit's own layout is asked as it is.

    Args:
        source: a hub id, or a local `.json`, `.jsonl` or `.parquet` file.
        template: text with `{question}` in it.

    Raises:
        InputError: as `read_records`; other columns, a question without answers (TriviaQA's test split has none), or a
            template without `{question}`.
    """
    if "{question}" not in template:
        raise InputError(f"expected {{question}} in the template of knowledge questions, got {template!r}")
    records = read_records(source, config=CONFIG if str(source) == HUB_ID else None, split=split)
    own = "prompt" in records[0] and "answers" in records[0]
    if not own and not {"question", "answer"} <= set(records[0]):
        raise InputError(
            f"{source}: expected the columns question and answer of TriviaQA (rc.nocontext), or prompt and answers; "
            f"found {', '.join(map(str, records[0]))}"
        )
    found = []
    for index, record in enumerate(records):
        where = f"{source}, record {index}"
        if own:
            answers = _texts(record.get("answers"))
            prompt, topic = text_of(record, "prompt", where), str(record.get("topic", ""))
        else:
            answers = accepted(record.get("answer"))
            # Not str.format: a question may hold braces.
            prompt, topic = template.replace("{question}", text_of(record, "question", where).strip()), ""
        if not answers:
            raise InputError(f"{where}: no answers to compare with (TriviaQA's test split has none)")
        found.append(Question(prompt, answers, topic))
    return tuple(found)


def accepted(answer: Any) -> tuple[str, ...]:
    """The accepted texts of TriviaQA's `answer` object, its value first; none where it is unknown."""
    if not isinstance(answer, dict):
        return ()
    value = answer.get("value")
    texts = [value] if isinstance(value, str) else []
    for key in ("aliases", "normalized_aliases"):
        texts += _texts(answer.get(key))
    return tuple(dict.fromkeys(t for t in texts if t.strip() and t != "<unk>"))


def exact_match(text: str, answers: Sequence[str]) -> bool:
    """Whether the first line of a response is an accepted answer, both normalised.

    What a model goes on to write after a line break (further questions, with base models) is not its answer.
    """
    said = trivia_normalise(text.strip().split("\n")[0])
    return bool(said) and any(said == trivia_normalise(answer) for answer in answers)


def trivia_normalise(text: str) -> str:
    """TriviaQA's normalisation: lower case, no underscores, punctuation and articles, single blanks."""
    words = text.replace("_", " ").lower().translate(_PUNCTUATION)
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", words).split())


def _texts(value: Any) -> tuple[str, ...]:
    return tuple(t for t in value if isinstance(t, str) and t.strip()) if isinstance(value, list | tuple) else ()
