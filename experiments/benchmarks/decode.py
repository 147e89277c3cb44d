"""Decoding many edited models at once against Hugging Face's `generate`, and the whole benchmark against a plain loop.

Every ratio is of CPU time, with equal tokens asserted where both sides answer. A slow baseline is measured on a few
edits and scaled, as its cost is linear in them by construction; `baseline_n` says on how many. Where our products are
oneDNN's (`interp.products`) a line without a claim says what is left of the ratio by MKL's, which the baseline uses.
Beside the ratios of two parts stands about the most that they could be on the machine: those of a loop that does
nothing but products. `--part` measures some parts and keeps the other ones of the file, which is named by the
processor's instructions and the library of our products: ratios of one kind do not hold for another.
"""

from __future__ import annotations

import argparse

from common import RESULTS, at_least_one

PARTS = (
    "shared",
    "own",
    "shared-short",
    "own-short",
    "shared-middle",
    "refill",
    "whole",
    "whole-repeating",
    "product",
    "edits-together",
    "bfloat16",
    "profile",
)
MODEL = "Llama, 12 layers, d_model 768, d_mlp 2048, vocabulary 8000, float32, random weights"


def main(names: list[str], rounds: int) -> None:
    """Measure parts in turn; each is written as it ends, beside those of earlier calls."""
    import torch
    from common import model_a
    from decode_inside import small_model
    from decode_parts import MEASURES, OF_SMALL
    from decoding import NEW, PROMPT

    from interp import products
    from interp.runs import git_commit, read_json, versions, write_json

    torch.set_num_threads(1)
    library = "oneDNN" if products.worthwhile() else "MKL"
    file = RESULTS / f"decode-{torch.backends.cpu.get_cpu_capability()}-{library}.json".lower()
    commit = git_commit()  # as it was when measuring began
    for name in names:
        model = small_model() if name in OF_SMALL else model_a()
        rows, facts = MEASURES[name](model, rounds)
        kept = read_json(file)["parts"] if file.exists() else {}
        machine = {"cpu": products.processor(), "threads": torch.get_num_threads(), "unit": "process CPU seconds"}
        machine["our products"] = library
        kept[name] = {"rows": rows, **facts, "machine": machine, "commit": commit, "versions": versions()}
        write_json(file, {"model": MODEL, "prompt": PROMPT, "new tokens": NEW, "parts": kept})
        for one in rows:
            claim = "" if one["claim"] is None else f", claim {one['claim']:g}: {'holds' if one['holds'] else 'MISSED'}"
            print(f"{one['what']} against {one['against']}: {one['times cheaper']:.2f}x{claim}", flush=True)
        for fact, value in facts.items():
            print(f"  {fact}: {value}", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--part", action="append", choices=PARTS, help="Only this part; repeat.")
    parser.add_argument("--rounds", type=at_least_one, default=1, help="Rounds of what is not scaled.")
    asked = parser.parse_args()
    main(asked.part or list(PARTS), asked.rounds)
