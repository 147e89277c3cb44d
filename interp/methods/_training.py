"""The training loop of DINM: Adam on one matrix, in float32, with the losses of every step kept."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from interp.errors import InputError
from interp.methods._losses import divergence, likelihood_loss
from interp.methods._tail import Logits

Direction = Literal["edited from base", "base from edited"]
Weights = dict[str, Tensor]
Log = dict[str, list[float | None]]


@dataclass(frozen=True)
class Recipe:
    """The part of DINM's configuration that training needs; `Dinm` says what each field means."""

    steps: int
    lr: float
    c_edit: float
    weight_decay: float
    betas: tuple[float, float]
    adam_eps: float
    constraint_gradient: bool
    constraint_direction: Direction
    constraint_every_step: bool
    stop_below: float
    norm_constraint: float | None


class Objective:
    """The losses of one instance as a function of the edited weights."""

    def __init__(self, losses: Logits, targets: tuple[int, ...], watched: Logits | None, recipe: Recipe) -> None:
        """An objective of the edit alone, of edit and constraint, or of the edit with the constraint looked at.

        Args:
            losses: logits of the edit sequence, and of the constraint's behind it where that takes part in the update.
            targets: what the edit sequence should predict.
            watched: logits of the constraint sequence where it is only measured.
        """
        self.losses, self.targets, self.watched, self.recipe = losses, targets, watched, recipe
        self.base: Float[Tensor, "position vocab"] | None = None
        """Log-probabilities of the model before the edit, on the constraint sequence."""

    def backward(self, weights: Weights, share: float) -> tuple[float, float]:
        """Add this instance's gradient, times its share, to the weights; (L_e, L_c) in nats.

        L_c is 0 where it takes no part. The first call has to see the weights as they were: its prediction is the base
        that L_c compares with.
        """
        total, l_edit, l_constraint = self.loss(self.losses(weights))
        (share * total).backward()
        return l_edit, l_constraint

    def loss(self, found: Sequence[Tensor]) -> tuple[Float[Tensor, ""], float, float]:
        """The loss, L_e and L_c from the logits [position, vocab] of the edit sequence (and of the constraint's).

        The first call has to see the weights as they were.
        """
        logits, *constraint = found
        l_edit = likelihood_loss(logits, self.targets)
        total, l_constraint = self.recipe.c_edit * l_edit, 0.0
        if constraint:
            edited = constraint[0].log_softmax(-1)
            if self.base is None:  # nothing has moved: the divergence is 0, and so is its gradient
                self.base = edited.detach()
            else:
                loss = self._divergence(edited, self.base)
                total, l_constraint = total + loss, float(loss.detach())
        return total, float(l_edit.detach()), l_constraint

    @torch.no_grad()
    def measure(self, weights: Weights) -> float:
        """L_c in nats where it is only looked at, 0 where there is nothing to look at."""
        if self.watched is None:
            return 0.0
        return self.look(self.watched(weights)[0])

    @torch.no_grad()
    def look(self, logits: Float[Tensor, "position vocab"]) -> float:
        """L_c in nats from the logits of the constraint sequence, where it is only looked at."""
        edited = logits.log_softmax(-1)
        self.base = edited if self.base is None else self.base
        return float(self._divergence(edited, self.base))

    def _divergence(
        self, edited: Float[Tensor, "position vocab"], base: Float[Tensor, "position vocab"]
    ) -> Float[Tensor, ""]:
        forward = self.recipe.constraint_direction == "edited from base"
        return divergence(edited, base) if forward else divergence(base, edited)


def train(weights: Weights, objectives: Sequence[Objective], recipe: Recipe, what: str) -> tuple[Weights, Log]:
    """Train copies of `weights` on the mean objective.

    Args:
        weights: float32, as the model has them; not changed.
        what: names the edit in an error.

    Returns:
        The trained weights, and `l_edit`, `l_constraint` and `total` as they were before each step (None where the
        recipe did not look).

    Raises:
        InputError: a loss or a weight that is not finite; the message names step and learning rate.
    """
    trained = {name: weight.clone().requires_grad_() for name, weight in weights.items()}
    adam = torch.optim.Adam(
        list(trained.values()), recipe.lr, recipe.betas, recipe.adam_eps, recipe.weight_decay, fused=True
    )
    log: Log = {"l_edit": [], "l_constraint": [], "total": []}
    for step in range(recipe.steps):
        adam.zero_grad(set_to_none=True)
        with torch.enable_grad():
            losses = [objective.backward(trained, 1 / len(objectives)) for objective in objectives]
        l_edit, l_constraint = (math.fsum(part) / len(losses) for part in zip(*losses, strict=True))
        # L_c is never negative: where L_e alone is above the threshold, a look at L_c could not end the loop.
        looked = recipe.constraint_every_step or step == 0 or recipe.c_edit * l_edit < recipe.stop_below
        if looked:
            l_constraint += math.fsum(o.measure(trained) for o in objectives) / len(objectives)
        total = recipe.c_edit * l_edit + l_constraint
        if not math.isfinite(total):
            raise InputError(diverged("loss", total, step, recipe, what))
        known = looked or all(o.watched is None for o in objectives)
        for name, value in zip(log, (l_edit, l_constraint, total), strict=True):
            log[name].append(value if known or name == "l_edit" else None)
        if total < recipe.stop_below:
            break
        adam.step()
        if recipe.norm_constraint is not None:
            clamp(trained, weights, recipe.norm_constraint)
    for weight in trained.values():
        if not bool(torch.isfinite(weight).all()):
            raise InputError(diverged("edited matrix", math.nan, recipe.steps, recipe, what))
    return {name: weight.detach() for name, weight in trained.items()}, log


def clamp(trained: Weights, weights: Weights, size: float) -> None:
    """Hold each element of the delta within `size`, in place."""
    with torch.no_grad():
        for name, weight in trained.items():
            weight.copy_(weights[name] + (weight - weights[name]).clamp(-size, size))


def diverged(thing: str, value: float, step: int, recipe: Recipe, what: str) -> str:
    """The message of an edit that is not finite."""
    if step == 0:
        return f"{what}: the {thing} is {value} before the first step (learning rate {recipe.lr:g}); check the model"
    return (
        f"{what}: the {thing} is {value} after step {step} of {recipe.steps} with learning rate {recipe.lr:g}; "
        "choose a lower one"
    )
