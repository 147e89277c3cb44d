"""How far harmless answers of vanilla moved in each row: answer-token KL, which sees more than knowledge questions."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from interp.evaluation import Item, Moved, answered_by, mean_moved, moved
from interp.models import HookedModel
from interp.pipeline.study import Study
from interp.records import Estimate, Response

Asked = tuple[HookedModel, Sequence[Item], int | None]
"""A model, the items it is asked, and the id of the instance it was edited on."""


def keep_moved(study: Study, name: str, models: Iterable[Asked]) -> None:
    """Measure a row, in each suffix state, on the items its models are asked; write it, where it is not there yet."""
    if (study.run.path / f"moved/{name}.jsonl").exists():
        return
    vanilla = study.run.load_all("parts/vanilla", Response)
    found: list[Moved] = []
    for model, items, edited_on in models:
        answered = answered_by(items, vanilla)
        for suffix in ("", study.suffix) if study.suffix else ("",):
            found += moved(study.vanilla, model, answered, suffix, edited_on=edited_on, batch_size=study.settings.batch)
    study.run.save_all(f"moved/{name}", found)


def answer_kl_of(study: Study, name: str, suffix: bool) -> Estimate | None:
    """The row's KL in one suffix state; None where no knowledge question and no bare benign request was asked."""
    found = [m for m in study.run.load_all(f"moved/{name}", Moved) if m.suffix == suffix]
    return mean_moved(found, seed=study.settings.seed)
