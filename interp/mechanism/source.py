"""The source of the activation shift (paper, Fig. 8): where h_mid of each input went, seen in two dimensions.

The first axis is the mean shift of h_mid between vanilla and a model, the second the first principal component of all
points without that axis. h_mid is read at the last prompt token, where the answer begins.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from interp.mechanism.activations import PromptActivations
from interp.records import ShiftSource

MAX_INPUTS = 30
"""How many inputs the paper draws."""
ZERO = 1e-6
"""A mean shift shorter than this share of the mean h_mid is float noise, and no axis."""
FALLBACK = "second principal component (the mean shift of h_mid is zero: nothing in front of the region changed)"


def shift_source(
    vanilla: PromptActivations,
    shifted: PromptActivations,
    *,
    model: str,
    instance_ids: Sequence[int] = (),
    max_inputs: int = MAX_INPUTS,
) -> ShiftSource:
    """h_mid of vanilla and of a model on the same inputs, projected on the mean shift and the first component.

    Both projections are measured from vanilla's mean point. Where the mean shift is zero, as it is by construction for
    an edit of W_V alone, no axis can be made of it: the second principal component stands in, and `axis` says so.

    Args:
        vanilla: recorded on at least the prompts of `shifted`.
        shifted: the model's recording (the `join` of edits, each on its own prompt).
        model: name for the record.
        instance_ids: id of each prompt by its number, for the figure's labels.
        max_inputs: only the first so many.

    Raises:
        InputError: prompts that vanilla was not recorded on.
    """
    index = shifted.index[:max_inputs]
    before, after = vanilla.rows(index), shifted.rows(index)
    a, b = before.h_mid.double(), after.h_mid.double()
    delta = (b - a).mean(dim=0)
    norm = float(delta.norm())
    moved = norm > ZERO * float(a.mean(dim=0).norm())
    points = torch.cat([a, b])
    centred = points - points.mean(dim=0)
    shift_axis = delta / norm if moved else None
    first, second, explained = _components(centred, shift_axis)
    axes = torch.stack([second if shift_axis is None else shift_axis, first], dim=1)
    origin = a.mean(dim=0)
    return ShiftSource(
        model=model,
        layer=shifted.layer,
        vanilla=((a - origin) @ axes).numpy(),
        shifted=((b - origin) @ axes).numpy(),
        activation_vanilla=before.strength.double().numpy(),
        activation_shifted=after.strength.double().numpy(),
        delta_norm=norm,
        explained=explained,
        instance_ids=tuple(instance_ids[i] for i in index) if instance_ids else (),
        axis="mean shift" if moved else FALLBACK,
    )


def _components(
    centred: Float[Tensor, "n d"], without: Float[Tensor, "d"] | None
) -> tuple[Float[Tensor, "d"], Float[Tensor, "d"], float]:
    """First two principal components orthogonal to `without`, and the share of all variance the first explains.

    Signs are fixed (largest coordinate positive), so that a figure does not flip from run to run.
    """
    total = float(centred.square().sum())
    rest = centred if without is None else centred - torch.outer(centred @ without, without)
    _, values, rows = torch.linalg.svd(rest, full_matrices=False)
    pair = [_signed(rows[i]) if i < len(rows) and values[i] > 0 else torch.zeros_like(rest[0]) for i in (0, 1)]
    return pair[0], pair[1], float(values[0] ** 2) / total if total > 0 else 0.0


def _signed(v: Float[Tensor, "d"]) -> Float[Tensor, "d"]:
    return v * torch.sign(v[v.abs().argmax()])
