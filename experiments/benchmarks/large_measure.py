"""What `large.py` measures: a random model of some shape on some device, and the floor of each of three operations."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from common import instances, word_tokenizer
from transformers import AutoModelForCausalLM, MistralConfig

from interp.edits import Provenance, WeightEdit
from interp.locate import layer_distances
from interp.methods import Dinm
from interp.models import HookedModel
from interp.multi import generate_edited

PROMPT, ANSWER, PER_EDIT = 240, 60, 5
"""Tokens of an adversarial prompt and of an answer; prompts asked of each edit."""
EDITS = (1, 8, 32)
UNITS = {"cuda": "wall seconds, median", "cpu": "process CPU seconds, median"}
TARGETS = {"locate": 180.0 / 1350, "edit": 0.5, "of the roofline": 0.6, "against one at a time": 12.0}


@dataclass(frozen=True)
class Shape:
    """A Mistral shape and how much is measured on it."""

    layers: int
    d_model: int
    d_mlp: int
    heads: int
    kv_heads: int
    vocab: int
    instances: int
    batch: int
    new_tokens: int


SEVEN_B = Shape(32, 4096, 14336, 32, 8, 32000, instances=64, batch=16, new_tokens=128)
SMALL = Shape(4, 256, 896, 8, 2, 8000, instances=8, batch=8, new_tokens=16)


@dataclass(frozen=True)
class Hardware:
    """What the device can do at most, measured."""

    bandwidth: float
    """Bytes read and written a second by a copy."""
    rate: float
    """Floating point operations a second of a product of two large matrices."""

    def floor(self, n_bytes: float, n_flops: float = 0.0) -> float:
        """Seconds that moving so many bytes and multiplying so much must take."""
        return max(n_bytes / self.bandwidth, n_flops / self.rate)


def make(shape: Shape, device: torch.device, dtype: torch.dtype) -> HookedModel:
    """A model with random weights, made on the device in its dtype."""
    torch.manual_seed(0)
    config = MistralConfig(
        vocab_size=shape.vocab,
        hidden_size=shape.d_model,
        intermediate_size=shape.d_mlp,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        max_position_embeddings=4096,
        sliding_window=None,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=1,
    )
    with device:
        hf = AutoModelForCausalLM.from_config(config, dtype=dtype)
    return HookedModel.from_hf(hf, word_tokenizer(), f"{sum(p.numel() for p in hf.parameters()) / 1e9:.2g}B, random")


def seconds(call: Callable[[], Any], device: torch.device, repeats: int) -> float:
    """Median seconds of a call, after one that does not count."""
    times = []
    clock = time.process_time if device.type == "cpu" else time.perf_counter
    for _ in range(repeats + 1):
        _wait(device)
        started = clock()
        call()
        _wait(device)
        times.append(clock() - started)
    return statistics.median(times[1:])


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def hardware(device: torch.device, dtype: torch.dtype) -> Hardware:
    """Bandwidth and rate of the device."""
    large = device.type == "cuda"
    source = torch.ones(2**31 if large else 2**28, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    copied = seconds(lambda: target.copy_(source), device, 5)
    n = 8192 if large else 1024
    a = torch.randn(n, n, dtype=dtype, device=device)
    return Hardware(2 * source.numel() / copied, 2 * n**3 / seconds(lambda: a @ a, device, 5))


def peak(device: torch.device) -> float:
    """GiB at most in use since `start_peak`: on the device, or of the process (Linux)."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) / 2**20


