"""Scripts of `experiments/` as a user meets them: each says what it does, at once, and does nothing else when asked."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[1] / "experiments"
SCRIPTS = [p for p in sorted(FOLDER.rglob("*.py")) if '__name__ == "__main__"' in p.read_text(encoding="utf-8")]
HELP = """
import runpy, sys
from contextlib import redirect_stdout
from io import StringIO
wrong, path = [], list(sys.path)
for script in sys.argv[1:]:
    sys.argv, sys.path[:] = [script, "--help"], [script.rpartition("/")[0], *path]
    with redirect_stdout(StringIO()) as said:
        try:
            code = runpy.run_path(script, run_name="__main__") and "none: it went on"
        except SystemExit as ended:
            code = ended.code
    heavy = [m for m in ("torch", "transformers", "transformer_lens", "sklearn", "scipy", "trl") if m in sys.modules]
    if code or heavy or "usage:" not in said.getvalue().lower():
        wrong.append(f"{script}: exit code {code}, imported {heavy}, said {said.getvalue()[:80]!r}")
    if heavy:
        break
sys.exit("\\n".join(wrong) or 0)
"""


def test_help_comes_before_heavy_imports_and_before_any_work() -> None:
    assert {"figures.py", "table1.py", "notebooks.py", "decode.py", "growth.py", "large.py"} <= {
        p.name for p in SCRIPTS
    }
    command = [sys.executable, "-c", HELP, *(p.as_posix() for p in SCRIPTS)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=FOLDER.parent, timeout=300)
    assert done.returncode == 0, done.stderr


def test_every_part_that_the_decoding_benchmark_offers_can_be_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    folder = FOLDER / "benchmarks"
    monkeypatch.syspath_prepend(str(folder))
    for file in folder.glob("*.py"):
        monkeypatch.delitem(sys.modules, file.stem, raising=False)  # and what is imported now goes afterwards
    before = set(sys.modules)
    try:
        offered, measured = importlib.import_module("decode").PARTS, importlib.import_module("decode_parts").MEASURES
        assert set(offered) == set(measured)
    finally:
        for name in {file.stem for file in folder.glob("*.py")} - before:
            sys.modules.pop(name, None)
