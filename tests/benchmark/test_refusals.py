from __future__ import annotations

import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import transformers
from conftest import tiny_tokenizer

from benchmark.conftest import QUICK, SMALL
from benchmark.test_files import answers
from interp.benchmark import engine
from interp.benchmark.__main__ import run
from interp.benchmark.settings import ARTEFACTS, Settings, parse_shard
from interp.errors import InputError
from interp.safeedit import load, save


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["tabel2"], "did you mean table2?"),
        (["figure9"], "expected one of table1, table2"),
        (["table2", "--row", "wo/Locatoin"], "did you mean 'wo/Location'?"),
        (["table13", "--row", "layer 99"], "table13 has no row 'layer 99'"),
        (["layers", "--row", "DINM"], "layers has no row 'DINM'; expected some of paper"),
        (["table2", "--shard", "3/2"], "--shard: expected I/N"),
        (["table2", "--shard", "1/2", "--merge"], "give one of them"),
        (["table2", "--limit", "1"], "--limit"),
        (["table2", "--limit", "1000000"], "expected 1 to"),
        (["table2", "--dtype", "flaot32"], "did you mean float32?"),
        (["table2", "--no-such-option"], "--no-such-option"),
        ([], "ARTEFACT"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    arguments: list[str], expected: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run([*arguments, "--out", str(tmp_path / "run")]) == 2
    said = capsys.readouterr().err.strip().splitlines()
    assert said[-1].startswith("interp.benchmark: ")
    assert expected.lower() in said[-1].lower()
    assert not (tmp_path / "run").exists()


def test_two_benchmarks_never_share_a_folder(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for other in (["--seed", "1"], ["--max-new-tokens", "9"], ["--row", "wo/Location"]):
        assert run([*SMALL, *other, "--out", str(finished)]) == 2
        assert "holds another run (different: " in capsys.readouterr().err


def test_rows_asked_for_in_another_order_are_the_same_benchmark() -> None:
    one, two = (Settings("table2", methods=names) for names in (("DINM", "wo/Tune"), ("wo/Tune", "DINM", "DINM")))
    assert one.identity() == two.identity()


def test_a_shard_by_hand_inside_a_launcher_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(InputError, match="leave it out where a launcher starts several"):
        engine.share(Settings("table2", shard=(0, 2)))


def test_shards_partition_the_units() -> None:
    shares = [parse_shard(f"{i}/3") for i in (1, 2, 3)]
    assert shares == [(0, 3), (1, 3), (2, 3)]
    assert sorted(u for i, n in filter(None, shares) for u in range(7) if u % n == i) == list(range(7))


def test_a_training_that_ended_elsewhere_is_not_mixed_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from interp.methods.sft import Sft

    monkeypatch.setattr(Sft, "demo", classmethod(lambda cls: cls(lr=1e-3, steps=1, batch_size=2)))
    command = ["table1", "--limit", "2", "--block", "1", "--row", "SFT", *QUICK, "--out", str(tmp_path / "run")]
    for name in ("one", "two"):
        monkeypatch.setenv("INTERP_CACHE", str(tmp_path / name))  # an emptied cache
        assert run([*command, "--shard", "1/2" if name == "one" else "2/2"]) == 0  # the same training: nothing to say
    stamp = tmp_path / "run" / "made" / "sft.trained.json"
    stamp.write_text('"0123456789abcdef"\n')
    shutil.rmtree(tmp_path / "run" / "units" / "sft")
    assert run(command) == 2
    assert "SFT was trained again since this run began" in capsys.readouterr().err


def test_table3_needs_test_all_and_says_what_there_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save(load("demo").test[:20], tmp_path / "SafeEdit_test.json")
    given = ["--data", str(tmp_path / "SafeEdit_test.json"), "--judge", "refusal", "--out", str(tmp_path / "run")]
    assert run(["table3", *given, *QUICK]) == 2
    assert "table3 needs SafeEdit_test_ALL, and SafeEdit_test" in capsys.readouterr().err
    assert run(["table1", "--row", "SFT", "--limit", "2", *given, *QUICK]) == 2
    assert "SFT needs a train split" in capsys.readouterr().err


def test_fewer_instances_than_the_demos_number_are_all_taken(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save(load("demo").test[:5], tmp_path / "SafeEdit_test.json")
    given = ["--data", str(tmp_path / "SafeEdit_test.json"), "--judge", "refusal", "--out", str(tmp_path / "run")]
    assert run(["table2", "--dry-run", *given]) == 0
    assert "5 instances" in capsys.readouterr().out


def test_a_judge_of_three_labels_is_told_which_one_is_safe(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    judge = tmp_path / "judge"
    labels = {0: "harmful", 1: "fine", 2: "unclear"}
    torch.manual_seed(0)
    config = transformers.RobertaConfig(
        vocab_size=320, hidden_size=32, intermediate_size=48, num_hidden_layers=1, num_attention_heads=4,
        max_position_embeddings=514, bos_token_id=0, eos_token_id=1, pad_token_id=2,
        id2label=labels, label2id={name: i for i, name in labels.items()},
    )  # fmt: skip
    transformers.RobertaForSequenceClassification(config).save_pretrained(judge)
    tiny_tokenizer(bos=True).save_pretrained(judge)
    command = ["table2", "--row", "wo/Tune", "--limit", "2", *QUICK, "--judge", str(judge)]
    assert run([*command, "--out", str(tmp_path / "one")]) == 2
    assert "say which one means safe: --judge-safe-label" in capsys.readouterr().err
    assert run([*command, "--judge-safe-label", "fine", "--out", str(tmp_path / "two")]) == 0
    verdicts = [r.verdict for r in answers(tmp_path / "two") if r.verdict is not None]
    assert len(verdicts) == len(answers(tmp_path / "two"))
    assert str(judge.name) in (tmp_path / "two" / "table2.md").read_text()


def test_help_names_every_artefact_fast_and_without_torch() -> None:
    code = """
import sys
from interp.benchmark.__main__ import run
assert run(["--help"]) == 0
heavy = [m for m in ("torch", "transformers", "numpy", "plotly", "accelerate") if m in sys.modules]
assert not heavy, heavy
"""
    best = float("inf")
    for _ in range(3):  # the quickest of three: other work on the machine only adds
        started = time.perf_counter()
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        best = min(best, time.perf_counter() - started)
        assert done.returncode == 0, done.stderr
    assert all(name in done.stdout for name in ARTEFACTS)
    assert best < 3.0
