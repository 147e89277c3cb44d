"""What the benchmarks share: the model and data they measure on, CPU time, and a table with a JSON file beside it.

Times are process CPU seconds on one thread, so that another load on the machine moves them little; a claim is a ratio
of two medians within one run, measured in turn where both sides have as many rounds.
"""

from __future__ import annotations

import argparse
import os
import random
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from interp.records import Instance, Knowledge
from interp.runs import git_commit, versions, write_json

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

    from interp.models import HookedModel

RESULTS = Path(__file__).parent / "results"
WORDS = 7990
"""One token a word, so that lengths below are tokens."""


def model_a(n_layers: int = 12, d_model: int = 768, d_mlp: int = 2048, vocab: int = 8000) -> HookedModel:
    """A random Llama of 97M parameters in float32 (12 layers, d_model 768, d_mlp 2048, vocabulary 8,000)."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from interp.models import HookedModel

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=vocab,
        hidden_size=d_model,
        intermediate_size=d_mlp,
        num_hidden_layers=n_layers,
        num_attention_heads=12,
        max_position_embeddings=2048,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=1,
        tie_word_embeddings=False,
    )
    return HookedModel.from_hf(LlamaForCausalLM(config), word_tokenizer(), "model A")


def word_tokenizer() -> PreTrainedTokenizerFast:
    """One token a word, w0 to w7989; ids below 8,000."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    ids = {"<s>": 0, "</s>": 1, "<unk>": 2, **{f"w{i}": i + 3 for i in range(WORDS)}}
    core = Tokenizer(models.WordLevel(ids, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=core, bos_token="<s>", eos_token="</s>", pad_token="</s>")


def instances(n: int, prompt: tuple[int, int] = (240, 240), answer: tuple[int, int] = (60, 60)) -> list[Instance]:
    """Instances of random words; prompts and answers have lengths in the ranges given, in tokens."""
    rng = random.Random(0)

    def text(low: int, high: int) -> str:
        return " ".join(f"w{rng.randrange(WORDS)}" for _ in range(rng.randint(low, high)))

    return [
        Instance(
            id=i,
            category="",
            question=text(12, 12),
            adversarial_prompt=text(*prompt),
            attack_category="",
            attack_name="",
            safe_generation=text(*answer),
            unsafe_generation=text(*answer),
            knowledge=Knowledge(text(30, 30), text(60, 60)),
        )
        for i in range(n)
    ]


def cpu_seconds(call: Callable[[], Any]) -> float:
    """Process CPU seconds of one call."""
    started = time.process_time()
    call()
    return time.process_time() - started


def medians(calls: Mapping[str, Callable[[], Any]], repeats: int) -> dict[str, float]:
    """Median CPU seconds of each call, measured in turn so that a change of the machine's mood meets all of them."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(repeats):
        for name, call in calls.items():
            times[name].append(cpu_seconds(call))
    return {name: statistics.median(values) for name, values in times.items()}


def at_least_one(text: str) -> int:
    """A number of repeats, from the command line."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number from 1 on, got {text}")
    return int(text)


def script(main: Callable[[int], None], default: int, description: str | None) -> None:
    """The whole of a script: measure, on one thread, with as many repeats as the command line says."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--repeats", type=at_least_one, default=default, help=f"default {default}")
    repeats = parser.parse_args().repeats
    import torch

    torch.set_num_threads(1)
    main(repeats)


def report(name: str, rows: list[dict[str, Any]], **facts: Any) -> None:
    """Print the rows as a table and write them, with what they were measured on, to results/<name>.json."""
    import torch

    from interp.products import processor

    columns = list(rows[0])
    cells = [[_cell(row[c]) for c in columns] for row in rows]
    widths = [max(len(c), *(len(row[i]) for row in cells)) for i, c in enumerate(columns)]
    for line in (columns, ["-" * w for w in widths], *cells):
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
    missed = [row for row in rows if not row.get("holds", True)]
    print(f"{len(rows) - len(missed)} of {len(rows)} claims hold")
    machine = {"cpu": processor(), "threads": torch.get_num_threads(), "unit": "process CPU seconds"}
    write_json(
        RESULTS / f"{name}.json",
        {"rows": rows, **facts, "machine": machine, "versions": versions(), "commit": git_commit()},
    )


def _cell(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "NO"
    return f"{value:.3g}" if isinstance(value, float) else str(value)
