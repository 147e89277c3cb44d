"""How far harmless answers of vanilla moved in each row: answer-token KL, which sees more than knowledge questions."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from typing import Any

from interp.evaluation import Item, Moved, answered_by, mean_moved, moved
from interp.models import HookedModel
from interp.pipeline.memory import identity, remembered
from interp.pipeline.study import Study
from interp.records import Estimate, Response

Asked = tuple[HookedModel, Sequence[Item], int | None]
"""A model, the items it is asked, and the id of the instance it was edited on."""


def keep_moved(study: Study, name: str, models: Iterable[Asked], what: Any, seconds: dict[str, float]) -> None:
    """Measure a row, in each suffix state, on the items its models are asked; write it, where it is not there yet.

    Args:
        models: looked at where nothing is remembered of them.
        what: identity of the models and what they are asked, for the cache.
        seconds: of the row.
    """
    if (study.run.path / f"moved/{name}.jsonl").exists():
        return
    vanilla = study.run.load_all("parts/vanilla", Response)

    def measure() -> Iterator[Moved]:
        for model, items, edited_on in models:
            answered = answered_by(items, vanilla)
            for suffix in ("", study.suffix) if study.suffix else ("",):
                batch = study.settings.batch
                yield from moved(study.vanilla, model, answered, suffix, edited_on=edited_on, batch_size=batch)

    asked = [asdict(item) for item in study.items]
    said = [(r.kind, r.instance_id, r.suffix, r.text, r.ended) for r in vanilla]
    key = [identity(study.vanilla), what, asked, said, study.suffix, study.settings.batch]
    study.run.save_all(f"moved/{name}", remembered("moved", key, Moved, study.vanilla, lambda: [*measure()], seconds))


def answer_kl_of(study: Study, name: str, suffix: bool) -> Estimate | None:
    """The row's KL in one suffix state; None where no knowledge question and no bare benign request was asked."""
    found = [m for m in study.run.load_all(f"moved/{name}", Moved) if m.suffix == suffix]
    return mean_moved(found, seed=study.settings.seed)
