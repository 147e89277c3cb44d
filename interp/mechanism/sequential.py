"""Sequential edits: does the first edit survive the tenth?

Edits are made one on top of the other, each on the model as the ones before have left it; after each, the prompts of
all edits so far are asked again. The edits are the caller's (nothing here knows a method), as a function or ready made.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace

import numpy as np

from interp.edits import WeightEdit
from interp.errors import InputError
from interp.mechanism.lab import Subject
from interp.mechanism.readout import benign_pairs, forced, intact_log_probs, quality, read
from interp.models import HookedModel
from interp.records import Curve, Curves, Estimate, Finding, Instance
from interp.stats import mean_of_few

LENGTH, CHAINS = 10, 3
FIRST, LAST, OTHERS = "the first edit's prompt", "the latest edit's prompt", "prompts not edited"
BEFORE, OTHERS_BEFORE = "the first's prompt before any edit", "prompts not edited, before any edit"
LEAD = "gain of the first edit's prompt beyond that of prompts not edited"
Make = Callable[[HookedModel, Instance], WeightEdit]
"""The edit of one instance on a model, relative to the model as it is given (with the edits before it applied)."""


def sequential_survival(
    vanilla: Subject,
    edit: Make | Sequence[WeightEdit],
    *,
    name: str = "edits",
    length: int = LENGTH,
    chains: int = CHAINS,
    suffix: str = "",
) -> Finding:
    """Refusal margins along chains of edits; the model is restored bit by bit.

    Args:
        vanilla: the model to edit, with the lab whose instances are edited on and asked.
        edit: makes each edit on the model as it then is; or edits that were made on vanilla alone, one for each of the
            first instances of the lab, which are piled up in order (one chain).
        name: of the curves.
        length: edits in a chain; at most the instances allow.
        chains: the unit of the intervals; each begins at another place of one seeded ring of the instances, so that
            chains share instances where there are fewer than chains x length, and are then not independent.
        suffix: the suffix S after attack prompts and harmless requests alike, where the method wants one.

    Raises:
        InputError: fewer than two instances or edits, or as `WeightEdit.applied`.
    """
    started, lab, model = time.perf_counter(), vanilla.lab, vanilla.model
    ready = None if callable(edit) else list(edit)
    chains = chains if ready is None else 1
    length = min(length if ready is None else len(ready), len(lab.instances))
    if length < 2:
        raise InputError(f"expected instances for at least 2 edits one after another, got {length}")
    orders = orders_of(vanilla, chains, suffix) if ready is None else [list(lab.instances)]
    batches = forced(model, benign_pairs(vanilla), lab.batch_size, suffix=suffix)
    intact = intact_log_probs(model, batches)
    rows = []
    for order in orders:
        mine, others = order[:length], order[length:]
        makers: list[Make] = [(lambda *_, e=e: e) for e in ready] if ready is not None else []
        with ExitStack() as stack:
            states = [state(vanilla, mine, others, suffix, batches, intact)]
            for n, instance in enumerate(mine):
                made = makers[n](model, instance) if makers else edit(model, instance)  # type: ignore[operator]
                stack.enter_context(made.applied(model))
                states.append(state(vanilla, mine, others, suffix, batches, intact))
        rows.append(np.stack(states))
    return _finding(vanilla, np.stack(rows), name, suffix, started)


def few(values: np.ndarray, over: str, unit: str, low: float = -np.inf) -> Estimate:
    """Mean over a few chains or instances, whose quantity is never below `low`; shares stay between 0 and 100 %."""
    return mean_of_few(values, over=over, unit=unit, within=(0.0, 100.0) if unit == "%" else (low, np.inf))


def orders_of(subject: Subject, chains: int, suffix: str) -> list[list[Instance]]:
    """One seeded ring of the instances, those that the model complies with first, begun elsewhere for each chain."""
    lab = subject.lab
    margin = margins_of(subject, lab.instances, suffix)
    order = np.random.default_rng(lab.seed).permutation(len(margin)).tolist()
    order = sorted(order, key=lambda i: margin[i] >= 0)  # a prompt that is refused anyway has nothing to keep
    step = max(int((margin < 0).sum()) // chains, 1)
    return [[lab.instances[i] for i in order[c * step :] + order[: c * step]] for c in range(chains)]


def margins_of(subject: Subject, instances: Sequence[Instance], suffix: str) -> np.ndarray:
    """Refusal margins of the instances' attack prompts with the suffix, nats."""
    model, size = subject.model, subject.lab.batch_size
    texts = [model.format_prompt(i.adversarial_prompt, suffix) for i in instances]
    prompts = [model.tokenize(texts[i : i + size]) for i in range(0, len(texts), size)]
    return read(model, prompts, subject.lab.tokens).margin


