"""Shares that no measurement can contradict: where a change was made decides them, whatever it did.

An edit of W_V of the layer alone is "erased" there, and one of anything after the layer's block is "masked". Several
edits, each at a layer of its own, are told apart here, so that what is algebra does not pass for a measured mean.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Literal

from interp.mechanism.activations import output_untouched
from interp.mechanism.shares import swap_shares
from interp.mechanism.swaps import SwapMargins
from interp.models import HookedModel
from interp.records import SwapShares


def algebra(model: HookedModel, changed: Collection[str], layer: int) -> Literal["erased", "masked", ""]:
    """Which share is 1 by construction at `layer` where these parameters were changed; "" where none is.

    Args:
        model: any of the two, for its parameter names.
        changed: names of the changed parameters; none at all counts as "erased", as in `SwapShares.identity`.
        layer: 0-based.
    """
    if set(changed) <= {model.value_name(layer)}:
        return "erased"
    return "masked" if output_untouched(model, changed, layer) else ""


def shares_at(
    vanilla: HookedModel,
    pieces: Sequence[SwapMargins],
    changed: Sequence[Collection[str]],
    *,
    model: str,
    layer: int,
    seed: int = 0,
    over: str = "models",
    suffix: bool = False,
) -> SwapShares:
    """The shares of one model, or of several edits together, with what is algebra marked.

    Edits whose shares are algebra are left out of the mean where at least two others remain; where none or one does,
    all are kept and the record says in words what the mean is of.

    Args:
        vanilla: for the parameter names.
        pieces: margins of each model or edit at the layer.
        changed: the parameters that each has changed.
        model: name for the record.
        layer: 0-based.
        seed: of the bootstrap.
        over: what the pieces are, in the plural.
        suffix: whether the margins are of prompts with S.

    Raises:
        InputError: as `swap_shares`.
    """
    kinds = [algebra(vanilla, names, layer) for names in changed]
    measured = [i for i, kind in enumerate(kinds) if not kind]
    kept = measured if len(measured) > 1 or len(measured) == len(pieces) else range(len(pieces))
    found = swap_shares(
        SwapMargins.join([pieces[i] for i in kept]),
        model=model,
        layer=layer,
        identity=set(kinds) == {"erased"},
        seed=seed,
        over=over,
    )
    said = "" if len(kept) == len(measured) else _said(kinds, layer)
    return replace(found, by_algebra=said, left_out=len(pieces) - len(kept), suffix=suffix)


def _said(kinds: Sequence[str], layer: int) -> str:
    erased, masked = kinds.count("erased"), kinds.count("masked")
    if erased == len(kinds):
        return f"only W_V of layer {layer} was changed"
    if masked == len(kinds):
        return f"nothing up to the output of layer {layer} was changed"
    return (
        f"of {len(kinds)} edits {erased} changed W_V of layer {layer} alone and {masked} nothing up to its output, so "
        "that the shares count edits"
    )
