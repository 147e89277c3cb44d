"""How cost grows with depth, width, prompt length and number of instances: every operation beside a plain forward.

    python experiments/benchmarks/growth.py            # measures, writes results/growth.{json,md} and figures/speed
    python experiments/benchmarks/growth.py --quick    # two sizes an axis, once each; prints the table, writes nothing
    python experiments/benchmarks/growth.py --check    # do table and figures follow from results/growth.json?

One size is varied at a time around a base point, on random Llamas in float32. The unit is one plain Hugging Face
forward of the same model over the same prompts with its vocabulary logits, measured in turn with everything else. Times
are process CPU seconds on one thread; an exponent is the least-squares slope of log median cost over log size, its
interval Student's at 95 %, so that a line which is not straight shows as a wide one.
"""

from __future__ import annotations

import argparse
import os
import sys

os.environ["OMP_NUM_THREADS"] = "1"  # before torch: small models are else decoded by two loops side by side

from common import RESULTS, at_least_one

from interp.errors import InputError


def main() -> int:
    """Measure, or check; 1 where the committed files differ."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="two sizes an axis, once each; writes nothing")
    parser.add_argument("--check", action="store_true", help="compare the committed files with results/growth.json")
    parser.add_argument("--repeats", type=at_least_one, default=3)
    given = parser.parse_args()
    import torch
    from growth_measure import AXES, BASE, FOLDER, check, growth_of, rounds

    from interp.plots.growth import markdown, save
    from interp.runs import read_json, write_json, write_text

    torch.set_num_threads(1)
    if given.check:
        try:
            lines = check(growth_of(read_json(RESULTS / "growth.json")))
        except InputError as error:
            print(f"growth: {error}", file=sys.stderr)
            return 2
        print("\n".join(lines) or "growth: as committed")
        return 1 if lines else 0
    if given.quick:
        axes = {a: (label, tuple(sorted({*values[:2], getattr(BASE, a)})[-2:])) for a, (label, values) in AXES.items()}
        print(markdown(growth_of(next(rounds(axes, 1)))))
        return 0
    for raw in rounds(AXES, given.repeats):  # written after each, so that a run that is stopped has fewer repeats
        growth = growth_of(raw)
        write_json(RESULTS / "growth.json", raw)
        write_text(RESULTS / "growth.md", markdown(growth))
        note = save(growth, FOLDER).note
    print(markdown(growth), note, sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