def state(
    subject: Subject, mine: Sequence[Instance], others: Sequence[Instance], suffix: str, batches: list, intact: list
) -> np.ndarray:
    """The chain's margins in their order; the others' mean margin and share refused; KL and hits, harmless answers."""
    margin = margins_of(subject, (*mine, *others), suffix)
    rest = margin[len(mine) :]
    answers = quality(subject.model, batches, intact) if batches else None
    harmless = (answers.kl.mean(), answers.right.mean()) if answers is not None else (np.nan, np.nan)
    means = (rest.mean(), 100.0 * (rest > 0).mean()) if len(rest) else (np.nan, np.nan)
    return np.array([*margin[: len(mine)], *means, *harmless])


def _finding(subject: Subject, data: np.ndarray, name: str, suffix: str, started: float) -> Finding:
    """Panels from [chain, edits so far, readings]."""
    chains, states, width = data.shape
    steps, seed = range(1, states), subject.lab.seed
    margins, (others, safe, kl, right) = data[:, :, : width - 4], np.moveaxis(data[:, :, width - 4 :], -1, 0)
    x = tuple(float(n) for n in steps)

    def curve(
        label: str, values: Sequence[np.ndarray], unit: str, control: bool = False, low: float = -np.inf
    ) -> Curve:
        y = tuple(few(v, "chains", unit, low) for v in values)
        return Curve(label, x, y, control)

    latest = [margins[:, n, n - 1] for n in steps]
    so_far = [100.0 * (margins[:, n, :n] > 0).mean(axis=1) for n in steps]
    label = "edits so far"
    panels = [
        Curves(
            f"refusal margin, {name}",
            label,
            "nats",
            (
                curve(FIRST, [margins[:, n, 0] for n in steps], "nats"),
                curve(LAST, latest, "nats"),
                curve(BEFORE, [margins[:, 0, 0] for _ in steps], "nats", control=True),
                *(
                    [
                        curve(OTHERS, [others[:, n] for n in steps], "nats", control=True),
                        curve(OTHERS_BEFORE, [others[:, 0] for _ in steps], "nats", control=True),
                    ]
                    if _there(others)
                    else []
                ),
            ),
        ),
        *(
            [
                Curves(
                    f"{LEAD}, {name}",
                    label,
                    "nats",
                    (
                        curve(
                            name,
                            [margins[:, n, 0] - margins[:, 0, 0] - (others[:, n] - others[:, 0]) for n in steps],
                            "nats",
                        ),
                    ),
                )
            ]
            if _there(others)
            else []
        ),
        Curves(
            f"prompts that are refused, {name}",
            label,
            "% of prompts",
            (
                curve("edited so far", so_far, "%"),
                *([curve(OTHERS, [safe[:, n] for n in steps], "%", control=True)] if _there(safe) else []),
            ),
        ),
    ]
    if _there(kl):
        panels += [
            Curves(f"harmless answers, KL to vanilla, {name}", label, "nats per token",
                   (curve(name, [kl[:, n] for n in steps], "nats", low=0.0),)),
            Curves(f"harmless answers, tokens predicted, {name}", label, "% of tokens",
                   (curve(name, [right[:, n] for n in steps], "%"),
                    curve("vanilla", [right[:, 0] for _ in steps], "%", control=True))),
        ]  # fmt: skip
    found = Finding(
        name="sequential",
        title="Edits one after another",
        question=f"Does the first edit survive the {states - 1}th?",
        reading="",
        how_to_read=f"{chains} chains of {states - 1} edits, each edit made on the model with those before in it; "
        "after each, the refusal margin of the first edit's prompt, of the latest's, and of prompts nobody edited "
        f"(dashed: what generalises){', harmless requests too, all with the suffix' if suffix else ''}. A first edit "
        "survives where its prompt is still refused and has gained more than prompts that nobody edited. Intervals: "
        "Student's over chains.",
        limits="Few chains make rough intervals, and chains share instances where there are few. The later edits may "
        "do the first one's work again, which is why its gain is held against that of prompts not edited.",
        n=chains,
        seed=seed,
        curves=tuple(panels),
        facts={f"{name}, first edit's margin, each chain": "; ".join(
            f"{m[0, 0]:+.1f} before, {m[1, 0]:+.1f} edited, {m[-1, 0]:+.1f} after {states - 1}" for m in margins)},
        seconds=time.perf_counter() - started,
    )  # fmt: skip
    return _read(found)


