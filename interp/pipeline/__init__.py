"""The comparison, from models and data to records, figures and a report; read `compare` as a table of contents."""

from __future__ import annotations

import os
from pathlib import Path

from interp.pipeline.settings import METHODS, Settings, Spec

__all__ = ["METHODS", "Settings", "Spec", "compare"]


def compare(settings: Settings) -> Path:
    """Run a comparison, or finish one that was killed; returns its run folder.

    Writes `comparison.json`, `generations.jsonl`, `probe.safetensors`, `figures/`, `report.html`, with `--deep` also
    `deep/`; prints the table.

    Raises:
        InputError: anything in the settings, the models or the data that cannot be used. What was computed stays.
    """
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    from interp.pipeline import deep, output
    from interp.pipeline.progress import Stages
    from interp.pipeline.run import measure_all, prepare

    with Stages() as stages:
        study = prepare(settings, stages)
        if settings.figures:
            output.start_drawing()  # nothing was refused: the browser starts while models are measured
        comparison = measure_all(study)
        written = output.write_records(study.run, comparison)
        found = deep.look(study) if settings.deep else deep.Deep()
        written += output.write_pictures(study.run, comparison, settings, stages, found)
    output.show(comparison, study.run, written)
    return study.run.path
