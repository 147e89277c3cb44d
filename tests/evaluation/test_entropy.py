from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from interp.evaluation import fluency, ngram_entropy
from interp.evaluation.entropy import entropy, punkt_installed, rule_words, words


@pytest.fixture(scope="module")
def reference(golden: Path) -> dict[str, Any]:
    return json.loads((golden / "fluency.json").read_text(encoding="utf-8"))


def test_tokens_and_entropies_are_the_authors_own(reference: dict[str, Any]) -> None:
    for text in reference["texts"]:
        tokens = words(text["text"])
        assert tokens == rule_words(text["text"]) == text["tokens"]
        assert entropy(tokens, 2) == pytest.approx(text["H2_bits"], abs=1e-12)
        assert entropy(tokens, 3) == pytest.approx(text["H3_bits"], abs=1e-12)
        assert ngram_entropy(text["text"]) == pytest.approx(text["n_gram_entropy"], abs=1e-12)
    texts = [text["text"] for text in reference["texts"]]
    assert fluency(texts) == pytest.approx(reference["mean_all"], abs=1e-12)
    assert fluency(texts[:5]) == pytest.approx(reference["mean_first5"], abs=1e-12)


def test_by_hand() -> None:
    # a b a b: bigrams ab, ba, ab -> 2/3, 1/3; trigrams aba, bab -> one bit.
    h2 = -(2 / 3 * math.log2(2 / 3) + 1 / 3 * math.log2(1 / 3))
    assert ngram_entropy("a b a b") == pytest.approx(h2 / 3 + 2 / 3)


def test_sentences_are_split_before_words_and_titles_do_not_end_one() -> None:
    assert rule_words("He left. She stayed.") == ["He", "left", ".", "She", "stayed", "."]
    assert rule_words("Dr. Who left at once. Yes.") == ["Dr.", "Who", "left", "at", "once", ".", "Yes", "."]


def test_punkt_is_used_only_where_its_data_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    import nltk.tokenize

    def missing(language: str) -> None:
        raise LookupError(language)

    monkeypatch.setattr(nltk.tokenize, "PunktTokenizer", missing)
    assert not punkt_installed()
    monkeypatch.setattr(nltk.tokenize, "PunktTokenizer", lambda language: object())
    assert punkt_installed()


def test_repetition_lowers_it_and_an_empty_text_has_none() -> None:
    assert ngram_entropy("the cat sat on a mat by the door") > ngram_entropy("the cat the cat the cat the cat the")
    assert ngram_entropy("") == ngram_entropy("yes") == 0.0
    with pytest.raises(ValueError, match="at least one text"):
        fluency([])


@given(st.text(max_size=120))
@settings(deadline=None)
def test_entropy_is_at_most_that_of_distinct_ngrams(text: str) -> None:
    n = len(words(text))
    assert 0.0 <= ngram_entropy(text) <= math.log2(max(n - 1, 1)) + 1e-9
