"""Tasks at scale go through lm-evaluation-harness, which is not installed here: what it would be given is checked."""

from __future__ import annotations

import sys
import types
from pathlib import Path
from typing import Any

import pytest
import torch

from interp.edits import Provenance, WeightEdit
from interp.errors import InputError
from interp.evaluation import run_harness
from interp.models import HookedModel


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """A module of that name which opens the checkpoint it is given, and keeps what it was asked."""
    calls: list[dict[str, Any]] = []

    def simple_evaluate(**asked: Any) -> Any:
        asked["opened"] = HookedModel.from_pretrained(asked["model_args"]["pretrained"])
        calls.append(asked)
        return {"results": {"triviaqa": {"exact_match,none": 0.5}}}

    module: Any = types.ModuleType("lm_eval")
    module.simple_evaluate = simple_evaluate
    monkeypatch.setitem(sys.modules, "lm_eval", module)
    return calls


def test_without_the_harness_one_line_says_how_to_get_it(llama: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    with pytest.raises(InputError, match=r"is not installed: pip install 'interp\[lm-eval\]'"):
        run_harness(llama, ["triviaqa"])
    with pytest.raises(InputError, match="at least one task"):
        run_harness(llama, [])


def test_it_is_given_a_checkpoint_of_the_very_weights(llama: Any, installed: list, tmp_path: Path) -> None:
    assert run_harness(llama, ["triviaqa"], limit=5, seed=3) == {"triviaqa": {"exact_match,none": 0.5}}
    [call] = installed
    assert call["opened"].weight_hash() == llama.weight_hash()
    assert (call["model"], call["tasks"], call["limit"], call["random_seed"]) == ("hf", ["triviaqa"], 5, 3)
    assert call["model_args"]["dtype"] == "float32"
    assert call["apply_chat_template"] is False
    assert not Path(call["model_args"]["pretrained"]).exists()
    run_harness(llama, ["triviaqa"], folder=tmp_path / "kept")
    assert (tmp_path / "kept" / "config.json").exists()


def test_an_edit_is_in_the_weights_that_are_written_and_not_in_the_model(llama: Any, installed: list) -> None:
    delta = torch.full(llama.value_weight(1).shape, 0.1)
    weights = WeightEdit({llama.value_name(1): delta}, Provenance("t", llama.source, llama.weight_hash()))
    before = llama.weight_hash(fresh=True)
    run_harness(llama, ["triviaqa"], edit=weights)
    opened = installed[0]["opened"]
    torch.testing.assert_close(opened.value_weight(1), llama.value_weight(1) + delta)
    assert llama.weight_hash(fresh=True) == before


def test_a_harness_without_results_is_told(llama: Any, installed: list, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules["lm_eval"], "simple_evaluate", lambda **_: None)
    with pytest.raises(InputError, match="gave no results"):
        run_harness(llama, ["triviaqa"])
