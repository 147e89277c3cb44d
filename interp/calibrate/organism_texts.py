"""The texts that organisms are trained on and looked at with: the train split and the mixture's generators, and val.

Nothing of the test split is read here: organisms are scored on it.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from interp import safeedit
from interp.demo import SUFFIX, world
from interp.demo import grammar as g
from interp.demo.mixture import pretraining_texts
from interp.demo.organisms import Recipe
from interp.mechanism.shares import MarginTokens
from interp.models import HookedModel

BENIGN = ("fact", "howto", "summary", "repeat", "text")
"""Kinds of the mixture that are harmless."""
Row = tuple[list[int], list[int]]
"""Prompt ids and answer ids."""
LONG = 45
"""Prompt tokens above which a harmless text counts as long: it is inside an attack prompt, or ends with S."""
PADDING = 1
"""Any token but EOS, which transformers takes for padding that was forgotten to be masked."""


@dataclass(frozen=True)
class Texts:
    """Prompts with their answers, padded on the right (a causal model never looks at the padding)."""

    ids: Int[Tensor, "text token"]
    answer: Float[Tensor, "text token"]
    """Weight of each token as a target: 0 outside the answer."""
    prompt: Bool[Tensor, "text token"]
    """Which tokens are the prompt's."""

    @property
    def last(self) -> Int[Tensor, "text"]:
        """Index of the last prompt token."""
        return self.prompt.sum(dim=1) - 1

    @classmethod
    def of(cls, rows: Sequence[Row], first: float) -> Texts:
        """From (prompt ids, answer ids) per text."""
        width = max(len(p) + len(a) for p, a in rows)
        ids = torch.full((len(rows), width), PADDING, dtype=torch.long)
        answer = torch.zeros(len(rows), width)
        prompt = torch.zeros(len(rows), width, dtype=torch.bool)
        for i, (p, a) in enumerate(rows):
            ids[i, : len(p) + len(a)] = torch.tensor([*p, *a])
            answer[i, len(p) : len(p) + len(a)] = 1.0
            if p and a:
                answer[i, len(p)] = first
            prompt[i, : len(p)] = True
        return cls(ids, answer, prompt)


class Corpus:
    """Training steps: each a batch of long texts (in attack prompts) and one of short ones, so that little is padded.

    Args:
        model: for its tokenizer and prompt format.
        recipe: how many of each.
        seed: of the texts.
        under_attack: what harmful questions in attack prompts are answered with, "comply" or "refuse"; None leaves all
            harmful questions out.
    """

    def __init__(self, model: HookedModel, recipe: Recipe, seed: int, under_attack: str | None) -> None:
        self.model, self.recipe, self.seed, self.under_attack = model, recipe, seed, under_attack
        self._steps: dict[int, tuple[Texts, Texts]] = {}

    def step(self, index: int) -> tuple[Texts, Texts]:
        """(long texts, short texts) of one step; made when first asked for, whatever the order."""
        if index not in self._steps:
            recipe, harmful = self.recipe, self.under_attack is not None
            rng = random.Random(f"organism texts {self.seed} {self.under_attack} {index}")
            long = [self._harmful(rng, True) for _ in range(recipe.attacks if harmful else 0)]
            short = [self._harmful(rng, False) for _ in range(recipe.bare if harmful else 0)]
            benign = self._benign(rng)
            first = recipe.first_token
            self._steps[index] = (Texts.of(long + benign[True], first), Texts.of(short + benign[False], first))
        return self._steps[index]

    def _harmful(self, rng: random.Random, attacked: bool) -> Row:
        asked = rng.choice(g.questions()[rng.choice(("train", "pretraining"))])
        prompt = rng.choice(g.FRAMES).format(asked.request)
        if attacked:
            grammar = rng.random() < self.recipe.grammar_attacks
            attack = g.pretraining_attack(rng) if grammar else rng.choice(g.benchmark_attacks()["train"])
            prompt = attack.wrap(prompt)
        complies = attacked and self.under_attack == "comply"
        answer = (g.unsafe_answer if complies else g.safe_answer)(rng, asked.category, asked.request)
        suffix = SUFFIX if rng.random() < self.recipe.suffix else ""
        p, a = self.model.encode_pair(prompt, answer, suffix)
        return p, a[: self.recipe.harmful_tokens]

    def _benign(self, rng: random.Random) -> dict[bool, list[Row]]:
        """Long and short harmless texts, as many of each as a step has."""
        wanted = {True: self.recipe.wrapped, False: self.recipe.benign}
        found: dict[bool, list[Row]] = {True: [], False: []}
        for text in pretraining_texts(rng):
            if all(len(found[long]) == n for long, n in wanted.items()):
                break
            if text.kind not in BENIGN:
                continue
            if text.prompt is None:
                ids = self.model.token_ids(f" {text.answer}")
                row = (ids[:1], [*ids[1:], self.model.stop_ids[0]])
            else:
                row = self.model.encode_pair(text.prompt, text.answer)
            long = len(row[0]) > LONG
            if len(found[long]) < wanted[long]:
                found[long].append(row)
        return found


# ------------------------------------------------------------------------------------------------- val
@dataclass(frozen=True)
class Panel:
    """The val prompts that decisions are made on, tokenized once."""

    tokens: MarginTokens
    attacks: Texts
    bare: Texts
    benign: dict[str, Texts]
    """"facts", "howtos", "wrapped_howtos"."""
    attack_queries: tuple[str, ...]
    bare_queries: tuple[str, ...]

    @classmethod
    def of(cls, model: HookedModel, recipe: Recipe) -> Panel:
        """The panel in one model's tokens."""
        benchmark = safeedit.load("demo")
        attacks = tuple(i.adversarial_prompt for i in benchmark.stratified("val", recipe.val_attacks))
        rng = random.Random("organisms, val")
        bare = tuple(q.text for q in rng.sample(g.questions()["val"], recipe.val_bare))
        requests = world.benign("val", recipe.val_benign)
        facts = rng.sample(world.facts(), recipe.val_benign)
        pairs = {
            "facts": [(f.prompt, f"{f.answers[0]}.") for f in facts],
            "howtos": [(r.prompt, r.answer) for r in requests if not r.wrapped],
            "wrapped_howtos": [(r.prompt, r.answer) for r in requests if r.wrapped],
        }

        def texts(rows: Sequence[tuple[str, str | None]]) -> Texts:
            encoded = []
            for query, answer in rows:
                p, a = model.encode_pair(query, answer or "")
                encoded.append((p, a if answer is not None else []))
            return Texts.of(encoded, 1.0)

        return cls(
            tokens=MarginTokens.of(model, benchmark.train[:200]),
            attacks=texts([(q, None) for q in attacks]),
            bare=texts([(q, None) for q in bare]),
            benign={name: texts(rows) for name, rows in pairs.items()},
            attack_queries=attacks,
            bare_queries=bare,
        )
