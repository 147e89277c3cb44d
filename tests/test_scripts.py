"""Scripts of `experiments/` as a user meets them: each says what it does, at once, and does nothing else when asked."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[1] / "experiments"
SCRIPTS = [p for p in sorted(FOLDER.rglob("*.py")) if '__name__ == "__main__"' in p.read_text(encoding="utf-8")]
HELP = """
import runpy, sys
sys.argv = [sys.argv[1], "--help"]
sys.path.insert(0, sys.argv[0].rpartition("/")[0])
try:
    runpy.run_path(sys.argv[0], run_name="__main__")
    code = "went on"
except SystemExit as ended:
    code = ended.code
heavy = [m for m in ("torch", "transformers", "transformer_lens", "sklearn", "scipy", "trl") if m in sys.modules]
sys.exit(f"exit code {code}, imported {heavy}" if code or heavy else 0)
"""


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda p: p.relative_to(FOLDER).as_posix())
def test_help_comes_before_heavy_imports_and_before_any_work(script: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", HELP, script.as_posix()], capture_output=True, text=True, check=False, cwd=FOLDER.parent
    )
    assert done.returncode == 0, done.stderr
    assert "usage:" in done.stdout.lower()


def test_the_scripts_are_found() -> None:
    names = {p.name for p in SCRIPTS}
    assert {"figures.py", "table1.py", "notebooks.py", "decode.py", "growth.py", "large.py"} <= names


def test_every_part_that_the_decoding_benchmark_offers_can_be_measured() -> None:
    code = "import decode, decode_parts; assert set(decode.PARTS) == set(decode_parts.MEASURES)"
    folder = FOLDER / "benchmarks"
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