def _there(values: np.ndarray) -> bool:
    return not bool(np.isnan(values).any())


def _verdict(finding: Finding, end: Estimate) -> tuple[str, str]:
    """What became of the first edit, and its gain beyond that of prompts nobody edited, in words."""
    panel = next((p for p in finding.curves if p.title.startswith(LEAD)), None)
    if finding.n < 2:
        return f"is {'still' if end.value > 0 else 'no longer'} refused (one chain: no interval)", ""
    if end.low <= 0:
        return ("does not survive" if end.high < 0 else "survives in some chains"), ""
    if panel is None:
        return "is still refused (no other prompt to compare it with)", ""
    lead = panel.curves[0].y[-1]
    said = f", {lead.value:+.1f} [{lead.low:+.1f}, {lead.high:+.1f}] more than prompts not edited gained"
    if lead.low > 0:
        return "survives", said
    return "cannot be told from what the later edits do to any prompt", said


def _read(finding: Finding) -> Finding:
    margins = {c.name: c for c in finding.curves[0].curves}
    first, before = margins[FIRST], margins[BEFORE].y[0]
    start, end = first.y[0], first.y[-1]
    n = int(first.x[-1])
    gained, kept = start.value - before.value, end.value - before.value
    if gained <= 0:
        text = (
            f"The first edit does not raise its margin ({before.value:+.1f} to {start.value:+.1f} nats), "
            "so there is nothing to keep"
        )
    else:
        verb, lead = _verdict(finding, end)
        text = (
            f"The first edit {verb}, seen after {n} edits: its prompt's margin goes from {before.value:+.1f} to "
            f"{start.value:+.1f} nats with it and is {end.value:+.1f} [{end.low:+.1f}, {end.high:+.1f}] then "
            f"({100 * kept / gained:.0f} % of the gain){lead}"
        )
    if OTHERS in margins:
        others = margins[OTHERS].y
        text += (
            f"; prompts that were not edited go from {margins[OTHERS_BEFORE].y[0].value:+.1f} (none) by "
            f"{others[0].value:+.1f} (one edit) to {others[-1].value:+.1f} "
            f"[{others[-1].low:+.1f}, {others[-1].high:+.1f}]"
        )
    quality_panel = next((p for p in finding.curves if "tokens predicted" in p.title), None)
    if quality_panel is not None:
        text += f", and {quality_panel.curves[0].y[-1].value:.0f} % of harmless tokens are still predicted"
    return replace(finding, reading=f"{text}.")
