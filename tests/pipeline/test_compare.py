from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from small_run import SMALL

from interp.compare import run
from interp.edits import WeightEdit
from interp.errors import InputError
from interp.judges import TextJudge
from interp.methods.dinm import Dinm
from interp.models import HookedModel
from interp.pipeline import looking, rows, study
from interp.pipeline import run as stages
from interp.records import PROMPT_KINDS, Comparison, loads
from interp.runs import cache_dir


def comparison(folder: Path) -> Comparison:
    return loads(Comparison, (folder / "comparison.json").read_text())


def without_seconds(folder: Path) -> Any:
    data = json.loads((folder / "comparison.json").read_text())
    for row in data["rows"]:
        row.pop("seconds")
    return data


def test_every_row_is_measured_with_and_without_the_suffix(finished: Path) -> None:
    result = comparison(finished)
    assert [row.name for row in result.rows] == ["vanilla", "dinm"]
    for row in result.rows:
        assert [d.suffix for d in row.defense] == [False, True]
        assert set(row.defense[0].by_kind) == set(PROMPT_KINDS)
        assert row.defense[0].dg_avg.n == result.n_instances == 3
    assert result.planted


def test_an_edit_of_one_matrix_moves_no_input_of_it_and_the_record_says_why(finished: Path) -> None:
    dinm = comparison(finished).rows[1]
    assert dinm.shift is not None
    assert dinm.shift.identity
    assert dinm.shift.rate.value == 0.0
    assert dinm.swap is not None
    assert dinm.swap.identity
    assert dinm.weight_change.value > 0
    assert "by construction" in dinm.conclusion.evidence


def test_the_verdict_is_read_at_a_layer_that_vanilla_alone_names(finished: Path) -> None:
    result = comparison(finished)
    assert result.causal_scores is not None
    assert result.causal_scores.model == "vanilla"
    assert result.causal_layer == result.causal_scores.toxic_layer
    vanilla, dinm = result.rows
    assert vanilla.conclusion.verdict == "reference"
    assert dinm.causal is not None
    assert dinm.causal.layer == result.causal_layer
    assert dinm.causal.units == dinm.causal.n == 3
    assert dinm.swap is not None
    assert dinm.swap.layer == result.layer
    assert dinm.conclusion.verdict == "undecided"
    assert "3 prompts cannot show an effect: at least 5 are needed" in dinm.conclusion.evidence


def test_every_generation_is_kept_with_its_prompt_and_verdict(finished: Path) -> None:
    lines = (finished / "generations.jsonl").read_text().splitlines()
    found = [json.loads(line) for line in lines]
    assert {g["model"] for g in found} == {"vanilla", "dinm"}
    # 3 instances x 5 prompts, 3 facts, 4 benign requests; two suffix states; two rows.
    assert len(found) == (3 * 5 + 3 + 4) * 2 * 2
    assert all(g["verdict"] and g["prompt"] for g in found)


def test_the_kept_edits_can_be_applied_again(finished: Path) -> None:
    files = sorted((finished / "parts" / "dinm").glob("*.edit.safetensors"))
    assert len(files) == 3
    model = HookedModel.from_pretrained("demo")
    edit = WeightEdit.load(files[0])
    before = model.weight_hash()
    with edit.applied(model):
        assert model.weight_hash(fresh=True) != before
    assert model.weight_hash(fresh=True) == before


