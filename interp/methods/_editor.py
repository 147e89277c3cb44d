"""MEND's hypernetwork (Mitchell et al. 2022, Sec. 3): from the two factors of a gradient to an update of the matrix.

The gradient of a linear module is a sum of outer products u delta^T, one per token. The editor maps each normalised
pair (u, delta) to another by a small MLP whose layers are low-rank and residual, so that it starts as the identity.
Matrices of one shape share an editor and differ by a scale and an offset; each has a learned learning rate.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from jaxtyping import Float
from torch import Tensor, nn

from interp.methods._linears import Factors

Shapes = Mapping[str, tuple[int, int]]
"""State-dict name -> (d_in, d_out)."""


class LowRankLayer(nn.Module):
    """x + relu(s * (U V x + b) + o), with s and o of the matrix at hand. U is 0 at first: then it is the identity."""

    def __init__(self, width: int, rank: int, n_matrices: int, generator: torch.Generator) -> None:
        super().__init__()
        rank = min(rank, width)
        self.up = nn.Parameter(torch.zeros(width, rank))
        self.down = nn.Parameter(torch.randn(rank, width, generator=generator))
        self.bias = nn.Parameter(torch.zeros(width))
        self.scale = nn.Parameter(torch.ones(n_matrices, width))
        self.offset = nn.Parameter(torch.zeros(n_matrices, width))

    def forward(self, x: Float[Tensor, "token width"], index: int) -> Float[Tensor, "token width"]:
        """For the matrix with this index among those of its shape."""
        inner = (x @ self.down.T) @ self.up.T + self.bias
        # clamp, not relu: its gradient at exactly 0, where everything starts, is 1
        return x + (inner * self.scale[index] + self.offset[index]).clamp(min=0)


class ShapeEditor(nn.Module):
    """The editor of all matrices of one shape."""

    mean: Tensor
    std: Tensor

    def __init__(self, shape: tuple[int, int], n_matrices: int, rank: int, depth: int, seed: int) -> None:
        super().__init__()
        self.d_in, width = shape[0], sum(shape)
        generator = torch.Generator().manual_seed(seed)
        self.layers = nn.ModuleList(LowRankLayer(width, rank, n_matrices, generator) for _ in range(depth))
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("std", torch.ones(width))

    def forward(self, factors: Factors, index: int) -> Float[Tensor, "d_in d_out"]:
        """Sum over tokens of the outer products of the new pairs."""
        x = (torch.cat([factors.u, factors.delta], dim=-1) - self.mean) / self.std
        for layer in self.layers:
            x = layer(x, index)
        return x[:, : self.d_in].T @ x[:, self.d_in :]


class Editor(nn.Module):
    """One `ShapeEditor` per shape, and a learning rate per matrix."""

    def __init__(self, shapes: Shapes, *, rank: int, depth: int, edit_lr: float, seed: int) -> None:
        """An editor that is the identity on normalised factors.

        Args:
            shapes: the matrices it edits.
            rank: of the low-rank layers, at most.
            depth: layers, the last included (the paper's one hidden layer is 2).
            edit_lr: every learning rate at first.
            seed: of the initial weights.
        """
        super().__init__()
        self.names = list(shapes)
        self.shapes = dict(shapes)
        groups: dict[tuple[int, int], list[str]] = {}
        for name, shape in shapes.items():
            groups.setdefault(shape, []).append(name)
        self.index = {name: own.index(name) for own in groups.values() for name in own}
        self.editors: dict[str, ShapeEditor] = nn.ModuleDict(  # type: ignore[assignment]  # as which it behaves
            {_key(shape): ShapeEditor(shape, len(own), rank, depth, seed) for shape, own in groups.items()}
        )
        self.rates = nn.Parameter(torch.full((len(shapes),), edit_lr))

    def forward(self, factors: Mapping[str, Factors]) -> dict[str, Float[Tensor, "d_in d_out"]]:
        """The change of each matrix, as [d_in, d_out]: minus its learning rate times the edited gradient."""
        return {
            name: -self.rates[i] * self.editors[_key(self.shapes[name])](factors[name], self.index[name])
            for i, name in enumerate(self.names)
        }

    @torch.no_grad()
    def normalise_by(self, seen: Iterable[Mapping[str, Factors]]) -> None:
        """Take mean and standard deviation of the inputs of each shape from the factors of some edits."""
        rows: dict[str, list[Tensor]] = {key: [] for key in self.editors}
        for factors in seen:
            for name, found in factors.items():
                rows[_key(self.shapes[name])].append(torch.cat([found.u, found.delta], dim=-1).double().cpu())
        for key, parts in rows.items():
            every, editor = torch.cat(parts), self.editors[key]
            editor.mean.copy_(every.mean(0))
            # A feature that never moves says nothing; left as it is, it would be divided by nothing.
            std = every.std(0)
            editor.std.copy_(torch.where(std > 1e-12, std, torch.ones_like(std)))


def _key(shape: tuple[int, int]) -> str:
    return f"{shape[0]}x{shape[1]}"
