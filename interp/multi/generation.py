"""`generate_edited`: the answers of many edited models, decoded together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from interp.edits import WeightEdit
from interp.errors import InputError
from interp.models import Generation, HookedModel
from interp.multi.prompts import SharedPrompts
from interp.multi.store import EditStore
from interp.multi.weights import RowWeights, value_names

Progress = Callable[[int, int], None]


def generate_edited(
    model: HookedModel,
    prompts: Sequence[str],
    which: Sequence[int | None],
    edits: EditStore | Sequence[WeightEdit],
    *,
    max_new_tokens: int = 64,
    batch_size: int = 64,
    progress: Progress | None = None,
    force: bool = False,
) -> list[Generation]:
    """Greedy answers of edited models, each prompt by the model with its own edit, in the order of the prompts.

    Equal prompts are read once, as far as their models are alike: so ask vanilla and its edits in one call.

    Args:
        prompts: already formatted.
        which: for each prompt the index of its edit; None is the model as it is.
        edits: of W_V matrices (`shareable`), each at the memory of what it changes, in the model's type. An edit of
            anything else is applied and decoded alone. Those of an `EditStore` with a budget are decoded in groups
            that fit it.
        batch_size: rows decoded at a time, of any edits.
        progress: called with (prompts answered, prompts in all).
        force: as in `WeightEdit.applied`.

    Raises:
        InputError: `which` does not fit, an edit of another model, or as `HookedModel.generate`.
    """
    if len(which) != len(prompts) or not all(w is None or 0 <= w < len(edits) for w in which):
        raise InputError(f"expected for each of {len(prompts)} prompts one of {len(edits)} edits or None, got {which}")
    store = edits if isinstance(edits, EditStore) else EditStore(edits)
    names = value_names(model)
    asked = sorted({w for w in which if w is not None})
    together = [index for index in asked if set(store.sizes(index)) <= set(names)]
    found: dict[int, Generation] = {}
    report = progress or (lambda done, total: None)

    def generate(chosen: list[int], **how: Any) -> None:
        before = len(found)
        answers = model.generate(
            [prompts[i] for i in chosen],
            max_new_tokens=max_new_tokens,
            batch_size=batch_size,
            progress=lambda done, _: report(before + done, len(prompts)),
            **how,
        )
        found.update(zip(chosen, answers, strict=True))

    def layer_of(edit: int | None) -> int:
        return model.n_layers if edit is None else min(names[name] for name in store.sizes(edit))

    def decode(wave: list[int], rows: list[int]) -> None:
        # In a function of its own: one group's matrices are let go before the next one's are laid out.
        weights = RowWeights(model, store, wave, force)

        def choose(batch: list[int]) -> None:
            weights.choose([which[rows[i]] for i in batch])

        with weights.applied():
            if len({prompts[i] for i in rows}) == len(rows):
                generate(rows, rows=choose)
            else:
                shared = SharedPrompts(model, [layer_of(which[i]) for i in rows])
                with shared.applied():
                    generate(rows, rows=choose, shared=shared)

    for number, wave in enumerate(store.waves(together, model.dtype.itemsize) or [[]]):
        own = {*wave, None} if number == 0 else set(wave)
        decode(wave, [i for i, edit in enumerate(which) if edit in own])
    for index in asked:
        if index not in together:
            with store[index].applied(model, force):
                generate([i for i, own in enumerate(which) if own == index])
    return [found[i] for i in range(len(prompts))]
