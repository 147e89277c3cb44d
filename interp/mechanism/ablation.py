"""Ablation: what the refusal margin becomes when the MLP of one layer writes nothing, an average, or something else.

Three ablations of W_V's write at every prompt position: zero; the mean over the tokens of reference prompts; and
resampling, where a prompt gets the write of another. All layers are ablated in turn: the others are the control of the
located one. It says what the layer contributes on these prompts, not that the behaviour is stored there.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.mechanism.intervene import written
from interp.mechanism.lab import Analysis, Subject
from interp.mechanism.readout import compliance, mean_margin, read
from interp.models import HookedModel, Tokens
from interp.records import Bars, Curve, Curves, Finding

KINDS = ("zero", "mean", "resample")
MEAN = "change of the refusal margin, mean ablation"
_TITLES = {kind: f"change of the refusal margin, {kind} ablation" for kind in KINDS}
LEVEL, RATE = "refusal margin", "compliance"
STAND_IN = "what the mean is over"


@dataclass(frozen=True)
class Reference:
    """What W_V of one layer writes on the prompts that stand in."""

    mean: Float[Tensor, "d_model"]
    """Over all their real tokens."""
    writes: tuple[Float[Tensor, "_ d_model"], ...]
    """Of each prompt, its last token last."""

    def of(self, which: Sequence[int], out: Float[Tensor, "batch seq d_model"]) -> Float[Tensor, "batch seq d_model"]:
        """The writes of these prompts aligned at the end; the mean where they are shorter."""
        stand_in = self.mean.to(out).expand_as(out).clone()
        for row, index in enumerate(which):
            n = min(out.shape[1], len(self.writes[index]))
            stand_in[row, -n:] = self.writes[index][-n:].to(out)
        return stand_in


def reference_prompts(subject: Subject) -> tuple[list[str], str]:
    """As many harmless prompts as the lab has instances, bare and wrapped; without any, the attack prompts themselves.

    Returns the formatted prompts, and what they are.
    """
    lab, queries = subject.lab, [b.prompt for b in subject.lab.benign]
    if not queries:
        return [subject.model.format_prompt(q) for q in lab.queries()], "the attack prompts themselves"
    step = max(len(queries) / len(lab.instances), 1.0)
    chosen = [queries[int(i * step)] for i in range(min(len(lab.instances), len(queries)))]
    return [subject.model.format_prompt(q) for q in chosen], "harmless prompts"


@torch.no_grad()
def reference(model: HookedModel, prompts: Sequence[Tokens], layer: int) -> Reference:
    """Run the reference prompts and keep what the layer writes: prompts x tokens x d_model numbers."""
    kept: list[Tensor] = []
    for batch in prompts:
        seen: list[Tensor] = []
        with written(model, layer, lambda out, seen=seen: seen.append(out.detach())):
            model.logits(batch)
        real = batch.attention_mask.bool().to(seen[0].device)
        kept += [row[mask] for row, mask in zip(seen[0], real, strict=True)]
    return Reference(torch.cat(kept).float().mean(dim=0), tuple(kept))


def donors(n: int, m: int, seed: int) -> Int[np.ndarray, "n"]:
    """For each of n prompts one of m reference prompts; with n = m in a ring, so that none gets its own place."""
    ring = np.random.default_rng(seed).permutation(m)
    if n != m:
        return ring[np.arange(n) % m]
    chosen = np.empty(n, dtype=int)
    chosen[ring] = np.roll(ring, 1)
    return chosen


def ablated(
    model: HookedModel, prompts: Sequence[Tokens], layer: int, kind: str, stand_in: Reference, subject: Subject
) -> Float[np.ndarray, "prompt"]:
    """Refusal margins of the prompts with the layer's write ablated at every position, nats."""
    order = donors(len(subject.lab.instances), len(stand_in.writes), subject.lab.seed)
    margins, start = [], 0
    for batch in prompts:
        which: list[int] = order[start : start + len(batch)].tolist()
        start += len(batch)

        def change(out: Tensor, which: list[int] = which) -> Tensor:
            if kind == "zero":
                return torch.zeros_like(out)
            return stand_in.mean.to(out).expand_as(out) if kind == "mean" else stand_in.of(which, out)

        with written(model, layer, change):
            margins.append(read(model, [batch], subject.lab.tokens).margin)
    return np.concatenate(margins)


