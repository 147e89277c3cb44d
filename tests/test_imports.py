"""The arrows of the architecture: who may import whom, and what must stay light."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "interp"

# Lower number = lower layer. A module imports only from lower layers, or from its own unit.
LAYERS = {
    "errors": 0,
    "commands": 1,
    "options": 1,
    "records": 1,
    "stats": 2,
    "runs": 2,
    "slots": 2,
    "standin": 2,
    "layouts": 2,
    "texts": 2,
    "heap": 2,
    "attention": 3,
    "products": 3,
    "demo": 3,
    "endpoint": 3,
    "safeedit": 4,
    "checkpoints": 4,
    "decode": 4,
    "models": 5,
    "places": 6,
    "prefix": 6,
    "edits": 6,
    "capture": 7,
    "multi": 7,
    "locate": 7,
    "judges": 7,
    "methods": 8,
    "building": 8,
    "evaluation": 8,
    "mechanism": 8,
    "plots": 8,
    "pipeline": 9,
    "calibrate": 10,
    "costs": 10,
    "compare": 11,
    "benchmark": 11,
}
# Command lines: they may import everything below compare.
PROGRAMS = {"interp.demo.pretrain", "interp.demo.evaluate", "interp.safeedit.__main__"}


def unit(module: str) -> str:
    return module.split(".")[1] if "." in module else ""


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("interp"):
            if node.module == "interp":
                found |= {f"interp.{alias.name}" for alias in node.names}
            else:
                found.add(node.module)
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names if alias.name.startswith("interp.")}
    return found


MODULES = sorted(
    (".".join(["interp", *p.relative_to(PACKAGE).with_suffix("").parts]).removesuffix(".__init__"), p)
    for p in PACKAGE.rglob("*.py")
    if p != PACKAGE / "__init__.py"
)


@pytest.mark.parametrize(("module", "path"), MODULES, ids=[m for m, _ in MODULES])
def test_imports_run_one_way(module: str, path: Path) -> None:
    here = unit(module)
    assert here in LAYERS, f"{module}: add the unit {here!r} to LAYERS"
    if module in PROGRAMS:
        return
    for target in imports(path):
        there = unit(target)
        if there == here:
            continue
        assert LAYERS[there] < LAYERS[here], f"{module} (layer {LAYERS[here]}) imports {target} (layer {LAYERS[there]})"


COMPOSES = {"ablations": {"dinm"}}  # ablations of a method are made of that method


def test_methods_never_import_each_other() -> None:
    methods = PACKAGE / "methods"
    shared = {"base"} | {p.stem for p in methods.glob("_*.py")}
    for path in methods.glob("*.py"):
        if path.stem == "__init__":
            continue
        for target in imports(path):
            parts = target.split(".")
            if parts[1] == "methods" and len(parts) > 2:
                allowed = shared | {path.stem} | COMPOSES.get(path.stem, set())
                assert parts[2] in allowed, f"{path.name} imports {target}"


LIGHT = ["interp", "interp.records", "interp.runs", "interp.stats", "interp.safeedit", "interp.plots", "interp.compare"]
LIGHT += ["interp.endpoint", "interp.building", "interp.evaluation"]
LIGHT += [f"interp.{name}.__main__" for name in ("benchmark", "calibrate", "evaluation", "judges", "safeedit")]
LIGHT += ["interp.demo.evaluate", "interp.demo.pretrain"]


def test_light_modules_do_not_import_torch() -> None:
    code = f"""
import importlib, sys
for name in {LIGHT!r}:
    importlib.import_module(name)
    heavy = [m for m in ("torch", "transformers", "transformer_lens", "sklearn", "trl") if m in sys.modules]
    assert not heavy, (name, heavy)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
