"""Regenerate `figures/` from a fresh comparison on the demo, or check the committed ones.

    python experiments/figures.py            # run the comparison, rewrite figures/
    python experiments/figures.py --check    # run it again, rewrite nothing; exit 1 where something differs

The check has two halves. Drawing is exact: the committed record must give the committed figures (rtol 1e-4, atol 1e-6).
Measuring is not, across processors: training amplifies the last bit of a float. So a fresh run must agree with the
committed record as measurements do: what only the shipped weights decide to 1 %, everything else within the intervals.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from interp.pipeline import output
from interp.records import Comparison, Estimate, loads

ROOT = Path(__file__).parents[1]
FIGURES = ROOT / "figures"
RECORD = FIGURES / "comparison.json"
SLACK = 10.0
"""Percentage points that a rate may differ beyond the larger half-width of the two intervals (shares: a hundredth)."""


def run_comparison(out: Path) -> Comparison:
    """The main job, as a user runs it."""
    command = [sys.executable, "-m", "interp.compare", "sft", "dpo", "dinm", "--out", str(out)]
    subprocess.run(command, check=True, cwd=ROOT)
    return loads(Comparison, (out / "comparison.json").read_text(encoding="utf-8"))


def percentages(comparison: Comparison) -> Iterator[tuple[str, Estimate]]:
    """Every behavioural rate of a comparison by name, in percent."""
    for row in comparison.rows:
        for scores in row.defense:
            state = "with S" if scores.suffix else "without S"
            for kind, estimate in {**scores.by_kind, "DG-Avg": scores.dg_avg, "refusal": scores.refusal}.items():
                yield f"{row.name} {kind} {state}", estimate
        for scores in row.general:
            state = "with S" if scores.suffix else "without S"
            for kind in ("kqa", "over_refusal", "over_refusal_wrapped"):
                estimate = getattr(scores, kind)
                if estimate is not None:
                    yield f"{row.name} {kind} {state}", estimate


def fixed(comparison: Comparison) -> Iterator[tuple[str, float]]:
    """Numbers that the shipped weights and data decide alone: nothing is trained for them."""
    yield "toxic layer", float(comparison.layer)
    yield "probe accuracy", comparison.probe.accuracy.value
    for scores in comparison.layer_scores:
        for layer, value in enumerate(scores.values.mean(axis=0)):
            yield f"distance, {scores.convention}, layer {layer}", float(value)
    for region in comparison.rows[0].region:
        yield f"vanilla {region.definition} in null sd", region.z_vanilla


def disagreements(ours: Comparison, fresh: Comparison) -> list[str]:
    """Where a fresh run does not agree with the committed record."""
    found = []
    again = dict(fixed(fresh))
    for name, value in fixed(ours):
        if abs(again[name] - value) > 0.01 * max(abs(value), 1.0):
            found.append(f"{name}: committed {value:.4g}, now {again[name]:.4g}")
    rates = dict(percentages(fresh))
    for name, was in percentages(ours):
        now = rates.get(name)
        if now is None:
            found.append(f"{name}: committed, but not measured now")
            continue
        room = SLACK + max(e.high - e.low for e in (was, now)) / 2
        if abs(now.value - was.value) > room:
            found.append(f"{name}: committed {was.value:.1f} %, now {now.value:.1f} %, allowed {room:.1f} apart")
    inside = {name: (estimate, slack) for name, estimate, slack in inner(fresh)}
    for name, was, slack in inner(ours):
        if name not in inside:
            found.append(f"{name}: committed, but not measured now")
            continue
        now = inside[name][0]
        room = slack + max(e.high - e.low for e in (was, now)) / 2
        if abs(now.value - was.value) > room:
            found.append(f"{name}: committed {was.value:.3g}, now {now.value:.3g}, allowed {room:.2g} apart")
    for was, now in zip(ours.rows, fresh.rows, strict=True):
        if was.shift is not None and now.shift is not None and was.shift.identity != now.shift.identity:
            found.append(f"{was.name}: the shift is an identity in one of the two runs")
        if was.swap is not None and now.swap is not None and was.swap.gated != now.swap.gated:
            found.append(f"{was.name}: the effect is too small to divide into shares in one of the two runs")
        if was.conclusion.verdict != now.conclusion.verdict:
            found.append(f"{was.name}: committed as {was.conclusion.verdict}, now {now.conclusion.verdict}")
    return found


def inner(comparison: Comparison) -> Iterator[tuple[str, Estimate, float]]:
    """What was measured inside, by name, with how far two trainings may lie apart beyond their intervals.

    The intervals are over inputs, and what is exact for one checkpoint has none; that two processors train two
    checkpoints stands in neither. A region's change is held to what random directions see under it, in the same unit:
    nothing smaller is read as a change anywhere.
    """
    for row in comparison.rows:
        if row.shift is not None:
            yield f"{row.name} shift rate, %", row.shift.rate, SLACK
            if row.shift.own_tokens is not None:
                yield f"{row.name} shift on own answers, %", row.shift.own_tokens, SLACK
        if row.swap is not None:
            yield f"{row.name} compliance lost, points", row.swap.compliance_drop, SLACK
            if not row.swap.gated:
                for part in ("erased", "bypassed", "parallel", "downstream"):
                    yield f"{row.name} swap share {part}", getattr(row.swap, part), SLACK / 100
        for region in row.region if row.name != "vanilla" else ():
            null = region.null_change
            yield f"{row.name} change of {region.definition}", region.change, (null.high - null.low) / 2


def main() -> int:
    """Regenerate or check; 1 where something differs."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--check", action="store_true", help="compare with the committed figures, write nothing")
    check = parser.parse_args().check
    if not check:
        out = ROOT / "runs" / "figures"
        if out.exists():
            shutil.rmtree(out)
        comparison = run_comparison(out)
        shutil.copyfile(out / "comparison.json", RECORD)
        output.draw(comparison, FIGURES)
        return 0
    ours = loads(Comparison, RECORD.read_text(encoding="utf-8"))
    with tempfile.TemporaryDirectory() as folder:
        redrawn = Path(folder) / "redrawn"
        output.draw(ours, redrawn)
        drawn = subprocess.run(
            [sys.executable, "experiments/check_figures.py", str(redrawn), str(FIGURES)], cwd=ROOT, check=False
        )
    out = ROOT / "runs" / "ci"
    if out.exists():
        shutil.rmtree(out)
    differ = disagreements(ours, run_comparison(out))
    print("\n".join(differ) or "the fresh run agrees with the committed record", flush=True)
    return 1 if differ or drawn.returncode else 0


if __name__ == "__main__":
    sys.exit(main())
