"""A DINM edit the long way, with nothing of the package but its token sequences: what `edit.py` measures against."""

from __future__ import annotations

import torch
from torch.nn.functional import cross_entropy, log_softmax

from interp.methods._losses import Supervised
from interp.methods.dinm import Dinm
from interp.models import HookedModel


def plain_edit(
    model: HookedModel, config: Dinm, edit: Supervised, constraint: Supervised, steps: int, everything: bool = False
) -> torch.Tensor:
    """The delta, the long way."""
    hf, weight = model.hf, model.value_weight(config.layer or 0)
    before = weight.detach().clone()
    ids, constraint_ids = torch.tensor([edit.ids]), torch.tensor([constraint.ids])
    at, constraint_at = list(edit.positions), list(constraint.positions)
    targets = torch.tensor(edit.targets)
    adam = torch.optim.Adam([weight], lr=config.lr)
    with torch.no_grad():
        base = log_softmax(hf(constraint_ids, use_cache=False).logits[0, constraint_at], -1)
    (hf if everything else weight).requires_grad_(True)
    try:
        for _ in range(steps):
            hf.zero_grad()
            loss = config.c_edit * cross_entropy(hf(ids, use_cache=False).logits[0, at], targets)
            with torch.set_grad_enabled(config.constraint_gradient):
                edited = log_softmax(hf(constraint_ids, use_cache=False).logits[0, constraint_at], -1)
                p, q = (edited, base) if config.constraint_direction == "edited from base" else (base, edited)
                divergence = (p.exp() * (p - q)).sum(-1).mean()
            (loss + divergence).backward()
            adam.step()
        return weight.detach() - before
    finally:
        hf.zero_grad()
        hf.requires_grad_(False)
        with torch.no_grad():
            weight.copy_(before)
