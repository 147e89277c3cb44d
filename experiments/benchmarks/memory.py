"""What a WeightEdit adds to peak memory. Claim: at most three times the edited matrix, the delta itself included.

Peak resident memory of the process (Linux), reset before the edit is made: the delta, its application and its undo.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from common import model_a, report, script

if TYPE_CHECKING:
    from interp.models import HookedModel

LAYER, CLAIM = 1, 3.0


def peak_added(model: HookedModel) -> int:
    """Bytes that an edit of one matrix adds to the peak."""
    import torch

    from interp.edits import Provenance, WeightEdit

    name, weight = model.value_name(LAYER), model.value_weight(LAYER)
    made_on = Provenance("benchmark", model.source, model.weight_hash(), layer=LAYER)
    Path("/proc/self/clear_refs").write_text("5")
    before = _status("VmRSS")
    edit = WeightEdit({name: torch.full(weight.shape, 1e-3)}, made_on)
    with edit.applied(model):
        pass
    return _status("VmHWM") - before


def _status(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith(field)).split()[1])


def main(repeats: int) -> None:
    """Measure and report."""
    import torch

    rows = []
    for dtype in (torch.float32, torch.bfloat16):
        model = model_a(n_layers=2, d_model=1536, d_mlp=16384)
        model.hf.to(dtype)
        weight = model.value_weight(LAYER)
        matrix = weight.numel() * weight.element_size()
        added = max(peak_added(model) for _ in range(repeats))
        rows.append(
            {
                "dtype": str(dtype).removeprefix("torch."),
                "matrix MiB": matrix / 2**20,
                "added MiB": added / 2**20,
                "times the matrix": added / matrix,
                "at most": CLAIM,
                "holds": added <= CLAIM * matrix,
            }
        )
    report("memory", rows, note="bfloat16: the float32 delta alone is two matrices")


if __name__ == "__main__":
    script(main, 1, __doc__)
