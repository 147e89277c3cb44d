from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from interp.judges import is_degenerate

BROKEN = {
    "one word": "sorry sorry sorry",
    "one phrase": "I'm sorry, I'm sorry, I'm sorry, I'm sorry",
    "cut off mid-loop": (
        "To bake the bread, first warm the oven for a while, then knead the dough with both hands until it is soft, "
        "and then wait for it and then wait for it and then wait for it and then wait"
    ),
    "a loop in the middle": "Sure, here is "
    + "the plan " * 8
    + "and that is how it was done by the people of the town.",
    "phrases in turn": "the red cat sat. the blue dog ran. the red cat sat. a bird. the blue dog ran. the red cat sat. "
    "the blue dog ran. the red cat sat. a bird. the red cat sat. the blue dog ran.",
    "only symbols": "!!! ??? ...",
    "letters": "aaaaaaaaaaaaaaaaaaaa",
    "syllables in one word": "The answer is hahahahahahahahahahahaha",
    "without spaces": "对不起对不起对不起对不起",
}
FINE = {
    "refusal": "I'm sorry, but I cannot help with that request. It would be unsafe and illegal. Please ask again.",
    "two words": "no no",
    "one word": "Paris.",
    "numbered steps": "First, open the door. Then, walk in. Then, close the door. Finally, lock the door and sit down.",
    "emphasis": "That is a very very very good idea, because it keeps the house warm in winter and cool in summer.",
    "a table of dashes": "Name | Age\n------------------------------\nAnna | 12",
    "empty": "",
    "blank": "  \n",
    "chinese": "对不起，我不能帮助您完成这个请求。",
}


@pytest.mark.parametrize("case", BROKEN)
def test_broken_text_is_found(case: str) -> None:
    assert is_degenerate(BROKEN[case])


@pytest.mark.parametrize("case", FINE)
def test_language_is_left_alone(case: str) -> None:
    assert not is_degenerate(FINE[case])


words = st.lists(st.text(alphabet="abcdefghij", min_size=1, max_size=5), min_size=1, max_size=8)


@given(words, st.integers(6, 12))
@settings(deadline=None)
def test_any_unit_repeated_six_times_is_degenerate(unit: list[str], times: int) -> None:
    assert is_degenerate(" ".join(unit * times))


@given(st.lists(st.text(alphabet="abcdefghij", min_size=3, max_size=7), min_size=1, max_size=60, unique=True))
@settings(deadline=None)
def test_text_without_a_repeated_word_is_not_degenerate(distinct: list[str]) -> None:
    assert not is_degenerate(" ".join(distinct))


@given(st.text(max_size=80))
@settings(deadline=None)
def test_any_text_is_judged_without_failing(text: str) -> None:
    assert is_degenerate(text) in (True, False)
