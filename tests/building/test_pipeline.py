"""Whole builds: with a scripted generator, with the demo model, against a stub endpoint, killed and continued."""

from __future__ import annotations

import csv
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from conftest import tiny_tokenizer
from endpoint.stub import Reply, answer, completion, demo_like, serve

import interp
from interp import safeedit
from interp.building import BuildSettings, pipeline
from interp.building.generators import INSTRUCTION
from interp.building.pipeline import build, judge_identity
from interp.building.store import judging
from interp.endpoint import EndpointSettings, Query
from interp.errors import InputError
from interp.judges import ClassifierJudge
from interp.records import CATEGORIES, Verdict
from interp.runs import Run
from interp.safeedit.__main__ import run

from .conftest import Scripted

FINISHED = ("CARD.md", "card.json", "config.json", "review.csv")


def finished(folder: Path) -> dict[str, bytes]:
    """The bytes of all that a build is for."""
    return {p.name: p.read_bytes() for p in folder.iterdir() if p.name in FINISHED or p.name.startswith("SafeEdit")}


def review_rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "review.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def write_review(path: Path, rows: list[dict[str, str]]) -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return path


def test_a_full_build_has_the_papers_sizes_and_loads_and_round_trips(tmp_path: Path, scripted: Scripted) -> None:
    card = build(BuildSettings(tmp_path / "b"))
    benchmark = safeedit.load(tmp_path / "b")
    assert {s: len(benchmark.split(s)) for s in benchmark.splits} == {
        "train": 4050, "val": 2700, "test": 1350, "test_ALL": 135,
    }  # fmt: skip
    for split in benchmark.splits:
        file = tmp_path / "b" / f"SafeEdit_{split}.json"
        safeedit.save(benchmark.split(split), tmp_path / "again.json")
        assert (tmp_path / "again.json").read_bytes() == file.read_bytes()
        assert card["instances"][split] == {
            "planned": len(benchmark.split(split)),
            "built": len(benchmark.split(split)),
        }
        assert card["categories"][split] == dict.fromkeys(sorted(CATEGORIES), len(benchmark.split(split)) // 9)
        for instance in benchmark.split(split)[::97]:
            assert instance.safe_generation == demo_like(instance.question, True)
            assert instance.unsafe_generation.startswith(("Sure", "Of course"))
    # Attacks of the Oracle are refused: rejected, and replaced by the answer to another attack of the split.
    oracle = {i.id for s in benchmark.splits for i in benchmark.split(s) if i.attack_name.startswith("Oracle")}
    assert card["responses"]["unsafe"]["rejected by reason"] == {"unsafe response judged safe": len(oracle)}
    assert card["responses"]["unsafe"]["entered by origin"] == {
        "another attack": len(oracle),
        "first": 8235 - len(oracle),
    }
    assert card["judge"]["agreement"]["safe"]["value"] == 100.0
    assert card["judge"]["kappa with the phrase matcher"] == 1.0
    assert len(review_rows(tmp_path / "b")) == len(oracle)
    text = (tmp_path / "b" / "CARD.md").read_text()
    assert "| instances (planned) | 4050 (4050) | 2700 (2700) | 1350 (1350) | 135 (135) |" in text
    assert "behaviour is planted" in text


def test_a_finished_build_asks_nothing_again_and_writes_the_same(tmp_path: Path, scripted: Scripted) -> None:
    settings = BuildSettings(tmp_path, limit=20)
    build(settings)
    asked, before = scripted.asked, finished(tmp_path)
    build(settings)
    assert scripted.asked == asked
    assert finished(tmp_path) == before


def test_an_answer_already_known_is_not_asked_for_again(tmp_path: Path, scripted: Scripted) -> None:
    build(BuildSettings(tmp_path, categories=("pornography",)))
    queries = [q for call in scripted.calls for q in call]
    assert len(queries) == len(set(queries))


def test_a_folder_with_another_build_is_refused_and_left_alone(tmp_path: Path, scripted: Scripted) -> None:
    build(BuildSettings(tmp_path, limit=9))
    before = finished(tmp_path)
    with pytest.raises(InputError, match=r"holds another run \(different: limit, seed\)"):
        build(BuildSettings(tmp_path, limit=10, seed=1))
    assert finished(tmp_path) == before
    other = tmp_path / "other"
    other.mkdir()
    (other / "thesis.tex").write_text("mine")
    with pytest.raises(InputError, match="is not empty and holds no run"):
        build(BuildSettings(other))


def test_the_review_file_comes_back_with_corrections_and_acceptances(tmp_path: Path, scripted: Scripted) -> None:
    settings = BuildSettings(tmp_path / "b", limit=60, attempts=1)
    card = build(settings)
    rows = review_rows(tmp_path / "b")
    assert len(rows) >= 3
    assert {r["fate"] for r in rows} == {"left out"}
    assert sum(n["planned"] - n["built"] for n in card["instances"].values()) == len(rows)
    better = "Sure, here it is. First, pick a nasty nickname. Then, roll your eyes. Finally, walk away. \u2028 «ok»"
    rows[0]["correction"], rows[1]["accept"], rows[2]["accept"] = better, "Yes", "NO"
    edited = write_review(tmp_path / "edited.csv", rows)
    for _ in range(2):  # feeding it back twice changes nothing more
        card = build(BuildSettings(tmp_path / "b", limit=60, attempts=1, review=edited))
        assert card["review"] == {
            "rejected": len(rows),
            "decided": 3,
            "corrections": 1,
            "corrections the judge would pass": 1,
            "accepted as they are": 1,
            "not accepted": 1,
        }
    built = {(i.question, i.attack_name): i for s in safeedit.SPLITS for i in safeedit.load(tmp_path / "b").split(s)}
    assert built[rows[0]["question"], rows[0]["attack"]].unsafe_generation == better
    assert built[rows[1]["question"], rows[1]["attack"]].unsafe_generation == rows[1]["response"]
    assert (rows[2]["question"], rows[2]["attack"]) not in built
    after = review_rows(tmp_path / "b")
    assert [r["fate"] for r in after[:3]] == ["correction", "accepted by a person", "left out"]
    assert [(r["accept"], r["correction"]) for r in after[:3]] == [("", better), ("yes", ""), ("no", "")]
    # The folder's own review file now holds decisions: without --review they would be overwritten.
    with pytest.raises(InputError, match=r"review.csv holds 3 decisions; give it with --review"):
        build(settings)
    own = BuildSettings(tmp_path / "b", limit=60, attempts=1, review=tmp_path / "b" / "review.csv")
    before = finished(tmp_path / "b")
    build(own)
    assert finished(tmp_path / "b") == before


def test_a_correction_of_a_safe_response_serves_all_attacks_of_its_question(tmp_path: Path, scripted: Scripted) -> None:
    first = safeedit.load("demo", "test").test[0]
    target, one = first.question, {"categories": (first.category,)}

    def careless(q: Query) -> str:
        return demo_like(q.text, bool(q.suffix) and q.text != target)

    scripted.one = careless
    card = build(BuildSettings(tmp_path / "b", **one))
    assert card["instances"]["test"] == {"planned": 150, "built": 135}
    [row] = [r for r in review_rows(tmp_path / "b") if r["kind"] == "safe"]
    assert row["question"] == target
    assert row["attack"] == ""
    row["correction"] = "I am sorry, but no."
    card = build(BuildSettings(tmp_path / "b", **one, review=write_review(tmp_path / "edited.csv", [row])))
    assert card["instances"]["test"] == {"planned": 150, "built": 150}
    texts = {i.safe_generation for i in safeedit.load(tmp_path / "b", "test").test if i.question == target}
    assert texts == {"I am sorry, but no."}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"id": "unsafe-0000"}, "1 of 1 decisions are about no rejected response of this build, e.g. 'unsafe-0000'"),
        ({"accept": "maybe"}, "record 0: expected yes, no or nothing under 'accept', got 'maybe'"),
        ({"correction": "x"}, "record 0: both accepted and corrected"),
    ],
)
def test_a_bad_review_is_refused(tmp_path: Path, scripted: Scripted, change: dict[str, str], message: str) -> None:
    build(BuildSettings(tmp_path / "b", limit=30))
    row = review_rows(tmp_path / "b")[0] | {"accept": "yes"} | change
    edited = write_review(tmp_path / "edited.csv", [row])
    before = finished(tmp_path / "b")
    with pytest.raises(InputError, match=message):
        build(BuildSettings(tmp_path / "b", limit=30, review=edited))
    assert finished(tmp_path / "b") == before
    doubled = write_review(tmp_path / "doubled.csv", [row, row])
    with pytest.raises(InputError, match="records 0 and 1 have the same 'id'"):
        build(BuildSettings(tmp_path / "b", limit=30, review=doubled))


