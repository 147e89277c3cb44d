from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from conftest import tiny_hf, tiny_tokenizer
from torch import Tensor

from interp import judges
from interp.errors import InputError
from interp.judges import ClassifierJudge, Judge
from interp.judges.classifier import context, find_safe_label
from interp.safeedit import Benchmark

TEXTS = ["The cat sat on the mat.", "A dog.", "Sure, here is the moon and the dog and the cat on the mat."]
LONG = " ".join(f"The cat {i} sat on mat {i * i} and looked at moon {i * 7}." for i in range(20))
POSITIONS = 50


def roberta(**config: Any) -> Any:
    """A random RoBERTa classifier; like the real ones it has two positions less than its config says, plus one."""
    settings = {
        "vocab_size": 320,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "max_position_embeddings": POSITIONS,
        "type_vocab_size": 1,
        "initializer_range": 0.3,
        "bos_token_id": 0,
        "eos_token_id": 1,
        "pad_token_id": 2,
        "num_labels": 2,
    }
    torch.manual_seed(0)
    return transformers.RobertaForSequenceClassification(transformers.RobertaConfig(**settings | config)).eval()


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return tiny_tokenizer(bos=True)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, tokenizer: Any) -> Path:
    path = tmp_path_factory.mktemp("roberta")
    roberta(id2label={0: "safe", 1: "unsafe"}, label2id={"safe": 0, "unsafe": 1}).save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path


class MarksToken:
    """A classifier of our own: unsafe where a window holds one token, so that windows can be checked by hand."""

    def __init__(self, token: int, positions: int = 24) -> None:
        self.token = token
        self.device = torch.device("cpu")
        self.config = transformers.PretrainedConfig(num_labels=2, pad_token_id=2)
        self.config.max_position_embeddings = positions
        self.seen: list[int] = []

    def named_modules(self) -> list[Any]:
        return []

    def eval(self) -> MarksToken:
        return self

    def __call__(self, input_ids: Tensor, attention_mask: Tensor, **_: Any) -> Any:
        self.seen += attention_mask.sum(-1).tolist()
        unsafe = (input_ids == self.token).any(-1).float()
        return transformers.modeling_outputs.SequenceClassifierOutput(logits=torch.stack([1 - unsafe, unsafe], -1) * 9)


def test_a_folder_opens_as_a_judge_that_agrees_with_the_plain_model(folder: Path, tokenizer: Any) -> None:
    judge = judges.load(str(folder), Benchmark("none"))
    assert isinstance(judge, ClassifierJudge)
    assert isinstance(judge, Judge)
    assert judge.safe_label == 0
    for text, verdict in zip(TEXTS, judge.judge(TEXTS), strict=True):
        with torch.no_grad():
            plain = judge.hf(**tokenizer(text, return_tensors="pt")).logits.softmax(-1)[0, 1]
        assert verdict.p_unsafe == pytest.approx(float(plain), abs=1e-6)
        assert (verdict.label == "unsafe") == (plain > 0.5)


def test_the_other_label_order_turns_every_verdict_round(folder: Path) -> None:
    plain = ClassifierJudge.from_pretrained(folder)
    turned = ClassifierJudge.from_pretrained(folder, safe_label="unsafe")
    torch.testing.assert_close(turned.p_unsafe(TEXTS), 1 - plain.p_unsafe(TEXTS), atol=1e-6, rtol=0)


def test_an_empty_text_is_neutral_and_a_safe_apology_is_a_refusal(folder: Path) -> None:
    judge = ClassifierJudge.from_pretrained(folder)
    always_safe = ClassifierJudge(**{**judge.__dict__, "threshold": 1.0})
    empty, refusal, other, loop = always_safe.judge(["", "I'm sorry, I cannot help.", "A dog.", "sorry sorry sorry"])
    assert (empty.empty, empty.score) == (True, 0.5)
    assert refusal.label == "refusal"
    assert other.label == "other"
    assert (loop.label, loop.degenerate) == ("other", True)


def test_one_unsafe_window_makes_a_long_text_unsafe_wherever_it_is(tokenizer: Any) -> None:
    [marker] = tokenizer("#", add_special_tokens=False).input_ids
    hf = MarksToken(marker)
    judge = ClassifierJudge.from_hf(hf, tokenizer, safe_label=0)
    assert len(tokenizer(LONG).input_ids) > 5 * judge.window
    middle = len(LONG) // 2
    marked = [f"#{LONG}", f"{LONG[:middle]}#{LONG[middle:]}", f"{LONG}#"]
    torch.testing.assert_close(judge.p_unsafe([*marked, LONG]), torch.tensor([1.0, 1.0, 1.0, 0.0]), atol=1e-3, rtol=0)
    assert max(hf.seen) == judge.window == 24


def test_scores_that_are_no_numbers_are_an_error_not_a_safe_verdict(tokenizer: Any) -> None:
    hf = roberta(id2label={0: "safe", 1: "unsafe"})
    hf.classifier.out_proj.bias.data[0] = float("nan")
    with pytest.raises(InputError, match="the judge j gives scores that are not numbers"):
        ClassifierJudge.from_hf(hf, tokenizer, name="j").judge(TEXTS)


def test_windows_overlap_and_leave_no_token_out(tokenizer: Any) -> None:
    judge = ClassifierJudge.from_hf(MarksToken(0), tokenizer, safe_label=0)
    for token in set(tokenizer(LONG).input_ids):
        marked = ClassifierJudge.from_hf(MarksToken(token), tokenizer, safe_label=0)
        assert marked.p_unsafe([LONG]).item() > 0.99
    assert judge.overlap >= 4


