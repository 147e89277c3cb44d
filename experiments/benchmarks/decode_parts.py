"""The parts of the decoding benchmark that are held to a claim: answers of many edits, refilled slots, the whole."""

from __future__ import annotations

import random
import statistics
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from functools import partial
from typing import Any

from common import instances, medians
from decode_inside import edits_together, product, profile, sixteen_bits
from decoding import (
    ASKED,
    EDITS,
    LAST,
    MIDDLE,
    NEW,
    PROMPT,
    SHORT,
    SLOTS,
    Measured,
    Tokens,
    hf_generate,
    ours,
    plain_products,
    products_alone,
    random_edit,
    row,
    seconds,
    texts,
)
from edit_plainly import plain_edit

from interp import decode, products
from interp.edits import WeightEdit
from interp.locate import PAPER, _encode, layer_distances
from interp.methods._losses import constraint_sequence, edit_sequence
from interp.methods.dinm import Dinm, Format
from interp.models import HookedModel

INSTANCES = 32
"""Of the whole benchmark."""
BASELINE = 3
"""Rounds of its baseline, which is measured on one of them."""


# ------------------------------------------------------------------------------------------------- parts
@dataclass(frozen=True)
class Case:
    """16 edited models that answer 5 prompts each."""

    layer: int
    """Of the edits."""
    shared: bool
    """Whether all are asked the same prompts."""
    prompt: int = PROMPT
    """Tokens."""
    claims: tuple[float | None, float | None] = (None, None)
    """Against one edit at a time, and against each prompt alone."""


SHARED, OWN = (6.0, 12.0), (2.5, 5.0)
CASES = {
    "shared": Case(LAST, True, claims=SHARED),
    "own": Case(LAST, False, claims=OWN),
    "shared-short": Case(LAST, True, SHORT, SHARED),
    "own-short": Case(LAST, False, SHORT, OWN),
    "shared-middle": Case(MIDDLE, True),
}


def together(model: HookedModel, rounds: int, case: Case) -> Measured:
    """16 edited models x 5 prompts. The baselines are measured on one edit and on one prompt."""
    layer, shared, length = case.layer, case.shared, case.prompt
    prompts = texts(ASKED if shared else EDITS * ASKED, length, length, seed=1)
    asked = [prompts if shared else prompts[ASKED * i :][:ASKED] for i in range(EDITS)]
    edits = [random_edit(model, layer, seed) for seed in range(EDITS)]
    model.weight_hash()
    found: dict[str, list[Tokens]] = {}

    def ourselves() -> None:
        found["ours"] = ours(model, asked, edits)

    def by_mkl() -> None:
        with plain_products():
            found["MKL"] = ours(model, asked, edits)

    def batch() -> None:
        with edits[0].applied(model):
            found["batch"] = [hf_generate(model, asked[0])]

    def alone() -> None:
        with edits[-1].applied(model):
            found["alone"] = [hf_generate(model, asked[-1][:1])]

    calls = {"ours": ourselves, "batch": batch, "alone": alone}
    took = medians(calls | ({"MKL": by_mkl} if products.worthwhile() else {}), rounds)
    assert len({tuple(answers) for answers in found["ours"]}) == EDITS  # the edits do something
    assert found["batch"] == found["ours"][:1], "other tokens than the edited model alone"
    assert found["alone"][0] == found["ours"][-1][:1], "other tokens than the edited model alone"
    assert found.get("MKL", found["ours"]) == found["ours"], "other tokens by MKL's products"
    name = f"{EDITS} edits of layer {layer} x {ASKED} {'shared' if shared else 'own'} prompts of {length} tokens"
    base = {"one edit at a time": took["batch"] * EDITS, "each prompt alone": took["alone"] * EDITS * ASKED}
    rows = [
        row(name, against, cost, took["ours"], claim, n=rounds, baseline_n=1)
        for (against, cost), claim in zip(base.items(), case.claims, strict=True)
    ]
    facts: dict[str, Any] = {}
    if layer == LAST:
        steps = sum(len(answer) - 1 for own in found["ours"] for answer in own) / SLOTS
        least = products_alone(model, length * len({prompt for own in asked for prompt in own}), steps)
        facts = {"products alone, s": least, "at most": {against: cost / least for against, cost in base.items()}}
    if "MKL" in took:
        name += ", products by MKL"
        rows += [row(name, against, cost, took["MKL"], None, n=rounds, baseline_n=1) for against, cost in base.items()]
    return rows, facts


def _length(answer: list[int], stops: list[int]) -> int:
    """Tokens up to the first stop."""
    return next((i for i, token in enumerate(answer, 1) if token in stops), len(answer))