def test_a_finished_run_is_read_back_and_nothing_is_done_twice(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def again(*_: object, **__: object) -> None:
        raise AssertionError("asked a model twice")

    before = (finished / "comparison.json").read_text()
    monkeypatch.setattr(rows, "answers_of", again)
    monkeypatch.setattr(Dinm, "detoxify", again)
    assert run(["dinm", *SMALL, "--out", str(finished)]) == 0
    assert (finished / "comparison.json").read_text() == before


def test_an_interrupted_run_ends_like_an_unbroken_one(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("INTERP_CACHE", str(tmp_path / "cache"))
    out, edited = tmp_path / "run", []
    detoxify = Dinm.detoxify

    def counted(self: Dinm, model: HookedModel, data: Any, *args: Any, **more: Any) -> Any:
        if len(edited) == 1:
            edited.append("interrupted")
            raise KeyboardInterrupt
        edited.append(data.id)
        return detoxify(self, model, data, *args, **more)

    monkeypatch.setattr(Dinm, "detoxify", counted)
    assert run(["dinm", *SMALL, "--out", str(out)]) == 130
    assert "the same command continues where it stopped" in capsys.readouterr().err
    assert not (out / "comparison.json").exists()
    assert run(["dinm", *SMALL, "--out", str(out)]) == 0
    assert len([e for e in edited if e != "interrupted"]) == 3  # the first instance was not edited again
    assert without_seconds(out) == without_seconds(finished)
    assert (out / "generations.jsonl").read_text() == (finished / "generations.jsonl").read_text()


def test_a_resumed_run_repeats_no_setup_and_reports_the_seconds_and_warnings_of_all_its_parts(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INTERP_CACHE", str(tmp_path / "cache"))
    out, edited = tmp_path / "run", []
    detoxify, inside = Dinm.detoxify, looking.record

    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    def again(*_: object, **__: object) -> None:
        raise AssertionError("computed twice")

    def second_one_interrupts(self: Dinm, model: HookedModel, data: Any) -> Any:
        edited.append(data.id)
        if len(edited) == 1:
            model.note("told while the first instance was edited")
        if len(edited) == 2:
            raise KeyboardInterrupt
        return detoxify(self, model, data)

    def pretend(part: str, stage: str, seconds: float) -> None:
        file = out / "parts" / f"{part}.seconds.json"
        took = json.loads(file.read_text())
        assert took[stage] >= 0.0
        file.write_text(json.dumps({**took, stage: seconds}))

    monkeypatch.setattr(looking, "record", interrupted)
    assert run(["dinm", *SMALL, "--out", str(out)]) == 130  # vanilla has answered
    pretend("vanilla", "evaluate", 500.0)
    monkeypatch.setattr(looking, "record", inside)
    monkeypatch.setattr(study, "train_probes", again)
    monkeypatch.setattr(looking, "layer_distances", again)
    monkeypatch.setattr(Dinm, "detoxify", second_one_interrupts)
    assert run(["dinm", *SMALL, "--out", str(out)]) == 130  # one instance is edited
    pretend(f"dinm/{edited[0]}.edit", "edit", 1000.0)
    assert run(["dinm", *SMALL, "--out", str(out)]) == 0
    vanilla, dinm = comparison(out).rows
    assert 500.0 <= vanilla.seconds["evaluate"] < 600.0
    assert 1000.0 < dinm.seconds["edit"] < 1100.0
    assert comparison(out).warnings == ("told while the first instance was edited", *comparison(finished).warnings)
    expected = without_seconds(finished)
    assert without_seconds(out) == {**expected, "warnings": list(comparison(out).warnings)}


def test_a_killed_run_ends_like_an_unbroken_one(finished: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    command = [sys.executable, "-m", "interp.compare", "dinm", *SMALL, "--out", str(out)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 300
    while not (out / "parts" / "vanilla.jsonl").exists():
        assert process.poll() is None, "ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (out / "comparison.json").exists()
    assert run(["dinm", *SMALL, "--out", str(out)]) == 0
    assert without_seconds(out) == without_seconds(finished)


def test_a_model_made_elsewhere_is_a_row_and_must_have_vanillas_shape(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = HookedModel.from_pretrained("demo")
    edit = WeightEdit.load(sorted((finished / "parts" / "dinm").glob("*.edit.safetensors"))[0])
    edit.merge(model, tmp_path / "mine")
    out = tmp_path / "run"
    assert run(["mine=" + str(tmp_path / "mine"), *SMALL, "--out", str(out)]) == 0
    mine = comparison(out).rows[1]
    assert (mine.name, mine.method) == ("mine", "given")
    assert mine.weight_change.value == pytest.approx(100 * edit.relative_norm(model), rel=1e-3)
    golden = Path(__file__).parents[1] / "golden" / "tiny_model"
    assert run([f"other={golden}", *SMALL, "--out", str(tmp_path / "other")]) == 2
    assert "does not have the shape of the vanilla model" in capsys.readouterr().err


def test_sft_is_trained_once_and_then_taken_from_the_cache(tmp_path: Path) -> None:
    tiny = ["--set", "sft.steps=1", "--set", "sft.batch_size=2"]
    for name in ("one", "two"):
        assert run(["sft", *SMALL, *tiny, "--out", str(tmp_path / name)]) == 0
    one, two = (comparison(tmp_path / name).rows[1] for name in ("one", "two"))
    assert one.source == two.source
    assert one.seconds["train"] == two.seconds["train"] > 0.1  # what its own record says, not what the cache took
    assert one.shift is not None
    assert not one.shift.identity
    assert one.defense == two.defense


def test_dpo_is_charged_for_the_sft_it_stands_on(tmp_path: Path) -> None:
    tiny = [x for name in ("sft", "dpo") for x in ("--set", f"{name}.steps=1", "--set", f"{name}.batch_size=2")]
    assert run(["dpo", *SMALL, *tiny, "--out", str(tmp_path / "run")]) == 0
    logs = [json.loads(file.read_text()) for file in (cache_dir() / "models").glob("*/provenance.json")]
    took = {log["weight_hash"]: log["seconds"] for log in logs}
    dpo = next(log for log in logs if log["method"] == "dpo")
    assert comparison(tmp_path / "run").rows[1].seconds["train"] == pytest.approx(
        dpo["seconds"] + took[dpo["base_hash"]], abs=0.02
    )


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["dnim"], "did you mean dinm"),
        (["dinm", "--model", "no/such-model-anywhere"], "no/such-model-anywhere"),
        (["dinm", "--data", "missing.json"], "no data at 'missing.json'"),
        (["dinm", "--layer", "9"], "layer 9 out of range: the model has layers 0..5"),
        (["dinm", "--instances", "100000"], "expected 1 to 1350 instances"),
        (["dinm", "--device", "toaster"], "--device toaster"),
        (["dinm", "--judge", "no-such-judge"], "no-such-judge"),
        (["dinm", "--judge-safe-label", "0"], "a safe label ('0') is for a classifier"),
        (["dinm", "--set", "dinm.lr=x"], "expected a float"),
        (["dinm", "--set", "sft.lr=1e-4"], "sft is not run"),
        (["dinm", "--suffix", "S3"], "--suffix: expected S1, S2, none or a text, got 'S3'"),
        (["dinm", "--seed", "-1"], "--seed"),
        (["dinm", "--probe-data", "none.csv"], "none.csv"),
        (["mine=no/such/folder"], "no/such/folder"),
        (["dinm", "--max-new-tokens", "99999"], "max_new_tokens"),
        (["--instances", "few", "dinm"], "--instances"),
        ([], "methods"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    arguments: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = [] if not arguments else ["--out", str(tmp_path / "run")]
    small = [*SMALL] if arguments and "dinm" in arguments else []
    assert run([*small, *arguments, *out]) == 2
    printed = capsys.readouterr().err.splitlines()
    told = [line for line in printed if line.startswith("interp.compare: ")]
    assert len(told) == 1
    assert said in told[0]
    assert not any("Traceback" in line for line in printed)


def test_the_safe_label_named_on_the_command_line_reaches_the_judge(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = {}

    def load(names: list[str], *_: object, **options: Any) -> None:
        given.update(options, names=names)
        raise InputError("seen")

    monkeypatch.setattr(study, "load_several", load)
    options = ["--judge", "some/folder", "--judge-safe-label", "harmless", "--out", str(tmp_path / "run")]
    assert run(["dinm", *SMALL, *options]) == 2
    assert (given["names"], given["safe_label"]) == (["some/folder"], "harmless")


def test_a_folder_of_another_run_is_refused(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["dinm", *SMALL, "--seed", "1", "--out", str(finished)]) == 2
    assert "holds another run (different: data, settings)" in capsys.readouterr().err


def test_training_without_a_train_split_is_refused_before_anything_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from interp import safeedit

    file = tmp_path / "SafeEdit_test.json"
    safeedit.save(safeedit.load("demo").test[:5], file)
    assert run(["sft", "--data", str(file), "--instances", "3", "--out", str(tmp_path / "run")]) == 2
    assert "has no train split" in capsys.readouterr().err


def test_data_without_a_train_split_is_one_line_for_the_judge_that_learns_and_a_warning_for_the_margin(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from interp import safeedit

    file = tmp_path / "SafeEdit_test.json"
    few = safeedit.load("demo").test[:5]
    safeedit.save(few, file)
    options = ["--data", str(file), "--instances", "3", "--facts", "0", "--benign", "0"]
    assert run(["dinm", *options, "--judge", "demo", "--out", str(tmp_path / "run")]) == 2
    told = [line for line in capsys.readouterr().err.splitlines() if line.startswith("interp.compare: ")]
    assert len(told) == 1
    assert "the 'demo' judge learns from the train split, which" in told[0]
    assert "has no train split" in study.margin_warning(safeedit.load(str(file)))[0]
    assert study.margin_warning(safeedit.load("demo")) == []

    alike = [replace(i, unsafe_generation=i.safe_generation) for i in few]
    safeedit.save(alike, file)
    demo = TextJudge.train(safeedit.load("demo"))
    monkeypatch.setattr(study, "load_several", lambda *_, **__: (demo,))
    monkeypatch.setattr(stages, "toxic_probes", lambda *_: pytest.fail("something was computed first"))
    assert run(["dinm", *options, "--out", str(tmp_path / "alike")]) == 2
    assert (
        "no refusing first token: the safe and unsafe generations begin with the same tokens" in capsys.readouterr().err
    )


def test_help_answers_without_torch() -> None:
    code = "import sys; from interp.compare import run; run(['--help']); assert 'torch' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "sft, dpo, dinm" in " ".join(done.stdout.split())
