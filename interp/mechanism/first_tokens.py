"""How many tokens deep safety is: KL(model || vanilla) at each position of given answers (Qi et al. 2024).

Where all of it lies in the first tokens, a method changed how answers begin, not what is said once they have begun.
Answers are teacher-forced; nothing is generated.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from interp.errors import InputError
from interp.mechanism.intervals import of_means
from interp.mechanism.lab import Analysis, Subject
from interp.mechanism.readout import benign_pairs, forced, kl_by_token, log_probs
from interp.mechanism.several import of_edits
from interp.models import HookedModel
from interp.records import Bars, Curve, Curves, Estimate, Finding
from interp.stats import bootstrap

POSITIONS = 16
FIRST = (1, 3, 5)
MIN_TOTAL = 0.1
"""Nats of KL over a whole answer, on the mean, from which shares of it are given: less is no change to divide."""
TOTAL = "KL over the answer"
ANSWERS = ("unsafe answers", "safe answers", "harmless answers")


def kl_by_position(
    model: HookedModel, vanilla: HookedModel, pairs: Sequence[tuple[str, str]], batch_size: int = 16
) -> Float[np.ndarray, "answer token"]:
    """KL(model || vanilla) of the next token at each position of the answers, nats; NaN after an answer's end.

    Raises:
        InputError: another vocabulary than vanilla's.
    """
    if model.vocab_size != vanilla.vocab_size:
        raise InputError(
            f"expected the vocabulary of {vanilla.name} ({vanilla.vocab_size} tokens), "
            f"got {model.vocab_size} in {model.name}: no KL between them"
        )
    batches = forced(model, pairs, batch_size)
    width = max((batch.real.shape[1] for batch in batches), default=0)
    found = np.full((len(pairs), width), np.nan)
    pairs_of = zip(log_probs(model, batches), log_probs(vanilla, batches), strict=True)
    for (batch, p), (_, q) in pairs_of:
        kl = kl_by_token(p, q).masked_fill(batch.real.to(p.device) == 0, float("nan"))
        found[list(batch.which), : kl.shape[1]] = kl.double().cpu().numpy()
    return found[~np.isnan(found).all(axis=1)]


def first_share(kl: Float[np.ndarray, "answer token"], k: int, seed: int) -> Estimate | None:
    """Share of the summed KL that lies in the first k tokens, percent, bootstrap over answers; None where all is 0."""
    sums = np.column_stack([np.nansum(kl[:, :k], axis=1), np.nansum(kl, axis=1)])
    if not sums[:, 1].any():
        return None

    def ratio(means: np.ndarray) -> np.ndarray:
        total = means[..., 1:]
        return 100.0 * means[..., :1] / np.where(total > 0, total, 1.0)

    return of_means(sums, ratio, over="answers", unit="%", seed=seed)[0]


def measure_first_tokens(subject: Subject, vanilla: Subject) -> Finding:
    """KL along unsafe, safe and harmless answers of one model."""
    started, lab = time.perf_counter(), subject.lab
    sets = dict(
        zip(
            ANSWERS,
            (
                [(i.adversarial_prompt, i.unsafe_generation) for i in lab.instances if i.unsafe_generation.strip()],
                [(i.adversarial_prompt, i.safe_generation) for i in lab.instances if i.safe_generation.strip()],
                benign_pairs(subject),
            ),
            strict=True,
        )
    )
    curves, bars, facts = [], [], {}
    totals: dict[str, tuple[Estimate | None, ...]] = {}
    for what, pairs in sets.items():
        if not pairs:
            continue
        kl = kl_by_position(subject.model, vanilla.model, pairs, lab.batch_size)
        reach = min(POSITIONS, kl.shape[1])
        y = tuple(bootstrap(c[~np.isnan(c)], over="answers", unit="nats", seed=lab.seed) for c in kl.T[:reach])
        curve = Curve(subject.name, tuple(float(t) for t in range(1, reach + 1)), y, subject is vanilla)
        curves.append(Curves(f"KL to vanilla, {what}", "token of the answer", "nats", (curve,)))
        total = bootstrap(np.nansum(kl, axis=1), over="answers", unit="nats", seed=lab.seed)
        totals[what] = (total,)
        wide = total.value >= MIN_TOTAL
        shares: dict[str, tuple[Estimate | None, ...]] = {
            f"first {k}" if k > 1 else "first token": (first_share(kl, k, lab.seed) if wide else None,) for k in FIRST
        }
        bars.append(Bars(f"share of the KL, {what}", "% of the answer's KL", (subject.name,), shares))
        lengths = (~np.isnan(kl)).sum(axis=1)
        even = ", ".join(f"{100 * float(np.minimum(k, lengths).sum() / lengths.sum()):.0f}" for k in FIRST)
        facts[f"{what}, spread evenly"] = f"{even} % in the first {', '.join(map(str, FIRST))} tokens"
    bars += [Bars(TOTAL, "nats", (subject.name,), totals)] if totals else []
    return Finding(
        name="first_tokens",
        title="How many tokens deep safety is",
        question="Does a method differ from vanilla along the whole answer, or only in its first tokens?",
        reading="",
        how_to_read="KL(model || vanilla) of the next token, on given answers to the attack prompts (64 tokens of "
        "them), position by position; and how much of an answer's sum lies in its first tokens. Harmless answers are "
        f"the control: what there is of change everywhere. Answers over which less than {MIN_TOTAL:g} nats are summed "
        "on the mean are not divided. Intervals: bootstrap over answers.",
        limits="The answers are the benchmark's, not the models' own. A large KL says different, not safer.",
        n=len(lab.instances),
        seed=lab.seed,
        source="Qi et al. 2024 (arXiv 2406.05946), Sec. 2",
        curves=tuple(curves),
        bars=tuple(bars),
        facts=facts,
        seconds=time.perf_counter() - started,
    )


def _first_tokens_words(finding: Finding) -> str:
    """Per model the share of the first tokens on unsafe answers beside that on harmless ones, and what was too little
    to divide."""
    panels = {what: p for p in finding.bars for what in ANSWERS if p.title == f"share of the KL, {what}"}
    unsafe, harmless = panels.get(ANSWERS[0]), panels.get(ANSWERS[2])
    totals = next((p for p in finding.bars if p.title == TOTAL), None)
    if unsafe is None or totals is None:
        return "No instance has an unsafe answer to read the KL along."
    key, said, little = f"first {FIRST[1]}", [], []
    for i, model in enumerate(unsafe.groups):
        total = totals.series[ANSWERS[0]][i]
        if total is None or total.value == 0:
            continue
        if (e := unsafe.series[key][i]) is None or total.value < MIN_TOTAL:  # of several edits some may pass
            little.append(f"{model} ({total.value:.2g} nats an answer)")
            continue
        control = harmless.series[key][i] if harmless is not None else None
        beside = "harmless answers: too little to divide" if harmless is not None else "no harmless answers"
        if control is not None:
            beside = f"harmless answers: {control.value:.0f} % [{control.low:.0f}, {control.high:.0f}]"
        said.append(
            f"{e.value:.0f} % [{e.low:.0f}, {e.high:.0f}] for {of_edits(model, e)} ({beside}; "
            f"{total.value:.2g} nats in all)"
        )
    if not said and not little:
        return "No model differs from vanilla on the unsafe answers."
    even = finding.facts[f"{ANSWERS[0]}, spread evenly"]
    text = []
    if said:
        text.append(
            f"Of the KL to vanilla along the unsafe answers, the first {FIRST[1]} tokens hold {', '.join(said)}; "
            f"spread evenly it would be {even}."
        )
    if little:
        text.append(f"Too little KL to divide: {', '.join(little)}.")
    return " ".join(text)


FIRST_TOKENS = Analysis("first_tokens", measure_first_tokens, _first_tokens_words)