@pytest.mark.parametrize(
    ("text", "reason"), [("", "empty"), ("sorry " * 30, "degenerate"), ("The sky is blue.", "judged safe")]
)
def test_answers_that_are_no_unsafe_response_are_rejected_with_their_reason(
    tmp_path: Path, scripted: Scripted, text: str, reason: str
) -> None:
    scripted.one = lambda q: demo_like(q.text, True) if q.suffix else text
    with pytest.raises(InputError, match=r"quality control left no instance; see .*review.csv"):
        build(BuildSettings(tmp_path, limit=9))
    rows = review_rows(tmp_path)
    assert len(rows) == 36
    assert {reason in r["reason"] for r in rows} == {True}
    assert safeedit.SPLITS[0] not in {p.stem for p in tmp_path.iterdir()}


def test_a_split_that_is_left_empty_is_not_written(tmp_path: Path, scripted: Scripted) -> None:
    held = {i.question for i in safeedit.load("demo", "val").val}
    scripted.one = lambda q: demo_like(q.text, bool(q.suffix) or any(text in q.text for text in held))
    card = build(BuildSettings(tmp_path, limit=5))
    assert card["instances"]["val"] == {"planned": 5, "built": 0}
    assert safeedit.load(tmp_path).splits == ("train", "test", "test_ALL")


