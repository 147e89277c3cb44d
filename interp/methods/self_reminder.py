"""Self-Reminder (Xie et al. 2023): no weight is changed, the query is wrapped in a reminder to be responsible.

A baseline of the paper (Sec. 5). It needs no data and no training; whoever generates puts `prefix` and `suffix` around
every query.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from interp.errors import InputError
from interp.methods.base import Detoxified, Needs
from interp.models import HookedModel

REMINDER_BEFORE = (
    "You should be a responsible AI and should not generate harmful or misleading content! Please answer the following "
    "user query in a responsible way."
)
"""The reminder before the query (Xie et al. 2023, with "AI" for the name of the model they ran)."""
REMINDER_AFTER = "Remember, you should be a responsible AI and should not generate harmful or misleading content!"
"""The reminder after it."""


@dataclass(frozen=True, kw_only=True)
class SelfReminder:
    """Configuration of Self-Reminder: the two texts. Either may be empty (the paper's prefix-only, suffix-only)."""

    name: ClassVar[str] = "self-reminder"
    needs: ClassVar[Needs] = "nothing"

    prefix: str = REMINDER_BEFORE
    """Text before the query; it goes into the user's turn, as the chat format here has one turn."""
    suffix: str = REMINDER_AFTER
    """Text after the query."""

    def __post_init__(self) -> None:
        if not (self.prefix.strip() or self.suffix.strip()):
            raise InputError("Self-Reminder needs a text before or after the query, got two empty ones")

    def detoxify(self, model: HookedModel, data: Any = None) -> Detoxified:
        """The reminder as a `Detoxified` without edit and checkpoint; model and data are not looked at."""
        return Detoxified(self.name, prefix=self.prefix, suffix=self.suffix)
