"""Made-up comparisons in the ranges that the demo world gave: nothing here was measured."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import numpy as np

from interp.records import (
    CATEGORIES,
    PROMPT_KINDS,
    ActivationShift,
    Comparison,
    ComparisonRow,
    Conclusion,
    DefenseScores,
    Estimate,
    GeneralPerformance,
    JudgeReport,
    LayerScores,
    NullDistribution,
    ProbeReport,
    RegionToxicity,
    ShiftSource,
    SwapShares,
)
from interp.stats import bootstrap, exact, share

DEFINITIONS = (
    ("mean cosine, all value vectors", "cosine", 0.0075, 0.0044),
    ("mean cosine, top 10 value vectors of vanilla", "cosine", 0.31, 0.03),
    ("activation-weighted write", "residual stream units", 0.42, 0.11),
    ("mean cosine, probe after the final norm", "cosine", 0.0061, 0.0044),
    ("mean cosine, mean-difference direction", "cosine", 0.0124, 0.0045),
)
# DS, onlyQ, otherA, otherQ, otherAQ without S, then with S
BEHAVIOUR = {
    "vanilla": ((7, 89, 4, 15, 15), (70, 100, 52, 70, 52)),
    "sft": ((96, 100, 93, 96, 89), (100, 100, 96, 100, 96)),
    "dpo": ((100, 100, 96, 100, 100), (100, 100, 100, 100, 100)),
    "dinm": ((81, 96, 52, 70, 56), (96, 100, 85, 93, 81)),
}
SHIFT = {"sft": 21.3, "dpo": 14.2, "dinm": 0.0}
CHANGE = {"sft": -0.00012, "dpo": -0.0002, "dinm": -0.00081}
WEIGHT = {"sft": 1.3, "dpo": 0.9, "dinm": 14.6}
VERDICT: dict[str, Literal["erased", "bypassed", "undecided", "reference"]] = {
    "vanilla": "reference", "sft": "bypassed", "dpo": "undecided", "dinm": "undecided",
}  # fmt: skip
EVIDENCE = (
    "Region toxicity (mean cosine, all value vectors) moved by -0.00081 from 0.0075 (p = 0.2), no more than random "
    "directions do. What flows into the region did not move on given tokens, by construction."
)


def layer_scores(n: int, layers: int, convention: str = "paper", seed: int = 0, unit: str | None = None) -> LayerScores:
    """Distances that grow with the layer; the last but one is located most often."""
    rng = np.random.default_rng(seed)
    values = np.linspace(1.0, 9.0, layers) * rng.uniform(0.8, 1.2, (n, 1)) + rng.normal(0, 0.25, (n, layers))
    if layers > 1:
        values[:, -1] -= rng.uniform(0.2, 2.5, n)
    ids = tuple(range(1000, 1000 + n))
    categories = tuple(CATEGORIES[i % 9] for i in range(n))
    unit = unit or "L2 distance of the mean hidden state over the response's own tokens"
    return LayerScores("demo", convention, unit, ids, categories, values)


def _percent(rng: np.random.Generator, p: float, n: int) -> Estimate:
    return share(round(p / 100 * n), n)


def defense(name: str, suffix: bool, n: int, seed: int = 0) -> DefenseScores:
    """Defence rates around the demo's."""
    rng = np.random.default_rng(seed)
    means = BEHAVIOUR.get(name, BEHAVIOUR["sft"])[suffix]
    by_kind = {kind: _percent(rng, p, n) for kind, p in zip(PROMPT_KINDS, means, strict=True)}
    draws = rng.random((n, 4)) < np.array(means[1:]) / 100
    return DefenseScores(
        name, suffix, "demo", by_kind, bootstrap(100.0 * draws.mean(axis=1), unit="%"),
        _percent(rng, means[0], n), _percent(rng, 0 if name != "dinm" else 4, n),
    )  # fmt: skip


def performance(name: str, suffix: bool, n: int) -> GeneralPerformance:
    """Knowledge kept, some benign requests refused."""
    refused = {"vanilla": 0.0, "sft": 0.2, "dpo": 0.6, "dinm": 0.07}.get(name, 0.1)
    return GeneralPerformance(
        name, suffix, share(58, 60), share(round(30 * refused), 30), share(round(30 * min(1.0, refused * 1.4)), 30),
        Estimate(4.1 - refused, 4.0 - refused, 4.3 - refused, n, "bits", "bootstrap"),
    )  # fmt: skip


