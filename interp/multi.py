"""Decode with many edited models at once: rows of one batch that differ in the W_V they run through.

Edits of one model share all weights but a matrix or two. So one forward serves the rows of many of them: everything but
the edited matrices runs on the whole batch, and there each edit's rows go through its own weight. The tokens are those
of each edited model decoded alone (in float32; rounding depends on batch shapes, in 16 bits visibly).
"""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor, nn

from interp.edits import WeightEdit, add_delta
from interp.errors import InputError
from interp.models import Generation, HookedModel
from interp.prefix import replaced

Progress = Callable[[int, int], None]


def shareable(model: HookedModel, edit: WeightEdit) -> bool:
    """Whether an edit changes W_V matrices (and their biases) alone, which rows of one batch may differ in."""
    return set(edit.deltas) <= set(_value_names(model))


def generate_edited(
    model: HookedModel,
    prompts: Sequence[str],
    which: Sequence[int | None],
    edits: Sequence[WeightEdit],
    *,
    max_new_tokens: int = 64,
    batch_size: int = 64,
    progress: Progress | None = None,
    force: bool = False,
) -> list[Generation]:
    """Greedy answers of edited models, each prompt by the model with its own edit, in the order of the prompts.

    Args:
        prompts: already formatted.
        which: for each prompt the index of its edit; None is the model as it is.
        edits: of W_V matrices (`shareable`), each at the memory of what it changes, in the model's type. An edit of
            anything else is applied and decoded alone.
        batch_size: rows decoded at a time, of any edits.
        progress: called with (prompts answered, prompts in all).
        force: as in `WeightEdit.applied`.

    Raises:
        InputError: `which` does not fit, an edit of another model, or as `HookedModel.generate`.
    """
    if len(which) != len(prompts) or not all(w is None or 0 <= w < len(edits) for w in which):
        raise InputError(f"expected for each of {len(prompts)} prompts one of {len(edits)} edits or None, got {which}")
    together = {index: edit for index, edit in enumerate(edits) if shareable(model, edit)}
    found: dict[int, Generation] = {}
    report = progress or (lambda done, total: None)

    def generate(chosen: list[int], rows: Callable[[list[int]], None] | None = None) -> None:
        before = len(found)
        answers = model.generate(
            [prompts[i] for i in chosen],
            max_new_tokens=max_new_tokens,
            batch_size=batch_size,
            progress=lambda done, _: report(before + done, len(prompts)),
            rows=rows,
        )
        found.update(zip(chosen, answers, strict=True))

    shared = [i for i, edit in enumerate(which) if edit is None or edit in together]
    weights = RowWeights(model, together, force)
    with weights.applied():
        generate(shared, lambda batch: weights.choose([which[shared[i]] for i in batch]))
    for index, edit in enumerate(edits):
        if index not in together:
            with edit.applied(model, force):
                generate([i for i, own in enumerate(which) if own == index])
    return [found[i] for i in range(len(prompts))]


class RowWeights:
    """Forwards of W_V in which each row of the batch has the weight of its own edit."""

    def __init__(self, model: HookedModel, edits: Mapping[int, WeightEdit], force: bool = False) -> None:
        """Lay out the edited matrices beside the model.

        Raises:
            InputError: an edit that is not of W_V alone, or not of this model.
        """
        self.model = model
        names = _value_names(model)
        self.edited: dict[int, dict[int, nn.Module]] = {}
        """layer -> edit -> W_V's module with the edit in it."""
        for index, edit in edits.items():
            targets = edit.targets(model, force)
            if not shareable(model, edit):
                other = sorted(set(targets) - set(names))[0]
                raise InputError(f"expected edits of W_V alone, got one of {other}; apply it by WeightEdit.applied")
            for layer in sorted({names[name] for name in targets}):
                self.edited.setdefault(layer, {})[index] = _edited_module(model, edit, layer)
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
                stack.enter_context(replaced(module, self._forward(layer, copy.copy(module))))
            yield

    def _forward(self, layer: int, plain: nn.Module) -> Callable[[Tensor], Tensor]:
        def forward(h_down: Tensor) -> Tensor:
            groups, others = self._chosen.rows[layer]
            out = h_down.new_empty((*h_down.shape[:-1], self.model.d_model))
            for module, rows in [*groups, *([(plain, others)] if len(others) else [])]:
                rows = rows.to(h_down.device)
                out[rows] = module(h_down[rows])
            return out

        return forward


def _edited_module(model: HookedModel, edit: WeightEdit, layer: int) -> nn.Module:
    """W_V's module of one layer with the edit in it; what the edit leaves alone is shared."""
    plain, name = model.value_module(layer), model.value_name(layer)
    deltas = {leaf: edit.deltas.get(name.removesuffix("weight") + leaf) for leaf, _ in plain.named_parameters()}
    shared = {id(p): p for leaf, p in plain.named_parameters() if deltas[leaf] is None}
    twin = copy.deepcopy(plain, shared)  # type: ignore[arg-type]
    for leaf, delta in deltas.items():
        if delta is not None:
            add_delta(twin.get_parameter(leaf), delta)
    return twin


def _value_names(model: HookedModel) -> dict[str, int]:
    """Name of a parameter of a W_V module -> its layer."""
    names = {}
    for layer in range(model.n_layers):
        name = model.value_name(layer)
        names[name] = layer
        names[name.removesuffix("weight") + "bias"] = layer
    return names
