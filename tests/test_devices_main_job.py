"""The main job on a pretended device, and models that the same process loads there and afterwards."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from pretend_devices import pretend_devices
from small_run import SMALL
from torch.utils import _device

from interp.compare import run as compare
from interp.models import HookedModel


def test_the_main_job_runs_on_a_device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("INTERP_CACHE", str(tmp_path / "cache"))
    with pretend_devices():
        assert compare(["dinm", "--device", "pretend:0", *SMALL, "--out", str(tmp_path / "run")]) == 0
    record = json.loads((tmp_path / "run" / "comparison.json").read_text())
    assert [row["name"] for row in record["rows"]] == ["vanilla", "dinm"]


def test_a_process_that_loads_on_a_device_first_loads_whole_models_there_and_afterwards(make_model, texts, tmp_path):
    """Frequencies of rotary embeddings are in no file: transformers computes them where a model was made on `meta`."""
    model = make_model("llama")
    model.save(tmp_path / "model")
    logits = model.logits(model.tokenize(texts))
    _device._device_constructors.cache_clear()  # as in a process in which no device was asked for so far
    with pretend_devices():
        there = HookedModel.from_pretrained(tmp_path / "model", device="pretend:0")
        torch.testing.assert_close(there.logits(there.tokenize(texts)).cpu(), logits, rtol=1e-3, atol=1e-4)
    after = HookedModel.from_pretrained(tmp_path / "model", device="cpu")
    assert torch.equal(after.logits(after.tokenize(texts)), logits)
