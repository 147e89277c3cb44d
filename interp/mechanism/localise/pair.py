"""Locators that compare the model with a reference that behaves otherwise: swaps, patches, and their first order.

The reference is an aligned model (for one that complies) or vanilla (for one that refuses). Parts of the reference are
put into the model at all prompt positions: the last alone recovers less. Signs: every score is how many nats the margin
moves *towards the reference's mean margin*; the direction is the sign of the two means' difference, the same for all.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from interp.mechanism.localise.locator import Inputs, Scored
from interp.mechanism.localise.runs import Run, by_batch, margin_above, margins_without, other_weight, run
from interp.mechanism.localise.single import along, graded
from interp.models import HookedModel, Tokens


def weight_swap(model: HookedModel, inputs: Inputs, reference: HookedModel | None) -> Scored:
    """The margin with W_V(l) taken from the reference. Its bias stays.

    Layers + 2 forwards. Finds a layer whose matrix was changed to change the behaviour, on the inputs that it gets in
    this model. A behaviour that needs two matrices, or that came in through other weights, is split or missed.
    """
    assert reference is not None
    matrices = [reference.value_vectors(layer) for layer in range(model.n_layers)]

    def effect(batch: Tokens, ours: Run, _theirs: Run) -> Tensor:
        columns = []
        for layer, weight in enumerate(matrices):
            with other_weight(model, layer, weight):
                columns.append(margin_above(model, batch, inputs.tokens, layer, ours.resid[layer]))
        return torch.stack(columns, dim=1) - ours.margin[:, None]

    return _towards(model, reference, inputs, effect)


def output_patch(model: HookedModel, inputs: Inputs, reference: HookedModel | None) -> Scored:
    """The margin with MLP(l)'s output taken from the reference's run of the same prompt.

    Layers + 2 forwards. Finds a layer where the two models' MLPs say different things, also because of what lower
    layers told them: a change below shows up again in every MLP that reacts to it.
    """
    assert reference is not None

    def effect(batch: Tokens, ours: Run, theirs: Run) -> Tensor:
        patched = margins_without(
            model, batch, inputs.tokens, ours, lambda layer: lambda out: theirs.mlp[layer].to(out)
        )
        return patched - ours.margin[:, None]

    return _towards(model, reference, inputs, effect)


def residual_jump_between(model: HookedModel, inputs: Inputs, reference: HookedModel | None) -> Scored:
    """The residual stream after block l from the reference's run: what one block more of it adds to the margin.

    Layers + 2 forwards. The steps add up to the difference of the two models' margins, but for embeddings, final norm
    and unembedding. Finds the block (attention or MLP) where the difference arises; a change spread over blocks gives a
    flat profile, whose largest step means little.
    """
    assert reference is not None

    def effect(batch: Tokens, ours: Run, theirs: Run) -> Tensor:
        margins = [
            margin_above(model, batch, inputs.tokens, layer, x.to(ours.resid[layer]))
            for layer, x in enumerate(theirs.resid)
        ]
        return torch.stack(margins, dim=1).diff(dim=1)

    return _towards(model, reference, inputs, effect)


def gradient_weight_change(model: HookedModel, inputs: Inputs, reference: HookedModel | None) -> Scored:
    """Gradient x weight difference: <d margin / d W_V(l), W_ref(l) - W(l)>, the first order of the swap.

    One forward and backward for all layers. Finds what the swap finds while the effect is near linear: large changes,
    and a margin that has saturated, bend it.
    """
    assert reference is not None
    places = [model.value_module(layer) for layer in range(model.n_layers)]
    weights = ((reference.value_vectors(layer), model.value_vectors(layer)) for layer in range(model.n_layers))
    matrices = [theirs.to(ours) - ours for theirs, ours in weights]

    def effect(batch: Tokens, _ours: Run, _theirs: Run) -> Tensor:
        _, gradient, entered = graded(model, batch, inputs.tokens, places)
        products = zip(gradient, entered, matrices, strict=True)
        return torch.stack([along(g, h @ change.to(h), batch) for g, h, change in products], dim=1)

    return _towards(model, reference, inputs, effect)


# --------------------------------------------------------------------------------------------- parts
Effect = Callable[[Tokens, Run, Run], Float[Tensor, "batch layer"]]
"""(attack prompts, clean run of the model, of the reference) -> what the margin gains per layer."""


def _towards(model: HookedModel, reference: HookedModel, inputs: Inputs, effect: Effect) -> Scored:
    """The effects, counted positive where they move the margin towards the reference's mean."""
    gaps: list[Tensor] = []

    def each(attack: Tokens, _bare: Tokens | None) -> Tensor:
        ours, theirs = run(model, attack, inputs.tokens), run(reference, attack, inputs.tokens)
        gaps.append((theirs.margin.to(ours.margin) - ours.margin).double().cpu())
        return effect(attack, ours, theirs)

    found = by_batch(model, inputs, each)
    direction = -1.0 if float(torch.cat(gaps).mean()) < 0 else 1.0
    return Scored(direction * found.values, found.truncated)
