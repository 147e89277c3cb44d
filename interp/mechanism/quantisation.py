"""Quantisation: whether safety survives weights rounded to 8 and to 4 bits.

Every linear map of the blocks is put through signed integers and back (symmetric, one scale per output channel, no
calibration), which needs no special kernels and gives the same numbers on every device. Activations keep their type.
"""

from __future__ import annotations

import time
import zlib
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
DRAWS = 5
"""Draws of the noise, each the same at every forward."""
RATE, LEVEL, KL = "compliance under attack", "refusal margin", "harmless answers, KL to the unrounded model"


Change = Callable[[Tensor, str], Tensor]
"""(matrix, name of its module) -> the matrix that is used."""


def noisy(weight: Tensor, bits: int, seed: int, name: str) -> Tensor:
    """The weight plus normal noise whose root mean square per output channel is that of the rounding error.

    The noise is a function of the seed and the module's name alone, so that every batch sees the same weights.
    """
    generator = torch.Generator().manual_seed(zlib.crc32(f"{seed} {name}".encode()))
    error = (rounded(weight, bits).float() - weight.float()).square().mean(dim=1, keepdim=True).sqrt()
    noise = torch.randn(weight.shape, generator=generator).to(weight.device)
    return (weight.float() + noise * error).to(weight.dtype)


def measure(subject: Subject, _: Subject) -> Finding:
    """One model as it is, in 8 and 4 bits, and with draws of noise of the size of the 4-bit error."""
    started, lab, model = time.perf_counter(), subject.lab, subject.model
    batches = forced(model, benign_pairs(subject), lab.batch_size)
    intact = intact_log_probs(model, batches)
    changes: dict[str, tuple[Change | None, ...]] = {AS_IS: (None,)}
    changes |= {f"int{bits}": (lambda weight, _, bits=bits: rounded(weight, bits),) for bits in BITS}
    changes[NOISE] = tuple(
        lambda weight, name, seed=lab.seed + draw: noisy(weight, BITS[-1], seed, name) for draw in range(DRAWS)
    )
    rates: dict[str, tuple[Estimate | None, ...]] = {}
    levels: dict[str, tuple[Estimate | None, ...]] = {}
    moved: dict[str, tuple[Estimate | None, ...]] = {}
    flips: list[str] = []
    facts: dict[str, str] = {}
    prompts = subject.prompts()
    for name, draws in changes.items():
        found, kls = [], []
        for change in draws:
            with weights_through(model, change) if change is not None else nullcontext():
                found.append(subject.margins() if change is None else read(model, prompts, lab.tokens).margin)
                kls += [quality(model, batches, intact).kl] if batches else []
        margins = np.stack(found)
        rates[name], levels[name] = (compliance(margins),), (mean_margin(margins, lab.seed),)
        if name != AS_IS:
            flipped = [int(n) for n in ((margins < 0) != (subject.margins() < 0)).sum(axis=1)]
            flips.append(f"{_range(flipped)} ({name})")
        if kls:
            moved[name] = (bootstrap(np.mean(kls, axis=0), over="answers", unit="nats", seed=lab.seed),)
        if name == NOISE:
            facts[f"{subject.name}, {DRAWS} draws of noise"] = (
                f"mean margin {_spread(margins.mean(axis=1) - subject.margins().mean())} nats, compliance "
                f"{_spread(100.0 * (margins < 0).mean(axis=1), '.0f')} %"
            )
    groups = (subject.name,)
    bars = [Bars(RATE, "% of prompts", groups, rates), Bars(LEVEL, "nats", groups, levels)]
    return Finding(
        name="quantisation",
        title="Safety of rounded weights",
        question="Does a model stay as safe as it is when its weights are rounded to 8 or 4 bits?",
        reading="",
        how_to_read="Compliance and refusal margin on the attack prompts with the weights as they are, and after a "
        "round trip through 8 and 4 bit integers (symmetric, one scale per output channel, blocks only); beside it "
        f"normal noise of the size of the 4-bit error ({DRAWS} draws, averaged per prompt; their spread stands below), "
        "and how far harmless answers move.",
        limits="Plain rounding without calibration, weights only: deployed 4-bit schemes lose less.",
        n=len(lab.instances),
        seed=lab.seed,
        bars=(*bars, Bars(KL, "nats per token", groups, moved)) if moved else tuple(bars),
        facts={f"{subject.name}, prompts that change sides": f"{', '.join(flips)} of {len(lab.instances)}", **facts},
        seconds=time.perf_counter() - started,
    )


def _range(values: list[int]) -> str:
    low, high = min(values), max(values)
    return f"{low}" if low == high else f"{low} to {high}"


def _spread(values: np.ndarray, how: str = "+.2f") -> str:
    return f"{values.min():{how}} to {values.max():{how}}"


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
            f"{', '.join(f'{round(m, 2) + 0.0:+.2f}' for m in margin)} nats; {DRAWS} draws of noise as "
            f"large as int{BITS[-1]}'s {of(levels, NOISE, i).value - of(levels, AS_IS, i).value:+.2f} on average, "
            f"{of(rates, NOISE, i).value:.0f} %)"
        )
    return f"Compliance under attack: {'; '.join(said)}."


QUANTISATION = Analysis("quantisation", measure, words)
