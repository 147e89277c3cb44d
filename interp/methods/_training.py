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
    stop_below: float
    norm_constraint: float | None


class Objective:
    """The losses of one instance as a function of the edited weights."""

    def __init__(self, edit: Logits, targets: tuple[int, ...], constraint: Logits | None, recipe: Recipe) -> None:
        self.edit, self.targets, self.constraint, self.recipe = edit, targets, constraint, recipe
        self.base: Float[Tensor, "position vocab"] | None = None
        """Log-probabilities of the model before the edit."""

    def backward(self, weights: Weights, share: float) -> tuple[float, float]:
        """Add this instance's gradient, times its share, to the weights; (L_e, L_c) in nats.

        The first call has to see the weights as they were: its prediction is the base that L_c compares with.
        """
        l_edit = likelihood_loss(self.edit(weights), self.targets)
        (self.recipe.c_edit * share * l_edit).backward()
        return float(l_edit.detach()), self._constrain(weights, share)

    def _constrain(self, weights: Weights, share: float) -> float:
        if self.constraint is None:
            return 0.0
        first = self.base is None  # nothing has moved: the divergence is 0, and so is its gradient
        with torch.set_grad_enabled(self.recipe.constraint_gradient and not first):
            edited = self.constraint(weights).log_softmax(-1)
            if self.base is None:
                self.base = edited
            pair = (edited, self.base)
            loss = divergence(*(pair if self.recipe.constraint_direction == "edited from base" else pair[::-1]))
        if loss.requires_grad:
            (share * loss).backward()
        return float(loss.detach())


def train(
    weights: Weights, objectives: Sequence[Objective], recipe: Recipe, what: str
) -> tuple[Weights, dict[str, list[float]]]:
    """Train copies of `weights` on the mean objective.

    Args:
        weights: float32, as the model has them; not changed.
        what: names the edit in an error.

    Returns:
        The trained weights, and `l_edit`, `l_constraint` and `total` as they were before each step.

    Raises:
        InputError: a loss or a weight that is not finite; the message names step and learning rate.
    """
    trained = {name: weight.clone().requires_grad_() for name, weight in weights.items()}
    adam = torch.optim.Adam(
        list(trained.values()), recipe.lr, recipe.betas, recipe.adam_eps, recipe.weight_decay, fused=True
    )
    log: dict[str, list[float]] = {"l_edit": [], "l_constraint": [], "total": []}
    for step in range(recipe.steps):
        adam.zero_grad(set_to_none=True)
        with torch.enable_grad():
            losses = [objective.backward(trained, 1 / len(objectives)) for objective in objectives]
        l_edit, l_constraint = (math.fsum(part) / len(losses) for part in zip(*losses, strict=True))
        total = recipe.c_edit * l_edit + l_constraint
        if not math.isfinite(total):
            raise InputError(_diverged("loss", total, step, recipe, what))
        for name, value in zip(log, (l_edit, l_constraint, total), strict=True):
            log[name].append(value)
        if total < recipe.stop_below:
            break
        adam.step()
        if recipe.norm_constraint is not None:
            _clamp(trained, weights, recipe.norm_constraint)
    for weight in trained.values():
        if not bool(torch.isfinite(weight).all()):
            raise InputError(_diverged("edited matrix", math.nan, recipe.steps, recipe, what))
    return {name: weight.detach() for name, weight in trained.items()}, log


def _clamp(trained: Weights, weights: Weights, size: float) -> None:
    with torch.no_grad():
        for name, weight in trained.items():
            weight.copy_(weights[name] + (weight - weights[name]).clamp(-size, size))


def _diverged(thing: str, value: float, step: int, recipe: Recipe, what: str) -> str:
    if step == 0:
        return f"{what}: the {thing} is {value} before the first step (learning rate {recipe.lr:g}); check the model"
    return (
        f"{what}: the {thing} is {value} after step {step} of {recipe.steps} with learning rate {recipe.lr:g}; "
        "choose a lower one"
    )
