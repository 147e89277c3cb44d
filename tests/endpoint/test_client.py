"""The endpoint's client against a server that fails, stalls and lies."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest

from interp.endpoint import Budget, EndpointGenerator, EndpointSettings, Query
from interp.errors import InputError

from .stub import Reply, Stub, completion, serve

KEY = "sk-test-0123456789abcdef0123456789abcdef"
QUERIES = [Query(f"question {i}") for i in range(6)]


def echo(number: int, body: dict[str, Any]) -> Reply:
    return completion("answer to " + body["messages"][-1]["content"])


def open_at(url: str, tmp_path: Path, **settings: Any) -> EndpointGenerator:
    caps = {k: settings.pop(k, None) for k in ("max_requests", "max_tokens")}
    made = EndpointSettings(base_url=url, **{"timeout": 5.0, "tries": 3, **settings})
    return EndpointGenerator(made, "tiny", 16, Budget(tmp_path / "usage.jsonl", **caps))


def scripted(*replies: Reply):
    """The replies in turn, the last one for ever."""
    return lambda number, body: replies[min(number, len(replies) - 1)]


def files(folder: Path) -> list[Path]:
    return [p for p in folder.rglob("*") if p.is_file()]


def test_answers_come_in_the_order_of_the_queries_and_the_request_is_openais(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_KEY", KEY)
    with serve(echo) as stub:
        generator = open_at(stub.url, tmp_path, key_env="MY_KEY")
        assert generator.answer(QUERIES) == [f"answer to question {i}" for i in range(6)]
        assert generator.answer([Query("q", "decline", "S")]) == ["answer to q S"]
    assert {h["Authorization"] for h in stub.headers} == {f"Bearer {KEY}"}
    assert stub.bodies[-1] == {
        "path": "/v1/chat/completions",
        "model": "tiny",
        "messages": [{"role": "system", "content": "decline"}, {"role": "user", "content": "q S"}],
        "max_tokens": 16,
        "temperature": 0.0,
    }


def test_without_a_key_no_authorization_is_sent(tmp_path: Path) -> None:
    with serve(echo) as stub:
        open_at(stub.url, tmp_path).answer(QUERIES[:1])
    assert "Authorization" not in stub.headers[0]


@pytest.mark.parametrize(
    "bad",
    [
        Reply("overloaded", 500),
        Reply("<html>nginx</html>", 503),
        Reply("<html>not JSON</html>"),
        Reply(""),
        Reply(b"\xff\xfe\x00"),
        Reply("[]"),
        Reply('{"error": "no"}'),
        Reply('{"choices": []}'),
        Reply('{"choices": [1]}'),
        Reply('{"choices": [{"message": {"content": 3}}]}'),
        Reply("[" * 100_000),
        Reply("short", headers={"content-length": "99"}),
        completion(""),
        completion(None),
    ],
)
def test_a_failure_or_nonsense_is_asked_again(tmp_path: Path, bad: Reply) -> None:
    with serve(scripted(bad, bad, completion("good"))) as stub:
        if "content-length" in bad.headers:  # the server would wait with the connection open: it closes it
            bad.headers["connection"] = "close"
        assert open_at(stub.url, tmp_path, timeout=2.0).answer(QUERIES[:1]) == ["good"]
    assert len(stub.bodies) == 3


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        (Reply("overloaded", 500), "HTTP 500: overloaded"),
        (Reply("<html>not JSON</html>"), "not JSON: '<html>not JSON"),
        (Reply(""), "not JSON: 'nothing'"),
        (Reply('{"error": "no"}'), "no choices"),
        (Reply('{"choices": [{"message": 1}]}'), "no text"),
    ],
)
def test_after_every_try_one_line_says_what_came(tmp_path: Path, bad: Reply, said: str) -> None:
    with serve(scripted(bad)) as stub, pytest.raises(InputError, match="gave no answer in 3 tries") as error:
        open_at(stub.url, tmp_path).answer(QUERIES[:1])
    assert said in str(error.value)
    assert "\n" not in str(error.value)
    assert len(stub.bodies) == 3


def test_a_model_that_has_nothing_to_say_is_believed_after_every_try(tmp_path: Path) -> None:
    with serve(scripted(completion(None))) as stub:
        assert open_at(stub.url, tmp_path).answer(QUERIES[:1]) == [""]
    assert len(stub.bodies) == 3


def test_retry_after_is_waited_for(tmp_path: Path) -> None:
    with serve(scripted(Reply("slow down", 429, {"retry-after": "0.4"}), completion("good"))) as stub:
        assert open_at(stub.url, tmp_path).answer(QUERIES[:1]) == ["good"]
    assert stub.times[1] - stub.times[0] >= 0.4


@pytest.mark.parametrize("after", ["7200", "a date"])
def test_a_long_retry_after_is_told_instead_of_slept_through(tmp_path: Path, after: str) -> None:
    long = r"asks to wait 7[12]\d\d s \(HTTP 429: quota\)"
    date = formatdate(time.time() + 7200, usegmt=True)
    quota = Reply("quota", 429, {"retry-after": date if after == "a date" else after})
    with serve(scripted(quota)) as stub, pytest.raises(InputError, match=long):
        open_at(stub.url, tmp_path).answer(QUERIES[:1])
    assert len(stub.bodies) == 1


@pytest.mark.parametrize("after", ["soon", "nan", "-3"])
def test_a_retry_after_that_says_nothing_is_passed_over(tmp_path: Path, after: str) -> None:
    with serve(scripted(Reply("quota", 429, {"retry-after": after}), completion("good"))) as stub:
        assert open_at(stub.url, tmp_path).answer(QUERIES[:1]) == ["good"]


@pytest.mark.parametrize("slow", [Reply("", stall=30), Reply("x" * 300, drip=0.1)], ids=["stalls", "drips"])
def test_a_server_that_stalls_or_drips_is_left_after_the_timeout(tmp_path: Path, slow: Reply) -> None:
    with serve(scripted(slow)) as stub:
        began = time.monotonic()
        with pytest.raises(InputError, match=r"no answer within 0\.3 s"):
            open_at(stub.url, tmp_path, timeout=0.3, tries=2).answer(QUERIES[:1])
        assert time.monotonic() - began < 3
    assert len(stub.bodies) == 2


def test_an_endpoint_that_is_down_is_told_in_one_line(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/v1"
    with pytest.raises(InputError, match=r"gave no answer in 3 tries: ConnectError.*continues where it stopped"):
        open_at(url, tmp_path).answer(QUERIES[:1])


@pytest.mark.parametrize("status", [400, 401, 404, 302])
def test_a_refusal_is_not_asked_again(tmp_path: Path, status: int) -> None:
    reply = Reply("no such thing", status, {"location": "http://127.0.0.1:9/"})
    with serve(scripted(reply)) as stub, pytest.raises(InputError, match=f"refused: HTTP {status}.*no such thing"):
        open_at(stub.url, tmp_path).answer(QUERIES[:1])
    assert len(stub.bodies) == 1


def test_the_key_is_written_nowhere_even_where_the_server_repeats_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    caplog.set_level("DEBUG")
    said = []
    with serve(scripted(completion(f"your key is {KEY}."))) as stub:
        assert open_at(stub.url, tmp_path).answer(QUERIES[:1]) == ["your key is [key]."]
    # The excerpt in the message is cut at 160 characters, here within the key: its first half must not get through.
    for reply in (Reply(f"bad key {KEY}", 401), Reply("x" * 140 + KEY, 401), Reply(f"{KEY} {KEY}", 500), Reply(KEY)):
        with serve(scripted(reply)) as stub, pytest.raises(InputError) as error:
            open_at(stub.url, tmp_path).answer(QUERIES[1:2])
        said.append(str(error.value))
    texts = [*said, caplog.text, *capfd.readouterr(), *(p.read_text() for p in files(tmp_path))]
    assert len(files(tmp_path)) >= 2
    assert not [t for t in texts if KEY[:16] in t]


def test_a_key_that_is_none_is_refused_without_showing_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-two words\n")
    with serve(echo) as stub, pytest.raises(InputError, match="OPENAI_API_KEY holds no key") as error:
        open_at(stub.url, tmp_path).answer(QUERIES[:1])
    assert "sk-two" not in str(error.value)
    assert not stub.bodies


@pytest.mark.parametrize("url", ["ftp://x/v1", "localhost:8000", "https://"])
def test_an_address_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(InputError, match="expected http"):
        EndpointSettings(base_url=url)


@pytest.mark.parametrize("url", ["http://[::1", "http://[x]/hunter2", "http://host:hunter2/v1", "http://host:99999/v1"])
def test_an_address_with_a_malformed_host_or_port_is_refused_without_showing_it(url: str) -> None:
    with pytest.raises(InputError, match="malformed host or port") as error:
        EndpointSettings(base_url=url)
    assert url.split("/")[2] not in str(error.value)
    assert "hunter2" not in str(error.value)


@pytest.mark.parametrize("url", ["https://me:hunter2@host/v1", "https://host/v1?key=hunter2"])
def test_an_address_with_a_secret_is_refused_without_showing_it(url: str) -> None:
    with pytest.raises(InputError, match="environment variable") as error:
        EndpointSettings(base_url=url)
    assert "hunter2" not in str(error.value)


def test_what_was_answered_is_never_asked_again(tmp_path: Path) -> None:
    with serve(echo) as stub:
        first = open_at(stub.url, tmp_path).answer([*QUERIES, *QUERIES])
        assert len(stub.bodies) == 6
        assert open_at(stub.url, tmp_path).answer([*QUERIES, *QUERIES]) == first
        assert len(stub.bodies) == 6
        open_at(stub.url, tmp_path, temperature=0.5).answer(QUERIES[:1])
        assert len(stub.bodies) == 7


def test_a_damaged_cache_entry_is_named(tmp_path: Path) -> None:
    with serve(echo) as stub:
        open_at(stub.url, tmp_path).answer(QUERIES[:1])
        [entry] = files(tmp_path / "cache")
        entry.write_text('{"text": 3}')
        with pytest.raises(InputError, match=f"{entry.name} is no cached answer; delete it"):
            open_at(stub.url, tmp_path).answer(QUERIES[:1])


def test_a_budget_of_requests_holds_over_retries_and_runs_and_keeps_what_came(tmp_path: Path) -> None:
    def flaky(number: int, body: dict[str, Any]) -> Reply:
        return Reply("", 500) if number == 0 else echo(number, body)

    with serve(flaky) as stub:
        for _ in range(2):
            with pytest.raises(InputError, match="budget of 4 requests is spent; raise --max-requests"):
                open_at(stub.url, tmp_path, max_requests=4, concurrency=1).answer(QUERIES)
            assert len(stub.bodies) == 4
        assert open_at(stub.url, tmp_path, max_requests=7, concurrency=1).answer(QUERIES)[5] == "answer to question 5"
        assert len(stub.bodies) == 7


def test_a_budget_of_tokens_is_never_exceeded(tmp_path: Path) -> None:
    with serve(echo) as stub:  # each answer costs 20 by the server's count; a request may take 2 + 8 + 16
        with pytest.raises(InputError, match=r"budget of 70 tokens is spent \(\d+ used or reserved"):
            open_at(stub.url, tmp_path, max_tokens=70, concurrency=4).answer(QUERIES)
        for _ in range(2):  # the failed call has taken only part of it where requests ran at once
            with pytest.raises(InputError, match="budget of 70 tokens"):
                open_at(stub.url, tmp_path, max_tokens=70, concurrency=1).answer(QUERIES)
    assert 20 * len(stub.bodies) <= 70


def test_a_budget_file_cut_short_by_a_kill_is_read(tmp_path: Path) -> None:
    budget = Budget(tmp_path / "usage.jsonl")
    budget.take(30)
    budget.settle(30, 12)
    with (tmp_path / "usage.jsonl").open("a") as file:
        file.write('\n{"requests": 1, "tok')
    again = Budget(tmp_path / "usage.jsonl")
    again.take(5)
    assert (again.requests, again.tokens) == (2, 17)
    assert Budget(tmp_path / "usage.jsonl").requests == 2


def test_a_server_that_counts_no_tokens_is_estimated(tmp_path: Path) -> None:
    with serve(lambda number, body: completion("word " * 40, tokens=None)) as stub:
        generator = open_at(stub.url, tmp_path)
        generator.answer([Query("q" * 400)])
    assert generator.budget.tokens == (400 // 4 + 8) + 199 // 4
    assert len(stub.bodies) == 1


def test_requests_run_at_once_up_to_the_limit(tmp_path: Path) -> None:
    def slow(number: int, body: dict[str, Any]) -> Reply:
        made = echo(number, body)
        made.stall = 0.1
        return made

    with serve(slow) as stub:
        open_at(stub.url, tmp_path, concurrency=3).answer(QUERIES)
    assert stub.peak == 3


def test_answers_under_way_are_kept_when_another_request_fails(tmp_path: Path) -> None:
    def one_fails(number: int, body: dict[str, Any]) -> Reply:
        if body["messages"][-1]["content"] == "question 0":
            return Reply("no", 400)
        made = echo(number, body)
        made.stall = 0.3
        return made

    with serve(one_fails) as stub:
        with pytest.raises(InputError, match="HTTP 400"):
            open_at(stub.url, tmp_path, concurrency=3).answer(QUERIES)
        assert len(files(tmp_path / "cache")) == 2
    assert len(stub.bodies) == 3


def test_it_answers_where_a_loop_is_running_already_as_in_a_notebook(tmp_path: Path) -> None:
    async def cell(stub: Stub) -> list[str]:
        return open_at(stub.url, tmp_path).answer(QUERIES[:1])

    with serve(echo) as stub:
        assert asyncio.run(cell(stub)) == ["answer to question 0"]


def test_the_identity_holds_no_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    assert KEY not in json.dumps(open_at("http://host/v1", tmp_path).identity)