def start_peak(device: torch.device) -> None:
    """Forget earlier peaks."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    else:
        Path("/proc/self/clear_refs").write_text("5")


class Benchmark:
    """The three measurements on one model; each gives a row."""

    def __init__(self, shape: Shape, device: torch.device, dtype: torch.dtype, repeats: int) -> None:
        self.shape, self.device, self.repeats = shape, device, repeats
        self.hardware = hardware(device, dtype)
        self.model = make(shape, device, dtype)
        started = time.perf_counter()
        self.hash = self.model.weight_hash()  # once per model: no part of an edit
        self.hashing = time.perf_counter() - started
        self.weights = sum(p.numel() * p.element_size() for p in self.model.hf.parameters())
        self.head = self.model.unembedding.weight.numel() * dtype.itemsize  # type: ignore[operator]
        self.value = self.model.d_mlp * self.model.d_model
        """Elements of W_V."""
        self.per_token = 2 * (self.weights - 2 * self.head) / dtype.itemsize
        """Floating point operations of one token in all blocks, attention to other tokens not counted."""
        self.itemsize = dtype.itemsize

    def locate(self) -> dict[str, Any]:
        """Layer distances of some instances."""
        data = instances(self.shape.instances, prompt=(PROMPT, PROMPT), answer=(ANSWER, ANSWER))
        start_peak(self.device)
        call = lambda: layer_distances(self.model, data, batch_size=self.shape.batch)  # noqa: E731
        took = seconds(call, self.device, self.repeats) / len(data)
        batches = 2 * len(data) / self.shape.batch
        tokens = 2 * len(data) * (PROMPT + ANSWER)
        floor = self.hardware.floor(batches * (self.weights - 2 * self.head), tokens * self.per_token) / len(data)
        return self._row("locate one instance", took, floor, **self._judged("locate", took, 1 / took, "instances/s"))

    def edit(self) -> dict[str, Any]:
        """One DINM edit of the last layer, ten steps."""
        [instance] = instances(1, prompt=(PROMPT, PROMPT), answer=(ANSWER, ANSWER))
        method = Dinm(layer=self.model.n_layers - 1)
        start_peak(self.device)
        took = seconds(lambda: method.detoxify(self.model, instance), self.device, self.repeats)
        # Two sequences below W_V once. A step reads the float32 master and writes its gradient; Adam reads weight,
        # gradient and two moments and writes three of them; the unembedding is read forwards and backwards.
        below = 2 * (self.weights - 2 * self.head)
        step = 4 * self.value * (1 + 1 + 4 + 3) + 2 * self.head
        floor = self.hardware.floor(below + method.steps * step, (PROMPT + ANSWER) * self.per_token)
        return self._row("edit, last layer", took, floor, **self._judged("edit", took, 1 / took, "edits/s"))

    def decode(self) -> list[dict[str, Any]]:
        """Edited models decoded together, each on its own prompts; reading the prompts is timed alone and taken off."""
        rows: list[dict[str, Any]] = []
        prompts = [i.adversarial_prompt for i in instances(PER_EDIT * max(EDITS), prompt=(PROMPT + ANSWER,) * 2)]
        name = self.model.value_name(self.model.n_layers - 1)
        delta = 1e-3 * torch.randn(self.model.value_weight(self.model.n_layers - 1).shape)
        made_on = Provenance("benchmark", self.model.source, self.hash, layer=self.model.n_layers - 1)
        edits = [WeightEdit({name: delta * (1 + k / max(EDITS))}, made_on) for k in range(max(EDITS))]
        for n in EDITS:
            asked, which = prompts[: PER_EDIT * n], [i // PER_EDIT for i in range(PER_EDIT * n)]
            written: list[int] = []

            def run(new: int, asked: list[str] = asked, which: list[int] = which, n: int = n, written=written) -> None:
                answers = generate_edited(
                    self.model, asked, which, edits[:n], max_new_tokens=new, batch_size=len(asked)
                )
                written[:] = [a.n_tokens + a.ended for a in answers]

            start_peak(self.device)
            read = seconds(lambda run=run: run(1), self.device, self.repeats)
            took = seconds(lambda run=run: run(self.shape.new_tokens), self.device, self.repeats) - read
            tokens = sum(written) - len(asked)
            # A step reads every weight once, a W_V for each edit, and the keys and values of all rows.
            length = PROMPT + ANSWER + self.shape.new_tokens / 2
            kv = 2 * self.shape.layers * self.shape.kv_heads * (self.shape.d_model // self.shape.heads) * self.itemsize
            moved = self.weights - self.head + (n - 1) * self.value * self.itemsize + len(asked) * length * kv
            steps = max(written) - 1
            floor = steps * self.hardware.floor(moved, len(asked) * self.per_token)
            row = self._row(f"decode, {n} edited x {PER_EDIT} prompts", took / steps, floor / steps)
            rows.append({**row, "per second": tokens / took, "of": "tokens/s", "prompts read s": read})
        one, most = rows[0], rows[-1]
        judged = {
            "of the roofline": 1 / most["times the floor"],
            "against one at a time": most["per second"] / one["per second"],
        }
        for target, value in judged.items():
            most[target] = value
            most[f"target, {target}"] = TARGETS[target]
            if self.device.type == "cuda":
                most[f"holds, {target}"] = value >= TARGETS[target]
        return rows

    def _row(self, what: str, took: float, floor: float, **more: Any) -> dict[str, Any]:
        row = {"what": what, "s": took, "floor s": floor, "times the floor": took / floor}
        return {**row, "peak GiB": peak(self.device), **more}

    def _judged(self, name: str, took: float, per_second: float, of: str) -> dict[str, Any]:
        told = {"per second": per_second, "of": of, "target s": TARGETS[name]}
        return {**told, "holds": took <= TARGETS[name]} if self.device.type == "cuda" else told
