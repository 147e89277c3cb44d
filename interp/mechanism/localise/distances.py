"""Locators that compare hidden states of the safe and the unsafe response: the paper's family, and separability.

Every instance gives two sequences, its adversarial prompt with either response. What they find is where two *texts* lie
apart, which is not where a model decides between them: the texts differ from their first word on.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from interp.capture import stream
from interp.errors import InputError
from interp.locate import Convention, layer_distances
from interp.mechanism.localise.locator import Inputs, Scored, Scorer
from interp.mechanism.probe import fit_direction
from interp.models import HookedModel

MAX_PROMPT, MAX_ANSWER = 1000, 600
"""The paper's limits, tokens."""
FOLDS = 5


def distance(convention: Convention) -> Scorer:
    """The paper's Eq. 6 under one convention (`interp.locate`), as a scorer.

    Finds the layer where the responses are furthest apart. Norms of a residual stream grow with depth, so it tends to
    name one of the last layers whatever the model was made to do.
    """

    def score(model: HookedModel, inputs: Inputs, _: HookedModel | None = None) -> Scored:
        found = layer_distances(model, inputs.instances, convention, inputs.batch_size)
        return Scored(found.values, found.truncated)

    return score


def relative_distance(model: HookedModel, inputs: Inputs, _: HookedModel | None = None) -> Scored:
    """Eq. 6 divided by the mean norm of the residual stream at the same layer over both responses' tokens.

    Takes the growth of norms with depth away. Still a distance of texts, not of decisions.
    """
    seen = responses(model, inputs)
    return Scored(seen.apart[:, 1:] / seen.norm[:, 1:], seen.truncated)


def increment(model: HookedModel, inputs: Inputs, _: HookedModel | None = None) -> Scored:
    """What block l adds to the distance of Eq. 6: the distance after the block minus that before it.

    Finds the block that pulls the responses apart most. A block with large outputs does so for any two texts.
    """
    seen = responses(model, inputs)
    return Scored(np.diff(seen.apart, axis=1), seen.truncated)


def relative_increment(model: HookedModel, inputs: Inputs, _: HookedModel | None = None) -> Scored:
    """The increment divided by the distance before the block: by what factor the block pulls the responses apart.

    The first block, which makes contexts of words, has the largest factor in most models.
    """
    seen = responses(model, inputs)
    before = np.maximum(seen.apart[:, :-1], np.finfo(np.float32).tiny)
    return Scored(np.diff(seen.apart, axis=1) / before, seen.truncated)


def probe_auroc(model: HookedModel, inputs: Inputs, _: HookedModel | None = None) -> Scored:
    """Cross-validated AUROC, per layer, of a linear probe that tells unsafe responses from safe ones.

    Folds hold out whole instances. The score of an instance is its part of the AUROC: how many held-out safe responses
    its unsafe one scores above, and the other way round; the mean over instances is the AUROC. Finds where safety of a
    text can be read; saturates at 1 (the lowest such layer is then named), and reading is not causing.
    """
    seen = responses(model, inputs)
    n, depth, _ = seen.safe.shape
    if n < FOLDS:
        raise InputError(f"the probe needs at least {FOLDS} instances to hold some out, got {n}")
    fold = np.random.default_rng(0).permutation(n) % FOLDS
    values = np.zeros((n, depth))
    for layer in range(depth):
        unsafe, safe = np.zeros(n), np.zeros(n)
        for k in range(FOLDS):
            held = fold == k
            X = np.concatenate([seen.unsafe[~held, layer], seen.safe[~held, layer]])
            w, _bias = fit_direction(X, np.repeat([1, 0], (~held).sum()), bias=False, C=1.0)
            unsafe[held], safe[held] = seen.unsafe[held, layer] @ w, seen.safe[held, layer] @ w
            middle = X @ w  # folds have probes of their own: put them on one scale
            unsafe[held], safe[held] = ((v - middle.mean()) / (middle.std() or 1.0) for v in (unsafe[held], safe[held]))
        above = (unsafe[:, None] > safe).astype(float) + 0.5 * (unsafe[:, None] == safe)
        values[:, layer] = (above.mean(axis=1) + above.mean(axis=0)) / 2
    return Scored(values, seen.truncated)


