"""Summaries (CSum): XSum, zero-shot, ROUGE-1 F against the summary that people wrote (paper, Sec. 3.3)."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from interp.errors import InputError
from interp.evaluation.tables import need_columns, read_records, text_of
from interp.records import Summary

HUB_ID, SPLIT = "EdinburghNLP/xsum", "test"
TEMPLATE = "Summarise the article in one sentence.\n\nArticle: {document}\n\nSummary:"
"""Zero-shot. The paper does not print its prompt, so CSum here is comparable between models, not with its Table 1."""
MAX_WORDS = 400
"""Words of an article that are shown: XSum's median is about 300, and prompts must fit the context."""


def load_summaries(
    source: str | Path = HUB_ID, *, split: str = SPLIT, template: str = TEMPLATE, max_words: int = MAX_WORDS
) -> tuple[Summary, ...]:
    """Texts to summarise from a file or hub data set in XSum's layout (`document`, `summary`).

    Args:
        template: text with `{document}` in it.
        max_words: longer articles are cut after so many words.

    Raises:
        InputError: as `read_records`; other columns, an empty document or summary, or a template without `{document}`.
    """
    if "{document}" not in template:
        raise InputError(f"expected {{document}} in the template of summaries, got {template!r}")
    if max_words < 1:
        raise InputError(f"expected max_words >= 1, got {max_words}")
    records = read_records(source, split=split)
    need_columns(records, ("document", "summary"), source, "XSum")
    found = []
    for index, record in enumerate(records):
        where = f"{source}, record {index}"
        document = " ".join(text_of(record, "document", where).split()[:max_words])
        found.append(Summary(template.replace("{document}", document), text_of(record, "summary", where).strip()))
    return tuple(found)


def rouge1(text: str, reference: str) -> float:
    """ROUGE-1 F of a text against a reference, stemmed, in percent."""
    return 100.0 * _scorer().score(reference, text)["rouge1"].fmeasure


@cache
def _scorer() -> Any:
    from rouge_score.rouge_scorer import RougeScorer

    return RougeScorer(["rouge1"], use_stemmer=True)
