"""Regenerate `figures/deep/` from the mechanism laboratory on the demo, or check the committed ones.

    python experiments/deep_figures.py            # run compare --deep, rewrite figures/deep/
    python experiments/deep_figures.py RUN        # take the findings of a finished run instead
    python experiments/deep_figures.py --check    # rewrite nothing; exit 1 where something differs

The check has two halves, as that of `experiments/figures.py`. Drawing is exact: the committed findings must give the
committed figures. Measuring again is held to tolerances, and only the cheap analyses (`CHEAP`) are measured again, in
the run that the check of the main figures leaves behind.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from interp.errors import InputError
from interp.records import Estimate, Finding, loads

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "figures" / "deep"
RECORDS = FOLDER / "findings"
METHODS = ("sft", "dpo", "dinm")
CHEAP = ("margins", "margin_lens", "toxic_value_vectors", "first_tokens")
"""Analyses of a few seconds; between them they use every model, its activations and its weights."""
SLACK = 0.15
"""How far two trainings may lie apart beyond their intervals, as a share of the panel's largest value."""


def read(folder: Path, names: Sequence[str]) -> list[Finding]:
    """Findings of a folder by name, in that order; those that are not there are left out."""
    files = [folder / f"{name}.json" for name in names]
    return [loads(Finding, file.read_text(encoding="utf-8")) for file in files if file.exists()]


def order() -> list[str]:
    """Names of all findings, in the order of the report."""
    from interp.mechanism.deep import ANALYSES

    return [*(a.name for a in ANALYSES), "sequential", "repeated"]


def draw(findings: Sequence[Finding], folder: Path) -> None:
    """Draw findings into a folder, with their captions."""
    from interp.plots.findings import draw_findings
    from interp.plots.gallery import save_gallery

    note = save_gallery(draw_findings(findings), folder, planted=True).note
    print(note or f"{len(findings)} findings drawn into {folder.name}", flush=True)


def regenerate(run: Path | None) -> None:
    """Rewrite `figures/deep/` from a finished run, or from a fresh one."""
    if run is None:
        run = ROOT / "runs" / "deep"
        command = [sys.executable, "-m", "interp.compare", *METHODS, "--deep", "--no-figures", "--out", str(run)]
        subprocess.run(command, check=True, cwd=ROOT)
    findings = read(run / "deep", order())
    if not findings:
        raise InputError(f"{run} holds no findings (deep/*.json); expected a run of compare --deep")
    if FOLDER.exists():
        shutil.rmtree(FOLDER)
    RECORDS.mkdir(parents=True)
    for finding in findings:
        shutil.copyfile(run / "deep" / f"{finding.name}.json", RECORDS / f"{finding.name}.json")
    draw(findings, FOLDER)


def measured_again() -> list[Finding]:
    """The cheap analyses, measured in the run that the check of the main figures left, or in a new one."""
    from interp.mechanism.deep import ANALYSES
    from interp.pipeline import Settings
    from interp.pipeline.deep import look
    from interp.pipeline.progress import Stages
    from interp.pipeline.run import measure_all, prepare

    out = ROOT / "runs" / "ci"
    settings = Settings(methods=METHODS, out=out, deep=True, figures=False)
    with Stages() as stages:
        try:
            study = prepare(settings, stages)
        except InputError:  # a run of other code or other settings
            shutil.rmtree(out)
            study = prepare(settings, stages)
        measure_all(study)
        found = look(study, [a for a in ANALYSES if a.name in CHEAP], sequential=False)
    print("\n".join(found.told), flush=True)
    return list(found.findings)


def values(finding: Finding) -> Iterator[tuple[str, list[tuple[str, Estimate]]]]:
    """Every number of a finding: panel by panel, by name. A cell of a grid has no interval of its own."""
    from interp.mechanism.neurons import ACTIVATIONS

    for panel in finding.curves:
        if panel.title == ACTIVATIONS:  # neurons whose cosines are nearly equal change ranks across processors
            ranked = [(c.name, sorted(c.y, key=lambda e: e.value)) for c in panel.curves]
            yield panel.title, [(f"{name}, the {i}. lowest", e) for name, y in ranked for i, e in enumerate(y, 1)]
            continue
        yield panel.title, [(f"{c.name} at {x:g}", e) for c in panel.curves for x, e in zip(c.x, c.y, strict=True)]
    for panel in finding.bars:
        named = ((f"{s} of {g}", e) for s, row in panel.series.items() for g, e in zip(panel.groups, row, strict=True))
        yield panel.title, [(name, e) for name, e in named if e is not None]
    for panel in finding.grids:
        cells = np.asarray(panel.values, float)
        found = [(f"cell {i}", Estimate(v, v, v, panel.n)) for i, v in enumerate(cells.ravel().tolist())]
        yield panel.title, found


def disagreements(ours: Finding, fresh: Finding) -> list[str]:
    """Where a finding that was measured again does not agree with the committed one, at most three lines a panel."""
    again = dict(values(fresh))
    lines = []
    for title, committed in values(ours):
        if title not in again or len(again[title]) != len(committed):
            lines.append(f"{ours.name}, {title}: other numbers than the committed ones")
            continue
        reach = max((abs(e.value) for _, e in committed if np.isfinite(e.value)), default=0.0)
        found = []
        for (name, was), (_, now) in zip(committed, again[title], strict=True):
            room = SLACK * reach + max(was.high - was.low, now.high - now.low) / 2
            if np.isfinite(was.value) != np.isfinite(now.value) or abs(was.value - now.value) > room:
                found.append(f"{ours.name}, {title}, {name}: committed {was.value:.3g}, now {now.value:.3g}")
        lines += found[:3] + ([f"{ours.name}, {title}: and {len(found) - 3} more"] if len(found) > 3 else [])
    return lines


def check() -> int:
    """1 where the committed findings give other figures, or the cheap ones do not come out again."""
    committed = read(RECORDS, order())
    if not committed:
        print(f"no findings in {RECORDS}", file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory() as scratch:
        redrawn = Path(scratch) / "deep"
        draw(committed, redrawn)
        command = [sys.executable, "experiments/check_figures.py", str(redrawn), str(FOLDER)]
        drawn = subprocess.run(command, cwd=ROOT, check=False).returncode
    ours = {f.name: f for f in committed}
    fresh = {f.name: f for f in measured_again()}
    missing = [f"{name}: committed, but not measured now" for name in CHEAP if name in ours and name not in fresh]
    lines = missing + [line for name in fresh if name in ours for line in disagreements(ours[name], fresh[name])]
    print("\n".join(lines) or f"{len(fresh)} findings measured again agree with the committed ones", flush=True)
    return 1 if lines or drawn else 0


def main() -> int:
    """Regenerate or check; 1 where something differs, 2 for bad input."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("run", type=Path, nargs="?", help="a finished run of compare --deep")
    parser.add_argument("--check", action="store_true", help="compare with the committed figures, write nothing")
    given = parser.parse_args()
    try:
        if given.check:
            return check()
        regenerate(given.run)
    except InputError as error:
        print(f"deep_figures: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
