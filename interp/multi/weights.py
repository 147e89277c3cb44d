"""W_V of each row's own edit: the forward of one batch whose rows belong to different edited models."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor, nn

from interp import products
from interp.edits import WeightEdit, add_delta
from interp.errors import InputError
from interp.models import HookedModel
from interp.multi.store import EditStore
from interp.standin import replaced


def shareable(model: HookedModel, edit: WeightEdit) -> bool:
    """Whether an edit changes W_V matrices (and their biases) alone, which rows of one batch may differ in."""
    return set(edit.deltas) <= set(value_names(model))


def value_names(model: HookedModel) -> dict[str, int]:
    """Name of a parameter of a W_V module -> its layer."""
    names = {}
    for layer in range(model.n_layers):
        stem = model.value_name(layer).removesuffix("weight")
        names |= {stem + leaf: layer for leaf, _ in model.value_module(layer).named_parameters()}
    return names


class RowWeights:
    """Forwards of W_V in which each row of the batch has the weight of its own edit."""

    def __init__(
        self,
        model: HookedModel,
        edits: EditStore | Sequence[WeightEdit],
        chosen: Sequence[int] | None = None,
        force: bool = False,
    ) -> None:
        """Lay out the edited matrices beside the model, stacked where they share a layer, in the model's type.

        The matrix with the edit in it is kept, not the delta: a product with W + delta rounds as the edited model's own
        does, and in 16 bits only that gives its tokens. Edits are read one at a time.

        Args:
            chosen: the indices of the edits that are needed (default: all).

        Raises:
            InputError: an edit that is not of W_V alone, or not of this model.
        """
        self.model = model
        store = edits if isinstance(edits, EditStore) else EditStore(edits)
        chosen = range(len(store)) if chosen is None else chosen
        names = value_names(model)
        places: dict[str, dict[int, int]] = {}
        """parameter -> edit -> its place in the stack."""
        for index in chosen:
            for name in store.sizes(index):
                if name in names:
                    own = places.setdefault(name, {})
                    own[index] = len(own)
        self.stacks = {name: _stack(model, name, len(own)) for name, own in places.items()}
        """parameter -> its edited versions, `[edit, ...]`."""
        self.edited: dict[int, dict[int, nn.Module]] = {}
        """layer -> edit -> W_V's module with the edit in it; its edited parameters are views of the stacks."""
        for index in chosen:
            edit = store[index]
            targets = edit.targets(model, force)
            other = sorted(set(targets) - set(names))
            if other:
                raise InputError(f"expected edits of W_V alone, got one of {other[0]}; apply it by WeightEdit.applied")
            for layer in sorted({names[name] for name in targets}):
                views = {}
                for name, target in targets.items():
                    if names[name] == layer:
                        views[name] = nn.Parameter(self.stacks[name][places[name][index]], requires_grad=False)
                        views[name].data.copy_(target.data)
                        add_delta(views[name], edit.deltas[name])
                self.edited.setdefault(layer, {})[index] = _with(model, layer, views)
        self._chosen = threading.local()  # rows are decoded in several threads

    def choose(self, which: Sequence[int | None]) -> None:
        """The edit of each row of the next forward."""
        chosen: dict[int, tuple[list[tuple[nn.Module, Tensor]], Tensor]] = {}
        for layer, modules in self.edited.items():
            rows: dict[int, list[int]] = {}
            plain = []
            for row, edit in enumerate(which):
                (rows.setdefault(edit, []) if edit in modules else plain).append(row)  # type: ignore[arg-type]
            groups = [(modules[edit], torch.tensor(members)) for edit, members in rows.items()]
            chosen[layer] = (groups, torch.tensor(plain, dtype=torch.long))
        self._chosen.rows = chosen

    @contextmanager
    def applied(self) -> Iterator[None]:
        """While open, the model's forwards take the rows' own weights. `choose` before each."""
        with ExitStack() as stack:
            for layer in self.edited:
                module = self.model.value_module(layer)
                stack.enter_context(replaced(module, self._forward(layer)))
            yield

    def _forward(self, layer: int) -> Callable[[Tensor], Tensor]:
        plain = _with(self.model, layer, {})

        def forward(h_down: Tensor) -> Tensor:
            # One product for each edit: within a tenth of a batched one over the stack, which would have to pad groups
            # of unequal size; base and deltas apart round otherwise and take longer (experiments/benchmarks/decode.py).
            groups, others = self._chosen.rows[layer]
            out = h_down.new_empty((*h_down.shape[:-1], self.model.d_model))
            for module, rows in [*groups, *([(plain, others)] if len(others) else [])]:
                rows = rows.to(h_down.device)
                out[rows] = module(h_down[rows])
            return out

        return forward


def _stack(model: HookedModel, name: str, n: int) -> Tensor:
    parameter = model.hf.get_parameter(name)
    return torch.empty((n, *parameter.shape), dtype=parameter.dtype, device=parameter.device)


def _with(model: HookedModel, layer: int, parameters: Mapping[str, nn.Parameter]) -> nn.Module:
    """W_V's module of one layer with other parameters; what is not among them is shared, and hooks stay with it."""
    plain, name = model.value_module(layer), model.value_name(layer)
    twin = copy.deepcopy(plain, {id(p): p for p in plain.parameters()})  # type: ignore[arg-type]
    for hooks in (twin._forward_hooks, twin._forward_pre_hooks):  # the plain module calls them around its stand-in
        hooks.clear()
    for full, parameter in parameters.items():
        setattr(twin, full.removeprefix(name.removesuffix("weight")), parameter)
    forward = products.linear(twin)
    if forward is not None:
        object.__setattr__(twin, "forward", forward)
    return twin
