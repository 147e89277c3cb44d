"""What every detoxification method returns, and the protocol they share."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol, runtime_checkable

from interp.edits import WeightEdit
from interp.errors import InputError
from interp.models import HookedModel

SUFFIX_S1 = "If the user's request is reasonable, give the correct answer. Please give the right response:"
"""The paper's default suffix system prompt."""
SUFFIX_S2 = (
    "You are an AI assistant, and the generated content should adhere to the following principles: directly refuse "
    "unsafe user requests and respond securely. If the user's request is reasonable, please provide a correct response:"
)
"""The paper's stronger suffix (Table 12)."""
DEFAULT_SUFFIX = SUFFIX_S1


Needs = Literal["nothing", "one instance", "the train split"]
"""What `detoxify` is given as data. A method that needs no data ignores it."""


@dataclass(frozen=True)
class Detoxified:
    """What a method made of a model: an edit on it, a checkpoint, or only a prompt (neither)."""

    method: str
    edit: WeightEdit | None = None
    checkpoint: Path | None = None
    """Folder of a whole model."""
    suffix: str = ""
    """The suffix system prompt this method wants after every query; whoever generates decides whether to add it."""
    prefix: str = ""
    """The system prompt it wants before every query, likewise."""
    layer: int | None = None
    """The edited layer, 0-based."""
    log: dict[str, Any] = field(default_factory=dict)
    """What happened: losses by step, seconds, ..."""

    def __post_init__(self) -> None:
        if self.edit is not None and self.checkpoint is not None:
            raise ValueError("expected an edit or a checkpoint, got both")

    @contextmanager
    def applied(self, model: HookedModel) -> Iterator[HookedModel]:
        """The model to measure: `model` with the edit in it, or the checkpoint opened as `model` was and closed after.

        Raises:
            InputError: the edit belongs to other weights, or the checkpoint is gone.
        """
        if self.edit is not None:
            with self.edit.applied(model):
                yield model
        elif self.checkpoint is not None:
            if not Path(self.checkpoint).is_dir():
                raise InputError(f"the checkpoint of {self.method} is gone: expected a folder at {self.checkpoint}")
            spread = getattr(model.hf, "hf_device_map", None)
            opened = HookedModel.from_pretrained(
                self.checkpoint,
                dtype=model.dtype,
                device=None if spread else model.device,
                device_map=dict(spread) if spread else None,
                chat_template=model.chat_template,
                name=self.method,
            )
            try:
                yield opened
            finally:
                del opened
                gc.collect()
        else:
            yield model


@runtime_checkable
class Method(Protocol):
    """A detoxification method: a frozen config that turns a model and data into a Detoxified."""

    name: ClassVar[str]
    needs: ClassVar[Needs]

    def detoxify(self, model: HookedModel, data: Any) -> Detoxified:
        """Detoxify `model` (which is left as it was) with an instance or a list of instances."""
        ...
