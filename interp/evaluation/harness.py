"""Knowledge and skill at scale: EleutherAI's lm-evaluation-harness on the very weights, where it is installed.

The optional extra `lm-eval` installs it; nothing else of the toolkit needs it.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from interp.edits import WeightEdit
from interp.errors import InputError
from interp.models import HookedModel

INSTALL = "pip install 'interp[lm-eval]'"


@dataclass(frozen=True)
class HarnessTasks:
    """Tasks that the harness knows."""

    names: tuple[str, ...]
    manager: Any
    """The harness's `TaskManager`."""


def find_tasks(tasks: Sequence[str], include: Path | None = None) -> HarnessTasks:
    """Look the tasks up: seconds, and longer where all of the harness's own definitions have to be read.

    Args:
        tasks: names.
        include: a folder with definitions of further tasks (YAML), e.g. of local files.

    Raises:
        InputError: the harness is not installed, no tasks, one that it does not know, or no such folder.
    """
    if not tasks:
        raise InputError("expected at least one task of lm-evaluation-harness, got none")
    if include is not None and not include.is_dir():
        raise InputError(f"expected a folder with tasks of lm-evaluation-harness, got {include}")
    try:
        from lm_eval.tasks import TaskManager
    except ImportError as error:
        raise InputError(f"lm-evaluation-harness is not installed: {INSTALL}") from error
    manager = TaskManager(include_path=str(include), include_defaults=False) if include else None
    if manager is None or not all(manager.match_tasks([task]) for task in tasks):
        manager = TaskManager(include_path=str(include) if include else None)
    unknown = [task for task in tasks if not manager.match_tasks([task])]
    if unknown:
        raise InputError(f"lm-evaluation-harness knows no task {', '.join(map(repr, unknown))}")
    return HarnessTasks(tuple(tasks), manager)


def run_harness(
    model: HookedModel,
    tasks: HarnessTasks | Sequence[str],
    *,
    edit: WeightEdit | None = None,
    num_fewshot: int | None = None,
    limit: int | None = None,
    batch_size: int | str = 8,
    folder: Path | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """Scores of the harness, by task, as it gives them (`results` of `simple_evaluate`).

    The model, with the edit in its weights where one is given, is written as an ordinary checkpoint, which the harness
    opens itself; `triviaqa` and the like are downloaded by it.

    Args:
        tasks: names of the harness's own tasks, or what `find_tasks` found.
        num_fewshot: examples before each question; the task's own number by default.
        limit: at most so many documents of each task.
        folder: where to keep the checkpoint; a temporary one by default.

    Raises:
        InputError: as `find_tasks`, `WeightEdit.applied` and `HookedModel.save`.
    """
    found = tasks if isinstance(tasks, HarnessTasks) else find_tasks(tasks)
    import lm_eval

    with ExitStack() as stack:
        where = folder or Path(stack.enter_context(tempfile.TemporaryDirectory())) / "model"
        if edit is None:
            model.save(where)
        else:
            edit.merge(model, where)
        evaluate: Any = lm_eval.simple_evaluate  # its annotations do not hold what it takes
        said = evaluate(
            model="hf",
            model_args={"pretrained": str(where), "dtype": str(model.dtype).removeprefix("torch.")},
            tasks=list(found.names),
            task_manager=found.manager,
            num_fewshot=num_fewshot,
            limit=limit,
            batch_size=batch_size,
            device=str(model.device),
            apply_chat_template=model.template.mode == "chat",
            random_seed=seed,
            numpy_random_seed=seed,
            torch_random_seed=seed,
            fewshot_random_seed=seed,
        )
    if not isinstance(said, dict) or "results" not in said:
        raise InputError("lm-evaluation-harness gave no results; expected version 0.4.9 or newer")
    return dict(said["results"])