@pytest.mark.usefixtures("scripted")
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"categories": ("weather",)}, "--categories: expected some of .* got 'weather'"),
        ({"categories": ()}, "got none"),
        ({"attempts": 0}, "--attempts: expected at least 1, got 0"),
        ({"questions": "nowhere.csv"}, "no such file: nowhere.csv"),
        ({"descriptions": Path("nowhere.csv")}, "--descriptions: expected --questions generate beside it, got 'demo'"),
        ({"question_model": "writer"}, "--question-model: expected --questions generate"),
        ({"questions_per_category": 9}, "--questions-per-category: expected --questions generate"),
        ({"endpoint": EndpointSettings("http://host/v1")}, "--base-url: expected a --model .* got 'demo', 'auto'"),
        (
            {"endpoint": EndpointSettings("http://host/v1"), "model": "local:m", "safe_model": "demo"},
            "--base-url: expected a --model .* got 'local:m', 'demo', 'auto'",
        ),
    ],
)
def test_bad_settings_are_refused(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        build(BuildSettings(tmp_path / "b", **options))
    assert not (tmp_path / "b").exists()


def test_a_category_without_questions_and_an_attack_without_placeholder_end_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    questions = tmp_path / "q.csv"
    questions.write_text("category,question\n" + "".join(f"offensiveness,How {i}?\n" for i in range(6)))
    assert run(["build", "--out", str(tmp_path / "b"), "--questions", str(questions)]) == 2
    assert "no questions for the category 'unfairness and bias'" in capsys.readouterr().err
    attacks = tmp_path / "a.csv"
    attacks.write_text("name,type,template\nx,pretending,Do it\n")
    assert run(["build", "--out", str(tmp_path / "b"), "--attacks", str(attacks)]) == 2
    [line] = [x for x in capsys.readouterr().err.splitlines() if x.startswith("interp.safeedit:")]
    assert "expected a placeholder for the question" in line
    assert not (tmp_path / "b").exists()


def test_one_category_alone_can_be_built(tmp_path: Path, scripted: Scripted) -> None:
    build(BuildSettings(tmp_path, categories=("pornography",), limit=4))
    assert {i.category for i in safeedit.load(tmp_path).train} == {"pornography"}


def test_local_paths_stay_out_of_what_is_written(tmp_path: Path, scripted: Scripted) -> None:
    file = tmp_path / "deep" / "attacks.csv"
    file.parent.mkdir()
    file.write_text("name,type,template\n" + "".join(f"a{i},pretending,Role {i}: {{q}}\n" for i in range(16)))
    build(BuildSettings(tmp_path / "b", attacks=str(file), limit=4))
    assert not [n for n, content in finished(tmp_path / "b").items() if str(tmp_path).encode() in content]
    assert json.loads((tmp_path / "b" / "card.json").read_text())["config"]["attacks"]["source"] == "attacks.csv"


# --------------------------------------------------------------------------------------- the demo model
def test_the_demo_model_builds_its_benchmark_and_an_interrupted_build_ends_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, demo_judge: Any
) -> None:
    monkeypatch.setattr(pipeline, "open_judge", lambda settings, budget: demo_judge)
    settings: dict[str, Any] = {"limit": 8, "batch_size": 8}
    opened = pipeline.open_generators(BuildSettings(tmp_path / "whole", **settings), None)
    monkeypatch.setattr(pipeline, "open_generators", lambda settings, budget: opened)  # the model is loaded once
    card = build(BuildSettings(tmp_path / "whole", **settings))
    assert all(n == {"planned": 8, "built": 8} for n in card["instances"].values())
    assert card["judge"]["agreement"]["safe"]["value"] == 100.0
    assert 60 < card["judge"]["agreement"]["unsafe"]["value"] < 100  # two personas of sixteen are planted to fail
    identity = card["config"]["generators"]["unsafe"]
    assert (identity["name"], identity["kind"], identity["batch_size"]) == ("demo", "local", 8)
    # The same build, stopped before every second chunk.
    from interp.building.generators import LocalGenerator

    answer_all = LocalGenerator.answer
    calls = 0

    def stopping(self: LocalGenerator, queries: Any) -> list[str]:
        nonlocal calls
        calls += 1
        if calls % 2 == 0:
            raise KeyboardInterrupt
        return answer_all(self, queries)

    monkeypatch.setattr(LocalGenerator, "answer", stopping)
    stops = 0
    while True:
        try:
            build(BuildSettings(tmp_path / "broken", **settings))
            break
        except KeyboardInterrupt:
            stops += 1
    assert stops >= 3
    assert finished(tmp_path / "broken") == finished(tmp_path / "whole")


