"""Tasks at scale go through lm-evaluation-harness: the real one on a local task; what it is given, by a stand-in."""

from __future__ import annotations

import json
import sys
import types
from pathlib import Path
from typing import Any

import pytest
import torch

from interp.edits import Provenance, WeightEdit
from interp.errors import InputError
from interp.evaluation import find_tasks, run_harness
from interp.evaluation.__main__ import run
from interp.models import HookedModel
from interp.safeedit import load


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """A module of that name which opens the checkpoint it is given, and keeps what it was asked."""
    calls: list[dict[str, Any]] = []

    def simple_evaluate(**asked: Any) -> Any:
        asked["opened"] = HookedModel.from_pretrained(asked["model_args"]["pretrained"])
        calls.append(asked)
        return {"results": {"triviaqa": {"exact_match,none": 0.5}}}

    class TaskManager:
        def __init__(self, include_path: str | None = None, include_defaults: bool = True) -> None:
            self.include_path = include_path

        def match_tasks(self, tasks: list[str]) -> list[str]:
            return [task for task in tasks if task == "triviaqa"]

    module: Any = types.ModuleType("lm_eval")
    module.simple_evaluate = simple_evaluate
    tasks: Any = types.ModuleType("lm_eval.tasks")
    tasks.TaskManager = TaskManager
    monkeypatch.setitem(sys.modules, "lm_eval", module)
    monkeypatch.setitem(sys.modules, "lm_eval.tasks", tasks)
    return calls


def test_without_the_harness_one_line_says_how_to_get_it(llama: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("lm_eval", "lm_eval.tasks"):  # another test may have imported both
        monkeypatch.setitem(sys.modules, name, None)
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


def test_an_unknown_task_or_folder_is_named(llama: Any, installed: list, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="knows no task 'trivia'"):
        run_harness(llama, ["triviaqa", "trivia"])
    with pytest.raises(InputError, match="expected a folder with tasks"):
        find_tasks(["triviaqa"], tmp_path / "none")
    assert not installed


def test_a_mistake_in_the_tasks_is_told_before_the_model_is_asked(
    installed: list, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(HookedModel, "from_pretrained", lambda *_, **__: pytest.fail("the model was opened"))
    out = ["--out", str(tmp_path / "out")]
    assert run(["demo", "--tasks", "trivia", *out]) == 2
    assert "knows no task 'trivia'" in capsys.readouterr().err
    assert run(["demo", "--tasks", " , ", *out]) == 2
    assert run(["demo", "--kqa", "facts.json", "--tasks-from", str(tmp_path), *out]) == 2
    assert "give their names" in capsys.readouterr().err


def test_scores_are_kept_where_the_harness_fails(
    installed: list, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(sys.modules["lm_eval"], "simple_evaluate", lambda **_: None)
    facts = tmp_path / "facts.json"
    facts.write_text(json.dumps([{"question": f.prompt, "answer": {"value": f.answers[0]}} for f in load().facts[:3]]))
    out = tmp_path / "out"
    assert run(["demo", "--kqa", str(facts), "--tasks", "triviaqa", "--out", str(out)]) == 2
    kept = json.loads((out / "general.json").read_text())
    assert kept["general"][0]["kqa_exact"]["n"] == 3
    assert "harness" not in kept


TASK = """\
task: demo_facts
dataset_path: json
dataset_kwargs:
  data_files:
    test: {file}
test_split: test
output_type: generate_until
doc_to_text: "User: {{{{question}}}}\\nAssistant:"
doc_to_target: " {{{{answer}}}}"
generation_kwargs:
  until: ["\\n"]
  max_gen_toks: 16
metric_list:
  - metric: exact_match
    aggregation: mean
    higher_is_better: true
    ignore_case: true
    ignore_punctuation: true
"""


@pytest.mark.filterwarnings("ignore")  # the harness's own, and those of what it imports
def test_the_real_harness_asks_the_demo_its_facts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "datasets")
    facts = load().facts[:24]
    file = tmp_path / "facts.jsonl"
    file.write_text("".join(json.dumps({"question": f.prompt, "answer": f.answers[0]}) + "\n" for f in facts))
    folder = tmp_path / "tasks"
    folder.mkdir()
    (folder / "demo_facts.yaml").write_text(TASK.format(file=file))
    out = tmp_path / "out"
    code = run(["demo", "--tasks", "demo_facts", "--tasks-from", str(folder), "--out", str(out)])
    assert code == 0, capsys.readouterr().err
    found = json.loads((out / "general.json").read_text())["harness"]["demo_facts"]
    assert found["exact_match,none"] > 0.9
    assert found["sample_len"] == 24
