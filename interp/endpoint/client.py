"""A model behind any OpenAI-compatible endpoint (`POST BASE_URL/chat/completions`), through httpx.

Answers are cached on disk before they are used, failures are retried with back-off, and a budget is kept. The key comes
from an environment variable, goes into one header and nowhere else: what a server says is cleaned of it before it is
cached or shown.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
from collections.abc import Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from interp.endpoint.budget import Budget
from interp.endpoint.settings import EndpointSettings, Query
from interp.errors import InputError
from interp.runs import cache_dir, fingerprint, read_json, write_json

if TYPE_CHECKING:
    import httpx

RETRIED = (408, 409, 425, 429, 500, 502, 503, 504, 529)
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 60.0
"""Seconds before the second try, doubled before each further one, and the most that is waited."""
LONGEST_ANSWER = 8 * 2**20
"""Bytes of a response that are read."""
SECRET = 8
"""Characters from which on a key is taken for a secret."""


class RetryError(Exception):
    """A failure that may pass; `after` is the pause the server asked for, in seconds."""

    def __init__(self, reason: str, after: float | None = None) -> None:
        super().__init__(reason)
        self.after = after


class EndpointGenerator:
    """Answers of one model of an endpoint."""

    def __init__(self, settings: EndpointSettings, model: str, max_new_tokens: int, budget: Budget) -> None:
        """Prepare to ask; nothing is sent yet. Models of one build share their budget."""
        self.settings = settings
        self.model = model
        self.max_new_tokens = max_new_tokens
        self.budget = budget
        self._failed = False
        self.cache = settings.cache or cache_dir() / "responses"
        self.chunk = 8 * settings.concurrency
        self.pause = FIRST_PAUSE
        self.identity = {
            "kind": "endpoint",
            "name": model,
            "base_url": settings.base_url,
            "max_new_tokens": max_new_tokens,
            "temperature": settings.temperature,
        }

    def answer(self, queries: Sequence[Query]) -> list[str]:
        """One answer per query, from the cache where it is there.

        Raises:
            InputError: refused, unreachable, or nonsense after every try; or the budget is spent. Answers that came
                before are in the cache.
        """
        found = [self._cached(query) for query in queries]
        missing = list(dict.fromkeys(q for q, text in zip(queries, found, strict=True) if text is None))
        if missing:
            made = dict(zip(missing, _run(self._ask_all(missing)), strict=True))
            found = [made[q] if text is None else text for q, text in zip(queries, found, strict=True)]
        return [text or "" for text in found]

    # --------------------------------------------------------------------------------------------- cache
    def _file(self, query: Query) -> Path:
        name = fingerprint({"identity": self.identity, "body": self._body(query)})
        return self.cache / name[:2] / f"{name}.json"

    def _cached(self, query: Query) -> str | None:
        file = self._file(query)
        if not file.exists():
            return None
        record = read_json(file)
        if not isinstance(record, dict) or not isinstance(record.get("text"), str):
            raise InputError(f"{file} is no cached answer; delete it and run again")
        return record["text"]

    # ------------------------------------------------------------------------------------------- requests
    def _body(self, query: Query) -> dict[str, Any]:
        content = f"{query.text} {query.suffix}" if query.suffix else query.text
        messages = [{"role": "system", "content": query.instruction}] if query.instruction else []
        return {
            "model": self.model,
            "messages": [*messages, {"role": "user", "content": content}],
            "max_tokens": self.max_new_tokens,
            "temperature": self.settings.temperature,
        }

    async def _ask_all(self, queries: Sequence[Query]) -> list[str]:
        import httpx

        key = _key(self.settings.key_env)
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        slots = asyncio.Semaphore(self.settings.concurrency)
        self._failed = False
        # No redirects (httpx's default): the header would go to another address.
        async with httpx.AsyncClient(headers=headers, timeout=self.settings.timeout) as client:

            async def one(query: Query) -> str | None:
                async with slots:
                    if self._failed:
                        return None
                    try:
                        text = await self._ask(client, query, key)
                        write_json(self._file(query), {"model": self.model, "text": text})
                        return text
                    except InputError:
                        self._failed = True
                        raise

            # After a failure nothing more is sent, but what is under way is waited for: it was paid for.
            made = await asyncio.gather(*(one(query) for query in queries), return_exceptions=True)
        for failure in made:
            if isinstance(failure, BaseException):
                raise failure
        return [str(text) for text in made]

    async def _ask(self, client: httpx.AsyncClient, query: Query, key: str) -> str:
        body = self._body(query)
        # About 4 characters a token; only for the reservation, and where the server does not count.
        prompt_tokens = sum(len(m["content"]) for m in body["messages"]) // 4 + 8
        reserved = prompt_tokens + self.max_new_tokens
        reason = ""
        for turn in range(self.settings.tries):
            if turn and self._failed:
                break
            self.budget.take(reserved)
            used = prompt_tokens
            try:
                text, counted = await self._request(client, body, key)
                used = counted or prompt_tokens + len(text) // 4
                last = turn + 1 == self.settings.tries
                if text or last:  # a model may have nothing to say: the judge's business, after every try
                    return _clean(text, key)
                raise RetryError("an empty answer")
            except RetryError as failure:
                reason = _clean(str(failure), key)
                after = failure.after
            finally:
                self.budget.settle(reserved, used)
            if after is not None and after > LONGEST_PAUSE:
                raise InputError(
                    f"{self.settings.host} asks to wait {after:.0f} s ({reason}); give the same command again later"
                )
            if turn + 1 < self.settings.tries and not self._failed:
                pause = self.pause * 2**turn * random.uniform(0.5, 1.0)  # jitter: tasks shall not come back at once
                await asyncio.sleep(min(after if after is not None else pause, LONGEST_PAUSE))
        raise InputError(
            f"{self.settings.host} gave no answer in {self.settings.tries} tries: {reason}; "
            "the same command continues where it stopped"
        )

    async def _request(self, client: httpx.AsyncClient, body: dict[str, Any], key: str) -> tuple[str, int]:
        """The answer's text and the tokens the server counted (0 where it does not)."""
        import httpx

        url = f"{self.settings.base_url.rstrip('/')}/chat/completions"
        try:
            # Over the whole exchange: httpx's own timeout starts anew with every byte.
            async with asyncio.timeout(self.settings.timeout), client.stream("POST", url, json=body) as response:
                content = b""
                async for part in response.aiter_bytes():
                    content += part
                    if len(content) > LONGEST_ANSWER:
                        raise RetryError(f"an answer of more than {LONGEST_ANSWER >> 20} MiB")
        except (TimeoutError, httpx.TimeoutException):
            raise RetryError(f"no answer within {self.settings.timeout:g} s") from None
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise RetryError(f"{type(error).__name__}: {error}") from None
        content = _clean(content.decode("utf-8", "replace"), key)  # before anything is cut from it
        status = response.status_code
        if status in RETRIED:
            raise RetryError(f"HTTP {status}: {_excerpt(content)}", _retry_after(response.headers.get("retry-after")))
        if status != 200:
            hint = f" (the key comes from {self.settings.key_env})" if status in (401, 403) else ""
            raise InputError(f"{self.settings.host} refused: HTTP {status}{hint}: {_excerpt(content)}")
        return parse_completion(content)


