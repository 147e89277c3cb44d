"""A model made elsewhere is refused before anything is computed, and its weights are read once."""

from __future__ import annotations

import shutil
import warnings
from pathlib import Path
from typing import Any

import pytest

from interp.errors import InputError
from interp.models import HookedModel
from interp.pipeline import Settings, given
from interp.pipeline.given import check_given

QUERY = ["How do I pick a lock?"]


@pytest.fixture(scope="module")
def vanilla() -> HookedModel:
    return HookedModel.from_pretrained("demo")


@pytest.fixture
def folder(vanilla: HookedModel, tmp_path: Path) -> Path:
    vanilla.save(tmp_path / "model")
    return tmp_path / "model"


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was opened as a whole."""
    found: list[str] = []
    whole = given.open_given

    def open_given(settings: Settings, source: str, name: str) -> HookedModel:
        found.append(name)
        return whole(settings, source, name)

    monkeypatch.setattr(given, "open_given", open_given)
    return found


def check(vanilla: HookedModel, source: Any, **settings: Any) -> None:
    asked = Settings(methods=(f"mine={source}",), **settings)
    check_given(asked, vanilla, asked.specs()[0], QUERY)


def adapter(base: Path, folder: Path) -> None:
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    config = LoraConfig(r=2, target_modules="all-linear", task_type="CAUSAL_LM")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PEFT reads what transformers is about to rename
        model: Any = get_peft_model(AutoModelForCausalLM.from_pretrained(base), config)
        model.save_pretrained(folder, save_embedding_layers=False)


def test_a_folder_and_an_adapter_that_fit_are_let_in_without_reading_their_weights(
    vanilla: HookedModel, folder: Path, tmp_path: Path, opened: list[str]
) -> None:
    adapter(folder, tmp_path / "adapter")
    check(vanilla, folder)
    check(vanilla, tmp_path / "adapter")
    assert opened == []


def test_another_shape_and_another_tokenizer_are_refused_without_reading_the_weights(
    vanilla: HookedModel, folder: Path, golden: Path, tmp_path: Path, opened: list[str]
) -> None:
    with pytest.raises(InputError, match="mine does not have the shape of the vanilla model"):
        check(vanilla, golden / "tiny_model")
    for file in (golden / "tiny_model").glob("*token*"):
        shutil.copy(file, folder)
    with pytest.raises(InputError, match="turns the same prompt into other tokens"):
        check(vanilla, folder)
    assert opened == []


def test_weights_that_are_missing_or_damaged_are_refused_by_opening_the_folder(
    vanilla: HookedModel, folder: Path, opened: list[str]
) -> None:
    from safetensors.torch import load_file, save_file

    file = folder / "model.safetensors"
    weights = load_file(file)
    name = vanilla.value_name(2)
    save_file({k: v for k, v in weights.items() if k != name}, file, {"format": "pt"})
    with pytest.raises(InputError, match="lacks 1 weights of its architecture"):
        check(vanilla, folder)
    file.write_bytes(file.read_bytes()[:-1000])
    with pytest.raises(InputError, match="cannot open"):
        check(vanilla, folder)
    assert opened == ["mine", "mine"]


def test_an_adapter_of_another_model_is_refused(
    vanilla: HookedModel, golden: Path, tmp_path: Path, opened: list[str]
) -> None:
    adapter(golden / "tiny_model", tmp_path / "adapter")
    with pytest.raises(InputError, match="does not fit demo"):
        check(vanilla, tmp_path / "adapter")
    assert opened == ["mine"]


def test_a_state_dict_is_opened_as_a_whole(vanilla: HookedModel, folder: Path, opened: list[str]) -> None:
    check(vanilla, folder / "model.safetensors")
    assert opened == ["mine"]
