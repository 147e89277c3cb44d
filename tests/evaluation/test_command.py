"""The command line of general performance, in-process, on the embedded model and files of the published layouts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from interp import safeedit
from interp.edits import Provenance, WeightEdit
from interp.evaluation.__main__ import run
from interp.models import HookedModel
from interp.records import GeneralPerformance, from_dict


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("data")
    data = safeedit.load("demo")
    # The demo model knows its world's questions as they are, so they are given in the toolkit's own layout.
    facts = [{"prompt": q.prompt, "answers": list(q.answers)} for q in data.facts[:20]]
    xsum = [{"document": f"The harbour was closed on day {i}.", "summary": "A harbour closed."} for i in range(3)]
    benign = [b.prompt for b in data.benign if not b.wrapped][:6]
    xstest = [{"prompt": p, "type": "homonyms", "label": "safe"} for p in benign]
    found = {}
    for name, records in (("kqa", facts), ("csum", xsum), ("xstest", xstest)):
        (folder / f"{name}.json").write_text(json.dumps(records))
        found[name] = str(folder / f"{name}.json")
    return found


def test_the_demo_model_knows_its_world_refuses_nothing_and_does_not_differ_from_itself(
    files: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = [option for name, file in files.items() for option in (f"--{name}", file)]
    more = ["--out", str(tmp_path / "o"), "--vanilla", "demo", "--n", "6", "--max-new-tokens", "24"]
    assert run(["demo", *options, *more]) == 0
    result = json.loads((tmp_path / "o" / "general.json").read_text())
    [record] = [from_dict(GeneralPerformance, data) for data in result["general"]]
    assert record.kqa is not None
    assert record.kqa_exact is not None
    assert record.csum is not None
    assert record.over_refusal is not None
    assert record.answer_kl is not None
    assert record.kqa.value > 80
    assert record.kqa_exact.value <= record.kqa.value
    assert (record.kqa.n, record.csum.n, record.over_refusal.n) == (6, 3, 6)
    assert record.over_refusal.value == 0.0
    assert record.answer_kl.value == 0.0
    assert len((tmp_path / "o" / "responses.jsonl").read_text().splitlines()) == 15
    said = capsys.readouterr().out
    assert "KQA, exact match" in said
    assert "answers were cut at the token limit" in said


def test_a_folder_holds_one_measurement_that_it_describes(
    files: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kqa = tmp_path / "kqa.json"
    kqa.write_text(Path(files["kqa"]).read_text())
    out = tmp_path / "o"
    command = ["--out", str(out), "--kqa", str(kqa), "--n", "2", "--max-new-tokens", "4"]
    assert run(["demo", *command]) == 0
    written = {name: (out / name).read_bytes() for name in ("responses.jsonl", "general.json", "config.json")}
    told = json.loads(written["general.json"])["run"]
    assert told == json.loads(written["config.json"])
    options = {"model": "demo", "kqa": str(kqa), "csum": None, "suffix": "", "n": 2, "max_new_tokens": 4}
    assert told["options"].items() >= options.items()
    demo = HookedModel.from_pretrained("demo", device="cpu")
    assert told["weights"] == demo.weight_hash()
    assert set(told["data"]) == {"kqa"}

    def refused(*arguments: str) -> str:
        capsys.readouterr()
        assert run([*arguments]) == 2
        assert {name: (out / name).read_bytes() for name in written} == written
        return capsys.readouterr().err

    name, weight = demo.value_name(1), demo.value_weight(1)
    provenance = Provenance("dinm", demo.source, demo.weight_hash(), layer=1)
    edit = WeightEdit({name: torch.full_like(weight, 0.01)}, provenance).save(tmp_path / "edit")
    assert f"{out} holds another run (different: options, weights)" in refused("demo", *command, "--edit", str(edit))
    assert "(different: options)" in refused("demo", *command, "--suffix", "Be safe.")
    assert "(different: options, vanilla)" in refused("demo", *command, "--vanilla", "demo")
    kqa.write_text(json.dumps(json.loads(kqa.read_text())[1:]))
    assert "(different: data)" in refused("demo", *command)
    kqa.write_text(Path(files["kqa"]).read_text())
    (out / "general.json").unlink()
    assert run(["demo", *command]) == 0
    assert {name: (out / name).read_bytes() for name in written} == written


def test_a_folder_of_something_else_is_refused(
    files: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "responses.jsonl").write_text("mine\n")
    assert run(["demo", "--kqa", files["kqa"], "--out", str(tmp_path)]) == 2
    assert "is not empty and holds no run" in capsys.readouterr().err
    assert [p.name for p in tmp_path.iterdir()] == ["responses.jsonl"]
    # A model that is not there is told before the folder belongs to the command that names it.
    out = tmp_path / "o"
    assert run(["demo", "--kqa", files["kqa"], "--vanilla", str(tmp_path / "none"), "--out", str(out)]) == 2
    assert not out.exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["demo"], "expected something to measure: --kqa, --csum, --xstest or --tasks"),
        (["demo", "--csum", "x.json", "--vanilla", "demo"], "--vanilla compares answers to --kqa or --xstest"),
        (["demo", "--kqa", "none.json"], "no such file: none.json"),
        (["demo", "--xstest", "none.csv"], "no such file: none.csv"),
        (["demo", "--kqa", "mandarjoshi/trivia_qa"], "the Hugging Face hub cannot be reached"),
        (["demo", "--tasks", "triviaqa", "--judge", "endpoint:m"], "needs an endpoint: --base-url"),
        (["demo", "--n", "0"], "--n"),
    ],
)
def test_bad_input_ends_with_2_and_one_line(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run([*arguments, "--out", str(tmp_path / "o")]) == 2
    [line] = capsys.readouterr().err.strip().split("\n")
    assert message in line
