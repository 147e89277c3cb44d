"""What asking costs: prompts read and answers written, before it is known how long the answers are.

Expected answers are as long as the data's own: SafeEdit's prompts the mean of the safe and the unsafe response,
knowledge questions the first accepted answer, requests and texts their reference; what has none is expected at the
limit. The upper bound is the limit everywhere.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

from interp.costs.work import NOTHING, Work, answered, passed, total
from interp.evaluation import BENIGN, CSUM, KQA, Item
from interp.evaluation.items import WRAPPED
from interp.models import HookedModel
from interp.records import Instance
from interp.safeedit import Benchmark


@dataclass(frozen=True)
class Asking:
    """What all rows of a run are asked with."""

    model: HookedModel
    """For its tokenizer and shape; its weights are not looked at."""
    benchmark: Benchmark
    max_new_tokens: int
    batch: int
    """Prompts decoded at a time."""

    @cached_property
    def _lengths(self) -> dict[str, int]:
        return {}

    def tokens(self, text: str, special: bool | None = None) -> int:
        """Tokens of a text; texts repeat, and are tokenised once."""
        key = f"{special} {text}"
        if key not in self._lengths:
            self._lengths[key] = len(self.model.token_ids(text, special=special))
        return self._lengths[key]

    @cached_property
    def instances(self) -> dict[int, Instance]:
        """By id, of every split."""
        return {i.id: i for name in self.benchmark.splits for i in self.benchmark.split(name)}

    def references(self, item: Item) -> list[str]:
        """The data's own answers to an item; none where it has none."""
        if item.kind in (KQA, CSUM):
            facts, texts = self.benchmark.facts, self.benchmark.summaries
            answers = [facts[item.ref].answers[0] if item.kind == KQA else texts[item.ref].reference]
        elif item.kind in (BENIGN, WRAPPED):
            answers = [self.benchmark.benign[item.ref].answer]
        else:
            instance = self.instances[item.ref]
            answers = [instance.safe_generation, instance.unsafe_generation]
        return [a for a in answers if a.strip()]

    def expected(self, item: Item) -> int:
        """Tokens of the answer, its end included."""
        answers = self.references(item)
        if not answers:
            return self.max_new_tokens
        lengths = [min(self.tokens(f" {a}", False) + 1, self.max_new_tokens) for a in answers]
        return round(sum(lengths) / len(lengths))

    def characters(self, item: Item) -> int:
        """Bytes of the answer's text."""
        answers = self.references(item)
        return round(sum(len(a.encode()) for a in answers) / len(answers)) if answers else 4 * self.max_new_tokens

    def written(self, instance: Instance) -> int:
        """Tokens of the answer to an instance's adversarial prompt, without its end."""
        return self.expected(Item("DS", "", "", instance.id, instance.id)) - 1

    def prompt(self, item: Item) -> int:
        """Tokens of the prompt."""
        text = self.model.format_prompt(item.query, item.suffix, item.prefix)
        return min(self.tokens(text), self.model.context - self.max_new_tokens)

    def answers(self, groups: Sequence[Sequence[Item]], *, at_most: bool = False, shared: bool = True) -> Work:
        """One model, or several edited ones together, each asked its own group; equal prompts of a group once.

        Args:
            groups: items, by model.
            at_most: answers as long as they may be, instead of as long as expected.
            shared: edits of W_V read equal prompts once for all (of the last layer, as is assumed); others do not.
        """
        asked = [{(i.query, i.suffix, i.prefix): i for i in items} for items in groups]
        answers = [self.max_new_tokens if at_most else self.expected(i) for own in asked for i in own.values()]
        every = [pair for own in asked for pair in own.items()]
        prompts = [self.prompt(i) for i in (dict(every).values() if shared else [i for _, i in every])]
        return answered(prompts, answers, self.batch) if prompts else NOTHING

    def moved(self, items: Iterable[Item], suffixes: Sequence[tuple[str, str]] = (("", ""),)) -> Work:
        """Vanilla's harmless answers read by vanilla and by another model, which is asked in some prompt states."""
        harmless = list({(i.kind, i.ref): i for i in items if i.kind in (KQA, BENIGN)}.values())
        plain = [self._read(i.query, i) for i in harmless]
        parts = []
        for suffix, prefix in suffixes:
            own = [self._read(i.query, i, suffix, prefix) for i in harmless]
            parts += [passed(plain, batch=self.batch), passed(own, batch=self.batch)]
        return total(parts)

    def harmless(self, items: Iterable[Item]) -> tuple[int, int, int]:
        """Rows, positions and answer tokens of the largest batch in which harmless answers are read."""
        found = list({(i.kind, i.ref): i for i in items if i.kind in (KQA, BENIGN)}.values())
        longest = max((self.prompt(i) for i in found), default=0)
        answer = max((self.expected(i) for i in found), default=0)
        return min(self.batch, len(found)), longest + answer, answer

    def _read(self, query: str, item: Item, suffix: str = "", prefix: str = "") -> int:
        return self.tokens(self.model.format_prompt(query, suffix, prefix)) + self.expected(item)
