"""What is seen inside a model is looked at once: a second comparison reads it, counts its seconds, says the same."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from small_run import SMALL
from tiny_lab import small_instance

from interp.compare import run
from interp.edits import Provenance, WeightEdit
from interp.methods.base import Detoxified
from interp.methods.dinm import Dinm
from interp.pipeline import edited, looking
from interp.pipeline.memory import identity
from interp.runs import cache_dir


@pytest.fixture
def own_cache(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the cache that the finished run has filled."""
    shutil.copytree(cache_dir(), tmp_path / "cache")
    monkeypatch.setenv("INTERP_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def edits_made(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Ids of the instances that are really edited on."""
    made, detoxify = [], Dinm.detoxify

    def counted(self: Dinm, model: Any, data: Any) -> Any:
        made.append(data.id)
        return detoxify(self, model, data)

    monkeypatch.setattr(Dinm, "detoxify", counted)
    return made


def compared(folder: Path) -> tuple[Any, list[dict[str, float]]]:
    """The record of a run without its seconds, and those of each row."""
    data = json.loads((folder / "comparison.json").read_text())
    return data, [row.pop("seconds") for row in data["rows"]]


def again(out: Path) -> tuple[Any, list[dict[str, float]]]:
    assert run(["dinm", *SMALL, "--out", str(out)]) == 0
    return compared(out)


def test_a_second_comparison_looks_into_no_model_again(
    finished: Path, own_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, edits_made: list[int]
) -> None:
    for name in ("layer_distances", "locate_behaviour", "record", "swap_margins"):
        monkeypatch.setattr(looking, name, lambda *_, **__: pytest.fail("looked again"))
    second, _ = again(tmp_path / "second")
    assert second == compared(finished)[0]
    assert edits_made == []
    for file in (finished / "parts" / "dinm").glob("*.edit.safetensors"):
        assert (tmp_path / "second" / "parts" / "dinm" / file.name).read_bytes() == file.read_bytes()


def test_what_is_kept_counts_with_the_seconds_it_took(finished: Path, own_cache: Path, tmp_path: Path) -> None:
    for folder, seconds in (("edits", 1000.0), ("swaps", 100.0), ("activations", 10.0)):
        for file in (own_cache / folder).glob("*.json"):
            file.write_text(json.dumps({**json.loads(file.read_text()), "seconds": seconds}))
    _, (vanilla, dinm) = again(tmp_path / "second")
    assert 3000.0 <= dinm["edit"] < 3001.0  # three edits
    assert 200.0 <= dinm["mechanism"] < 210.0  # without S, with S
    assert 10.0 <= vanilla["mechanism"] < 20.0


def test_an_edit_that_is_gone_from_the_cache_is_made_again(
    finished: Path, own_cache: Path, tmp_path: Path, edits_made: list[int]
) -> None:
    file = next((finished / "parts" / "dinm").glob("*.edit.safetensors"))
    gone = next(f for f in (own_cache / "edits").glob("*.safetensors") if f.read_bytes() == file.read_bytes())
    [instance] = WeightEdit.load(gone).provenance.instance_ids
    gone.unlink()
    assert again(tmp_path / "second")[0] == compared(finished)[0]
    assert edits_made == [instance]
    assert gone.exists()


def test_large_edits_are_not_kept_twice(
    finished: Path, own_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, edits_made: list[int]
) -> None:
    shutil.rmtree(own_cache / "edits")
    monkeypatch.setattr(edited, "KEPT", 0)
    assert again(tmp_path / "second")[0] == compared(finished)[0]
    assert len(edits_made) == 3
    assert not (own_cache / "edits").exists()


def test_scores_that_are_gone_from_their_file_are_told_in_one_line(
    own_cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for file in (own_cache / "layers").glob("*.json"):
        file.write_text(json.dumps({**json.loads(file.read_text()), "records": []}))
    assert run(["dinm", *SMALL, "--out", str(tmp_path / "second")]) == 2
    assert "damaged (expected 1 records, got 0); delete it and run again" in capsys.readouterr().err


def test_damaged_activations_are_told_in_one_line(
    own_cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for file in (own_cache / "activations").glob("*.safetensors"):
        file.write_bytes(b"no tensors")
    assert run(["dinm", *SMALL, "--out", str(tmp_path / "second")]) == 2
    assert re.search(r"activations/\w+\.safetensors is missing or damaged", capsys.readouterr().err)


def test_a_damaged_edit_is_told_by_its_name_in_the_cache_and_made_again_without_it(
    finished: Path, own_cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = sorted((own_cache / "edits").glob("*.safetensors"))[0]
    file.write_bytes(b"no tensors")
    assert run(["dinm", *SMALL, "--out", str(tmp_path / "second")]) == 2
    assert f"{file} is damaged" in capsys.readouterr().err
    file.unlink()
    assert again(tmp_path / "second")[0] == compared(finished)[0]


def test_only_edits_of_the_method_that_the_key_describes_are_kept(
    make_model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Zero(Dinm):
        """Another method by the same name and settings."""

        def detoxify(self, model: Any, data: Any) -> Detoxified:
            name = model.value_name(2)
            delta = torch.zeros_like(model.hf.get_parameter(name))
            provenance = Provenance("dinm", model.source, model.weight_hash(), layer=2)
            return Detoxified("DINM", WeightEdit({name: delta}, provenance))

    monkeypatch.setenv("INTERP_CACHE", str(tmp_path / "cache"))
    model, instance, took = make_model("llama"), small_instance(0), {}
    for number, method in enumerate((Dinm(layer=2, steps=1), Zero(layer=2, steps=1))):
        edited.make_edit(model, identity(model), method, instance, took)(tmp_path / f"{number}.safetensors")
    first, second = (WeightEdit.load(tmp_path / f"{n}.safetensors") for n in (0, 1))
    assert first.deltas.keys() == second.deltas.keys()
    assert any(delta.any() for delta in first.deltas.values())
    assert not any(delta.any() for delta in second.deltas.values())
