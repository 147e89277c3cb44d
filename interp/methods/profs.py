"""ProFS, projection filter for subspaces (Uppaal et al., ICLR 2025): no training, the toxic subspace is projected out.

For every layer from a start layer on: T = X_safe - X_unsafe, one row per pair, rows being mean hidden states of the
layer's output; what all texts have in common is taken out of T (centring); the top k right singular vectors of the rest
span the toxic subspace, P projects onto it, and the layer's W_V becomes W_V (I - P) (W_V as [d_mlp, d_model]).
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from interp.capture import stream
from interp.edits import Provenance, WeightEdit
from interp.errors import InputError
from interp.methods._config import check
from interp.methods._linears import as_weight
from interp.methods.base import Detoxified, Needs
from interp.models import HookedModel
from interp.records import Instance

Centring = Literal["top singular vector", "mean", "none"]
Pool = Literal["text", "answer"]
Progress = Callable[[int, int], None]

NOISE = 1e-5
"""A singular value below this share of the largest is float32's rounding: equal texts in other batches differ by it."""


@dataclass(frozen=True, kw_only=True)
class Profs:
    """Configuration of ProFS. The defaults are the paper's for models of 7 B parameters."""

    name: ClassVar[str] = "profs"
    needs: ClassVar[Needs] = "the train split"

    rank: int = 10
    """k, dimensions of the toxic subspace of a layer (paper: 10; 2 for GPT-2 medium)."""
    start_layer: int | None = None
    """First layer that is edited, 0-based; all above it are, too. None: 15/32 of the depth (paper: 15 of 32; 11 of 24
    for GPT-2 medium)."""
    pairs: int = 500
    """How many preference pairs (paper: 500), drawn by `seed`; all of them where there are fewer."""
    centring: Centring = "top singular vector"
    """What is projected out of T, so that the edit leaves it alone.

    "top singular vector": of the (uncentred) safe rows, as in the paper and its code; close to their mean.
    "mean": the direction of the mean of the safe rows.
    "none": nothing (an ablation of the paper).
    """
    pool: Pool = "text"
    """Average hidden states over prompt and answer, as the paper's sentence embeddings, or over the answer's tokens."""
    suffix: str = ""
    """S, put after the query of each pair."""
    max_prompt: int = 1000
    """Longest prompt in tokens; more is cut from the left, and told."""
    max_answer: int = 600
    """Longest answer in tokens; more is cut from the right, and told (paper's code: 128 for the whole text)."""
    batch_size: int = 8
    """Texts per forward pass."""
    seed: int = 0
    """Of the choice of pairs."""

    def __post_init__(self) -> None:
        check(
            self,
            counts=("rank", "pairs", "max_prompt", "max_answer", "batch_size"),
            choices={"centring": ("top singular vector", "mean", "none"), "pool": ("text", "answer")},
        )

    @classmethod
    def demo(cls) -> Profs:
        """The settings for the demo that `experiments/sweep_rivals.py` chose on val: the mildest, as none
        of them raised the defence without costing knowledge."""
        return cls(rank=2, start_layer=2)

    @torch.no_grad()
    def detoxify(
        self, model: HookedModel, instances: Sequence[Instance], progress: Progress | None = None
    ) -> Detoxified:
        """Project the toxic subspace out of W_V of every layer from the start layer on.

        Args:
            model: stays as it is, to the last bit.
            instances: the training split; of them a seeded random `pairs`. A pair is the adversarial prompt with the
                safe and with the unsafe response.
            progress: called with (texts done, texts in all).

        Returns:
            An edit of several matrices. `log` holds for each edited layer the singular values of T ("singular_values",
            after centring, the top 2k), and `seconds`.

        Raises:
            InputError: no instances, an empty response, `start_layer` out of range, fewer pairs than `rank` or a rank
                that leaves nothing of the stream, hidden states that are not finite.
        """
        started, cut = time.perf_counter(), model.truncated
        chosen = self._chosen(instances)
        start = self.start_layer if self.start_layer is not None else model.n_layers * 15 // 32
        layers = range(model.check_layer(start), model.n_layers)
        if self.rank > min(len(chosen), model.d_model - 1):
            raise InputError(
                f"a toxic subspace of rank {self.rank} needs as many pairs and a wider stream: "
                f"got {len(chosen)} pairs, d_model {model.d_model}"
            )
        safe, unsafe = self._embeddings(model, chosen, list(layers), progress)
        deltas, spectra = {}, {}
        for index, layer in enumerate(layers):
            basis, spectrum = self._subspace(safe[index], unsafe[index])
            spectra[layer] = spectrum[: 2 * self.rank].tolist()
            values = model.value_vectors(layer).double().cpu()
            change = -(values @ basis.T) @ basis
            deltas[model.value_name(layer)] = as_weight(model, model.value_name(layer), change.float()).contiguous()
        provenance = Provenance(
            method=self.name,
            model=model.source,
            weight_hash=model.weight_hash(),
            instance_ids=tuple(sorted(i.id for i in chosen)),
            config=asdict(self),
            layer=None,
        )
        log = {
            "singular_values": spectra,
            "pairs": len(chosen),
            "seconds": time.perf_counter() - started,
            "truncated": model.truncated - cut,
        }
        return Detoxified(self.name, WeightEdit(deltas, provenance), suffix=self.suffix, log=log)

    # ------------------------------------------------------------------------------------- inside
    def _chosen(self, instances: Sequence[Instance]) -> list[Instance]:
        if not instances:
            raise InputError("ProFS needs at least one training instance, got none")
        order = list(instances)
        random.Random(self.seed).shuffle(order)
        chosen = order[: self.pairs]
        for instance in chosen:
            for kind, text in (("safe", instance.safe_generation), ("unsafe", instance.unsafe_generation)):
                if not text.strip():
                    raise InputError(f"instance {instance.id} has an empty {kind} response; ProFS compares the two")
        return chosen

    def _embeddings(
        self, model: HookedModel, chosen: Sequence[Instance], layers: list[int], progress: Progress | None
    ) -> tuple[Float[Tensor, "layer pair d_model"], Float[Tensor, "layer pair d_model"]]:
        """Mean hidden state of each text at the output of each layer, float64: safe ones, unsafe ones."""
        texts, starts = [], []
        for answers in ([i.safe_generation for i in chosen], [i.unsafe_generation for i in chosen]):
            for instance, answer in zip(chosen, answers, strict=True):
                head, tail = model.encode_pair(
                    instance.adversarial_prompt, answer, self.suffix, self.max_prompt, self.max_answer, eos=False
                )
                texts.append([*head, *tail])
                starts.append(len(head) if self.pool == "answer" else 0)
        tokens = model.pad(texts, side="right")
        found = torch.zeros(len(layers), len(texts), model.d_model, dtype=torch.float64)
        done = 0
        for batch in stream(model, tokens, "resid_post", layers, batch_size=self.batch_size):
            position = torch.arange(batch.tokens.input_ids.shape[1])
            begin = torch.tensor([starts[i] for i in batch.index])
            counted = (position[None] >= begin[:, None]) & batch.tokens.attention_mask.bool().cpu()
            share = (counted / counted.sum(1, keepdim=True)).double()
            for index, layer in enumerate(layers):
                acts = batch.acts["resid_post", layer].cpu().double().masked_fill(~counted[..., None], 0.0)
                found[index, list(batch.index)] = torch.einsum("bs,bsd->bd", share, acts)
            done += len(batch.index)
            if progress is not None:
                progress(done, len(texts))
        if not bool(torch.isfinite(found).all()):
            raise InputError(f"the hidden states of {model.name} are not finite; check the model")
        return found[:, : len(chosen)], found[:, len(chosen) :]

    def _subspace(
        self, safe: Float[Tensor, "pair d_model"], unsafe: Float[Tensor, "pair d_model"]
    ) -> tuple[Float[Tensor, "rank d_model"], Float[Tensor, "value"]]:
        """An orthonormal basis of the toxic subspace, and all singular values of the centred T."""
        differences = safe - unsafe
        if self.centring != "none":
            top = torch.linalg.svd(safe, full_matrices=False).Vh[0] if "top" in self.centring else safe.mean(0)
            common = top / top.norm().clamp(min=1e-300)
            differences = differences - (differences @ common)[:, None] * common
        _, values, rows = torch.linalg.svd(differences, full_matrices=False)
        if not values[self.rank - 1] > NOISE * values[0]:
            raise InputError(
                f"the {len(safe)} pairs differ in fewer than {self.rank} directions; choose a lower rank or more pairs"
            )
        return rows[: self.rank], values
