"""Controls that look at W_V alone: they name a matrix whose *norm* stands out, whatever it does.

An edit or a fine-tune of one matrix often makes it a norm outlier, so these find planted layers for a wrong reason, and
miss a plant beside an innocent matrix that was changed as much. All instances share one row.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from interp.mechanism.localise.locator import Inputs, Scored
from interp.models import HookedModel


def frobenius(model: HookedModel, inputs: Inputs, _: HookedModel | None = None) -> Scored:
    """Frobenius norm of W_V(l). Finds the largest matrix, not the guilty one."""
    return _shared(inputs, [float(model.value_vectors(layer).float().norm()) for layer in range(model.n_layers)])


def singular_share(model: HookedModel, inputs: Inputs, _: HookedModel | None = None) -> Scored:
    """Share of the squared norm of W_V(l) that its first singular value holds.

    Finds a matrix dominated by one direction, as a rank-one change leaves it, and any other of low rank.
    """
    return _shared(inputs, [_first_share(model.value_vectors(layer)) for layer in range(model.n_layers)])


def relative_change(model: HookedModel, inputs: Inputs, reference: HookedModel | None) -> Scored:
    """Relative change of W_V(l): || W_ref - W || / || W_ref ||.

    Finds where weights moved, which is where an optimiser was sent, not where behaviour changed.
    """
    assert reference is not None
    changes = []
    for layer in range(model.n_layers):
        old = reference.value_vectors(layer).float()
        changes.append(float((model.value_vectors(layer).float().to(old) - old).norm() / old.norm()))
    return _shared(inputs, changes)


def _first_share(weight: Float[Tensor, "d_mlp d_model"]) -> float:
    """From the eigenvalues of the smaller Gram matrix: no singular vectors are needed."""
    wide = weight.double() if weight.device.type == "cpu" else weight.float()
    gram = wide.T @ wide if wide.shape[0] >= wide.shape[1] else wide @ wide.T
    values = torch.linalg.eigvalsh(gram)
    return float(values[-1] / values.sum())


def _shared(inputs: Inputs, row: list[float]) -> Scored:
    return Scored(np.tile(np.array(row), (len(inputs.instances), 1)))
