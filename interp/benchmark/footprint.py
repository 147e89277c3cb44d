"""One measurement of Fig. 7, in the process that this module is run as: peak memory and seconds of a method.

`python -m interp.benchmark.footprint ROW REPEAT SETTINGS` (settings as JSON) prints a `Footprint` (JSON). The baseline
is the resident memory (CUDA: the allocated memory) with the model loaded and one plain forward done; what is reported
is the peak above it. Training libraries are imported before: their code does not count as a method's memory.
"""

from __future__ import annotations

import gc
import json
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from interp.benchmark.settings import Settings
from interp.errors import InputError

FORWARD, BACKWARD = "plain forward", "forward + backward"
CONTROLS = (FORWARD, BACKWARD)
"""What any method that runs, or trains, the model cannot do without; the backward is through all parameters."""


@dataclass(frozen=True)
class Footprint:
    """What one method took, once."""

    row: str
    repeat: int
    peak: int
    """Bytes above the baseline."""
    weights: int
    """Bytes of the model's parameters."""
    seconds: float
    of: str
    """Whose memory: "process" (resident) or "GPU" (allocated by torch)."""
    threads: int


def methods(demo: bool) -> dict[str, Any]:
    """Every method that computes something, by its row; DPO alone, without the SFT that it usually stands on."""
    from interp.benchmark.arms import DpoOnSft, all_methods

    found = {name: m for name, m in all_methods(demo).items() if m.needs != "nothing"}
    return {name: m.dpo if isinstance(m, DpoOnSft) else m for name, m in found.items()}


def rows(demo: bool) -> list[str]:
    """Every row, controls first; a method that prepares has a row for that and one for an edit."""
    found: list[str] = [*CONTROLS]
    for name, method in methods(demo).items():
        found += [training(name), f"{name}, one edit"] if hasattr(method, "prepare") else [name]
    return found


def training(name: str) -> str:
    """The row of what a method has to learn before it edits."""
    return f"{name}, training"


def measure(row: str, repeat: int, settings: Settings) -> Footprint:
    """Measure one row, the `repeat`-th time, in this process, which should be a fresh one.

    Raises:
        InputError: as opening data and model, and as the method does.
    """
    import torch

    from interp.pipeline.study import is_demo, open_model
    from interp.safeedit import load

    benchmark = load(settings.data)
    split = "test" if benchmark.test else "test_ALL"
    instance = benchmark.stratified(split, repeat + 1, settings.seed)[-1]
    model = open_model(settings, settings.model, "vanilla")

    def forward() -> None:
        with torch.no_grad():
            model.logits(model.tokenize([model.format_prompt(instance.adversarial_prompt)]))

    def backward() -> None:
        model.hf.requires_grad_(True)
        prompt, answer = model.encode_pair(instance.adversarial_prompt, instance.safe_generation, eos=True)
        logits = model.logits(model.pad([[*prompt, *answer]]))[0, len(prompt) - 1 : -1]
        torch.nn.functional.cross_entropy(logits, torch.tensor(answer, device=logits.device)).backward()

    todo: Callable[[], Any]
    if row in CONTROLS:
        todo = forward if row == FORWARD else backward
    else:
        method = methods(is_demo(settings))[row.split(", ")[0]]
        train = method.needs == "the train split" or hasattr(method, "prepare")
        if train and not benchmark.train:
            raise InputError(f"{row} needs a train split, and {benchmark.name} has none: leave it out (--row)")
        if method.needs == "the train split":
            _import_trainers()
            todo = lambda: method.detoxify(model, benchmark.train)  # noqa: E731
        elif hasattr(method, "prepare") and row == training(row.split(", ")[0]):
            todo = lambda: method.prepare(model, benchmark.train, benchmark.val)  # noqa: E731
        else:
            if hasattr(method, "prepare"):
                method = method.prepare(model, benchmark.train, benchmark.val)
            todo = lambda: method.detoxify(model, instance)  # noqa: E731
    forward()
    peak, seconds = peak_of(todo, model.device)
    weights = sum(p.numel() * p.element_size() for p in model.hf.parameters())
    of = "GPU" if model.device.type == "cuda" else "process"
    return Footprint(row, repeat, peak, weights, seconds, of, torch.get_num_threads())


def peak_of(call: Callable[[], Any], device: Any) -> tuple[int, float]:
    """(bytes above what there was before, seconds) of one call. Resident memory is exact to about a MiB.

    Raises:
        InputError: neither CUDA nor Linux, where no peak can be read.
    """
    import torch

    gc.collect()
    if device.type == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
    else:
        before = _reset_peak()
    started = time.perf_counter()
    kept = call()  # what it returns is part of what it needs
    if device.type == "cuda":
        torch.cuda.synchronize()
        peak = torch.cuda.max_memory_allocated()
    else:
        peak = _status("VmHWM")
    seconds = time.perf_counter() - started
    del kept
    return max(0, peak - before), seconds


def _reset_peak() -> int:
    """Start counting the peak of resident memory anew; the resident memory now, in bytes."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
        return _status("VmRSS")
    except OSError as error:
        raise InputError(f"the peak of memory can be read on Linux or CUDA only: {error}") from error


def _status(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith(field)).split()[1])


def _import_trainers() -> None:
    import peft  # noqa: F401
    from datasets import Dataset  # noqa: F401
    from trl import DPOConfig, DPOTrainer, SFTConfig, SFTTrainer  # noqa: F401  # pyright: ignore


def main() -> int:
    """Measure what the arguments say; 2 for bad input."""
    try:
        row, repeat, given = sys.argv[1:]
        settings = {**json.loads(given), "methods": ()}
        settings["judge"] = tuple(settings["judge"])  # JSON has no tuples
        found = measure(row, int(repeat), Settings(**settings))
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    print(json.dumps(asdict(found)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
