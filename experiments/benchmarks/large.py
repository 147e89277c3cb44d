"""A large model at real prompt lengths: locate, edit and decode, each beside the floor of the hardware it runs on.

    python experiments/benchmarks/large.py        # with CUDA: a 7B Mistral shape in bf16; else a small shape on the CPU

Weights are random and made on the device: nothing is downloaded. Times are medians: wall seconds with the device waited
for, on a CPU the process's CPU seconds on one thread. A floor is what must at least be done: bytes over the bandwidth
of a large copy, or products over the rate of a large one, whichever takes longer, both measured here in that unit. The
targets are those for one H200; on a CPU none is judged.
"""

from __future__ import annotations

import argparse
from dataclasses import asdict

from common import RESULTS, at_least_one


def main() -> None:
    """Measure, print and write results/large_<device>.json."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--repeats", type=at_least_one, default=3)
    parser.add_argument("--small", action="store_true", help="the small shape on a GPU, too")
    asked = parser.parse_args()
    import torch
    from large_measure import ANSWER, PROMPT, SEVEN_B, SMALL, TARGETS, UNITS, Benchmark

    from interp.runs import git_commit, versions, write_json

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    shape = SEVEN_B if device.type == "cuda" and not asked.small else SMALL
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32  # few CPUs multiply in bf16
    if device.type == "cpu":
        torch.set_num_threads(1)
    bench = Benchmark(shape, device, dtype, asked.repeats)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    gb, tera = bench.hardware.bandwidth / 1e9, bench.hardware.rate / 1e12
    print(f"{bench.model!r} on {name}: {gb:.3g} GB/s, {tera:.3g} Tflop/s, weights hashed in {bench.hashing:.2g} s")
    rows = [bench.locate(), bench.edit(), *bench.decode()]
    for row in rows:
        told = (f"{k} {v:.3g}" if isinstance(v, float) else f"{k} {v}" for k, v in row.items() if k != "what")
        print(f"{row['what']}: " + ", ".join(told))
    if device.type == "cpu":
        print("no target is judged: they are for one H200")
    facts = {
        "device": name,
        "threads": torch.get_num_threads(),
        "dtype": str(dtype).removeprefix("torch."),
        "unit": UNITS[device.type],
    }
    write_json(
        RESULTS / f"large_{device.type}.json",
        {
            "rows": rows,
            "shape": asdict(shape),
            "hardware": asdict(bench.hardware),
            "hashing s": bench.hashing,
            "prompt tokens": PROMPT,
            "answer tokens": ANSWER,
            "repeats": asked.repeats,
            "targets for one H200": TARGETS,
            **facts,
            "versions": versions(),
            "commit": git_commit(),
        },
    )


if __name__ == "__main__":
    main()
