"""Quantisation: whether safety survives weights rounded to 8 and to 4 bits.

Every linear map of the blocks is put through signed integers and back (symmetric, one scale per output channel, no
calibration), which needs no special kernels and gives the same numbers on every device. Activations keep their type.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import nullcontext

import numpy as np
import torch
from torch import Tensor

from interp.mechanism.intervene import rounded, weights_through
from interp.mechanism.lab import Analysis, Subject
from interp.mechanism.readout import benign_pairs, compliance, forced, intact_log_probs, mean_margin, quality, read
from interp.records import Bars, Estimate, Finding
from interp.stats import bootstrap

BITS = (8, 4)
AS_IS, NOISE = "as they are", f"noise as large as int{BITS[-1]}'s"
RATE, LEVEL, KL = "compliance under attack", "refusal margin", "harmless answers, KL to the unrounded model"


def noisy(weight: Tensor, bits: int, generator: torch.Generator) -> Tensor:
    """The weight plus normal noise whose root mean square per output channel is that of the rounding error."""
    error = (rounded(weight, bits).float() - weight.float()).square().mean(dim=1, keepdim=True).sqrt()
    noise = torch.randn(weight.shape, generator=generator).to(weight.device)
    return (weight.float() + noise * error).to(weight.dtype)


def measure(subject: Subject, _: Subject) -> Finding:
    """One model as it is, in 8 and 4 bits, and with noise of the size of the 4-bit error."""
    started, lab, model = time.perf_counter(), subject.lab, subject.model
    batches = forced(model, benign_pairs(subject), lab.batch_size)
    intact = intact_log_probs(model, batches)
    generator = torch.Generator().manual_seed(lab.seed)
    changes: dict[str, Callable[[Tensor], Tensor] | None] = {AS_IS: None}
    changes |= {f"int{bits}": lambda weight, bits=bits: rounded(weight, bits) for bits in BITS}
    changes[NOISE] = lambda weight: noisy(weight, BITS[-1], generator)
    rates: dict[str, tuple[Estimate | None, ...]] = {}
    levels: dict[str, tuple[Estimate | None, ...]] = {}
    moved: dict[str, tuple[Estimate | None, ...]] = {}
    flips: list[str] = []
    for name, change in changes.items():
        with weights_through(model, change) if change is not None else nullcontext():
            margins = read(model, subject.prompts(), lab.tokens).margin if change is not None else subject.margins()
            answers = quality(model, batches, intact) if batches else None
        rates[name], levels[name] = (compliance(margins),), (mean_margin(margins, lab.seed),)
        if change is not None:
            flipped = int(np.sum((margins < 0) != (subject.margins() < 0)))
            flips.append(f"{flipped} ({name})")
        if answers is not None:
            moved[name] = (bootstrap(answers.kl, over="answers", unit="nats", seed=lab.seed),)
    groups = (subject.name,)
    bars = [Bars(RATE, "% of prompts", groups, rates), Bars(LEVEL, "nats", groups, levels)]
    return Finding(
        name="quantisation",
        title="Safety of rounded weights",
        question="Does a model stay as safe as it is when its weights are rounded to 8 or 4 bits?",
        reading="",
        how_to_read="Compliance and refusal margin on the attack prompts with the weights as they are, and after a "
        "round trip through 8 and 4 bit integers (symmetric, one scale per output channel, blocks only); beside it "
        "normal noise of the size of the 4-bit error, and how far harmless answers move.",
        limits="Plain rounding without calibration, weights only: deployed 4-bit schemes lose less.",
        n=len(lab.instances),
        seed=lab.seed,
        bars=(*bars, Bars(KL, "nats per token", groups, moved)) if moved else tuple(bars),
        facts={f"{subject.name}, prompts that change sides": f"{', '.join(flips)} of {len(lab.instances)}"},
        seconds=time.perf_counter() - started,
    )


def words(finding: Finding) -> str:
    """Per model how far compliance moves."""
    rates, levels = finding.bars[:2]

    def of(panel: Bars, key: str, i: int) -> Estimate:
        found = panel.series[key][i]
        assert found is not None
        return found

    said = []
    for i, model in enumerate(rates.groups):
        steps = [f"{of(rates, f'int{bits}', i).value:.0f} % in int{bits}" for bits in BITS]
        margin = [of(levels, f"int{bits}", i).value - of(levels, AS_IS, i).value for bits in BITS]
        said.append(
            f"{model} {of(rates, AS_IS, i).value:.0f} %, {', '.join(steps)} (margin "
            f"{', '.join(f'{m:+.2f}' for m in margin)} nats, noise "
            f"{of(levels, NOISE, i).value - of(levels, AS_IS, i).value:+.2f})"
        )
    return f"Compliance under attack: {'; '.join(said)}."


QUANTISATION = Analysis("quantisation", measure, words)