def refill(model: HookedModel, rounds: int) -> Measured:
    """Answers of mixed length: slots refilled as rows end, against batches that run until their longest answer ends."""
    rng, slots, n = random.Random(3), 8, 48
    prompts = [model.token_ids(t) for t in texts(n, 8, 12, seed=3)]
    free = decode.greedy(model.hf, model.unembedding, prompts, max_new_tokens=NEW, slots=SLOTS)
    # Of a random model no token means the end: tokens are made one, in random order, until half of the answers end
    # within half of the limit. That sets the mix of lengths and looks at no time.
    seen = sorted({token for answer in free for token in answer})
    waiting, stops = rng.sample(seen, len(seen)), []
    while statistics.median(_length(answer, stops) for answer in free) > NEW // 2:
        stops.append(waiting.pop())

    def refilled(batch: list[list[int]] = prompts, limit: int = NEW, end: list[int] = stops) -> list[list[int]]:
        return decode.greedy(
            model.hf,
            model.unembedding,
            batch,
            max_new_tokens=limit,
            stop_ids=end,
            slots=slots,
            spared=model.spared(),
        )

    answers = refilled()
    order = sorted(range(n), key=lambda i: -len(prompts[i]))
    batches = [order[i : i + slots] for i in range(0, n, slots)]
    longest = [max(len(answers[i]) for i in batch) for batch in batches]

    def static() -> None:
        for batch, limit in zip(batches, longest, strict=True):
            said = refilled([prompts[i] for i in batch], limit, [])
            assert all(a[: len(answers[i])] == answers[i] for a, i in zip(said, batch, strict=True))

    def dropping() -> None:
        for batch in batches:
            assert refilled([prompts[i] for i in batch]) == [answers[i] for i in batch]

    calls = {"static": static, "refilled": refilled, "dropping": dropping}
    took = medians(calls, rounds)
    lengths = [len(a) for a in answers]
    useful = sum(lengths) / sum(limit * len(batch) for limit, batch in zip(longest, batches, strict=True))
    facts = {
        "useful rows of the static batches": useful,
        "ideal": 1 / useful,
        "times cheaper by dropping ended rows alone": took["static"] / took["dropping"],
        "tokens of the answers, quartiles": statistics.quantiles(lengths),
    }
    name = f"{n} answers of mixed length, {slots} slots"
    return [row(name, "static batches", took["static"], took["refilled"], 1.5, n=rounds, baseline_n=rounds)], facts


# ------------------------------------------------------------------------------------------------- the whole
def whole(model: HookedModel, rounds: int, repeating: bool) -> Measured:
    """Locate, edit, and answer 5 prompts before and after, against the plain loop.

    The plain loop reads both responses with whole forwards, edits with full forwards and backwards (one step, times
    ten), and gives each prompt alone to `generate` (one before and one after, times five). It is linear in the
    instances; ours as well but for what edits share, which grows with them. Where prompts repeat, ours asks vanilla
    each of them once; a second line is against a plain loop that does so too.
    """
    config, data = Dinm(layer=LAST), instances(INSTANCES)
    prompts = texts(ASKED if repeating else INSTANCES * ASKED, seed=4)
    asked = [prompts if repeating else prompts[ASKED * i :][:ASKED] for i in range(INSTANCES)]
    stages: dict[str, float] = {}
    plainly = 0.0

    def everything(kept: dict[str, float]) -> tuple[list[WeightEdit], list[Tokens]]:
        kept["locate"], _ = seconds(lambda: layer_distances(model, data, PAPER, 8))
        kept["edit"], made = seconds(lambda: config.detoxify_many(model, data))
        edits = [m.edit for m in made if m.edit is not None]
        kept["answer"], found = seconds(lambda: ours(model, asked, edits, vanilla=True))
        return edits, found

    own, (edits, found) = seconds(lambda: everything(stages), rounds)
    by_mkl: dict[str, float] = {}
    if products.worthwhile():
        with plain_products():
            plainly, (_, said) = seconds(lambda: everything(by_mkl))
        assert said == found, "other tokens by MKL's products"
    pair = _encode(model, data[0], PAPER, 1000, 600)
    tokens = [model.pad([list(line)], side="right") for line in pair.rows]
    how = Format(**{f.name: getattr(config, f.name) for f in fields(Format)})
    sequences = edit_sequence(model, data[0], how), constraint_sequence(model, data[0], how)
    one, delta = seconds(lambda: plain_edit(model, config, *sequences, steps=1, everything=True), BASELINE)
    [same] = replace(config, steps=1).detoxify(model, data[0]).edit.deltas.values()  # type: ignore[union-attr]
    apart = float((delta - same).norm() / same.norm())
    assert apart < 1e-2, f"first steps of the plain and the fast edit are {apart} apart"
    before, said = seconds(lambda: hf_generate(model, asked[0][:1]), BASELINE)
    assert said == found[INSTANCES][:1], "vanilla: other tokens than alone"
    with edits[0].applied(model):
        after, said = seconds(lambda: hf_generate(model, asked[0][:1]), BASELINE)
    assert said == found[0][:1], "edited: other tokens than alone"
    plain = {
        "locate": seconds(lambda: [model.logits(t) for t in tokens], BASELINE)[0],
        "edit": one * config.steps,
        "answer": ASKED * (before + after),
    }
    base = INSTANCES * sum(plain.values())
    name = f"locate + edit + answer, {INSTANCES} instances, prompts {'repeat' if repeating else 'of their own'}"
    more = {"n": rounds, "baseline_n": 1, "baseline_rounds": BASELINE}
    rows = [row(name, "the plain loop", base, own, 10.0 if repeating else 6.0, **more)]
    if repeating:
        once = base - (INSTANCES - 1) * ASKED * before
        rows.append(row(name, "the plain loop that asks vanilla once", once, own, None, **more))
    if by_mkl:
        rows.append(row(f"{name}, products by MKL", "the plain loop", base, plainly, None, **{**more, "n": 1}))
    return rows, {
        "plain loop, seconds an instance": plain,
        "ours, seconds an instance": {stage: took / INSTANCES for stage, took in stages.items()},
        "ours by MKL, seconds an instance": {stage: took / INSTANCES for stage, took in by_mkl.items()},
        "first steps of the edit apart, relative": apart,
    }


MEASURES: dict[str, Callable[[HookedModel, int], Measured]] = {
    **{name: partial(together, case=case) for name, case in CASES.items()},
    "refill": refill,
    "whole": partial(whole, repeating=False),
    "whole-repeating": partial(whole, repeating=True),
    "product": product,
    "edits-together": edits_together,
    "bfloat16": sixteen_bits,
    "profile": profile,
}


OF_SMALL = ("edits-together", "bfloat16")
