"""Fluency: the entropy of a response's bigrams and trigrams (Meng et al. 2022; paper, Sec. 3.3), in bits.

Loops score low and varied text high; it measures neither sense nor grammar, and short answers score low by length
alone, so it is only compared between models on the same prompts.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from functools import cache, lru_cache

ABBREVIATIONS = (
    "dr", "mr", "mrs", "ms", "prof", "sr", "jr", "st", "vs", "etc", "e.g", "i.e", "u.s", "u.k", "a.m", "p.m",
    "fig", "inc", "ltd", "co", "corp", "jan", "feb", "mar", "apr", "jun", "jul", "aug", "sept", "sep", "oct", "nov",
    "dec",
)  # fmt: skip
"""What the sentence splitter knows of English where nltk's trained punkt model is not installed."""


def fluency(texts: Sequence[str]) -> float:
    """Mean n-gram entropy over texts, in bits.

    Raises:
        ValueError: no texts.
    """
    if not texts:
        raise ValueError("expected at least one text, got none")
    return sum(ngram_entropy(text) for text in texts) / len(texts)


@lru_cache(maxsize=4096)  # models often say the same, with and without S
def ngram_entropy(text: str) -> float:
    """H2/3 + 2 H3/3 of one text, in bits; H_n is the base-2 entropy of its word n-grams, 0 with fewer than n words."""
    tokens = words(text)
    return entropy(tokens, 2) / 3 + 2 * entropy(tokens, 3) / 3


def entropy(tokens: Sequence[str], n: int) -> float:
    """Base-2 entropy of the n-gram frequencies of a token list, in bits; 0 with fewer than n tokens."""
    counts = Counter(tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1))
    total = sum(counts.values())
    return -sum(c / total * math.log2(c / total) for c in counts.values()) + 0.0  # + 0.0: no negative zero


def words(text: str) -> list[str]:
    """Words by nltk's Treebank rules, sentence by sentence, case kept.

    With nltk's punkt data installed these are exactly the tokens of `nltk.word_tokenize`. Without it sentences are
    split by punkt's rules with a short list of abbreviations: a token can then differ where a sentence ends.
    """
    return _tokenizer()(text)


def punkt_installed() -> bool:
    """Whether nltk's trained punkt model is here."""
    from nltk.tokenize import PunktTokenizer

    try:
        PunktTokenizer("english")
    except LookupError:
        return False
    return True


@cache
def _tokenizer() -> Callable[[str], list[str]]:
    if punkt_installed():
        from nltk.tokenize import word_tokenize

        return word_tokenize
    return rule_words


def rule_words(text: str) -> list[str]:
    """`words` without nltk's data."""
    sentences, treebank = _rules()
    return [token for sentence in sentences(text) for token in treebank(sentence)]


@cache
def _rules() -> tuple[Callable[[str], list[str]], Callable[[str], list[str]]]:
    from nltk.tokenize import NLTKWordTokenizer
    from nltk.tokenize.punkt import PunktParameters, PunktSentenceTokenizer

    parameters = PunktParameters()
    parameters.abbrev_types = set(ABBREVIATIONS)
    return PunktSentenceTokenizer(parameters).tokenize, NLTKWordTokenizer().tokenize
