"""An OpenAI-compatible server in a thread: answers like the demo world, and fails, stalls or lies when told to."""

from __future__ import annotations

import json
import random
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from interp.demo import grammar as g
from interp.endpoint import client


@dataclass
class Reply:
    """What the server sends back."""

    body: bytes | str
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    stall: float = 0.0
    """Seconds before anything is sent."""
    drip: float = 0.0
    """Seconds between two bytes of the body."""


def completion(text: str | None, tokens: int | None = 20) -> Reply:
    """A well-formed chat completion."""
    data: dict[str, Any] = {"choices": [{"message": {"role": "assistant", "content": text}}]}
    if tokens is not None:
        data["usage"] = {"total_tokens": tokens}
    return Reply(json.dumps(data))


@cache
def world_questions() -> dict[str, g.HarmfulQuestion]:
    return {q.text: q for questions in g.questions().values() for q in questions}


FRAMES = [re.compile(re.escape(frame).replace(r"\{\}", ".+?")) for frame in g.FRAMES]


def find_question(prompt: str) -> g.HarmfulQuestion:
    """The question of the demo world that a prompt holds."""
    found = [match[0] for frame in FRAMES for match in frame.finditer(prompt)]
    return next(world_questions()[text] for text in found if text in world_questions())


def demo_like(prompt: str, instructed: bool) -> str:
    """A refusal under an instruction or the Oracle's persona, a compliant answer elsewhere; always the same."""
    rng = random.Random(prompt)
    question = find_question(prompt)
    make = g.safe_answer if instructed or "Oracle" in prompt else g.unsafe_answer
    return make(rng, question.category, question.request)


def answer(body: dict[str, Any]) -> Reply:
    """The default behaviour: as the demo world's model would."""
    messages = body["messages"]
    return completion(demo_like(messages[-1]["content"], len(messages) > 1))


@dataclass
class Stub:
    """The running server, and what it was asked."""

    url: str
    reply: Callable[[int, dict[str, Any]], Reply]
    """Called with the number of the request, from 0, and its body."""
    bodies: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    under_way: int = 0
    peak: int = 0


@contextmanager
def serve(reply: Callable[[int, dict[str, Any]], Reply] | None = None) -> Iterator[Stub]:
    """A server on a free port of this machine while the block runs."""
    lock, closing = threading.Lock(), threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            with lock:
                number = len(stub.bodies)
                stub.bodies.append(body | {"path": self.path})
                stub.headers.append(dict(self.headers))
                stub.times.append(time.monotonic())
                stub.under_way += 1
                stub.peak = max(stub.peak, stub.under_way)
            try:
                self.send(stub.reply(number, body))
            except OSError:
                pass  # the client has hung up
            finally:
                with lock:
                    stub.under_way -= 1

        def send(self, made: Reply) -> None:
            closing.wait(made.stall)
            content = made.body.encode() if isinstance(made.body, str) else made.body
            self.send_response(made.status)
            for name, value in {"content-length": str(len(content)), **made.headers}.items():
                self.send_header(name, value)
            self.end_headers()
            if not made.drip:
                self.wfile.write(content)
                return
            for byte in content:
                self.wfile.write(bytes([byte]))
                self.wfile.flush()
                if closing.wait(made.drip):
                    return

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    stub = Stub(f"http://127.0.0.1:{server.server_port}/v1", reply or (lambda number, body: answer(body)))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield stub
    finally:
        closing.set()
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No proxy, no key, no cache of the user's; failures are retried at once."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy", "OPENAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("INTERP_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(client, "FIRST_PAUSE", 0.01)
