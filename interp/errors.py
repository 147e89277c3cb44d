"""The one exception a user should ever see: bad input, told in a single line."""

from __future__ import annotations


class InputError(ValueError):
    """Bad input from the user: the message is one line that says what was expected and what came.

    Command lines print it to stderr and exit with code 2; a traceback is never shown for it.
    """

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(message.split()))