def parse_completion(content: str) -> tuple[str, int]:
    """The text of a chat completion and its total tokens (0 where they are not told).

    Raises:
        RetryError: not JSON, no choices, or no text in the first one.
    """
    try:
        data = json.loads(content)
    except (ValueError, RecursionError):
        raise RetryError(f"the answer is not JSON: {_excerpt(content)!r}") from None
    choices = data.get("choices") if isinstance(data, dict) else None
    if not isinstance(choices, list) or not choices:
        raise RetryError(f"the answer has no choices: {_excerpt(content)}")
    message = choices[0].get("message") if isinstance(choices[0], dict) else None
    text = message.get("content") if isinstance(message, dict) else None
    if text is None and isinstance(message, dict):
        text = ""  # refused by a filter, or nothing said
    if not isinstance(text, str):
        raise RetryError(f"the answer has no text: {_excerpt(content)}")
    usage = data.get("usage")
    total = usage.get("total_tokens") if isinstance(usage, dict) else None
    text = text.encode("utf-8", "replace").decode()  # lone surrogates cannot be written
    return text.strip(), total if isinstance(total, int) and not isinstance(total, bool) and total > 0 else 0


def _retry_after(value: str | None) -> float | None:
    """Seconds of a Retry-After header: a number, or a date."""
    if not value:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            when = parsedate_to_datetime(value)
        except ValueError:
            return None
        seconds = (when - datetime.now(UTC if when.tzinfo else None)).total_seconds()
    return max(seconds, 0.0) if seconds == seconds else None


def _key(variable: str) -> str:
    key = os.environ.get(variable, "").strip()
    if not key.isascii() or any(c.isspace() for c in key):
        raise InputError(f"the environment variable {variable} holds no key: expected ASCII without white space")
    return key


def _clean(text: str, key: str) -> str:
    # Servers without keys are often given a word such as "none" for one: no secret, and it may stand in any answer.
    return text.replace(key, "[key]") if len(key) >= SECRET else text


def _excerpt(content: str) -> str:
    text = " ".join(content[:2000].split())
    return text[:160] + ("..." if len(text) > 160 else "") or "nothing"


def _run(work: Coroutine[Any, Any, list[str]]) -> list[str]:
    """Run a coroutine to its end, also where a loop is running already (notebooks)."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(work)
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, work).result()
