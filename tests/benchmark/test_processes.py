"""Several processes, and processes that die: the bytes of one unbroken process all the same."""

from __future__ import annotations

import random
import time
from pathlib import Path

from benchmark.conftest import QUICK, ROWS, SMALL, UNITS, Processes, ended, kill, same_bytes, until, workers


def units(folder: Path) -> int:
    """Units that are done."""
    return len([f for f in (folder / "units").rglob("*.jsonl") if f.name.count(".") == 1])


def test_a_run_killed_again_and_again_ends_with_the_bytes_of_an_unbroken_one(
    processes: Processes, unbroken: Path, tmp_path: Path
) -> None:
    out, rng = tmp_path / "run", random.Random(0)
    for _ in range(2):
        process = processes.benchmark(*SMALL, "--device", "cpu", "--out", str(out))
        before = units(out)
        until(lambda before=before: units(out) > before, process)
        time.sleep(rng.uniform(0, 0.3))
        kill(process)
        assert not (out / "table2.json").exists()
    code, _, err = ended(processes.benchmark(*SMALL, "--device", "cpu", "--out", str(out)))
    assert code == 0, err
    same_bytes(unbroken, out)


def test_processes_started_together_give_the_same_bytes_and_print_once(
    processes: Processes, unbroken: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    code, told, err = ended(processes.launched(*SMALL, "--out", str(out)))
    assert code == 0, err
    same_bytes(unbroken, out)
    assert told.count("table2: DINM's ablations") == 1
    assert all(err.count(f"\n{name}: ") == 1 for name in ROWS)
    assert units(out) == UNITS * len(ROWS)


def test_one_of_several_processes_is_killed_and_a_rerun_completes(
    processes: Processes, unbroken: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    launcher = processes.launched(*SMALL, "--out", str(out))
    until(lambda: units(out) >= 1, launcher)
    workers(launcher)[-1].kill()
    code, told, _ = ended(launcher)
    assert code != 0
    assert "table2: DINM's ablations" not in told
    code, _, err = ended(processes.benchmark(*SMALL, "--device", "cpu", "--out", str(out)))
    assert code == 0, err
    same_bytes(unbroken, out)


def test_hand_made_shards_at_the_same_time_train_once_and_give_the_same_bytes(
    processes: Processes, tmp_path: Path
) -> None:
    small = ["table1", "--limit", "2", "--block", "1", "--row", "ProFS", *QUICK, "--device", "cpu", "--out"]
    out, alone = tmp_path / "run", tmp_path / "alone"
    both = [processes.benchmark(*small, str(out), "--shard", f"{i}/2") for i in (1, 2)]
    for process in both:
        code, _, err = ended(process)
        assert code == 0, err
    assert ended(processes.benchmark(*small, str(out), "--merge"))[0] == 0
    assert ended(processes.benchmark(*small, str(alone)))[0] == 0
    same_bytes(alone, out, ("responses.jsonl", "table1.json", "table1.csv", "table1.md", "table1.tex"))
    made = sorted(f.name for f in (out / "made").glob("*.safetensors"))
    assert made == ["profs.safetensors"]