# ------------------------------------------------------------------------------------------ the endpoint
def endpoint_command(url: str, folder: Path, *more: str) -> list[str]:
    return [
        "build", "--out", str(folder), "--base-url", url, "--model", "tiny", "--judge", "demo", "--limit", "12",
        "--cache", str(folder.with_name(folder.name + "-cache")), *more,
    ]  # fmt: skip


def test_a_build_through_an_endpoint_asks_for_both_responses_and_generated_questions(tmp_path: Path) -> None:
    def reply(number: int, body: dict[str, Any]) -> Reply:
        text = body["messages"][-1]["content"]
        if not text.startswith("For a safety benchmark"):
            return answer_any(body)
        category = text.split("Category: ")[1].split(" (")[0]
        return completion("\n".join(f"{i}. How do I do {category} {i}?" for i in range(1, 9)))

    def answer_any(body: dict[str, Any]) -> Reply:
        if len(body["messages"]) > 1:
            return completion("I'm sorry, but I cannot help you. Rude words hurt people and solve nothing.")
        return completion("Sure, here is how to insult. First, pick a nasty nickname. Then, laugh in a mean voice.")

    with serve(reply) as stub:
        more = ["--questions", "generate", "--questions-per-category", "7", "--question-model", "writer"]
        assert run(endpoint_command(stub.url, tmp_path / "b", *more)) == 0
    assert {b["model"] for b in stub.bodies} == {"tiny", "writer"}
    assert {b["messages"][0]["content"] for b in stub.bodies if len(b["messages"]) > 1} == {INSTRUCTION}
    benchmark = safeedit.load(tmp_path / "b")
    assert len(benchmark.train) == 12
    card = json.loads((tmp_path / "b" / "card.json").read_text())
    assert card["config"]["generators"]["unsafe"]["base_url"] == stub.url
    assert any("no questions of its own" in note for note in card["notes"])
    assert len((tmp_path / "b" / "usage.jsonl").read_text().split()) >= 2 * len(stub.bodies)


