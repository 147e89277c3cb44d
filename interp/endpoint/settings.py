"""What a model behind an endpoint is asked, and how: one frozen record each, checked before anything is sent."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from interp.errors import InputError


@dataclass(frozen=True)
class Query:
    """One thing to ask, between an instruction before it and a suffix after it ("" for none)."""

    text: str
    instruction: str = ""
    suffix: str = ""


@dataclass(frozen=True)
class EndpointSettings:
    """How an OpenAI-compatible endpoint is asked. The key itself is in no record: only the variable that holds it."""

    base_url: str
    """Up to and without `/chat/completions`, e.g. https://api.example.org/v1."""
    key_env: str = "OPENAI_API_KEY"
    """Environment variable that holds the key; unset or empty means that none is sent (local servers)."""
    temperature: float = 0.0
    timeout: float = 60.0
    """Seconds that one request may take altogether."""
    tries: int = 5
    """Requests made for one answer, the first included."""
    concurrency: int = 4
    """Requests under way at once."""
    max_requests: int | None = None
    """At most so many requests in all, retries and earlier runs included."""
    max_tokens: int | None = None
    """At most so many tokens, prompts and answers together, likewise."""
    cache: Path | None = None
    """Folder of the answers that were paid for; the toolkit's cache by default."""

    def __post_init__(self) -> None:
        """Check the address and the numbers.

        Raises:
            InputError: not an http(s) address, one with a password or a query in it, or a number out of range.
        """
        try:
            url = urlsplit(self.base_url)
            _ = url.port  # read here only: it may be no number
        except ValueError:
            # Not shown, nor is what ValueError says of it: it may hold a key.
            raise InputError(
                "--base-url: expected http(s)://HOST/..., got an address with a malformed host or port"
            ) from None
        if url.username or url.password or url.query or url.fragment:
            # Not shown: it may hold a key.
            raise InputError(
                "--base-url: expected an address without user, password, query or fragment; "
                f"a key belongs into the environment variable {self.key_env}"
            )
        if url.scheme not in ("http", "https") or not url.hostname:
            raise InputError(f"--base-url: expected http(s)://HOST/..., got {self.base_url!r}")
        if not 0 <= self.temperature <= 2:
            raise InputError(f"--temperature: expected 0 to 2, got {self.temperature}")
        for option, value in (("timeout", self.timeout), ("tries", self.tries), ("concurrency", self.concurrency)):
            if not 0 < value <= 3600:
                raise InputError(f"--{option}: expected a number above 0 and at most 3600, got {value}")

    @classmethod
    def given(cls, base_url: str | None, key_env: str, max_requests: int | None) -> EndpointSettings | None:
        """Of a command line; None where it names no endpoint. Raises InputError as the class does."""
        return cls(base_url, key_env, max_requests=max_requests) if base_url is not None else None

    @property
    def host(self) -> str:
        """Host and port, for people."""
        return urlsplit(self.base_url).netloc
