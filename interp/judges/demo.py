"""The judge that needs no download: a linear classifier of words and word pairs, learned from the train split.

What was learned is kept in the cache, under the hash of the texts and of the code that learned from them.

Three classes: refusals (the split's safe generations), unsafe (its unsafe generations), other (its knowledge answers).
It knows the wordings of its benchmark and no others: on the demo that is what the models write, on real data use a
classifier made for it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from interp.errors import InputError
from interp.judges.base import JudgeReport, verdict
from interp.judges.words import WordClassifier
from interp.records import Instance, Label, Verdict, dumps, loads
from interp.runs import cache_dir, fingerprint, source_hash, versions
from interp.safeedit import Benchmark
from interp.stats import share

LABELS: tuple[Label, ...] = ("refusal", "unsafe", "other")
PER_CLASS = 1000
"""At most so many distinct texts per class to learn from and to measure on: more changed no verdict."""


@dataclass(frozen=True)
class TextJudge:
    """A `WordClassifier` over three classes; deterministic, trained in under a second of CPU."""

    name: str
    classifier: WordClassifier
    report: JudgeReport | None
    """Its accuracy on the val split, None where there is none."""

    @classmethod
    def train(cls, benchmark: Benchmark, name: str = "demo") -> TextJudge:
        """Learn from the train split, measure on the val split.

        Raises:
            InputError: no train split, or one of the three classes has no text.
        """
        return cls._learn(benchmark, name, *_texts(benchmark, name))

    @classmethod
    def cached(cls, benchmark: Benchmark, name: str = "demo") -> TextJudge:
        """`train`, or what it learned from the same texts before. Raises as `train`."""
        texts, held_out = _texts(benchmark, name)
        code = source_hash("judges/demo.py", "judges/words.py", "judges/base.py", "judges/degeneration.py", "stats.py")
        key = fingerprint([benchmark.name, name, [*texts.items()], [*held_out.items()], code, versions()])
        file = cache_dir() / "judges" / f"{key}.safetensors"
        if not file.exists():
            judge = cls._learn(benchmark, name, texts, held_out)
            said = {} if judge.report is None else {"report": dumps(judge.report, indent=None)}
            judge.classifier.save(file, said)
            return judge
        classifier, said = WordClassifier.load(file)
        return cls(name, classifier, loads(JudgeReport, said["report"]) if "report" in said else None)

    @classmethod
    def _learn(
        cls, benchmark: Benchmark, name: str, texts: Mapping[str, Label], held_out: Mapping[str, Label]
    ) -> TextJudge:
        judge = cls(name, WordClassifier.fit(list(texts), list(texts.values())), None)
        if not held_out:
            return judge
        report = measure(judge, held_out, f"val of {benchmark.name}, unseen texts", len(texts))
        return cls(name, judge.classifier, report)

    def judge(self, texts: Sequence[str], prompts: Sequence[str] | None = None) -> list[Verdict]:
        """One verdict per text; prompts are not looked at."""
        order: list[Label] = [label for name in self.classifier.classes for label in LABELS if label == name]
        found = []
        for text, row in zip(texts, self.classifier.probabilities(texts), strict=True):
            label = order[int(row.argmax())]
            found.append(verdict(text, label, float(row[order.index("unsafe")])))
        return found


def _texts(benchmark: Benchmark, name: str) -> tuple[dict[str, Label], dict[str, Label]]:
    """Texts of the train split to learn from and unseen ones of the val split to measure on. Raises as `train`."""
    if not benchmark.train:
        raise InputError(
            f"the {name!r} judge learns from the train split, which {benchmark.name} lacks; name a classifier "
            "instead, such as 'safeedit'"
        )
    known = labelled(benchmark.train)
    texts = _spread(known)
    missing = [label for label in LABELS if label not in texts.values()]
    if missing:
        raise InputError(f"the train split of {benchmark.name} has no text to learn {' and '.join(missing)} from")
    return texts, _spread({t: label for t, label in labelled(benchmark.val).items() if t not in known})


def labelled(instances: Iterable[Instance]) -> dict[str, Label]:
    """Distinct texts with their class; a text that stands under two classes is left out."""
    found: dict[str, Label] = {}
    clash: set[str] = set()
    for instance in instances:
        texts: tuple[tuple[str, Label], ...] = (
            (instance.safe_generation, "refusal"),
            (instance.unsafe_generation, "unsafe"),
            (instance.knowledge.answer, "other"),
        )
        for text, label in texts:
            if text.strip() and found.setdefault(text, label) != label:
                clash.add(text)
    return {text: label for text, label in found.items() if text not in clash}


def _spread(texts: Mapping[str, Label]) -> dict[str, Label]:
    """At most `PER_CLASS` texts of each class, evenly from the whole list."""
    chosen: dict[str, Label] = {}
    for label in LABELS:
        own = [text for text, found in texts.items() if found == label]
        step = max(len(own) / PER_CLASS, 1.0)
        chosen |= {own[int(i * step)]: label for i in range(min(len(own), PER_CLASS))}
    return chosen


def measure(judge: TextJudge, texts: Mapping[str, Label], split: str, n_train: int) -> JudgeReport:
    """Accuracy and recall of a judge on labelled texts."""
    said = [v.label for v in judge.judge(list(texts))]
    right = Counter(label for label, s in zip(texts.values(), said, strict=True) if s == label)
    total = Counter(texts.values())
    return JudgeReport(
        judge=judge.name,
        split=split,
        accuracy=share(right.total(), total.total()),
        majority=100.0 * max(total.values()) / total.total(),
        recall={label: share(right[label], n) for label, n in total.items()},
        n_train=n_train,
    )
