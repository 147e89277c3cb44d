from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from interp import judges
from interp.errors import InputError
from interp.judges import GuardJudge, Judge
from interp.judges.reading import Question
from interp.safeedit import Benchmark

SHORT = Question("U: {prompt}\nA: {response}\nSafe?")
LONG = " ".join(f"The cat {i} sat on mat {i * i}." for i in range(30))
CHAT = (
    "{% for m in messages %}[{{ m['role'] }}]{{ m['content'] }}\n{% endfor %}{% if add_generation_prompt %}>{% endif %}"
)


def words(model: Any) -> Question:
    """The question, with words that start with different tokens behind its newline."""
    return Question("U: {prompt}\nA: {response}\nSafe?\n")


def test_the_verdict_is_the_logit_difference_of_the_two_words(tiny_model: Any) -> None:
    judge = GuardJudge(tiny_model, words(tiny_model))
    assert isinstance(judge, Judge)
    texts = ["A dog.", "The cat sat on the mat and looked at the moon.", "A"]
    found = judge.judge(texts, ["p", "", "what?"])
    first, second = (tiny_model.token_ids(word, special=False)[0] for word in ("safe", "unsafe"))
    assert judge.word_tokens() == (first, second)
    for text, prompt, verdict in zip(texts, ["p", "", "what?"], found, strict=True):
        asked = tiny_model.token_ids(f"U: {prompt}\nA: {text}\nSafe?\n")
        with torch.no_grad():
            logits = tiny_model.hf(torch.tensor([asked])).logits[0, -1]
        assert verdict.p_unsafe == pytest.approx(float(torch.sigmoid(logits[second] - logits[first])), abs=1e-4)
        assert (verdict.label == "unsafe") == (verdict.p_unsafe > 0.5)


def test_swapping_the_words_turns_the_verdict_round_and_batches_change_nothing(llama: Any) -> None:
    texts = ["A dog.", "The moon is far away.", "cat", "On the mat sat a dog and a cat."]
    one = GuardJudge(llama, words(llama), batch_size=1).judge(texts)
    many = GuardJudge(llama, words(llama)).judge(texts)
    turned = GuardJudge(llama, Question(words(llama).template, safe="unsafe", unsafe="safe")).judge(texts)
    for a, b, c in zip(one, many, turned, strict=True):
        assert a.p_unsafe == pytest.approx(b.p_unsafe, abs=1e-5)
        assert a.p_unsafe == pytest.approx(1 - c.p_unsafe, abs=1e-5)


def test_long_responses_are_read_to_their_end_in_windows_within_the_context(llama: Any) -> None:
    judge = GuardJudge(llama, SHORT, read="word", window=80)
    parts = judge._windows(LONG, "why?")
    assert len(parts) > 4
    assert all(len(judge.ids(part, "why?")) <= judge.limit == 72 for part in parts)
    where = 0
    for part in parts:  # every part starts inside what came before: nothing between them is left out
        start = LONG.index(part)
        assert start <= where
        where = max(where, start + len(part))
    assert where == len(LONG)


def test_one_unsafe_window_decides(llama: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    judge = GuardJudge(llama, SHORT, read="word")
    asked: list[str] = []

    def generate(prompts: list[str], **_: Any) -> list[Any]:
        asked.extend(prompts)
        return [type("G", (), {"text": "unsafe" if "#" in p else "safe"}) for p in prompts]

    monkeypatch.setattr(llama, "generate", generate)
    middle = len(LONG) // 2
    found = judge.judge([f"#{LONG}", f"{LONG[:middle]}#{LONG[middle:]}", f"{LONG}#", LONG])
    assert [v.label for v in found] == ["unsafe", "unsafe", "unsafe", "other"]
    assert len(asked) > 12


def test_a_long_prompt_leaves_half_of_the_room_to_the_response(llama: Any) -> None:
    judge = GuardJudge(llama, SHORT, read="word")
    kept = judge._shortened(LONG)
    assert LONG.endswith(kept)
    assert len(llama.token_ids(kept, special=False)) <= judge.room // 2
    judge_all = GuardJudge(llama, words(llama))
    assert len(judge_all.judge([LONG], [LONG])) == 1


def test_a_random_model_that_writes_neither_word_is_told_in_one_line(llama: Any) -> None:
    with pytest.raises(InputError, match=r"the judge tiny-llama gave no verdict in 1 of 1") as error:
        GuardJudge(llama, SHORT, read="word").judge(["A dog."])
    assert "\n" not in str(error.value)
    strict = GuardJudge(llama, Question(SHORT.template, unreadable="unsafe"), read="word")
    assert strict.judge(["A dog.", ""])[0].label == "unsafe"


def test_special_tokens_in_a_response_do_not_end_the_question(llama: Any) -> None:
    judge = GuardJudge(llama, words(llama))
    ids = judge.ids(judge._plain("a</s><s>b"))
    assert llama.tokenizer.eos_token_id not in ids
    assert judge.judge(["a</s>b"])[0].p_unsafe == judge.judge(["a b"])[0].p_unsafe


def test_the_tokenizers_own_template_gets_the_two_turns(make_model: Any) -> None:
    model = make_model("llama", template=CHAT)
    judge = GuardJudge(model, own_template=True, before="\n\n")
    assert judge.text("no", "why?") == "[user]why?\n[assistant]no\n\n\n"
    assert 0 <= judge.judge(["no"], ["why?"])[0].p_unsafe <= 1


def test_a_guard_opens_by_name_with_a_plain_question_where_it_has_no_template(make_model: Any, tmp_path: Path) -> None:
    make_model("llama").save(tmp_path / "plain")
    make_model("llama", template=CHAT).save(tmp_path / "chat")
    with pytest.raises(InputError, match="reads 96 tokens at once, and its question alone takes"):
        judges.load(f"guard:{tmp_path / 'plain'}", Benchmark("none"))
    judge = judges.load(f"guard:{tmp_path / 'chat'}", Benchmark("none"))
    assert isinstance(judge, GuardJudge)
    assert (judge.own_template, judge.name) == (True, "chat")
    plain = GuardJudge.from_pretrained(str(tmp_path / "chat"), template=words(judge.model).template)
    assert not plain.own_template
    assert plain.text("r", "p") == "U: p\nA: r\nSafe?\n"
    with pytest.raises(InputError, match="no chat template"):
        GuardJudge.from_pretrained(str(tmp_path / "plain"), template="own")
    with pytest.raises(InputError, match="not for the judge"):
        judges.load("guard:x", Benchmark("none"), safe_label=1)


def test_settings_that_cannot_work_are_refused(llama: Any) -> None:
    with pytest.raises(InputError, match="read: expected 'logits' or 'word', got 'mood'"):
        GuardJudge(llama, SHORT, read="mood")
    with pytest.raises(InputError, match="share their first token in the judge tiny-llama"):
        GuardJudge(llama, Question(SHORT.template + "\n", safe="yes", unsafe="yesterday"))
    with pytest.raises(InputError, match="expected batch_size >= 1, got 0"):
        GuardJudge(llama, words(llama), batch_size=0)
