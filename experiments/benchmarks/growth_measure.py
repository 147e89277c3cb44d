"""What `growth.py` measures and how it is read: every operation at every size, ratios to a plain forward, exponents."""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import sklearn.linear_model  # noqa: F401  # else the first probe would pay for it
import torch
from common import RESULTS, cpu_seconds, instances, model_a
from scipy import stats

from interp.capture import capture
from interp.edits import Provenance, WeightEdit
from interp.locate import layer_distances
from interp.mechanism.margin import MarginTokens, batches
from interp.mechanism.patching import patch
from interp.mechanism.probe import SHUFFLES, train_probe
from interp.methods.dinm import Dinm
from interp.methods.dpo import Dpo
from interp.methods.sft import Sft
from interp.models import HookedModel
from interp.multi import generate_edited
from interp.plots.canonical import differences, dumps
from interp.plots.growth import figures, markdown
from interp.products import processor
from interp.records import Estimate, Instance, LabelledText
from interp.records.growth import Growth, GrowthAxis
from interp.runs import git_commit, read_json, versions

FOLDER = Path(__file__).parents[2] / "figures" / "speed"
ANSWER, NEW, QUESTIONS = 16, 16, 20
"""Tokens of an answer in the data; tokens generated; probe texts an instance."""
PLAIN = "plain forward"
OPERATIONS = {
    PLAIN: "Hugging Face's model over the prompts of all instances, with vocabulary logits",
    "locate": "layer_distances: both responses of every instance, in every layer",
    "capture": "all residual streams of the prompts",
    "probe": f"hidden states of {QUESTIONS} prompts an instance, logistic regression, {SHUFFLES} shuffled controls",
    "patching": "the MLP's output from an edited model, all positions, each layer in turn",
    "edit, first layer": "one DINM edit of each instance, 10 steps",
    "edit, middle layer": "the same in the middle",
    "edit, last layer": "the same in the last layer",
    "SFT step": "one optimiser step on all instances, all parameters",
    "DPO step": "the same with policy and reference on both answers",
    "generate, 1 edit": f"answers of {NEW} tokens to every prompt by one edited model",
    "generate, 4 edits": "the same by 4 edited models in one batch",
    "generate, 16 edits": "the same by 16 edited models",
}
WARM = (PLAIN, "capture", "edit, last layer", "generate, 1 edit")
GROUPS = {
    "reading": ("locate", "capture", "probe", "patching"),
    "changing": ("edit, first layer", "edit, middle layer", "edit, last layer", "SFT step", "DPO step"),
    "answering": ("generate, 1 edit", "generate, 4 edits", "generate, 16 edits"),
}


@dataclass(frozen=True)
class Point:
    """The sizes of one measurement."""

    layers: int = 4
    width: int = 384
    prompt: int = 64
    """Tokens."""
    instances: int = 2


BASE = Point()
AXES = {
    "layers": ("depth (blocks)", (2, 4, 8, 16)),
    "width": ("width (d_model)", (192, 384, 576, 768)),
    "prompt": ("prompt (tokens)", (32, 64, 128, 256)),
    "instances": ("instances", (2, 4, 8, 16)),
}
"""Field of a point -> how it is called, and the values it takes."""
Seconds = dict[str, list[float]]
"""Operation -> CPU seconds of each repeat."""


