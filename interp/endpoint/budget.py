"""What an endpoint has cost so far, kept in a file: a cap holds over retries and over every run of a build."""

from __future__ import annotations

import json
from pathlib import Path

from interp.errors import InputError

_KEPT = "raise --max-{} and give the same command again, what was answered is kept"


class Budget:
    """Counts requests and tokens, and refuses what would exceed a cap.

    A request is written down with the most it may take before it is sent, and corrected after: a kill between the two
    leaves the count too high, never too low.
    """

    def __init__(self, file: Path, max_requests: int | None = None, max_tokens: int | None = None) -> None:
        """Read what earlier runs have spent.

        Raises:
            InputError: the file cannot be read.
        """
        self.file = file
        self.max_requests = max_requests
        self.max_tokens = max_tokens
        self.requests = self.tokens = 0
        try:
            lines = file.read_text(encoding="utf-8").split("\n") if file.exists() else []
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"cannot read {file}: {error}") from error
        for line in filter(None, lines):
            try:
                entry = json.loads(line)
                self.requests, self.tokens = self.requests + entry["requests"], self.tokens + entry["tokens"]
            except (ValueError, KeyError, TypeError):
                continue  # cut short by a kill, before its request was sent

    def take(self, tokens: int) -> None:
        """Reserve one request of at most `tokens` tokens.

        Raises:
            InputError: it would exceed a cap, or cannot be written down.
        """
        if self.max_requests is not None and self.requests >= self.max_requests:
            raise InputError(f"the budget of {self.max_requests} requests is spent; {_KEPT.format('requests')}")
        if self.max_tokens is not None and self.tokens + tokens > self.max_tokens:
            raise InputError(
                f"the budget of {self.max_tokens} tokens is spent ({self.tokens} used or reserved, the next request "
                f"may take {tokens}); {_KEPT.format('tokens')}"
            )
        self._write(1, tokens)

    def settle(self, reserved: int, used: int) -> None:
        """Replace a reservation by what was used. Raises InputError where that cannot be written down."""
        self._write(0, used - reserved)

    def _write(self, requests: int, tokens: int) -> None:
        self.requests += requests
        self.tokens += tokens
        try:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            with self.file.open("a", encoding="utf-8") as file:
                # The line break first: a line that a kill cut short then spoils no other.
                file.write("\n" + json.dumps({"requests": requests, "tokens": tokens}))
        except OSError as error:
            raise InputError(f"cannot write {self.file}: {error.strerror}") from error
