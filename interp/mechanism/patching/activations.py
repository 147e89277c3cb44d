"""Activation patching between two models: one model's activations put into the other's run on the same tokens.

The effect of a place is the share of the models' difference in refusal margin that it brings about, for each layer and
position, in both directions. Effects of several places do not add up where they work together, and a patch shows what
an activation carries, not where it was made.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from weakref import WeakKeyDictionary, ref

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from interp.mechanism.intervals import of_means
from interp.mechanism.lab import Subject
from interp.mechanism.margin import MarginTokens
from interp.mechanism.patching.places import Clean, patched, read
from interp.mechanism.patching.positions import by_role, everywhere, from_end
from interp.models import HookedModel, Tokens
from interp.records import Estimate

PLACES = ("resid_pre", "attn_out", "mlp_out")
"""What the analysis patches; `patch` takes any place."""
GRIDS = ("resid_pre", "mlp_out")
LAST = 8
"""Positions from the end that the grids show."""
OWN_ROLES = ("last", "question", "attack")
"""Roles whose positions the analysis patches one role at a time."""


def patch(
    model: HookedModel,
    donor: HookedModel,
    prompts: Sequence[Tokens],
    place: str,
    tokens: MarginTokens,
    where: Callable[[int, Tokens], Bool[Tensor, "batch seq"]] = lambda _, batch: everywhere(batch),
    layers: Sequence[int] | None = None,
) -> Float[np.ndarray, "prompt layer"]:
    """Margins of `model` with the donor's activations in one place, for each layer in turn, nats.

    Args:
        model: the receiver.
        donor: a model of the same shape that reads the same tokens.
        prompts: batches padded on the left.
        place: one of `places_of(model)`.
        tokens: first tokens of refusing and complying answers.
        where: (number of the batch, batch) -> positions to patch; everywhere by default.
        layers: 0-based; all by default.

    Raises:
        InputError: as `check_place`; no such layer.
    """
    chosen = range(model.n_layers) if layers is None else layers
    found = []
    for i, batch in enumerate(prompts):
        own, theirs = (read(m, batch, tokens, tuple({"resid_pre", place})) for m in (model, donor))
        mask = where(i, batch)
        row = [patched(model, own, place, at, theirs.acts[place, at], mask, tokens) for at in chosen]
        found.append(torch.stack(row, dim=1))
    return torch.cat(found).cpu().double().numpy()


def effects(
    receiver: Float[np.ndarray, "prompt"],
    donor: Float[np.ndarray, "prompt"],
    after: Float[np.ndarray, "prompt k"],
    seed: int = 0,
) -> list[Estimate]:
    """(receiver - after) / (receiver - donor) of mean margins: 0 is the receiver, 1 the donor. Bootstrap over prompts.

    All zero where the two models do not differ.
    """

    def shares(means: np.ndarray) -> np.ndarray:
        change = means[..., :1] - means[..., 1:2]
        same = change == 0
        return np.where(same, 0.0, (means[..., :1] - means[..., 2:]) / np.where(same, 1.0, change))

    data = np.column_stack([receiver, donor, after])
    return of_means(data, shares, over="prompts", unit="share", seed=seed)


# --------------------------------------------------------------------------------------------- all of one model
@dataclass(frozen=True)
class Patched:
    """Every patch of the analysis between a model and vanilla: margins in nats."""

    model: Float[np.ndarray, "prompt"]
    vanilla: Float[np.ndarray, "prompt"]
    into_model: dict[str, Float[np.ndarray, "prompt layer"]]
    """Place -> the model with vanilla's activations at all positions."""
    into_vanilla: dict[str, Float[np.ndarray, "prompt layer"]]
    random: dict[str, Float[np.ndarray, "prompt layer"]]
    """The control: the model with a random change of the same size at every position."""
    roles: dict[str, Float[np.ndarray, "prompt 1"]]
    """Role -> the model with vanilla's residual stream at those positions, into the block of the located layer."""
    last: dict[str, Float[np.ndarray, "prompt layer back"]]
    """Place -> vanilla's activation at one position, counted from the end."""
    seconds: float


_KNOWN: WeakKeyDictionary[Subject, tuple[ref[Subject], Patched]] = WeakKeyDictionary()


def all_patches(subject: Subject, vanilla: Subject) -> Patched:
    """Measured once per pair of subjects: the attribution analysis compares with the same numbers."""
    known = _KNOWN.get(subject)
    if known is None or known[0]() is not vanilla:
        known = _KNOWN[subject] = (ref(vanilla), _measure_patches(subject, vanilla))
    return known[1]


def _measure_patches(subject: Subject, vanilla: Subject) -> Patched:
    started, lab, start = time.perf_counter(), subject.lab, 0
    parts: dict[tuple[str, str], list[Tensor]] = {}
    draw = torch.Generator().manual_seed(lab.seed)
    for batch in subject.prompts():
        rows = lab.instances[start : start + len(batch)]
        start += len(batch)
        places = tuple(dict.fromkeys(("resid_pre", *PLACES)))
        mine, theirs = (read(s.model, batch, lab.tokens, places) for s in (subject, vanilla))

        def into(own: Clean, donor: Clean, model: HookedModel, place: str, where: Tensor, change=None) -> Tensor:
            acts = {at: donor.acts[place, at] for at in range(model.n_layers)}
            if change is not None:
                acts = {at: change(own.acts[place, at], x) for at, x in acts.items()}
            row = [patched(model, own, place, at, x, where, lab.tokens) for at, x in acts.items()]
            return torch.stack(row, dim=1)

        def noise(own: Tensor, donor: Tensor) -> Tensor:
            random = torch.randn(own.shape, generator=draw).to(own)
            size = (donor.to(own) - own).norm(dim=-1, keepdim=True)
            return own + random / random.norm(dim=-1, keepdim=True) * size

        real = everywhere(batch)
        found: dict[tuple[str, str], Tensor] = {("model", ""): mine.margin, ("vanilla", ""): theirs.margin}
        for place in PLACES:
            found["into_model", place] = into(mine, theirs, subject.model, place, real)
            found["into_vanilla", place] = into(theirs, mine, vanilla.model, place, real)
            found["random", place] = into(mine, theirs, subject.model, place, real, noise)
        for place in GRIDS:
            at_end = [into(mine, theirs, subject.model, place, from_end(batch, back)) for back in range(LAST)]
            found["last", place] = torch.stack(at_end, dim=2)
        for role in OWN_ROLES:
            mask, donor = by_role(subject.model, batch, rows, role), theirs.acts["resid_pre", lab.layer]
            found["roles", role] = patched(subject.model, mine, "resid_pre", lab.layer, donor, mask, lab.tokens)[
                :, None
            ]
        for key, x in found.items():
            parts.setdefault(key, []).append(x)
    whole = {key: torch.cat(x).cpu().double().numpy() for key, x in parts.items()}
    named = {kind: {name: x for (k, name), x in whole.items() if k == kind} for kind, _ in whole}
    return Patched(
        whole["model", ""], whole["vanilla", ""], named["into_model"], named["into_vanilla"], named["random"],
        named["roles"], named["last"], time.perf_counter() - started,
    )  # fmt: skip
