from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import httpx
import huggingface_hub
import pytest
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
)

from interp import safeedit
from interp.errors import InputError

from .test_benchmark import records

ANSWER = httpx.Response(403, request=httpx.Request("GET", "https://huggingface.co"))


def hub_raises(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def refuse(*args: Any, **kwargs: Any) -> str:
        raise error

    monkeypatch.setattr(huggingface_hub, "snapshot_download", refuse)


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (GatedRepoError("gated", response=ANSWER), "is gated: accept its terms at https://huggingface.co/datasets/"),
        (RepositoryNotFoundError("none", response=ANSWER), "no file, folder or hub dataset named 'zjunlp/SafeEdit'"),
        (LocalEntryNotFoundError("offline"), "the Hugging Face hub cannot be reached"),
        (OfflineModeIsEnabled("offline"), "the Hugging Face hub cannot be reached"),
        (
            HfHubHTTPError("500 Server Error\nmore", response=ANSWER),
            "the hub refused zjunlp/SafeEdit: 500 Server Error",
        ),
        (httpx.ConnectError("no route"), "the Hugging Face hub cannot be reached"),
    ],
)
def test_each_way_the_hub_fails_is_one_clear_line(
    monkeypatch: pytest.MonkeyPatch, error: Exception, message: str
) -> None:
    hub_raises(monkeypatch, error)
    with pytest.raises(InputError) as caught:
        safeedit.load("safeedit")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_error_of_our_own_is_not_taken_for_a_missing_network(monkeypatch: pytest.MonkeyPatch) -> None:
    hub_raises(monkeypatch, KeyError("bug"))
    with pytest.raises(KeyError):
        safeedit.load("zjunlp/SafeEdit")


def test_a_hub_dataset_is_read_like_a_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "SafeEdit_test.json").write_text(json.dumps(records(3)))
    asked: dict[str, Any] = {}

    def fetch(hub_id: str, **kwargs: Any) -> str:
        asked.update(kwargs, hub_id=hub_id)
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fetch)
    benchmark = safeedit.load("someone/SafeEdit-copy", "test")
    assert benchmark.name == "someone/SafeEdit-copy"
    assert len(benchmark.test) == 3
    assert asked["allow_patterns"] == ["SafeEdit_test.json"]
    assert asked["repo_type"] == "dataset"


def test_without_a_network_the_user_hears_at_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    start = time.monotonic()
    with pytest.raises(InputError, match="cannot be reached"):
        safeedit.load(f"nobody/{tmp_path.name}")
    assert time.monotonic() - start < 5
