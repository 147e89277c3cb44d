"""Peak memory and bytes on disk of a run, from the shapes of the model and the lengths of the data.

*Memory* is the resident memory of the process on a CPU at its peak: what Python and its libraries take, which was
measured once and is a constant, and the tensors of the largest stage. On a GPU the tensors alone are what counts there.
*Disk* is every byte in the run folder and what is added to the cache, at the end of the run.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from interp.costs.asking import Asking
from interp.evaluation import Item
from interp.methods._trl import Training
from interp.models import HookedModel

MIB = 2**20
LIBRARIES = 600 * MIB
"""Python with torch, transformers, scikit-learn and plotly, used once; measured on the demo, Linux, without CUDA."""
TRAINERS = 150 * MIB
"""What trl and its like add, from the first training on."""
RESPONSE = 270
"""Bytes of a response's record beside its prompt and its text."""


@dataclass(frozen=True)
class Shape:
    """What memory depends on."""

    parameters: int
    item: int
    """Bytes of a weight."""
    layers: int
    d_model: int
    d_mlp: int
    vocab: int
    kv_width: int
    """Numbers that a token's keys take in one layer."""

    @classmethod
    def of(cls, model: HookedModel) -> Shape:
        """The shape of a model; its weights are not looked at."""
        config = model.hf.config.get_text_config()
        heads = config.num_attention_heads
        width = getattr(config, "head_dim", None) or model.d_model // heads
        return cls(
            sum(p.numel() for p in model.hf.parameters()),
            model.dtype.itemsize,
            model.n_layers,
            model.d_model,
            model.d_mlp,
            model.vocab_size,
            width * (getattr(config, "num_key_value_heads", None) or heads),
        )

    @property
    def weights(self) -> int:
        """Bytes of one model."""
        return self.parameters * self.item

    @property
    def matrix(self) -> int:
        """Numbers in one W_V."""
        return self.d_model * self.d_mlp

    def cache(self, rows: int, positions: int) -> int:
        """Bytes of keys and values."""
        return 2 * rows * positions * self.layers * self.kv_width * self.item

    def graph(self, rows: int, positions: int) -> int:
        """Bytes that a backward pass needs: of each block about eight streams and three MLP widths a token, and of the
        vocabulary the logits, their log-probabilities, and the gradients of both."""
        each = self.layers * (8 * self.d_model + 3 * self.d_mlp) + 4 * self.vocab
        return 4 * rows * positions * each

    def training(self, method: Training, positions: int, reference: bool) -> int:
        """Bytes of a training: a float32 copy with gradient and Adam's two moments, a reference, one micro-batch."""
        copies = (4 if method.lora is None else 1) + reference
        rows = method.batch_size // method.accumulate * (2 if reference else 1)
        return 4 * copies * self.parameters + self.graph(rows, positions)

    def decoding(self, rows: int, positions: int, edits: int = 0, budget: int | None = None) -> int:
        """Bytes of decoding: the cache, the edits' deltas and the matrices they make; with a budget (`--delta-memory`)
        no more of either than it allows, but always one matrix."""
        deltas, matrices = 4 * edits * self.matrix, self.item * edits * self.matrix
        if budget is not None:
            deltas, matrices = min(deltas, budget), min(matrices, max(budget, self.item * self.matrix))
        return self.cache(rows, positions) + deltas + matrices

    def reading(self, rows: int, positions: int, answer: int) -> int:
        """Bytes of two models' logits at the answers' tokens, in float32, with their log-probabilities."""
        return 6 * 4 * rows * answer * self.vocab + 4 * rows * positions * (3 * self.d_model + 2 * self.d_mlp)


def resident(sizes: Mapping[str, int], trains: bool) -> dict[str, int]:
    """Bytes of each stage's tensors with the libraries behind them."""
    return {name: LIBRARIES + (TRAINERS if trains else 0) + size for name, size in sizes.items()}


def responses_bytes(asking: Asking, items: Iterable[Item]) -> int:
    """Bytes of the records of some answers."""
    found = 0
    for item in items:
        prompt = asking.model.format_prompt(item.query, item.suffix, item.prefix)
        found += len(prompt.encode()) + asking.characters(item) + RESPONSE
    return found


def spoken(size: float) -> str:
    """Bytes as MiB or GiB."""
    return f"{size / 2**30:.1f} GiB" if size >= 2**30 else f"{size / MIB:.1f} MiB"