# ------------------------------------------------------------------------------------------------- measuring
class Bench:
    """One point: its model and data, made once, and what was measured so far."""

    def __init__(self, point: Point) -> None:
        self.model = model_a(point.layers, point.width, point.width * 8 // 3)
        self.data = instances(point.instances, (point.prompt - 1,) * 2, (ANSWER,) * 2)  # the BOS is a token, too
        self.calls = operations(self.model, self.data, point)
        self.seconds: Seconds = {name: [] for name in OPERATIONS}

    def measure(self) -> None:
        """Every operation once. What is made once per model or on first use is no part of any: a round warms up."""
        if not self.seconds[PLAIN]:
            for name in WARM:
                self.calls[name]()
        for name, call in self.calls.items():
            self.seconds[name].append(cpu_seconds(call))
        size, seed = len(self.data), len(self.seconds["SFT step"])
        for name, method in (("SFT step", Sft), ("DPO step", Dpo)):
            self.seconds[name].append(step_seconds(method(steps=3, batch_size=size, seed=seed), self.model, self.data))


def operations(model: HookedModel, data: list[Instance], point: Point) -> dict[str, Callable[[], Any]]:
    """Everything that is one call; trainings are timed by their steps."""
    prompts = [model.format_prompt(i.adversarial_prompt) for i in data]
    tokens = model.tokenize(prompts, side="right")
    asked = batches(model, [i.adversarial_prompt for i in data])
    layers = {"first": 0, "middle": point.layers // 2, "last": point.layers - 1}
    edits = [random_edit(model, layers["middle"], seed) for seed in range(16)]
    donor = edits[0].beside(model)
    margin = MarginTokens((5, 6), (7, 8))
    texts = [
        LabelledText(i.adversarial_prompt, bool(n % 2))
        for n, i in enumerate(instances(QUESTIONS * len(data), (point.prompt - 1,) * 2))
    ]

    def plain() -> None:
        with torch.no_grad():
            model.hf(tokens.input_ids, attention_mask=tokens.attention_mask, use_cache=False)

    def edit(layer: int) -> Callable[[], Any]:
        return lambda: Dinm(layer=layer).detoxify_many(model, data)

    def generate(n: int) -> Callable[[], Any]:
        which = [index for index in range(n) for _ in prompts]
        return lambda: generate_edited(
            model, prompts * n, which, edits[:n], max_new_tokens=NEW, batch_size=len(which)
        )  # fmt: skip

    return {
        PLAIN: plain,
        "locate": lambda: layer_distances(model, data, batch_size=2 * len(data)),
        "capture": lambda: capture(model, tokens, batch_size=len(data)),
        "probe": lambda: train_probe(model, texts, batch_size=len(data)),
        "patching": lambda: patch(model, donor, asked, "mlp_out", margin),
        **{f"edit, {name} layer": edit(layer) for name, layer in layers.items()},
        **{f"generate, {n} edit{'s' if n > 1 else ''}": generate(n) for n in (1, 4, 16)},
    }


def random_edit(model: HookedModel, layer: int, seed: int) -> WeightEdit:
    """A small random delta of W_V."""
    delta = 1e-3 * torch.randn(model.value_weight(layer).shape, generator=torch.Generator().manual_seed(seed))
    made_on = Provenance("benchmark", model.source, model.weight_hash(), layer=layer)
    return WeightEdit({model.value_name(layer): delta}, made_on)


def step_seconds(method: Sft | Dpo, model: HookedModel, data: list[Instance]) -> float:
    """Median CPU seconds of an optimiser step after the first; nothing comes from a cache."""
    at: list[float] = []
    before = os.environ.get("INTERP_CACHE")
    with tempfile.TemporaryDirectory(prefix="growth-") as cache:
        os.environ["INTERP_CACHE"] = cache
        try:
            method.detoxify(model, data * method.steps, progress=lambda *_: at.append(time.process_time()))
        finally:
            os.environ.pop("INTERP_CACHE") if before is None else os.environ.update(INTERP_CACHE=before)
    return statistics.median(b - a for a, b in pairwise(at[1:]))


def rounds(axes: Mapping[str, tuple[str, tuple[int, ...]]], repeats: int) -> Iterator[dict[str, Any]]:
    """Measure every point once, then all of them again: what the machine does meanwhile meets all sizes alike.

    Yields after each round all that was measured: {"seconds": {axis: {value: seconds}}, ...}, plain JSON types.
    """
    commit = git_commit()  # as it was when measuring began
    points = {axis: {v: replace(BASE, **{axis: v}) for v in values} for axis, (_, values) in axes.items()}
    benches = {point: Bench(point) for own in points.values() for point in own.values()}
    for done in range(1, repeats + 1):
        for n, bench in enumerate(benches.values(), start=1):
            bench.measure()
            told = f"round {done} of {repeats}, point {n} of {len(benches)}, {time.process_time():.0f} CPU s"
            print(told, file=sys.stderr, flush=True)
        yield {
            "seconds": {a: {str(v): benches[p].seconds for v, p in own.items()} for a, own in points.items()},
            "base": vars(BASE),
            "repeats": done,
            "facts": {
                "base point": f"{BASE.layers} blocks, d_model {BASE.width}, prompts of {BASE.prompt} tokens, "
                f"{BASE.instances} instances",
                "model": "random Llama, float32, d_mlp 8/3 d_model, 12 heads, vocabulary 8000",
                "processor": processor(),
                "time": "process CPU seconds, one thread",
                "whole run": f"{time.process_time() / 60:.0f} CPU minutes",
                "torch": versions()["torch"],
                "transformers": versions()["transformers"],
                "commit": commit,
            },
        }


# ------------------------------------------------------------------------------------------------- reading
def growth_of(raw: Mapping[str, Any]) -> Growth:
    """Ratios and exponents of what was measured."""
    axes = []
    for axis, points in raw["seconds"].items():
        values, base = tuple(map(int, points)), raw["base"][axis]
        unit = statistics.median(points[str(base)][PLAIN])
        medians = {n: [statistics.median(p[n]) for p in points.values()] for n in OPERATIONS}
        axes.append(
            GrowthAxis(
                name=AXES[axis][0],
                values=values,
                base=base,
                costs={n: tuple(over(p[n], unit) for p in points.values()) for n in OPERATIONS},
                against_plain={
                    n: tuple(a / b for a, b in zip(medians[n], medians[PLAIN], strict=True)) for n in OPERATIONS
                },
                exponents={n: exponent(values, medians[n]) for n in OPERATIONS},
            )
        )
    return Growth(tuple(axes), OPERATIONS, GROUPS, PLAIN, raw["repeats"], raw["facts"])


def over(seconds: list[float], unit: float) -> Estimate:
    """Median with the smallest and the largest, in units."""
    found = [s / unit for s in seconds]
    how = "median, smallest to largest repeat"
    return Estimate(statistics.median(found), min(found), max(found), len(found), "plain forwards of the base", how)


def exponent(sizes: tuple[int, ...], costs: list[float]) -> Estimate:
    """Slope of log cost over log size; without an interval where two sizes leave no residual."""
    fit: Any = stats.linregress(np.log(sizes), np.log(costs))
    free = len(sizes) - 2
    half = float(stats.t.ppf(0.975, free) * fit.stderr) if free else 0.0
    how = f"least squares over {len(sizes)} sizes, Student 95 %" if free else "of two sizes: no interval"
    return Estimate(float(fit.slope), float(fit.slope) - half, float(fit.slope) + half, len(sizes), "exponent", how)


def check(growth: Growth) -> list[str]:
    """What of the committed table and figures does not follow from the committed measurements."""
    lines = [] if (RESULTS / "growth.md").read_text(encoding="utf-8") == markdown(growth) else ["growth.md differs"]
    for name, figure in figures(growth).items():
        committed = read_json(FOLDER / f"{name}.json")
        if dumps(figure) != (FOLDER / f"{name}.json").read_text(encoding="utf-8"):
            lines += [f"{name}: {line}" for line in differences(figure.to_plotly_json(), committed)] or [name]
    return lines