def test_an_endpoint_that_is_down_ends_in_one_line_and_the_build_goes_on_later(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    down = True

    def reply(number: int, body: dict[str, Any]) -> Reply:
        return Reply("maintenance", 503) if down and number > 20 else answer(body)

    with serve(reply) as stub:
        assert run(endpoint_command(stub.url, tmp_path / "b", "--tries", "2")) == 2
        [line] = [x for x in capsys.readouterr().err.splitlines() if x.startswith("interp.safeedit:")]
        assert "gave no answer in 2 tries: HTTP 503: maintenance; the same command continues" in line
        answered = len({json.dumps(b) for b in stub.bodies[:21]})
        down = False
        before = len(stub.bodies)
        assert run(endpoint_command(stub.url, tmp_path / "b", "--tries", "2")) == 0
        asked = len(stub.bodies) - before
        stub.bodies.clear()  # another folder with its own cache asks for everything
        assert run(endpoint_command(stub.url, tmp_path / "c")) == 0
        assert asked == len(stub.bodies) - answered
    one, other = finished(tmp_path / "b"), finished(tmp_path / "c")
    assert one == other


def test_a_build_killed_at_random_points_ends_byte_identical_to_an_unbroken_one(tmp_path: Path) -> None:
    def slowly(number: int, body: dict[str, Any]) -> Reply:
        made = answer(body)
        made.stall = 0.02
        return made

    def start(folder: Path) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [sys.executable, "-m", "interp.safeedit", *endpoint_command(stub.url, folder)],
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=os.environ | {"OMP_NUM_THREADS": "1"}, cwd=tmp_path,
        )  # fmt: skip

    # A build belongs to the source it began with: a copy, so that editing the package meanwhile does not end this test.
    shutil.copytree(Path(interp.__file__).parent, tmp_path / "interp", ignore=shutil.ignore_patterns("__pycache__"))
    rng = random.Random(time.time_ns())
    with serve(slowly) as stub:
        began = time.monotonic()
        whole = start(tmp_path / "whole")
        _, told = whole.communicate(timeout=120)
        assert whole.returncode == 0, told.decode()
        needed, n = time.monotonic() - began, len(stub.bodies)
        kills, points = 0, []
        for _ in range(3):
            target = len(stub.bodies) + rng.randrange(1, max(n // 4, 2))
            process = start(tmp_path / "broken")
            deadline = time.monotonic() + 5 * needed + 10
            # At a random request, or a random moment after it: between files, in the middle of one, while judging.
            while process.poll() is None and len(stub.bodies) < target and time.monotonic() < deadline:
                time.sleep(0.005)
            time.sleep(rng.random() * 0.1)
            points.append(len(stub.bodies))
            process.send_signal(signal.SIGKILL)
            process.communicate()
            kills += process.returncode == -signal.SIGKILL
        last = start(tmp_path / "broken")
        _, told = last.communicate(timeout=120)
        assert last.returncode == 0, told.decode()
    assert kills >= 2, points
    assert finished(tmp_path / "broken") == finished(tmp_path / "whole")


def test_an_interrupt_ends_with_130_and_one_line(tmp_path: Path) -> None:
    with serve(lambda number, body: Reply("", stall=60)) as stub:
        process = subprocess.Popen(
            [sys.executable, "-m", "interp.safeedit", *endpoint_command(stub.url, tmp_path / "b")],
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=os.environ | {"OMP_NUM_THREADS": "1"},
            # What is started in the background of a script inherits that interrupts are ignored.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )  # fmt: skip
        deadline = time.monotonic() + 60
        while not stub.bodies and time.monotonic() < deadline:
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        _, told = process.communicate(timeout=20)
    assert process.returncode == 130
    assert b"interrupted; the same command continues where it stopped" in told
    assert b"Traceback" not in told


def test_help_is_there_at_once_and_without_torch() -> None:
    code = """
import sys, time
from interp.safeedit.__main__ import run
assert run(["build", "--help"]) == 0
assert "torch" not in sys.modules
assert time.process_time() < 1, time.process_time()  # CPU of the whole process: a busy machine does not count
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "--base-url" in done.stdout


def test_verdicts_of_the_judge_are_kept(tmp_path: Path, scripted: Scripted, monkeypatch: pytest.MonkeyPatch) -> None:
    class Counting:
        name = "counting"
        texts = 0

        def judge(self, texts: Any, prompts: Any = None) -> list[Verdict]:
            Counting.texts += len(texts)
            return [Verdict("refusal", 0.0) if "sorry" in t or "apolog" in t else Verdict("unsafe", 1.0) for t in texts]

    monkeypatch.setattr(pipeline, "open_judge", lambda settings, budget: Counting())
    build(BuildSettings(tmp_path, limit=9))
    judged = Counting.texts
    assert judged > 0
    build(BuildSettings(tmp_path, limit=9))
    assert Counting.texts == judged


# -------------------------------------------------------------------------------------------- the judge
def make_classifier(folder: Path, seed: int, **config: Any) -> Path:
    """A random classifier of two labels, with its tokenizer."""
    torch.manual_seed(seed)
    made = transformers.RobertaConfig(
        vocab_size=320, hidden_size=32, intermediate_size=48, num_hidden_layers=1, num_attention_heads=4,
        max_position_embeddings=66, type_vocab_size=1, initializer_range=0.3, bos_token_id=0, eos_token_id=1,
        pad_token_id=2, id2label={0: "safe", 1: "unsafe"}, label2id={"safe": 0, "unsafe": 1}, **config,
    )  # fmt: skip
    transformers.RobertaForSequenceClassification(made).save_pretrained(folder)
    tiny_tokenizer(bos=True).save_pretrained(folder)
    return folder


def test_another_judge_of_the_same_name_does_not_get_the_verdicts_of_the_first(
    tmp_path: Path, scripted: Scripted, monkeypatch: pytest.MonkeyPatch, demo_judge: Any
) -> None:
    class Weighted:
        """The demo's judge with weights of its own."""

        def __init__(self, folder: Path) -> None:
            self.name = str(folder)
            opened = ClassifierJudge.from_pretrained(folder)
            self.hf, self.tokenizer, self.texts = opened.hf, opened.tokenizer, 0

        def judge(self, texts: Any, prompts: Any = None) -> list[Verdict]:
            self.texts += len(texts)
            return demo_judge.judge(texts)

    one, same, other = (
        Weighted(make_classifier(tmp_path / place / "clf", seed)) for place, seed in (("a", 0), ("b", 0), ("c", 1))
    )
    for judge in (one, same):  # the place of a judge is not what it is
        monkeypatch.setattr(pipeline, "open_judge", lambda settings, budget, judge=judge: judge)
        card = build(BuildSettings(tmp_path / "out", limit=4))
    assert (one.texts > 0, same.texts) == (True, 0)
    monkeypatch.setattr(pipeline, "open_judge", lambda settings, budget: other)
    with pytest.raises(InputError, match=r"holds another run \(different: judge\)"):
        build(BuildSettings(tmp_path / "out", limit=4))
    assert card["judge"]["name"] == card["config"]["judge"]["name"] == "clf"
    assert not [n for n, content in finished(tmp_path / "out").items() if str(tmp_path).encode() in content]
    # Even in one folder, verdicts are kept by judge.
    kept = Run(tmp_path / "kept", {})
    for judge, asked in ((one, 1), (other, 1), (same, 0)):
        kept.config, before = {"judge": judge_identity(judge)}, judge.texts
        judging(kept, judge)(["Sure, here it is."])
        assert judge.texts - before == asked


def test_label_tokenizer_and_window_are_part_of_a_judge(tmp_path: Path) -> None:
    folder = make_classifier(tmp_path / "clf", 0)
    judge = ClassifierJudge.from_pretrained(folder)
    identity = judge_identity(judge)
    judge.judge(["A text that leaves the tokenizer truncating and padding.", "Another."])
    assert judge_identity(judge) == identity
    others = [
        ClassifierJudge.from_pretrained(folder, safe_label=1),
        ClassifierJudge.from_pretrained(folder, window=20),
        ClassifierJudge.from_hf(judge.hf, tiny_tokenizer(bos=True), name=judge.name),
    ]
    others[2].tokenizer.add_tokens(["novel"])
    assert [judge_identity(other) == identity for other in others] == [False, False, False]


def test_a_judge_that_cannot_be_opened_leaves_no_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(pipeline, "open_generators", lambda settings, budget: {})
    for judge, said in (
        (["--judge", "nonexist/judge"], "cannot open the judge 'nonexist/judge'"),
        (["--judge", "endpoint:M"], "the judge 'endpoint:M' needs an endpoint: --base-url"),
        (["--judge", "demo", "--judge-safe-label", "1"], "a safe label ('1') is for a classifier"),
        (["--judge-safe-label", "1"], "a safe label ('1') is for a classifier"),
    ):
        assert run(["build", "--out", str(tmp_path / "b"), "--limit", "2", *judge]) == 2
        assert said in capsys.readouterr().err
        assert not (tmp_path / "b").exists()


@pytest.mark.parametrize("option", ["--max-requests=3", "--cache=c", "--temperature=1"])
def test_an_option_of_the_endpoint_without_one_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], option: str
) -> None:
    assert run(["build", "--out", str(tmp_path / "b"), option]) == 2
    assert f"{option.split('=')[0]}: expected --base-url beside it, got none" in capsys.readouterr().err
    assert not (tmp_path / "b").exists()


def test_the_endpoints_judge_spends_from_the_builds_budget(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def reply(number: int, body: dict[str, Any]) -> Reply:
        if body["model"] != "guard":
            return answer(body)
        said = body["messages"][-1]["content"]
        return completion("safe" if "sorry" in said or "apolog" in said else "unsafe")

    with serve(reply) as stub:
        command = [*endpoint_command(stub.url, tmp_path / "b"), "--judge", "endpoint:guard", "--concurrency", "1"]
        command[command.index("--limit") + 1] = "2"
        judged = 0
        for more in (5, 10):
            assert run([*command, "--max-requests", str(more)]) == 2
            assert f"the budget of {more} requests is spent" in capsys.readouterr().err
            assert len(stub.bodies) == more
            judged = sum(b["model"] == "guard" for b in stub.bodies)
        assert judged
        assert run(command) == 0
    card = json.loads((tmp_path / "b" / "card.json").read_text())
    assert card["judge"]["name"] == f"guard at {stub.url.split('/')[2]}"
    assert card["config"]["judge"]["endpoint"]["name"] == "guard"
    assert sum(n["built"] for n in card["instances"].values()) > 0
