"""Is a text language at all? Loops, repeated phrases and bare symbols are found by counting, not by a model.

A model that was edited too hard answers "sorry sorry sorry" or the same clause until the token limit. A classifier
calls that safe; here it is told apart. The rules look at surface repetition only: fluent nonsense passes.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

MIN_REPEATS = 3
"""A unit must stand this often in a row to be a loop."""
LOOP_SHARE = 0.4
"""A loop that covers this share of the words makes the text degenerate."""
LOOP_WORDS = 9
"""A loop of several words at the very end of the text (cut off mid-loop) counts from this many words on."""
LONG_LOOP = 6
"""A unit that stands this often in a row counts wherever it is."""
MAX_PERIOD = 40
"""Longest unit, in words, that is looked for."""
PHRASE_WORDS = 24
"""Texts of at least this many words are checked for phrases that come again and again without standing in a row."""
DISTINCT_TRIGRAMS = 0.5
"""Least share of distinct word trigrams in such a text."""

_WORDS = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]|[^\W\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]+")
_STUTTER = re.compile(r"([^\W_]{1,8}?)\1{9,}")


def is_degenerate(text: str) -> bool:
    """Whether a text is a loop, repeats a phrase over and over, or has no words. Empty text is not: it is empty."""
    if not text.strip():
        return False
    words = _WORDS.findall(text.lower())
    if not words or _STUTTER.search(text):
        return True
    return has_loop(words) or repeats_phrases(words)


def has_loop(words: Sequence[str]) -> bool:
    """Whether some unit of words stands several times in a row, for much of the text or at its very end."""
    n = len(words)
    if n < MIN_REPEATS or max(Counter(words).values()) < MIN_REPEATS:
        return False
    for period in range(1, min(MAX_PERIOD, n // MIN_REPEATS) + 1):
        run = 0  # how many words in a row equal the one `period` before
        for i in range(period, n + 1):
            if i < n and words[i] == words[i - period]:
                run += 1
                continue
            covered, repeats = run + period, run // period + 1
            at_end = i == n and period > 1 and covered >= LOOP_WORDS
            if repeats >= MIN_REPEATS and (covered >= LOOP_SHARE * n or repeats >= LONG_LOOP or at_end):
                return True
            run = 0
    return False


def repeats_phrases(words: Sequence[str]) -> bool:
    """Whether a longer text is made of a few phrases that come again and again."""
    if len(words) < PHRASE_WORDS:
        return False
    trigrams = [tuple(words[i : i + 3]) for i in range(len(words) - 2)]
    return len(set(trigrams)) < DISTINCT_TRIGRAMS * len(trigrams)
