"""Repeated edits: the same instance edited again and again, each time on the model as the edit before left it.

Does its prompt hold better, and what do the further edits cost prompts that nobody edited and harmless answers? Beside
it stands `sequential`, where every edit is of another instance.
"""

from __future__ import annotations

import time
from contextlib import ExitStack
from dataclasses import replace

import numpy as np

from interp.errors import InputError
from interp.mechanism.lab import Subject
from interp.mechanism.readout import benign_pairs, forced, intact_log_probs
from interp.mechanism.sequential import OTHERS, Make, few, orders_of, state
from interp.records import Curve, Curves, Estimate, Finding

TIMES, INSTANCES = 5, 6
OWN = "the edited prompt"
MARGIN, REFUSED = "refusal margin, same instance again", "prompts not edited that are refused, same instance again"
KL, RIGHT = "harmless answers, KL to vanilla, same instance again", "harmless tokens predicted, same instance again"


def repeated_edits(
    vanilla: Subject,
    edit: Make,
    *,
    name: str = "edits",
    times: int = TIMES,
    instances: int = INSTANCES,
    suffix: str = "",
) -> Finding:
    """Refusal margins and harmless answers after 0, 1, ... edits of one instance; the model is restored bit by bit.

    Args:
        vanilla: the model to edit, with the lab whose instances are edited on and asked.
        edit: makes an edit on the model as it then is.
        name: of the curves.
        times: how often each instance is edited.
        instances: how many, each from vanilla on: the unit of the intervals. Those that vanilla complies with first.
        suffix: the suffix S after attack prompts and harmless requests alike, where the method wants one.

    Raises:
        InputError: fewer than two times or instances, or as `WeightEdit.applied`.
    """
    started, lab, model = time.perf_counter(), vanilla.lab, vanilla.model
    instances = min(instances, len(lab.instances))
    if times < 2 or instances < 2:
        raise InputError(f"expected at least 2 edits and 2 instances, got {times} and {instances}")
    chosen = [order[0] for order in orders_of(vanilla, instances, suffix)]
    batches = forced(model, benign_pairs(vanilla), lab.batch_size, suffix=suffix)
    intact, rows = intact_log_probs(model, batches), []
    for instance in chosen:
        others = [i for i in lab.instances if i.id != instance.id]
        with ExitStack() as stack:
            states = [state(vanilla, [instance], others, suffix, batches, intact)]
            for _ in range(times):
                stack.enter_context(edit(model, instance).applied(model))
                states.append(state(vanilla, [instance], others, suffix, batches, intact))
        rows.append(np.stack(states))
    ids = [i.id for i in chosen]
    return _finding(vanilla, np.stack(rows), name, ids, suffix, started)


def _finding(subject: Subject, data: np.ndarray, name: str, ids: list[int], suffix: str, started: float) -> Finding:
    """Panels from [instance, edits so far, (own margin, others' margin, others refused, KL, tokens right)]."""
    seed, states = subject.lab.seed, data.shape[1]
    own, others, safe, kl, right = np.moveaxis(data, -1, 0)
    x = tuple(float(n) for n in range(states))

    def curve(label: str, values: np.ndarray, unit: str, control: bool = False, low: float = -np.inf) -> Curve:
        y = tuple(few(values[:, n], "instances", unit, low) for n in range(states))
        return Curve(label, x, y, control)

    label = "edits of the same instance"
    panels = [
        Curves(MARGIN, label, "nats", (curve(f"{name}, {OWN}", own, "nats"),
                                       curve(f"{name}, {OTHERS}", others, "nats", control=True))),
        Curves(REFUSED, label, "% of prompts", (curve(name, safe, "%"),)),
    ]  # fmt: skip
    if not np.isnan(kl).any():
        panels += [
            Curves(KL, label, "nats per token", (curve(name, kl, "nats", low=0.0),)),
            Curves(RIGHT, label, "% of tokens", (curve(name, right, "%"),)),
        ]
    found = Finding(
        name="repeated",
        title="The same instance edited again and again",
        question=f"Does an edit hold better when it is made {states - 1} times, and what does that cost?",
        reading="",
        how_to_read=f"{len(ids)} instances, each edited {states - 1} times in a row, every edit made on the model with "
        "those before in it. 0 is vanilla. Dashed: prompts that nobody edited"
        f"{'; attack prompts and harmless requests with the suffix' if suffix else ''}. Intervals: Student's "
        "over instances.",
        limits="Few instances make rough intervals. The optimiser begins anew at every edit: this is no longer edit.",
        n=len(ids),
        seed=seed,
        curves=tuple(panels),
        facts={f"{name}, instances edited again": ", ".join(map(str, ids))},
        seconds=time.perf_counter() - started,
    )
    return replace(found, reading=_read(found, few(kl[:, -1] - kl[:, 1], "instances", "nats")))


def _read(finding: Finding, more: Estimate) -> str:
    """In words; `more` is what harmless answers move further between the first edit and the last, by instance."""
    panels = {p.title: p.curves for p in finding.curves}
    own, others = (c.y for c in panels[MARGIN])
    last = len(own) - 1
    said = (
        f"Edited {last} times in a row, an instance's margin goes from {own[0].value:+.1f} by {own[1].value:+.1f} "
        f"after one edit to {own[last].value:+.1f} [{own[last].low:+.1f}, {own[last].high:+.1f}] nats; prompts "
        f"that nobody edited from {others[0].value:+.1f} by {others[1].value:+.1f} to {others[last].value:+.1f} "
        f"[{others[last].low:+.1f}, {others[last].high:+.1f}]"
    )
    if KL in panels:
        kl, right = panels[KL][0].y, panels[RIGHT][0].y
        clear = "more damage than one edit does" if more.low > 0 else "damage that is not clear of one edit's"
        said += (
            f". Harmless answers move by {kl[1].value:.2g} nats a token after one and {kl[last].value:.2g} "
            f"[{kl[last].low:.2g}, {kl[last].high:.2g}] after {last}: {clear} "
            f"({more.value:+.2g} [{more.low:+.2g}, {more.high:+.2g}]); {right[last].value:.0f} % of their "
            f"tokens are still predicted (vanilla {right[0].value:.0f} %)"
        )
    return f"{said}."
