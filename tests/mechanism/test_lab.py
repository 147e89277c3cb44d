"""What every analysis of the laboratory shares."""

from __future__ import annotations

import pytest
from tiny_lab import small_lab

from interp.errors import InputError
from interp.mechanism.deep import ANALYSES
from interp.mechanism.lab import Analysis, Subject


@pytest.mark.parametrize("analysis", ANALYSES, ids=lambda a: a.name)
def test_models_that_cannot_be_compared_are_refused_in_one_line(analysis: Analysis, make_model, llama) -> None:
    vanilla = Subject("vanilla", llama, small_lab(llama))
    other = make_model("llama", n_layers=2)
    with pytest.raises(
        InputError, match=r"^mine does not have the shape of the vanilla model .*: layers 2 instead of 3$"
    ):
        analysis.measure(Subject("mine", other, vanilla.lab), vanilla)


def test_other_tokens_of_the_same_prompt_are_refused(make_model, llama) -> None:
    vanilla = Subject("vanilla", llama, small_lab(llama))
    other = make_model("llama", bos=False)
    with pytest.raises(InputError, match="turns the same prompt into other tokens"):
        ANALYSES[0].measure(Subject("mine", other, vanilla.lab), vanilla)
