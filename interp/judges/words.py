"""A linear classifier of words and word pairs: fitted by scikit-learn, applied and kept without it.

TF-IDF (1 + log counts, smoothed inverse document frequency, rows of length 1) and multinomial logistic regression.
It knows nothing of judges or benchmarks.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
from jaxtyping import Float

from interp.errors import InputError
from interp.runs import atomic_path

FORMAT = "interp.WordClassifier.1"
WORD = r"\b\w+\b"
"""Words of one letter count: "I cannot" is most of a refusal."""


@dataclass(frozen=True)
class WordClassifier:
    """What remains of a fitted pipeline: enough to give its probabilities (to rounding)."""

    classes: tuple[str, ...]
    columns: Mapping[str, int]
    """Word, or two words with a blank between them -> column."""
    idf: Float[np.ndarray, "column"]
    weights: Float[np.ndarray, "class column"]
    bias: Float[np.ndarray, "class"]

    @classmethod
    def fit(cls, texts: Sequence[str], labels: Sequence[str]) -> WordClassifier:
        """Learn from labelled texts, every class weighing the same; deterministic, in under a second of CPU."""
        from sklearn.feature_extraction.text import TfidfVectorizer
        from sklearn.linear_model import LogisticRegression
        from threadpoolctl import threadpool_limits

        words = TfidfVectorizer(ngram_range=(1, 2), token_pattern=WORD, sublinear_tf=True)
        regression = LogisticRegression(C=10.0, class_weight="balanced", max_iter=500)
        with threadpool_limits(1):  # the problem is small: more threads only wait for each other
            regression.fit(words.fit_transform(texts), labels)
        columns = {str(word): int(column) for word, column in words.vocabulary_.items()}
        bias = np.asarray(regression.intercept_)
        return cls(tuple(map(str, regression.classes_)), columns, words.idf_, regression.coef_, bias)

    def probabilities(self, texts: Sequence[str]) -> Float[np.ndarray, "text class"]:
        """P(class | text), classes in the order of `classes`."""
        logits = np.stack([self._logits(text) for text in texts]) if texts else np.zeros((0, len(self.classes)))
        odds = np.exp(logits - logits.max(axis=1, keepdims=True))
        return odds / odds.sum(axis=1, keepdims=True)

    def _logits(self, text: str) -> Float[np.ndarray, "class"]:
        words = re.findall(WORD, text.lower())
        counts = Counter([*words, *map(" ".join, pairwise(words))])
        known = [(self.columns[word], 1 + math.log(n)) for word, n in counts.items() if word in self.columns]
        if not known:
            return self.bias
        at, heights = np.array([c for c, _ in known]), np.array([h for _, h in known])
        row = heights * self.idf[at]
        return self.weights[:, at] @ (row / np.linalg.norm(row)) + self.bias

    # ----------------------------------------------------------------------------------------- files
    def save(self, path: Path, said: Mapping[str, str] | None = None) -> None:
        """Write one safetensors file, atomically; `said` are further texts to keep in it."""
        from safetensors.numpy import save_file

        words = json.dumps(sorted(self.columns, key=lambda word: self.columns[word]), ensure_ascii=False)
        metadata = {"format": FORMAT, "classes": json.dumps(self.classes), "words": words, **(said or {})}
        arrays = {"idf": self.idf, "weights": self.weights, "bias": self.bias}
        with atomic_path(path) as temporary:
            save_file({k: np.ascontiguousarray(a) for k, a in arrays.items()}, temporary, metadata)

    @classmethod
    def load(cls, path: Path) -> tuple[WordClassifier, dict[str, str]]:
        """What `save` wrote, and all texts in the file. Raises InputError where it is missing or damaged."""
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(str(path), framework="np") as file:
                metadata = file.metadata() or {}
                if metadata.get("format") != FORMAT:
                    raise InputError(f"{path} holds no classifier: expected {FORMAT}, got {metadata.get('format')}")
                idf, weights, bias = (file.get_tensor(name) for name in ("idf", "weights", "bias"))
            columns = {word: column for column, word in enumerate(json.loads(metadata["words"]))}
            return cls(tuple(json.loads(metadata["classes"])), columns, idf, weights, bias), metadata
        except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
            raise InputError(f"{path} is missing or damaged ({error}); delete it and run again") from error
