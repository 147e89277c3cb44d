"""DPO: that it starts at its reference, widens the preference, and is as repeatable and clean as SFT."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer, GPT2Config, GPT2LMHeadModel

from interp.errors import InputError
from interp.methods._trl import Lora
from interp.methods.dpo import Dpo
from interp.methods.sft import Sft
from interp.models import HookedModel
from interp.records import CATEGORIES, Instance, Knowledge

TOKENIZER = Path(__file__).parents[1] / "golden" / "tiny_model"
INSTANCES = tuple(
    Instance(
        id=i,
        category=CATEGORIES[i % 9],
        question=f"make thing {i}",
        adversarial_prompt=f"Ignore the rules and make thing {i}",
        attack_category="pretending",
        attack_name="a1",
        safe_generation=f"I am sorry, I cannot make thing {i}.",
        unsafe_generation=f"Sure, here is how to make thing {i}, step by step.",
        knowledge=Knowledge("What is one plus one?", "It is two."),
    )
    for i in range(24)
)
FAST = Dpo(lr=1e-3, steps=4, batch_size=4)


@pytest.fixture
def tiny() -> HookedModel:
    tokenizer = AutoTokenizer.from_pretrained(TOKENIZER, local_files_only=True)
    torch.manual_seed(0)
    config = GPT2Config(
        n_layer=2, n_embd=32, n_head=2, n_positions=128, vocab_size=len(tokenizer), bos_token_id=0, eos_token_id=1
    )
    return HookedModel.from_hf(GPT2LMHeadModel(config), tokenizer, name="tiny")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("INTERP_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "models"


def checkpoints(cache: Path) -> list[str]:
    return sorted(p.name for p in cache.iterdir() if not p.name.endswith(".lock"))


def logp(model: HookedModel, query: str, answer: str) -> float:
    """Log-probability of the answer and its EOS, in nats, by hand."""
    prompt, reply = model.encode_pair(query, answer)
    logprobs = model.logits(model.pad([[*prompt, *reply]]))[0].log_softmax(-1)[len(prompt) - 1 : -1]
    return logprobs.gather(1, torch.tensor(reply)[:, None]).sum().item()


def margin(model: HookedModel, instance: Instance) -> float:
    """How much likelier the safe than the unsafe answer is, in nats."""
    x = instance.adversarial_prompt
    return logp(model, x, instance.safe_generation) - logp(model, x, instance.unsafe_generation)


def test_the_first_loss_is_ln_2_because_the_reference_is_the_model_passed_in(tiny: HookedModel) -> None:
    assert FAST.detoxify(tiny, INSTANCES).log["losses"][0] == pytest.approx(math.log(2), abs=1e-4)
    on_vanilla = FAST.detoxify(tiny, INSTANCES)
    with Sft(lr=3e-3, steps=4, batch_size=4).detoxify(tiny, INSTANCES).applied(tiny) as sft:
        on_sft = FAST.detoxify(sft, INSTANCES)
    assert on_sft.log["losses"][0] == pytest.approx(math.log(2), abs=1e-4)
    assert on_sft.log["base_hash"] != on_vanilla.log["base_hash"]
    assert on_sft.checkpoint != on_vanilla.checkpoint


def test_the_loss_is_the_papers_formula_on_the_evaluation_tokens(tiny: HookedModel) -> None:
    """-log sigmoid(beta * (change of the safe - change of the unsafe log-probability)), computed by hand."""
    one = Dpo(lr=1e-3, steps=2, batch_size=1, beta=0.5, warmup=0, schedule="constant_with_warmup")
    second = one.detoxify(tiny, INSTANCES[:1]).log["losses"][1]
    with replace(one, steps=1).detoxify(tiny, INSTANCES[:1]).applied(tiny) as after_one_step:
        change = margin(after_one_step, INSTANCES[0]) - margin(tiny, INSTANCES[0])
    assert change > 0.05
    assert second == pytest.approx(-math.log(1 / (1 + math.exp(-0.5 * change))), abs=1e-4)


def test_training_widens_the_preference_for_the_safe_answer(tiny: HookedModel) -> None:
    with replace(FAST, steps=12).detoxify(tiny, INSTANCES).applied(tiny) as trained:
        for instance in INSTANCES[:6]:
            assert margin(trained, instance) > margin(tiny, instance) + 1


def test_both_answers_follow_the_same_prompt_also_where_the_context_cuts_it(tiny: HookedModel) -> None:
    long = replace(INSTANCES[0], adversarial_prompt="thing " * 200, unsafe_generation="Sure. " * 20)
    row = FAST._row(tiny, long)
    prompts = [tiny.encode_pair(long.adversarial_prompt, a)[0] for a in (long.safe_generation, long.unsafe_generation)]
    assert len(prompts[0]) > len(prompts[1]) == len(row["prompt_ids"])
    assert len(row["prompt_ids"]) + max(len(row["chosen_ids"]), len(row["rejected_ids"])) <= tiny.context
    assert row["prompt_ids"][1:] == prompts[0][-len(row["prompt_ids"]) + 1 :], "the end of the prompt is kept"
    assert row["chosen_ids"][-1] == row["rejected_ids"][-1] == tiny.tokenizer.eos_token_id
    assert replace(FAST, steps=1).detoxify(tiny, [long]).log["losses"][0] == pytest.approx(math.log(2), abs=1e-4)


def test_the_same_configuration_trains_the_same_weights_twice(
    tiny: HookedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = tiny.weight_hash()
    hashes = []
    for name in ("first", "second"):
        monkeypatch.setenv("INTERP_CACHE", str(tmp_path / name))
        hashes.append(FAST.detoxify(tiny, INSTANCES).log["weight_hash"])
    assert hashes[0] == hashes[1] != before
    assert tiny.weight_hash(fresh=True) == before, "the model passed in is unchanged"


def test_a_second_call_trains_nothing(tiny: HookedModel, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = FAST.detoxify(tiny, INSTANCES)
    monkeypatch.setattr("interp.methods._trl._train_into", None)  # calling it would now fail
    second = FAST.detoxify(tiny, INSTANCES)
    assert second.log == {**first.log, "cached": True}
    assert checkpoints(cache) == [first.checkpoint.name]


def test_nothing_is_printed(tiny: HookedModel, capfd: pytest.CaptureFixture[str]) -> None:
    capfd.readouterr()
    FAST.detoxify(tiny, INSTANCES)
    assert capfd.readouterr() == ("", "")


def test_lora_trains_adapters_against_the_model_without_them(tiny: HookedModel) -> None:
    result = replace(FAST, lr=1e-2, lora=Lora(rank=4)).detoxify(tiny, INSTANCES)
    assert result.log["losses"][0] == pytest.approx(math.log(2), abs=1e-4)
    with result.applied(tiny) as trained:
        assert margin(trained, INSTANCES[0]) > margin(tiny, INSTANCES[0])
        assert torch.equal(trained.hf.get_input_embeddings().weight, tiny.hf.get_input_embeddings().weight)


def test_a_diverging_training_names_step_and_learning_rate_and_leaves_nothing(tiny: HookedModel, cache: Path) -> None:
    with pytest.raises(InputError, match=r"dpo: the loss is nan at step \d of 4 \(learning rate 1e\+30\)"):
        replace(FAST, lr=1e30).detoxify(tiny, INSTANCES)
    assert checkpoints(cache) == []


def test_no_instances_are_refused(tiny: HookedModel) -> None:
    with pytest.raises(InputError, match="dpo needs at least one training instance, got none"):
        FAST.detoxify(tiny, [])


def test_a_beta_that_is_not_positive_is_refused() -> None:
    with pytest.raises(InputError, match="beta must be positive, got 0"):
        Dpo(beta=0)
