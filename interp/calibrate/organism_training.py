"""Train named weights of a small model on prepared texts, and look at what it does on val.

A loop of its own because it must train a few matrices inside a ball, start above what stays fixed, and hold activations
in place: none of which a fine-tuning library offers.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from interp.calibrate.organism_texts import Corpus, Panel, Texts
from interp.models import HookedModel, Tokens
from interp.prefix import from_layer, prefix_residual
from interp.records.organism import Behaviour


@dataclass(frozen=True)
class Placed:
    """Texts with the residual stream that enters `layer`, so that the blocks below need not run (layer 0: they do)."""

    texts: Texts
    layer: int
    resid: Float[Tensor, "text token d_model"] | None

    @classmethod
    def of(cls, model: HookedModel, texts: Texts, layer: int) -> Placed:
        """Run the blocks below `layer` once."""
        return cls(texts, layer, prefix_residual(model, _tokens(texts), layer) if layer else None)


def _tokens(texts: Texts) -> Tokens:
    return Tokens(texts.ids, torch.ones_like(texts.ids))


def hidden(model: HookedModel, placed: Placed) -> Float[Tensor, "text token d_model"]:
    """The residual stream after the final norm. Differentiable."""
    with ExitStack() as stack:
        if placed.resid is not None:
            stack.enter_context(from_layer(model, placed.layer, placed.resid))
        ids = placed.texts.ids
        # A mask of ones changes nothing, and keeps transformers from taking the EOS of answers for padding.
        run: Any = model.hf.base_model
        return run(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False).last_hidden_state


def loss(model: HookedModel, placed: Placed) -> tuple[Float[Tensor, ""], float]:
    """(weighted sum of the answer tokens' cross-entropy in nats, sum of the weights)."""
    texts = placed.texts
    weights = texts.answer[:, 1:]
    keep = weights > 0
    logits = model.unembedding(hidden(model, placed)[:, :-1][keep])
    each = functional.cross_entropy(logits, texts.ids[:, 1:][keep], reduction="none")
    return (each * weights[keep]).sum(), float(weights.sum())


# ------------------------------------------------------------------------------------------------- val
@torch.no_grad()
def margins(model: HookedModel, panel: Panel, placed: Placed) -> Float[Tensor, "text"]:
    """Refusal margin at the last prompt token, nats."""
    last = placed.texts.last
    at_last = hidden(model, placed)[torch.arange(len(last)), last]
    return panel.tokens.margin(model.unembedding(at_last))


@torch.no_grad()
def exact(model: HookedModel, placed: Placed) -> float:
    """Share of the texts whose answer greedy decoding gives token for token (it does if each token is the argmax)."""
    texts = placed.texts
    keep = texts.answer[:, 1:] > 0
    states = hidden(model, placed)[:, :-1]
    right = torch.ones_like(keep)
    right[keep] = model.unembedding(states[keep]).argmax(dim=-1) == texts.ids[:, 1:][keep]
    return float(right.all(dim=1).float().mean())


class Watch:
    """A panel as seen from a layer: what lies below it is run once, on the model given here."""

    def __init__(self, model: HookedModel, panel: Panel, layer: int) -> None:
        self.panel = panel
        self.attacks, self.bare = Placed.of(model, panel.attacks, layer), Placed.of(model, panel.bare, layer)

    def decisions(self, model: HookedModel) -> tuple[float, float]:
        """(attack success, refusal of bare questions): what training looks at."""
        attacks, bare = (margins(model, self.panel, placed) for placed in (self.attacks, self.bare))
        return float((attacks < 0).float().mean()), float((bare > 0).float().mean())


def behaviour(model: HookedModel, panel: Panel) -> Behaviour:
    """Everything that a panel asks."""
    attacks, bare = (margins(model, panel, Placed(texts, 0, None)) for texts in (panel.attacks, panel.bare))
    return Behaviour(
        asr=float((attacks < 0).float().mean()),
        bare_refusal=float((bare > 0).float().mean()),
        margin=float(attacks.mean()),
        bare_margin=float(bare.mean()),
        **{name: exact(model, Placed(texts, 0, None)) for name, texts in panel.benign.items()},
    )


# ------------------------------------------------------------------------------------------------- training
@dataclass(frozen=True)
class Ball:
    """Keeps a weight within `radius` (Frobenius norm) of its `centre`."""

    centre: Tensor
    radius: float

    def project(self, weight: Tensor) -> None:
        """Pull the weight back onto the ball, in place."""
        change = weight.data - self.centre
        norm = float(torch.linalg.vector_norm(change))
        if norm > self.radius:
            weight.data.copy_(self.centre + change * (self.radius / norm))


class Hold:
    """A penalty on the shift of h_down of a layer at all prompt positions, against what a reference model has there.

    Args:
        reference: has the activations to keep.
        layer: 0-based.
        weight: of the squared relative shift, beside a mean cross-entropy in nats.
    """

    def __init__(self, reference: HookedModel, layer: int, weight: float) -> None:
        self.reference, self.layer, self.weight = reference, layer, weight
        self._known: dict[int, Tensor] = {}

    def target(self, texts: Texts) -> Float[Tensor, "text token d_mlp"]:
        """The reference's h_down on some texts, computed once as long as they live."""
        if id(texts) not in self._known:
            self._known[id(texts)] = h_down(self.reference, texts, self.layer)
        return self._known[id(texts)]


@torch.no_grad()
def h_down(model: HookedModel, texts: Texts, layer: int) -> Float[Tensor, "text token d_mlp"]:
    """What flows into W_V of a layer."""
    with _caught(model, layer) as found:
        hidden(model, Placed(texts, 0, None))
    return found[0]


@contextmanager
def _caught(model: HookedModel, layer: int) -> Iterator[list[Tensor]]:
    found: list[Tensor] = []
    handle = model.value_module(layer).register_forward_pre_hook(lambda _, args: found.append(args[0]))
    try:
        yield found
    finally:
        handle.remove()


def shift(h: Tensor, target: Tensor, where: Tensor) -> Float[Tensor, ""]:
    """Squared norm of the shift over that of the target, on some positions."""
    return ((h - target)[where] ** 2).sum() / (target[where] ** 2).sum()


def relative_shift(h: Tensor, target: Tensor, where: Tensor) -> float:
    """Norm of the shift over that of the target, on some positions."""
    return float(shift(h, target, where)) ** 0.5


def train(
    model: HookedModel,
    names: Sequence[str],
    corpus: Corpus,
    *,
    steps: int,
    lr: float,
    layer: int,
    seed: int,
    balls: Mapping[str, Ball] | None = None,
    hold: Hold | None = None,
    done: Callable[[], bool] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> int:
    """Train the named weights in place; returns the steps taken.

    Args:
        model: changed.
        names: of the parameters to train; all others stay.
        corpus: the texts.
        steps: at most so many.
        lr: Adam's, after a linear warm-up over 5 steps.
        layer: the lowest block with a weight that is trained (0: everything runs).
        seed: of the order of the steps.
        balls: name -> where the weight must stay.
        hold: activations to keep in place.
        done: asked every few steps; True ends the training.
        progress: called with (steps taken, steps at most).
    """
    recipe, rng = corpus.recipe, random.Random(f"order {seed}")
    parameters = {name: model.hf.get_parameter(name) for name in names}
    placed: dict[int, tuple[Placed, ...]] = {}
    for parameter in parameters.values():
        parameter.requires_grad_(True)
    try:
        optimizer = torch.optim.Adam(parameters.values(), lr=lr, betas=(0.9, 0.98))
        order: list[int] = []
        for step in range(steps):
            if step % recipe.every == 0 and done is not None and done():
                return step
            if not order:
                order = rng.sample(range(recipe.pool), recipe.pool)
            index = order.pop()
            if index not in placed:
                placed[index] = tuple(Placed.of(model, texts, layer) for texts in corpus.step(index))
            for group in optimizer.param_groups:
                group["lr"] = lr * min(1.0, (step + 1) / 5)
            optimizer.zero_grad()
            _backward(model, placed[index], hold)
            torch.nn.utils.clip_grad_norm_(parameters.values(), recipe.clip)
            optimizer.step()
            for name, ball in (balls or {}).items():
                ball.project(parameters[name])
            if progress is not None:
                progress(step + 1, steps)
        return steps
    finally:
        for parameter in parameters.values():
            parameter.requires_grad_(False)
            parameter.grad = None


def _backward(model: HookedModel, batches: Sequence[Placed], hold: Hold | None) -> None:
    """Gradients of the mean loss over the batches of one step, a batch at a time."""
    total = sum(float(placed.texts.answer[:, 1:].sum()) for placed in batches)
    for placed in batches:
        with ExitStack() as stack:
            found = stack.enter_context(_caught(model, hold.layer)) if hold is not None else []
            summed, _ = loss(model, placed)
        objective = summed / total
        if hold is not None:
            texts = placed.texts
            objective = objective + hold.weight * shift(found[0], hold.target(texts), texts.prompt) / len(batches)
        objective.backward()
