"""Ablation of one direction of the residual stream by orthogonalised weights (Arditi et al. 2024, arXiv 2406.11717).

They remove what makes a chat model refuse; here it is turned round. The direction is the difference of means between
adversarial prompts that the model complies with and the bare questions inside them that it refuses, both at the same
last prompt token: what an attack adds that turns a refusal into an answer. It is estimated on one part of the given
data in every layer, and the layer is chosen on the rest. Every matrix that writes to the stream then loses it:
W <- W (I - r r^T).

That one direction carries this is their finding about refusal and an assumption about attacks; `log` says how far it
held (the margins before and after).
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
from interp.methods._losses import divergence
from interp.methods._margin import FirstTokens, next_logits
from interp.methods.base import Detoxified, Needs
from interp.models import HookedModel
from interp.records import Instance

Matrix = Literal["embedding", "attention", "mlp"]
MATRICES: tuple[Matrix, ...] = ("embedding", "attention", "mlp")
_OUTPUT = {"self_attn": "o_proj", "attn": "c_proj", "attention": "dense"}
"""Attention module (`Layout.attention`) -> its output projection."""
Progress = Callable[[int, int], None]


@dataclass(frozen=True, kw_only=True)
class Direction:
    """Configuration of the direction's estimate, of its choice, and of what loses it."""

    name: ClassVar[str] = "direction"
    needs: ClassVar[Needs] = "the train split"

    prompts: int = 128
    """How many instances the means are taken over (paper: 128), drawn by `seed`."""
    held_out: int = 32
    """How many other instances the layer is chosen on (paper: 32)."""
    filtered: bool = True
    """Take means only over adversarial prompts that the model complies with and bare questions that it refuses, by the
    sign of the refusal margin. False: over all."""
    positions: int = 1
    """Candidates are taken at this many last prompt tokens (paper: those of the template after the instruction)."""
    max_kl: float | None = 0.1
    """A candidate is dropped where the mean KL divergence (old || new) of the next token after held-out knowledge
    prompts is above this, in nats (paper: 0.1). None drops none."""
    highest_layer: float = 0.8
    """Candidates come from the layers below this share of the depth (paper: 0.8, as late layers merely name the
    token)."""
    layer: int | None = None
    """Take the direction at the output of this layer (0-based) instead of choosing; `max_kl` then drops nothing."""
    matrices: tuple[Matrix, ...] = MATRICES
    """Which writers to the stream lose the direction (paper: all). "embedding": token embeddings, and position
    embeddings where there are any; an unembedding that is tied to them changes, too. "attention", "mlp": their last
    matrices with their biases."""
    suffix: str = ""
    """S, put after every prompt."""
    batch_size: int = 8
    """Prompts per forward pass."""
    seed: int = 0
    """Of the choice of instances."""

    def __post_init__(self) -> None:
        check(self, counts=("prompts", "held_out", "positions", "batch_size"), optional=("max_kl",))
        if not 0 < self.highest_layer <= 1:
            raise InputError(f"highest_layer must be above 0 and at most 1, got {self.highest_layer}")
        unknown = [m for m in self.matrices if m not in MATRICES]
        if unknown or not self.matrices:
            raise InputError(f"matrices must be some of {MATRICES}, got {self.matrices}")

    @classmethod
    def demo(cls) -> Direction:
        """The settings for the demo that `experiments/sweep_rivals.py` chose on val.

        They admit the last layer, which the paper leaves out: the direction there is close to what names the first
        token of an answer (cosine .74 with "comply minus refuse" in the unembedding). Within the paper's 80 % of the
        depth the gain is less than half as large.
        """
        return cls(highest_layer=1.0, matrices=("attention", "mlp"))

    @torch.no_grad()
    def detoxify(
        self, model: HookedModel, instances: Sequence[Instance], progress: Progress | None = None
    ) -> Detoxified:
        """Estimate the direction, choose the layer on held-out instances, and orthogonalise the weights.

        Args:
            model: as it was, to the last bit, afterwards; while candidates are compared they are applied to it.
            instances: the training split; of them `prompts` + `held_out` are used (where there are fewer, four fifths
                and one fifth).
            progress: called with (candidates measured, candidates in all).

        Returns:
            An edit of several matrices. `log`: "candidates" (layer, position from the end, the mean refusal margin on
            held-out adversarial prompts in nats, KL), "chosen", "margin_before", "direction" (unit, a list),
            "n_adversarial" and "n_bare" (prompts behind the means), and `seconds`.

        Raises:
            InputError: too few instances, none that the model complies with (or refuses), a layer out of range, every
                candidate above `max_kl`, activations that are not finite.
        """
        started = time.perf_counter()
        fit, held = self._parts(instances)
        tokens = FirstTokens.of(model, [*fit, *held], self.suffix)
        candidates, counts = self._candidates(model, fit, tokens)
        attacked = [model.format_prompt(i.adversarial_prompt, self.suffix) for i in held]
        harmless = [model.format_prompt(i.knowledge.prompt, self.suffix) for i in held]
        before = next_logits(model, harmless, self.batch_size).log_softmax(-1)
        measured = []
        for (layer, position), direction in candidates.items():
            with self._edit(model, direction, fit).applied(model):
                margin = float(tokens.margin(next_logits(model, attacked, self.batch_size)).mean())
                kl = float(divergence(before, next_logits(model, harmless, self.batch_size).log_softmax(-1)))
            measured.append({"layer": layer, "position": position, "margin": margin, "kl": kl})
            if progress is not None:
                progress(len(measured), len(candidates))
        chosen = self._choose(measured)
        direction = candidates[int(chosen["layer"]), int(chosen["position"])]
        log = {
            "candidates": measured,
            "chosen": chosen,
            "margin_before": float(tokens.margin(next_logits(model, attacked, self.batch_size)).mean()),
            "direction": direction.tolist(),
            **counts,
            "seconds": time.perf_counter() - started,
        }
        return Detoxified(self.name, self._edit(model, direction, [*fit, *held]), suffix=self.suffix, log=log)

    # ------------------------------------------------------------------------------------- inside
    def _parts(self, instances: Sequence[Instance]) -> tuple[list[Instance], list[Instance]]:
        """Instances for the means, and others for the choice; a question is on one side only."""
        if len(instances) < 2:
            raise InputError(f"the direction needs at least two training instances, got {len(instances)}")
        order = list(instances)
        random.Random(self.seed).shuffle(order)
        n = min(self.held_out, max(1, len(order) // 5))
        held = order[:n]
        asked = {i.question for i in held}
        fit = [i for i in order[n:] if i.question not in asked][: self.prompts]
        if not fit:
            raise InputError("the direction needs training instances of at least two questions, got one question")
        return fit, held

    def _candidates(
        self, model: HookedModel, fit: Sequence[Instance], tokens: FirstTokens
    ) -> tuple[dict[tuple[int, int], Float[Tensor, "d_model"]], dict[str, int]]:
        """(layer, position from the end) -> unit direction, float64; and how many prompts are behind each mean."""
        if self.layer is not None:
            layers = [model.check_layer(self.layer)]
        else:
            layers = list(range(max(1, int(self.highest_layer * model.n_layers))))
        sides = []
        for queries, sign, does in (
            ([i.adversarial_prompt for i in fit], -1, "complies with"),
            (list(dict.fromkeys(i.question for i in fit)), 1, "refuses"),
        ):
            prompts = [model.format_prompt(q, self.suffix) for q in queries]
            if self.filtered:
                margins = tokens.margin(next_logits(model, prompts, self.batch_size))
                prompts = [p for p, m in zip(prompts, margins.tolist(), strict=True) if sign * m > 0]
            if not prompts:
                what = "adversarial prompts" if sign < 0 else "bare questions"
                raise InputError(f"{model.name} {does} none of {len(queries)} {what}: there is no direction to remove")
            sides.append((self._means(model, prompts, layers), len(prompts)))
        (attacked, n_adversarial), (bare, n_bare) = sides
        found = {}
        for index, layer in enumerate(layers):
            for position in range(self.positions):
                difference = attacked[index, position] - bare[index, position]
                if not float(difference.norm()) > 0 or not bool(torch.isfinite(difference).all()):
                    raise InputError(f"the two means of layer {layer} do not differ, or are not finite")
                found[layer, position] = difference / difference.norm()
        return found, {"n_adversarial": n_adversarial, "n_bare": n_bare}

    def _means(
        self, model: HookedModel, prompts: Sequence[str], layers: list[int]
    ) -> Float[Tensor, "layer position d_model"]:
        """Mean residual stream after each layer at the last prompt tokens, the last one first; float64."""
        total = torch.zeros(len(layers), self.positions, model.d_model, dtype=torch.float64)
        rows = model.tokenize(list(prompts), side="left")
        if int(rows.lengths.min()) < self.positions:
            raise InputError(f"a prompt has {int(rows.lengths.min())} tokens, fewer than positions={self.positions}")
        for batch in stream(model, rows, "resid_post", layers, batch_size=self.batch_size):
            for index, layer in enumerate(layers):
                last = batch.acts["resid_post", layer][:, -self.positions :].flip(1)
                total[index] += last.cpu().double().sum(0)
        return total / len(prompts)

    def _choose(self, measured: list[dict[str, float | int]]) -> dict[str, float | int]:
        """The candidate after which the held-out adversarial prompts are refused most."""
        allowed = [m for m in measured if self.layer is not None or self.max_kl is None or m["kl"] <= self.max_kl]
        if not allowed:
            raise InputError(
                f"every candidate direction changes harmless prompts by more than max_kl = {self.max_kl:g} nats "
                f"(the least by {min(m['kl'] for m in measured):.3g}); raise max_kl, or take fewer matrices"
            )
        return max(allowed, key=lambda m: m["margin"])

    def _edit(self, model: HookedModel, direction: Float[Tensor, "d_model"], used: Sequence[Instance]) -> WeightEdit:
        """The orthogonalised weights as an edit."""
        deltas = {}
        for name in writers(model, self.matrices):
            weight = model.hf.get_parameter(name).detach()
            r = direction.to(weight.device)
            wide = weight.double()
            if wide.dim() == 2 and _rows_write(model, name):
                change = -(wide @ r)[:, None] * r
            elif wide.dim() == 2:
                change = -r[:, None] * (r @ wide)
            else:
                change = -(wide @ r) * r
            deltas[name] = change.float()
        provenance = Provenance(
            method=self.name,
            model=model.source,
            weight_hash=model.weight_hash(),
            instance_ids=tuple(sorted(i.id for i in used)),
            config=asdict(self),
            layer=None,
        )
        return WeightEdit(deltas, provenance)


def writers(model: HookedModel, matrices: Sequence[Matrix] = MATRICES) -> list[str]:
    """State-dict names of the parameters that write to the residual stream, biases included.

    On architectures with norms behind attention and MLP (Gemma2) the gains of these norms come after: there the stream
    does not lose the direction altogether.
    """
    modules = []
    if "embedding" in matrices:
        modules.append(model.hf.get_input_embeddings())
        positions = getattr(model.hf.base_model, "wpe", None)  # GPT-2; the others rotate
        modules += [] if positions is None else [positions]
    for layer in range(model.n_layers):
        if "attention" in matrices:
            modules.append(getattr(model.attention(layer), _OUTPUT[model.layout.attention]))
        if "mlp" in matrices:
            modules.append(model.value_module(layer))
    wanted = {id(p) for module in modules for p in module.parameters()}
    return [name for name, parameter in model.hf.named_parameters() if id(parameter) in wanted]


def _rows_write(model: HookedModel, name: str) -> bool:
    """Whether the rows of a matrix are what is written ([..., d_model]), as in embeddings and Conv1D."""
    module = model.hf.get_submodule(name.rpartition(".")[0])
    return not isinstance(module, torch.nn.Linear)
