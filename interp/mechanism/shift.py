"""Activation shift of the toxic region (paper, Sec. 4.3): how far what flows into W_V moved, against vanilla.

An edit of W_V alone cannot move what flows into W_V on given tokens: there its shift is zero by construction, and the
record says so (`identity`). What such an edit can move are the layers above, and its own generated tokens.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from interp.errors import InputError
from interp.mechanism.activations import PromptActivations
from interp.mechanism.intervals import of_means
from interp.records import ActivationShift, Estimate

SPLITS = 200
"""Random halvings of vanilla's inputs for the noise control."""
TINY = 1e-30


def activation_shift(
    vanilla: PromptActivations,
    shifted: PromptActivations,
    *,
    model: str,
    identity: bool = False,
    seed: int = 0,
) -> ActivationShift:
    """The shift of one model against vanilla, over the prompts that `shifted` was recorded on.

    For a set of edits, `shifted` is the `join` of each edit on its own prompt, as the paper runs each edited model on
    its own instance: the mean activation of the edits is then compared with vanilla's on the same prompts.

    Args:
        vanilla: recorded on at least those prompts.
        shifted: the model's recording, same layer, pooling, queries and suffix.
        model: name for the record.
        identity: `inputs_untouched(...)`: the change cannot reach h_down of the layer. The flag is set in the record
            only where the measured shift is zero to the last bit too.
        seed: of the bootstrap and the halvings.

    Raises:
        InputError: recordings of another layer or pooling, or prompts that vanilla was not recorded on.
    """
    if (vanilla.layer, vanilla.pooling) != (shifted.layer, shifted.pooling):
        raise InputError(
            f"expected a recording of layer {vanilla.layer} pooled by {vanilla.pooling}, "
            f"got layer {shifted.layer} pooled by {shifted.pooling}"
        )
    base, layer = vanilla.rows(shifted.index), shifted.layer
    zero = torch.equal(base.h_down[:, layer], shifted.h_down[:, layer])
    own = control = None
    if base.own is not None and shifted.own is not None:
        wrote = ~(base.own.isnan().any(dim=1) | shifted.own.isnan().any(dim=1))
        if wrote.any():
            own = shift_rate(base.own[wrote], shifted.own[wrote], seed)
        control = halves_control(base.own[~base.own.isnan().any(dim=1)], seed)
    return ActivationShift(
        model=model,
        layer=layer,
        rate=shift_rate(base.h_down[:, layer], shifted.h_down[:, layer], seed),
        by_layer=_by_layer(base.h_down, shifted.h_down),
        resid_by_layer=_by_layer(base.resid, shifted.resid),
        own_tokens=own,
        own_tokens_control=control,
        identity=identity and zero,
        n_inputs=len(shifted.index),
    )


def shift_rate(vanilla: Float[Tensor, "n d"], shifted: Float[Tensor, "n d"], seed: int = 0) -> Estimate:
    """|| mean(shifted) - mean(vanilla) || / || mean(vanilla) || in percent, bootstrap over inputs.

    The bootstrap holds the directions of the two mean vectors fixed and resamples the inputs' projections on them (the
    norm's first-order expansion): the norm of a resampled mean is biased upwards, and in thousands of dimensions would
    push the whole interval above the value.
    """
    base = vanilla.double()
    delta = shifted.double() - base
    along = torch.stack([delta @ _unit(delta.mean(dim=0)), base @ _unit(base.mean(dim=0))], dim=1).numpy()
    return of_means(along, _ratio, over="inputs (linearised)", unit="%", seed=seed)[0]


def halves_control(vanilla: Float[Tensor, "n d"], seed: int = 0) -> Estimate | None:
    """The rate between disjoint random halves of vanilla's inputs: what the texts alone make of it. None below 4.

    Halves of n differ by about 1.4 times what two sets of n would: a cautious control.
    """
    n = len(vanilla)
    if n < 4:
        return None
    rng = np.random.default_rng(seed)
    base = vanilla.double()
    scale = float(base.mean(dim=0).norm())
    found = []
    for _ in range(SPLITS):
        order = torch.from_numpy(rng.permutation(n))
        a, b = base[order[: n // 2]], base[order[n // 2 :]]
        found.append(100.0 * float((a.mean(dim=0) - b.mean(dim=0)).norm()) / scale if scale > 0 else 0.0)
    low, high = np.quantile(found, [0.025, 0.975])
    how = f"mean and central 95 % of {SPLITS} random halvings, seed {seed}"
    return Estimate(float(np.mean(found)), float(low), float(high), n, "%", how)


def _ratio(means: Float[np.ndarray, "*r 2"]) -> Float[np.ndarray, "*r 1"]:
    moved, base = np.abs(means[..., :1]), means[..., 1:]
    return np.where(moved == 0, 0.0, 100.0 * moved / np.maximum(base, TINY))


def _unit(v: Float[Tensor, "d"]) -> Float[Tensor, "d"]:
    length = v.norm()
    return v / length if length > 0 else v


def _by_layer(vanilla: Float[Tensor, "n layer d"], shifted: Float[Tensor, "n layer d"]) -> tuple[float, ...]:
    base = vanilla.double().mean(dim=0).norm(dim=-1)
    delta = (shifted.double() - vanilla.double()).mean(dim=0).norm(dim=-1)
    return tuple(float(100 * d / b) if b > 0 else 0.0 for d, b in zip(delta, base, strict=True))
