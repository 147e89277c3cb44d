"""Execute the notebooks: py:percent sources in, executed .ipynb out.

python experiments/notebooks.py            # execute and rewrite notebooks/*.ipynb
python experiments/notebooks.py --check    # execute, write nothing; fail where a cell fails or an .ipynb is stale
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

FOLDER = Path(__file__).parents[1] / "notebooks"
TIMEOUT = 600  # seconds a cell may take


def sources(notebook) -> list[tuple[str, str]]:
    """(cell type, source) of every cell: what makes an .ipynb stale when it differs from its .py."""
    return [(cell.cell_type, cell.source.strip()) for cell in notebook.cells]


def execute(path: Path, check: bool) -> str | None:
    """Execute one notebook. Returns what is wrong with it, or None."""
    import jupytext
    import nbformat
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError

    notebook = jupytext.read(path)
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    output = path.with_suffix(".ipynb")
    if check:
        if not output.exists():
            return f"{output.name} is missing; run `make notebooks` and commit it"
        if sources(nbformat.read(output, as_version=4)) != sources(notebook):
            return f"{output.name} is older than {path.name}; run `make notebooks` and commit it"
    start = time.perf_counter()
    try:
        NotebookClient(notebook, timeout=TIMEOUT, resources={"metadata": {"path": str(FOLDER)}}).execute()
    except CellExecutionError as error:
        return f"{path.name}: {error}"
    print(f"{path.name}: {len(notebook.cells)} cells in {time.perf_counter() - start:.0f} s", flush=True)
    if not check:
        for cell in notebook.cells:
            cell.metadata.pop("execution", None)  # wall-clock times would change the file at every run
            if "outputs" in cell:  # warnings on stderr carry paths of this machine
                cell.outputs = [o for o in cell.outputs if o.get("name") != "stderr"]
        nbformat.write(notebook, output)
    return None


def main() -> int:
    """Execute every notebook; 1 where one failed."""
    os.environ.setdefault("PLOTLY_RENDERER", "plotly_mimetype+png")
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "--check", action="store_true", help="write nothing; fail where an .ipynb is older than its .py"
    )
    check = parser.parse_args().check
    wrong = [w for path in sorted(FOLDER.glob("[0-9]*.py")) if (w := execute(path, check))]
    print("\n".join(wrong), file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
