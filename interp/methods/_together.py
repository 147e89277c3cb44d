"""Several DINM edits of one layer as one: stacked weights, one forward over all their sequences, one backward.

Adam acts on each element alone, and no loss depends on another edit's weights: the deltas are those of one edit after
the other but for float rounding. What a stopped edit had reached is put aside while the others go on.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor
from transformers.pytorch_utils import Conv1D

from interp.errors import InputError
from interp.methods._losses import Supervised
from interp.methods._training import Log, Objective, Recipe, Weights, clamp, diverged
from interp.models import HookedModel
from interp.prefix import logits_from_value, replaced, value_state

Stacked = Mapping[str, Tensor]
"""Parameters of the module that holds W_V, `[edit, ...]`."""
EachLogits = Callable[[Stacked], list[Tensor]]
"""Float32 logits [position, vocab] of each edit's sequence where it is supervised, given each edit's own weights."""


def logits_of_each(model: HookedModel, layer: int, sequences: Sequence[Supervised]) -> EachLogits:
    """The logits of one sequence of each edit, in one forward from W_V of `layer` on; what lies below is run once, now.

    Rows are padded on the right and positions by their last one; both are cut off again.
    """
    lengths = [len(s.positions) for s in sequences]
    most = max(lengths)
    padded = [[*s.positions, *[s.positions[-1]] * (most - len(s.positions))] for s in sequences]
    positions: Tensor | None = torch.tensor(padded, device=model.device)
    state = value_state(model, model.pad([s.inputs for s in sequences], side="right"), layer)
    if layer == model.n_layers - 1:
        state, positions = state.at(positions), None
    module = model.value_module(layer)

    def run(weights: Stacked) -> list[Tensor]:
        def product(h: Float[Tensor, "edit seq d_mlp"]) -> Float[Tensor, "edit seq d_model"]:
            weight = weights["weight"].to(h.dtype)
            out = torch.bmm(h, weight if isinstance(module, Conv1D) else weight.transpose(1, 2))
            bias = weights.get("bias", getattr(module, "bias", None))
            if bias is None:
                return out
            return out + (bias[:, None] if bias.ndim == 2 else bias).to(h.dtype)

        with replaced(module, product):
            logits = logits_from_value(model, state, positions).float()
        return [row[:n] for row, n in zip(logits, lengths, strict=True)]

    return run


def train_together(
    weights: Weights,
    edit: EachLogits,
    constraint: EachLogits | None,
    objectives: Sequence[Objective],
    recipe: Recipe,
    whats: Sequence[str],
) -> list[tuple[Weights, Log]]:
    """`train` for several edits at once, each on its own objective.

    Args:
        weights: float32, as the model has them; every edit starts from them.
        edit: logits of the edit sequences.
        constraint: those of the constraint sequences, if there are any.
        objectives: of each edit; only their losses are used.
        whats: names each edit in an error.

    Raises:
        InputError: as `train`.
    """
    n = len(objectives)
    start = {name: torch.stack([weight] * n) for name, weight in weights.items()}
    trained = {name: stack.clone().requires_grad_() for name, stack in start.items()}
    adam = torch.optim.Adam(
        list(trained.values()), recipe.lr, recipe.betas, recipe.adam_eps, recipe.weight_decay, fused=True
    )
    logs: list[Log] = [{"l_edit": [], "l_constraint": [], "total": []} for _ in range(n)]
    done: dict[int, Weights] = {}
    watched = constraint is not None and not recipe.constraint_gradient
    for step in range(recipe.steps):
        adam.zero_grad(set_to_none=True)
        with torch.enable_grad():
            logits = [[row] for row in edit(trained)]
            if constraint is not None and not watched:
                logits = [[*rows, more] for rows, more in zip(logits, constraint(trained), strict=True)]
            losses = [objective.loss(rows) for objective, rows in zip(objectives, logits, strict=True)]
            torch.stack([total for total, _, _ in losses]).sum().backward()
        seen = None
        for i in range(n):
            if i in done:
                continue
            _, l_edit, l_constraint = losses[i]
            looked = recipe.constraint_every_step or step == 0 or recipe.c_edit * l_edit < recipe.stop_below
            if watched and looked and constraint is not None:
                with torch.no_grad():
                    seen = constraint(trained) if seen is None else seen
                l_constraint += objectives[i].look(seen[i])
            total = recipe.c_edit * l_edit + l_constraint
            if not math.isfinite(total):
                raise InputError(diverged("loss", total, step, recipe, whats[i]))
            for name, value in zip(logs[i], (l_edit, l_constraint, total), strict=True):
                logs[i][name].append(value if looked or not watched or name == "l_edit" else None)
            if total < recipe.stop_below:
                done[i] = {name: stack[i].detach().clone() for name, stack in trained.items()}
        if len(done) == n:
            break
        adam.step()
        if recipe.norm_constraint is not None:
            clamp(trained, start, recipe.norm_constraint)
    found = [done.get(i) or {name: stack[i].detach().clone() for name, stack in trained.items()} for i in range(n)]
    for what, own in zip(whats, found, strict=True):
        if not all(bool(torch.isfinite(weight).all()) for weight in own.values()):
            raise InputError(diverged("edited matrix", math.nan, recipe.steps, recipe, what))
    return list(zip(found, logs, strict=True))
