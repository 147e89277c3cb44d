"""Locating 64 instances against one plain Hugging Face forward over the same tokens. Claim: at most 1.5 times its time.

The plain forward sees the same rows in the same batches, sorted by length, with its vocabulary logits.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from common import instances, medians, model_a, report, script

if TYPE_CHECKING:
    from interp.models import HookedModel

N, BATCH, CLAIM = 64, 8, 1.5


def plain_forwards(model: HookedModel, rows: list[list[int]]) -> None:
    """Every row once through the model, `BATCH` at a time."""
    import torch

    with torch.no_grad():
        for start in range(0, len(rows), BATCH):
            tokens = model.pad(rows[start : start + BATCH], side="right")
            model.hf(tokens.input_ids, attention_mask=tokens.attention_mask, use_cache=False)


def main(repeats: int) -> None:
    """Measure and report."""
    from interp.locate import CONVENTIONS, _encode, layer_distances

    model = model_a(n_layers=6, d_model=264, d_mlp=704)  # 11M parameters: the reading weighs more than in a large one
    data = instances(N, prompt=(40, 240), answer=(20, 80))
    rows = []
    for name, convention in CONVENTIONS.items():
        pairs = sorted((_encode(model, i, convention, 1000, 600) for i in data), key=lambda p: p.width)
        sequences = [row for pair in pairs for row in pair.rows]
        times = medians(
            {
                "plain": lambda sequences=sequences: plain_forwards(model, sequences),
                "locate": lambda convention=convention: layer_distances(model, data, convention, BATCH),
            },
            repeats,
        )
        ratio = times["locate"] / times["plain"]
        rows.append(
            {
                "convention": name,
                "tokens": sum(map(len, sequences)),
                "plain forward s": times["plain"],
                "locate s": times["locate"],
                "ratio": ratio,
                "at most": CLAIM,
                "holds": ratio <= CLAIM,
            }
        )
    report(
        "locate", rows, repeats=repeats, instances=N, batch=BATCH, model="Llama, 6 layers, d_model 264, vocabulary 8000"
    )


if __name__ == "__main__":
    script(main, 3, __doc__)