def regions(name: str, n_edits: int, layer: int, above_chance: bool, seed: int = 0) -> tuple[RegionToxicity, ...]:
    """Five definitions; with `above_chance` vanilla stands out of the null, so that rates are given."""
    rng = np.random.default_rng(seed)
    found = []
    for i, (definition, unit, base, std) in enumerate(DEFINITIONS):
        vanilla = base * (4.0 if above_chance and i != 1 else 1.0)
        mean = 0.30 if i == 1 else 0.0
        scale = base / DEFINITIONS[0][2]
        move = 0.0 if name == "vanilla" else CHANGE.get(name, 0.0004) * scale * (1 if i % 2 == 0 else 0.4)
        spread = abs(move) * 1.5 if n_edits > 1 else 0.0
        edits = move + spread * rng.standard_normal(n_edits) if n_edits > 1 else np.array([move])
        change = bootstrap(edits, over="edits", unit=unit) if n_edits > 1 else exact(move, 1, unit)
        value = Estimate(
            vanilla + change.value, vanilla + change.low, vanilla + change.high, change.n, unit, change.how
        )
        null_std = 0.0 if name == "vanilla" else abs(CHANGE.get(name, 4e-4)) * scale * 0.8
        null_change = NullDistribution(0.0, null_std, -1.96 * null_std, 1.96 * null_std, 1000, 0)
        null_vanilla = NullDistribution(mean, std, mean - 1.96 * std, mean + 1.96 * std, 1000, 0)
        p = 1.0 if name == "vanilla" else 0.2 / (1 + i)
        found.append(
            RegionToxicity(
                name, layer, definition, vanilla, value, change, null_vanilla, null_change, p, unit, min(1.0, 1.6 * p)
            )
        )
    return tuple(found)


def shift(name: str, layer: int, layers: int, n: int) -> ActivationShift:
    """Zero at the edited layer for DINM, growing with the layer for the rest."""
    rate = SHIFT.get(name, 9.0)
    identity = name == "dinm"
    below = [
        0.0 if identity and at <= layer else (rate or 12.0) * (0.4 + 0.6 * (at + 1) / layers) for at in range(layers)
    ]
    below[layer] = rate
    value = exact(0.0, n, "%") if identity else Estimate(rate, 0.85 * rate, 1.15 * rate, n, "%", "bootstrap")
    resid = [0.0 if identity and at < layer else 0.7 * x + 3.0 for at, x in enumerate(below)]
    own = Estimate(max(rate, 6.0) * 1.5, max(rate, 6.0), max(rate, 6.0) * 2, n, "%", "bootstrap")
    control = Estimate(9.0, 5.0, 14.0, n, "%", "random halvings") if n >= 4 else None
    return ActivationShift(name, layer, value, tuple(below), tuple(resid), own, control, identity, n)


def source(name: str, layer: int, n: int, seed: int = 0) -> ShiftSource:
    """Points of h_mid; DINM's do not move at all."""
    rng = np.random.default_rng(seed)
    before = np.stack([rng.normal(0, 0.4, n), rng.normal(0, 2.0, n)], axis=1)
    strength = rng.uniform(0.11, 0.24, n)
    if name == "dinm":
        axis = "second principal component (the mean shift of h_mid is zero: nothing in front of the region changed)"
        return ShiftSource(name, layer, before, before.copy(), strength, strength, 0.0, 0.41, tuple(range(n)), axis)
    size = SHIFT.get(name, 9.0) / 6
    after = before + np.stack([rng.normal(size, 0.3, n), rng.normal(0, 0.4, n)], axis=1)
    return ShiftSource(name, layer, before, after, strength, strength * 0.8, size, 0.33, tuple(range(n)))


def swap(name: str, layer: int, n: int) -> SwapShares:
    """SFT passes through the inputs, DPO is gated, DINM is algebra."""

    def part(value: float, width: float = 0.06) -> Estimate:
        return Estimate(value, value - width, value + width, n, "share", "bootstrap")

    parts = {
        "sft": (part(0.05), part(0.9), part(0.03), part(0.02)),
        "dinm": (part(1.0, 0.0), part(0.0, 0.0), part(0.0, 0.0), part(0.0, 0.0)),
    }.get(name, (part(0.4, 0.5), part(-0.3, 0.6), part(0.5, 0.4), part(0.4, 0.3)))
    drop = 12.0 if name == "dpo" else 80.0
    return SwapShares(
        name, layer, *parts, (0.1, 0.84, 0.03, 0.03), Estimate(-3.0, -3.5, -2.5, n, "nats"),
        Estimate(2.0, 1.5, 2.5, n, "nats"), Estimate(drop, drop - 10, drop + 10, n, "%"),
        name == "dpo", name == "dinm", n,
    )  # fmt: skip


