"""What is remembered of a model is exactly what it said, and anything it depends on makes it be asked again."""

from __future__ import annotations

import gc
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from interp import pipeline
from interp.edits import Provenance, WeightEdit
from interp.errors import InputError
from interp.evaluation import Item
from interp.judges import RefusalJudge
from interp.models import HookedModel
from interp.pipeline import Settings, answers
from interp.pipeline.answers import answers_of, answers_of_edits
from interp.records import Response
from interp.runs import cache_dir

ITEMS = [Item("DS", "The cat sat", "", 0, 0), Item("DS", "The cat sat", "on the mat", 0, 0), Item("kqa", "A", "", 1, 0)]
SETTINGS = Settings(methods=("dinm",), max_new_tokens=6, batch_size=4)


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INTERP_CACHE", str(tmp_path))


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was really decoded."""
    found: list[str] = []

    def seen(real: Callable[..., Any], kind: str) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            found.append(kind)
            return real(*args, **options)

        return call

    for kind in ("respond", "respond_edited"):
        monkeypatch.setattr(answers, kind, seen(getattr(answers, kind), kind))
    return found


def say(model: HookedModel, name: str = "row", items: list[Item] = ITEMS, settings: Settings = SETTINGS) -> Any:
    took: dict[str, float] = {}
    return answers_of(settings, model, items, RefusalJudge(), name=name, took=took), took


def edit_of(model: HookedModel, size: float) -> WeightEdit:
    name = model.value_name(1)
    delta = size * torch.ones_like(model.hf.get_parameter(name))
    return WeightEdit({name: delta}, Provenance("test", "tiny", model.weight_hash(), layer=1))


def test_the_same_question_to_the_same_weights_is_answered_once(make_model: Any, asked: list[str]) -> None:
    first, _ = say(make_model("gpt2"))
    [file] = (cache_dir() / "answers").glob("*.json")
    kept = json.loads(file.read_text())
    assert not any(r["verdict"] for r in kept["records"])
    file.write_text(json.dumps({**kept, "seconds": 500.0}))
    second, took = say(make_model("gpt2"), name="other")
    assert asked == ["respond"]
    assert [(r.text, r.n_tokens, r.ended, r.verdict) for r in second] == [
        (r.text, r.n_tokens, r.ended, r.verdict) for r in first
    ]
    assert {r.model for r in second} == {"other"}
    assert took["evaluate"] >= 500.0  # what it took then, not what the cache takes


def test_other_weights_tokens_limits_or_formats_are_asked_anew(make_model: Any, asked: list[str]) -> None:
    say(make_model("gpt2"))
    changed = make_model("gpt2")
    with torch.no_grad():
        changed.hf.get_parameter(changed.value_name(0))[0, 0] += 1e-3
    other_norm = make_model("gpt2")
    other_norm.hf.config.layer_norm_epsilon = 1e-3
    template = "{% for m in messages %}User: {{ m.content }} Assistant:{% endfor %}"
    say(changed)
    say(other_norm)
    say(make_model("gpt2", chat_template="auto", template=template))
    say(make_model("gpt2"), items=ITEMS[:2])
    say(make_model("gpt2"), settings=Settings(methods=("dinm",), max_new_tokens=5, batch_size=4))
    assert len(asked) == 6
    assert len(list((cache_dir() / "answers").iterdir())) == 6


def test_edits_are_told_apart_by_what_they_change(make_model: Any, asked: list[str]) -> None:
    model = make_model("gpt2")

    def of(*sizes: float) -> list[list[Response]]:
        edits, items = [edit_of(model, size) for size in sizes], [ITEMS] * len(sizes)
        ids = list(range(len(sizes)))
        return answers_of_edits(SETTINGS, model, edits, items, RefusalJudge(), name="e", edited_on=ids, took={})

    first = of(0.1, 0.2)
    assert of(0.1, 0.2) == first
    assert [[r.edited_on for r in own] for own in first] == [[0] * 3, [1] * 3]
    assert asked == ["respond_edited"]
    of(0.1, 0.3)
    assert asked == ["respond_edited"] * 2


def test_warnings_come_back_with_the_answers(make_model: Any) -> None:
    long = [Item("DS", "the cat " * 100, "", 0, 0)]
    first, second = make_model("gpt2"), make_model("gpt2")
    first.note("told before")
    say(first, items=long)
    say(second, items=long)
    assert first.warnings[0] == "told before"
    assert second.warnings == first.warnings[1:]
    assert "cut from the left" in second.warnings[0]


@pytest.mark.parametrize("text", ['{"records": [{"model": 1}]}', '{"records": [{"mod', ""])
def test_a_damaged_file_is_told_in_one_line(make_model: Any, text: str) -> None:
    say(make_model("gpt2"))
    [file] = (cache_dir() / "answers").glob("*.json")
    file.write_text(text)
    with pytest.raises(InputError, match=r"\.json is damaged .* delete it and run again"):
        say(make_model("gpt2"))


def test_what_is_there_already_is_spared_by_collections_only_inside() -> None:
    gc.unfreeze()  # the tests' own freezing (conftest.py)
    try:
        with pipeline._left_alone():
            assert gc.get_freeze_count() > 0
            with pipeline._left_alone():
                pass
            assert gc.get_freeze_count() > 0
        assert gc.get_freeze_count() == 0
    finally:
        gc.freeze()
