from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from interp.errors import InputError
from interp.methods._trl import Lora
from interp.methods.dinm import Dinm
from interp.methods.dpo import Dpo
from interp.methods.sft import Sft
from interp.pipeline.settings import METHODS, Settings, with_overrides


def test_rows_keep_their_order_and_their_sources() -> None:
    specs = Settings(methods=("sft=some/folder", "dinm", "mine=hub/id")).specs()
    assert [(s.name, s.source) for s in specs] == [("sft", "some/folder"), ("dinm", None), ("mine", "hub/id")]


@pytest.mark.parametrize(
    ("methods", "said"),
    [
        (("dnim",), "unknown method 'dnim' (did you mean dinm?); expected sft, dpo, dinm"),
        (("DINM",), "did you mean dinm?"),
        (("zzz",), "unknown method 'zzz'; expected sft, dpo, dinm, or NAME=SOURCE"),
        (("sft=",), "the source is missing"),
        (("=path",), "expected a name"),
        (("../x=path",), "expected a name"),
        (("sft", "sft=path"), "'sft' is given twice"),
        (("vanilla=path",), "give it with --model"),
    ],
)
def test_wrong_methods_are_named_with_what_was_expected(methods: tuple[str, ...], said: str) -> None:
    with pytest.raises(InputError, match=said.replace("(", r"\(").replace(")", r"\)").replace("?", r"\?")):
        Settings(methods=methods)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"convention": "papers"}, "--convention: expected one of paper, .* got 'papers' .did you mean paper"),
        ({"dpo_from": "x"}, "--dpo-from: expected one of sft, vanilla"),
        ({"dtype": "float8"}, "--dtype: expected one of auto, float32"),
        ({"chat_template": "yes"}, "--chat-template"),
        ({"instances": 1}, "at least 2 instances"),
        ({"overrides": ("dinm.lr",)}, "expected --set METHOD.FIELD=VALUE"),
        ({"overrides": ("mend.lr=1",)}, "with a method of sft, dpo, dinm"),
    ],
)
def test_wrong_choices_are_named_before_anything_is_loaded(change: dict, said: str) -> None:
    with pytest.raises(InputError, match=said):
        Settings(methods=("dinm",), **change)


def test_overrides_change_exactly_the_named_fields() -> None:
    config = with_overrides(Dinm(), {"lr": "1e-3", "steps": "3", "constrain": "false", "suffix": "be good"})
    assert (config.lr, config.steps, config.constrain, config.suffix) == (1e-3, 3, False, "be good")
    assert config.c_edit == Dinm().c_edit


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"rate": "1"}, "no such setting"),
        ({"step": "3"}, r"did you mean steps\?"),
        ({"lr": "fast"}, "--set dinm.lr: expected a float, got 'fast'"),
        ({"steps": "1.5"}, "expected a int"),
        ({"constrain": "1"}, "expected a bool"),
        ({"steps": "true"}, "expected a int"),
        ({"convention": "paper"}, "cannot be set from the command line"),
        ({"lr": "-1"}, "lr must be positive"),
        ({"lr": "null"}, "expected a float, got 'null'"),
    ],
)
def test_wrong_overrides_are_named(changes: dict[str, str], said: str) -> None:
    with pytest.raises(InputError, match=said):
        with_overrides(Dinm(), changes)


@given(st.text(max_size=12).filter(lambda name: name not in METHODS and "=" not in name))
def test_any_unknown_method_is_refused_in_one_line(name: str) -> None:
    with pytest.raises(InputError) as error:
        Settings(methods=(name,))
    assert "\n" not in str(error.value)


def test_lora_and_the_benign_share_are_set_from_the_command_line() -> None:
    config = with_overrides(Sft(), {"lora": "4", "benign_share": "0.25"})
    assert (config.lora, config.benign_share) == (Lora(rank=4), 0.25)
    assert with_overrides(Dpo(), {"lora": '{"rank": 2, "save": "adapter"}'}).lora == Lora(rank=2, save="adapter")
    assert with_overrides(Sft(), {"lora": "null"}).lora is None
    for wrong in ("true", "many", '{"ranks": 2}'):
        with pytest.raises(InputError, match=r"--set sft\.lora: expected a rank or a JSON object of rank, alpha"):
            with_overrides(Sft(), {"lora": wrong})
    with pytest.raises(InputError, match=r"--set sft\.lora: "):
        with_overrides(Sft(), {"lora": '{"rank": "x"}'})
    with pytest.raises(InputError, match="rank of a LoRA update must be at least 1"):
        with_overrides(Sft(), {"lora": "0"})
