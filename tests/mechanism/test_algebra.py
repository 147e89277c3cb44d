"""What is algebra is told from what was measured, for one model and for edits at several layers."""

from __future__ import annotations

import numpy as np
import pytest

from interp.mechanism.algebra import algebra, shares_at
from interp.mechanism.swaps import SwapMargins

LAYER = 1


def erased(n: int) -> SwapMargins:
    """The reference's W_V alone brings everything back."""
    new, old = np.full(n, 2.0), np.full(n, -2.0)
    return SwapMargins(new, old, np.stack([old, new, old, old], 1), np.stack([new, old, new, new], 1))


def masked(n: int) -> SwapMargins:
    """Nothing that is put in brings anything back."""
    new, old = np.full(n, 2.0), np.full(n, -2.0)
    return SwapMargins(new, old, np.stack([new] * 4, 1), np.stack([old] * 4, 1))


def bypassed(n: int) -> SwapMargins:
    new, old = np.full(n, 2.0), np.full(n, -2.0)
    return SwapMargins(new, old, np.stack([new, old, old, old], 1), np.stack([old, new, new, new], 1))


def test_where_a_change_was_made_says_which_share_is_algebra(tiny_model) -> None:
    value, above, below = (tiny_model.value_name(layer) for layer in (LAYER, LAYER + 1, LAYER - 1))
    norm = next(n for n, _ in tiny_model.hf.named_parameters() if n.startswith(f"{tiny_model.layout.final_norm}."))
    assert algebra(tiny_model, {value}, LAYER) == "erased"
    assert algebra(tiny_model, {above, norm}, LAYER) == "masked"
    for measured in ({below}, {value, above}, {below, above}):
        assert algebra(tiny_model, measured, LAYER) == ""


def test_one_model_keeps_its_shares_and_says_where_they_are_algebra(llama) -> None:
    value, above, below = (llama.value_name(layer) for layer in (LAYER, LAYER + 1, LAYER - 1))
    at = shares_at(llama, [erased(9)], [{value}], model="m", layer=LAYER)
    assert (at.identity, at.by_algebra) == (True, "only W_V of layer 1 was changed")
    later = shares_at(llama, [masked(9)], [{above}], model="m", layer=LAYER, suffix=True)
    assert (later.identity, later.suffix) == (False, True)
    assert later.by_algebra == "nothing up to the output of layer 1 was changed"
    assert later.downstream.value == 1.0
    free = shares_at(llama, [bypassed(9)], [{below}], model="m", layer=LAYER)
    assert (free.by_algebra, free.left_out, free.n) == ("", 0, 9)


def test_edits_whose_shares_are_algebra_are_left_out_of_the_mean(llama) -> None:
    value, above, below = (llama.value_name(layer) for layer in (LAYER, LAYER + 1, LAYER - 1))
    pieces = [*(bypassed(1) for _ in range(5)), *(erased(1) for _ in range(3)), masked(1)]
    changed = [*({below},) * 5, *({value},) * 3, {above}]
    found = shares_at(llama, pieces, changed, model="dinm", layer=LAYER, over="edits")
    assert (found.n, found.left_out, found.by_algebra) == (5, 4, "")
    assert found.bypassed.value == pytest.approx(1.0)


def test_where_all_is_algebra_but_of_two_kinds_the_shares_count_edits_and_say_so(llama) -> None:
    value, above = (llama.value_name(layer) for layer in (LAYER, LAYER + 1))
    pieces, changed = [*(erased(1) for _ in range(3)), masked(1)], [*({value},) * 3, {above}]
    found = shares_at(llama, pieces, changed, model="dinm", layer=LAYER, over="edits")
    assert (found.n, found.left_out, found.identity) == (4, 0, False)
    assert found.erased.value == pytest.approx(0.75)
    assert found.by_algebra.startswith("of 4 edits 3 changed W_V of layer 1 alone and 1 nothing up to its output")