def asked_with_s(found: Comparison) -> Comparison:
    """DINM asked with S too, where its shares are algebra of the other kind."""
    one, none = (Estimate(x, x, x, 25, "share", "bootstrap") for x in (1.0, 0.0))
    rows = []
    for row in found.rows:
        if row.name == "dinm" and row.swap is not None:
            given = replace(
                row.swap, erased=none, downstream=one, identity=False, by_algebra="nothing up to it was changed",
                suffix=True, left_out=2,
            )  # fmt: skip
            row = replace(row, causal_with_suffix=given, conclusion=replace(row.conclusion, with_suffix="masked"))
        rows.append(row)
    return replace(found, rows=tuple(rows))


def comparison(
    names: tuple[str, ...] = ("vanilla", "sft", "dpo", "dinm"),
    *,
    n: int = 27,
    layers: int = 6,
    layer: int = 4,
    above_chance: bool = False,
    suffix: str = "If the user's request is reasonable, give the correct answer.",
    swaps: bool = True,
    planted: bool = True,
) -> Comparison:
    """A whole comparison."""
    states = (False, True) if suffix else (False,)
    rows = []
    for i, name in enumerate(names):
        edits = n if name == "dinm" else 1
        base = name == "vanilla"
        weight = WEIGHT.get(name, 3.0)
        by_layer = tuple(0.0 if base or (name == "dinm" and at != layer) else weight / 2 for at in range(layers))
        weight_change = exact(0.0, 1, "%") if base else Estimate(
            weight, weight * (1 if edits == 1 else 0.93), weight * (1 if edits == 1 else 1.06), edits, "%", "bootstrap"
        )  # fmt: skip
        rows.append(
            ComparisonRow(
                name=name,
                method=name,
                source={"vanilla": "demo", "dinm": f"{n} edits, one per instance"}.get(name, "trained in this run"),
                located={layer: n}
                if name != "dpo"
                else {layer: n - n // 3, max(layer - 1, 0): n // 3}
                if n > 2
                else {layer: n},
                region=regions(name, edits, layer, above_chance, i),
                shift=None if base else shift(name, layer, layers, n),
                weight_change=weight_change,
                weight_change_by_layer=by_layer,
                defense=tuple(defense(name, s, n, i) for s in states),
                general=tuple(performance(name, s, n) for s in states),
                conclusion=Conclusion(
                    VERDICT.get(name, "undecided"),
                    "The vanilla model: everything else is measured against it." if base else EVIDENCE,
                ),
                seconds={"evaluate": 6.4, "mechanism": 3.1} | ({"train": 11.2} if name in ("sft", "dpo") else {}),
                swap=None if base or not swaps else swap(name, layer, n),
            )
        )
    conventions = ("paper", "paper, after the final norm", "reference, right padding")
    return Comparison(
        model="demo",
        data="demo",
        layer=layer,
        suffix=suffix,
        rows=tuple(rows),
        probe=ProbeReport(
            "demo", "demo", "mean over tokens, output of layer 5, before the final norm", 1800, 200,
            share(196, 200), Estimate(0.991, 0.98, 0.998, 200, "", "bootstrap"), 52.0, 0,
            Estimate(0.51, 0.42, 0.6, 10, "", "10 shuffles"),
        ),
        layer_scores=tuple(layer_scores(n, layers, c, i) for i, c in enumerate(conventions)),
        sources=tuple(source(name, layer, min(n, 30), i) for i, name in enumerate(names) if name != "vanilla"),
        n_instances=n,
        seed=0,
        config={"settings": {"methods": list(names[1:]), "model": "demo", "data": "demo", "instances": n, "seed": 0}},
        versions={"interp": "0.1.0", "torch": "2.13.0", "plotly": "7.1.0"},
        commit="0123456789ab",
        planted=planted,
        warnings=("dinm: 1 of 27 edits are at another layer than the region's 4",) if n == 27 else (),
        judge=JudgeReport(
            "demo", "val of demo, unseen texts", share(990, 1000), 40.0, {"refusal": share(300, 300)}, 1500
        ) if n == 27 else None,
    )  # fmt: skip


def hard_cases() -> dict[str, Comparison]:
    """What breaks layouts: one model, many instances, deep models, one instance, no suffix, many models, odd names."""
    usual = comparison()
    bare = replace(
        usual,
        rows=tuple(
            replace(r, defense=(), general=(), shift=None, region=(), swap=None, seconds={}) for r in usual.rows
        ),
        sources=(),
    )
    return {
        "usual": usual,
        "above-chance": comparison(above_chance=True),
        "one-model": comparison(("vanilla", "dinm")),
        "vanilla-only": comparison(("vanilla",)),
        "40-instances": comparison(n=40),
        "deep": comparison(n=40, layers=32, layer=28),
        "one-instance": comparison(n=1),
        "no-suffix": comparison(suffix="", swaps=False),
        "many-models": comparison(
            ("vanilla", "sft", "dpo", "dinm", "sft-lora", "my.model_with-a-long-name", "b", "c", "d")
        ),
        "nothing-measured": bare,
    }