def separability(model: HookedModel, inputs: Inputs, _: HookedModel | None = None) -> Scored:
    """Difference in means, leave-one-out: how far an instance's responses lie apart along it, in standard deviations.

    The direction and the pooled within-class deviation along it come from the other instances. Scale-free, so norms
    play no part. Finds where the two classes of texts separate best, which need not be where the model decides.
    """
    seen = responses(model, inputs)
    n = len(seen.safe)
    if n < 3:
        raise InputError(f"separability needs at least 3 instances to leave one out, got {n}")
    values = np.zeros(seen.safe.shape[:2])
    for i in range(n):
        others = np.arange(n) != i
        unsafe, safe = seen.unsafe[others], seen.safe[others]
        direction = unsafe.mean(axis=0) - safe.mean(axis=0)
        spread = np.concatenate([unsafe - unsafe.mean(axis=0), safe - safe.mean(axis=0)])
        deviation = np.sqrt((np.einsum("nld,ld->nl", spread, direction) ** 2).sum(axis=0) / (2 * (n - 1) - 2))
        own = np.einsum("ld,ld->l", seen.unsafe[i] - seen.safe[i], direction)
        values[i] = own / np.maximum(deviation, np.finfo(np.float32).tiny)
    return Scored(values, seen.truncated)


# --------------------------------------------------------------------------------------------- parts
@dataclass(frozen=True)
class Responses:
    """Hidden states of both responses of each instance, after their prompt."""

    safe: Float[np.ndarray, "instance layer d_model"]
    """Output of each block, mean over the response's own tokens."""
    unsafe: Float[np.ndarray, "instance layer d_model"]
    apart: Float[np.ndarray, "instance place"]
    """L2 distance of the two; place 0 is the input of block 0, place l + 1 the output of block l."""
    norm: Float[np.ndarray, "instance place"]
    """Mean norm of the residual stream over the tokens of both responses."""
    truncated: int


def responses(model: HookedModel, inputs: Inputs) -> Responses:
    """Run both responses of every instance after its attack prompt; nothing per token is kept.

    Raises:
        InputError: an instance with an empty response.
    """
    rows, starts = [], []
    cut: set[int] = set()
    for which in ("safe_generation", "unsafe_generation"):
        for instance in inputs.instances:
            answer = getattr(instance, which)
            if not answer.strip():
                raise InputError(f"instance {instance.id} has an empty {which.replace('_', ' ')}; locating needs both")
            before = model.truncated
            prompt, reply = model.encode_pair(
                instance.prompt(inputs.kind), answer, inputs.suffix, MAX_PROMPT, MAX_ANSWER, eos=False
            )
            if model.truncated > before:
                cut.add(instance.id)
            rows.append([*prompt, *reply])
            starts.append(len(prompt))
    tokens, begin = model.pad(rows, side="right"), torch.tensor(starts)
    mean = torch.zeros(len(rows), model.n_layers + 1, model.d_model)
    norm = torch.zeros(len(rows), model.n_layers + 1)
    for batch in stream(model, tokens, ("resid_pre", "resid_post"), batch_size=inputs.batch_size):
        index = list(batch.index)
        mask = batch.tokens.attention_mask.bool().cpu()
        own = (torch.arange(mask.shape[1])[None] >= begin[index][:, None]) & mask
        for place in range(model.n_layers + 1):
            h = batch.acts[("resid_post", place - 1) if place else ("resid_pre", 0)]
            mean[index, place] = _mean(h.float(), own)
            norm[index, place] = _mean(h.float().norm(dim=-1, keepdim=True), own)[:, 0]
    states, n = mean.double().numpy(), len(inputs.instances)
    return Responses(
        safe=states[:n, 1:],
        unsafe=states[n:, 1:],
        apart=np.linalg.norm(states[:n] - states[n:], axis=-1),
        norm=norm.double().numpy().reshape(2, n, -1).mean(axis=0),
        truncated=len(cut),
    )


def _mean(h: Float[Tensor, "row seq width"], own: Tensor) -> Float[Tensor, "row width"]:
    kept = own.to(h.device)[..., None]
    return (h.masked_fill(~kept, 0.0).sum(1) / kept.sum(1)).cpu()
