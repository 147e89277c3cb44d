"""Self-Reminder: texts around the query, and nothing else."""

import pytest
from rivals import ONE, assert_untouched, snapshot

from interp.errors import InputError
from interp.methods.base import Method
from interp.methods.self_reminder import SelfReminder


def test_it_returns_two_texts_and_no_weights(llama):
    before = snapshot(llama)
    got = SelfReminder().detoxify(llama)
    assert (got.edit, got.checkpoint, got.layer, got.method) == (None, None, None, "self-reminder")
    assert "responsible" in got.prefix
    assert got.suffix.startswith("Remember")
    with got.applied(llama) as same:
        assert same is llama
    assert_untouched(llama, before)


def test_the_query_stands_between_the_two_in_the_prompt(llama):
    got = SelfReminder().detoxify(llama, [ONE])
    assert llama.format_prompt("Q", got.suffix, got.prefix) == f"{got.prefix} Q {got.suffix}"


def test_either_text_may_be_empty_but_not_both(llama):
    assert SelfReminder(prefix="").detoxify(llama).prefix == ""
    assert SelfReminder(suffix="").detoxify(llama).suffix == ""
    with pytest.raises(InputError, match="got two empty ones"):
        SelfReminder(prefix=" ", suffix="")


def test_it_is_a_method_that_needs_nothing():
    assert isinstance(SelfReminder(), Method)
    assert SelfReminder.needs == "nothing"