def measure(subject: Subject, vanilla: Subject) -> Finding:
    """All layers and kinds of one model: (1 + 3) forwards of the prompts per layer."""
    started, lab, model = time.perf_counter(), subject.lab, subject.model
    prompts, clean, n = subject.prompts(), subject.margins(), len(lab.instances)
    texts, what = reference_prompts(subject)
    reference_batches = [model.tokenize(texts[i : i + lab.batch_size]) for i in range(0, len(texts), lab.batch_size)]
    found: dict[str, list[np.ndarray]] = {kind: [] for kind in KINDS}
    for layer in range(model.n_layers):
        stand_in = reference(model, reference_batches, layer)
        for kind in KINDS:
            found[kind].append(ablated(model, prompts, layer, kind, stand_in, subject))
    layers = tuple(float(layer) for layer in range(model.n_layers))
    located = tuple(dict.fromkeys((lab.layer, lab.toxic_layer)))
    curves = tuple(
        Curves(
            _TITLES[kind],
            "layer (0-based)",
            "ablated - intact, nats",
            (Curve(subject.name, layers, tuple(mean_margin(m - clean, lab.seed) for m in found[kind])),),
            marked=tuple(float(layer) for layer in located),
        )
        for kind in KINDS
    )
    places = {"intact": clean} | {f"{kind}, layer {at}": found[kind][at] for at in located for kind in KINDS}
    margins = Bars(LEVEL, "nats", (subject.name,), {k: (mean_margin(m, lab.seed),) for k, m in places.items()})
    rates = Bars(RATE, "% of prompts", (subject.name,), {k: (compliance(m),) for k, m in places.items()})
    return Finding(
        name="ablation",
        title="Ablation of the located region",
        question="Does the located layer's MLP carry the refusal or the compliance, more than other layers' do?",
        reading="",
        how_to_read="Each point replaces what the MLP of one layer writes, at every position of the attack prompts, by "
        f"zero, by its mean over {what}, or by its write on another of them; the change of the refusal margin "
        "follows. Below 0 the layer was for refusing, above 0 for complying. The marked layers are the located ones, "
        "the others the control; bars are bootstrap and Wilson 95 % over prompts.",
        limits="A layer that everything passes through changes much when it is ablated, whatever it holds (zero "
        "ablation of the first layer breaks the model); a behaviour with a backup changes little.",
        n=n,
        seed=lab.seed,
        curves=curves,
        bars=(margins, rates),
        facts={STAND_IN: what},
        seconds=time.perf_counter() - started,
    )


def words(finding: Finding) -> str:
    """Per model: the mean-ablated located layer beside the layer with the largest change."""
    panel = next(p for p in finding.curves if p.title == MEAN)
    at = int(panel.marked[0])
    said = []
    for curve in panel.curves:
        here, top = curve.y[at], int(np.argmax([abs(e.value) for e in curve.y]))
        rank = 1 + sum(abs(e.value) > abs(here.value) for e in curve.y)
        effect = "towards refusing" if here.low > 0 else "towards complying" if here.high < 0 else "by no clear amount"
        most = "the most of all" if rank == 1 else f"rank {rank}, layer {top} most with {curve.y[top].value:+.1f}"
        said.append(
            f"{curve.name} moves {effect} ({here.value:+.1f} nats [{here.low:+.1f}, {here.high:+.1f}]; "
            f"of {len(curve.y)} layers {most})"
        )
    over = finding.facts.get(STAND_IN, "other prompts")
    return f"With the write of layer {at} at its mean over the tokens of {over}, {'; '.join(said)}."


ABLATION = Analysis("ablation", measure, words)
