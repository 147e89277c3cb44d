"""The comparison, from models and data to records, figures and a report; read `compare` as a table of contents."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from interp.pipeline.settings import METHODS, Settings, Spec

if TYPE_CHECKING:
    from interp.pipeline.output import Deep
    from interp.pipeline.study import Study

__all__ = ["METHODS", "Settings", "Spec", "compare"]


def compare(settings: Settings) -> Path:
    """Run a comparison, or finish one that was killed; returns its run folder.

    Writes `comparison.json`, `generations.jsonl`, `probe.safetensors`, `figures/`, `report.html`, with `--deep` also
    `deep/`; prints the table.

    Raises:
        InputError: anything in the settings, the models or the data that cannot be used. What was computed stays.
    """
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    from interp.pipeline import output
    from interp.pipeline.progress import Stages
    from interp.pipeline.run import measure_all, prepare

    with Stages() as stages:
        study = prepare(settings, stages)
        if settings.figures:
            output.start_drawing()  # nothing was refused: the browser starts while models are measured
        with _left_alone():
            comparison = measure_all(study)
        written = output.write_records(study.run, comparison)
        found = _look_deeper(study) if settings.deep else output.Deep()
        written += output.write_pictures(study.run, comparison, settings, stages, found)
    output.show(comparison, study.run, written)
    return study.run.path


def _look_deeper(study: Study) -> Deep:
    from interp.pipeline.deep import look

    return look(study)


@contextmanager
def _left_alone() -> Iterator[None]:
    """Spare what is there already when garbage is collected: imports and data leave a million objects that stay.

    Each model that is closed is followed by a collection, which would look through them all (a third of a second).
    """
    mine = gc.get_freeze_count() == 0
    if mine:
        gc.freeze()
    try:
        yield
    finally:
        if mine:
            gc.unfreeze()