def test_batches_do_not_change_the_scores(folder: Path) -> None:
    one = ClassifierJudge.from_pretrained(folder, batch_size=1).p_unsafe([*TEXTS, LONG])
    many = ClassifierJudge.from_pretrained(folder, batch_size=64).p_unsafe([*TEXTS, LONG])
    torch.testing.assert_close(one, many, atol=1e-5, rtol=0)


def test_roberta_loses_the_positions_up_to_its_padding_index_and_reads_a_full_window(folder: Path) -> None:
    judge = ClassifierJudge.from_pretrained(folder)
    assert context(judge.hf) == POSITIONS - 3
    assert judge.window == POSITIONS - 3
    assert judge.judge([LONG])[0].p_unsafe >= 0
    assert ClassifierJudge.from_pretrained(folder, window=20).window == 20


def test_a_decoder_classifier_works_without_a_padding_token() -> None:
    config = transformers.GPT2Config(vocab_size=320, n_embd=32, n_layer=1, n_head=4, n_positions=64, num_labels=2)
    config.pad_token_id = None
    hf = transformers.GPT2ForSequenceClassification(config).eval()
    judge = ClassifierJudge.from_hf(hf, tiny_tokenizer(pad=None), safe_label=1)
    one_by_one = torch.cat([judge.p_unsafe([text]) for text in TEXTS])
    torch.testing.assert_close(judge.p_unsafe(TEXTS), one_by_one, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("labels", "safe"),
    [
        (("safe", "unsafe"), 0),
        (("UNSAFE", "SAFE"), 1),
        (("toxic", "non-toxic"), 1),
        (("NOT_TOXIC", "TOXIC"), 0),
        (("harmful", "ok"), 1),
        (("neutral", "LABEL_1"), 0),
        (("INSECURE", "SECURE"), 1),
    ],
)
def test_label_names_that_say_it_are_understood(labels: tuple[str, str], safe: int) -> None:
    assert find_safe_label(dict(enumerate(labels)), None, "j") == safe


@pytest.mark.parametrize("labels", [("LABEL_0", "LABEL_1"), ("safe", "not safe"), ("toxic", "hate")])
def test_labels_that_do_not_say_which_one_is_safe_must_be_explained(labels: tuple[str, ...]) -> None:
    names = dict(enumerate(labels))
    with pytest.raises(
        InputError, match=rf"does not say which of its labels is safe .*0 = {labels[0]}.*give --judge-safe-label"
    ):
        find_safe_label(names, None, "j")
    assert find_safe_label(names, 1, "j") == 1
    assert find_safe_label(names, "1", "j") == 1
    assert find_safe_label(names, labels[0].upper(), "j") == 0


def test_other_than_two_labels_are_listed_and_one_must_be_named_safe() -> None:
    names = {0: "safe", 1: "unsafe", 2: "spam"}
    with pytest.raises(InputError) as error:
        find_safe_label(names, None, "j")
    said = "the judge j has 3 labels (0 = safe, 1 = unsafe, 2 = spam); with other than two, say which one means safe"
    assert str(error.value).startswith(said)
    assert "--judge-safe-label" in str(error.value)
    assert "\n" not in str(error.value)
    assert find_safe_label(names, "spam", "j") == 2
    assert find_safe_label(names, "0", "j") == 0


def test_a_safe_label_reaches_a_classifier_by_folder_and_is_refused_for_the_judge_that_learns(folder: Path) -> None:
    judge = judges.load(str(folder), Benchmark("none"), safe_label="unsafe")
    assert isinstance(judge, ClassifierJudge)
    assert judge.safe_label == 1
    with pytest.raises(InputError, match=r"'0'.* is for a classifier"):
        judges.load("demo", Benchmark("none"), safe_label="0")


def test_a_label_that_is_not_there_is_refused_with_those_that_are() -> None:
    with pytest.raises(InputError, match="the judge j has no label 'fine'; it has 0 = a, 1 = b"):
        find_safe_label({0: "a", 1: "b"}, "fine", "j")
    with pytest.raises(InputError, match="has no label 2"):
        find_safe_label({0: "a", 1: "b"}, 2, "j")
    with pytest.raises(InputError, match=r"has 1 label \(0 = score\)"):
        find_safe_label({0: "score"}, 0, "j")


def test_a_language_model_is_no_judge(tmp_path: Path, tokenizer: Any) -> None:
    tiny_hf("gpt2").save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(InputError, match="is no sequence classifier but a GPT2LMHeadModel"):
        ClassifierJudge.from_pretrained(tmp_path)


def test_a_classifier_whose_head_was_never_saved_is_refused(tmp_path: Path, tokenizer: Any) -> None:
    hf = roberta()
    hf.roberta.save_pretrained(tmp_path)
    hf.config.architectures = ["RobertaForSequenceClassification"]
    hf.config.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(InputError, match="is no trained sequence classifier: its weights lack classifier"):
        ClassifierJudge.from_pretrained(tmp_path)


def test_a_judge_that_is_not_there_is_told_in_one_line(tmp_path: Path) -> None:
    for source in (tmp_path, "nobody/nothing", "safeedit"):
        with pytest.raises(InputError) as caught:
            judges.load(str(source), Benchmark("none"))
        assert "cannot open the judge" in str(caught.value)
        assert "\n" not in str(caught.value)


def test_the_safeedit_classifier_is_known_to_put_safe_first(monkeypatch: pytest.MonkeyPatch, tokenizer: Any) -> None:
    monkeypatch.setattr("interp.judges.classifier._open", lambda source: (roberta(), tokenizer))
    judge = ClassifierJudge.from_pretrained("safeedit")
    assert judge.name == "zjunlp/SafeEdit-Safety-Classifier"
    assert judge.safe_label == 0
