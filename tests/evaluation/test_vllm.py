"""vLLM as an engine: a stub of its two classes, which answers with transformers from the exported checkpoint."""

import json
import sys
from dataclasses import dataclass
from types import ModuleType, SimpleNamespace

import pytest
import torch
from transformers import AutoModelForCausalLM

from interp import safeedit
from interp.edits import Provenance, WeightEdit
from interp.errors import InputError
from interp.evaluation import Item, respond
from interp.evaluation import vllm as engine
from interp.evaluation.__main__ import run
from interp.evaluation.vllm import VllmModel
from interp.models import HookedModel


@dataclass
class SamplingParams:
    temperature: float
    max_tokens: int
    stop_token_ids: list[int]
    ignore_eos: bool


class LLM:
    def __init__(self, model, dtype, max_model_len, **options):
        self.hf = AutoModelForCausalLM.from_pretrained(model, dtype=getattr(torch, dtype)).eval()
        self.options, self.longest = options, max_model_len

    @torch.no_grad()
    def generate(self, prompts, sampling_params, use_tqdm):
        assert sampling_params.temperature == 0.0
        return [SimpleNamespace(outputs=[self._answer(p["prompt_token_ids"], sampling_params)]) for p in prompts]

    def _answer(self, ids, how):
        assert len(ids) + how.max_tokens <= self.longest
        answer, reason = [], "length"
        while len(answer) < how.max_tokens:
            token = int(self.hf(torch.tensor([[*ids, *answer]])).logits[0, -1].argmax())
            answer.append(token)
            if token in how.stop_token_ids:  # vLLM keeps it among the ids
                reason = "stop"
                break
        return SimpleNamespace(token_ids=answer, finish_reason=reason)


@pytest.fixture
def vllm(monkeypatch):
    """A module `vllm` that mimics the parts that are used."""
    module = ModuleType("vllm")
    module.LLM, module.SamplingParams = LLM, SamplingParams  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "vllm", module)
    monkeypatch.setattr(engine, "available", lambda: True)
    return module


@pytest.fixture
def edit(llama):
    name, weight = llama.value_name(1), llama.value_weight(1)
    delta = 0.3 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(0))
    return WeightEdit({name: delta}, Provenance("dinm", llama.source, llama.weight_hash(), layer=1))


def test_the_edited_checkpoint_answers_in_vllm_as_it_does_here(vllm, llama, edit, texts, tmp_path):
    plain = [a.token_ids for a in llama.generate(texts, max_new_tokens=6)]
    with edit.applied(llama):
        expected = llama.generate(texts, max_new_tokens=6)
    assert [a.token_ids for a in expected] != plain
    before = llama.weight_hash(fresh=True)
    opened = VllmModel(llama, tmp_path / "edited", edit, tensor_parallel_size=2)
    told = []
    assert opened.generate(texts, max_new_tokens=6, progress=lambda *at: told.append(at)) == expected
    assert told == [(4, 4)]
    assert opened.engine.options == {"tensor_parallel_size": 2}
    assert opened.name == f"{llama.name}+dinm"
    assert llama.weight_hash(fresh=True) == before


def test_vanilla_is_asked_like_any_other_model(vllm, llama, texts, tmp_path):
    items = [Item("DS", text, "", number, number) for number, text in enumerate(texts)]
    opened = VllmModel(llama, tmp_path / "vanilla")
    assert respond(opened, items, max_new_tokens=5) == respond(llama, items, max_new_tokens=5)


def test_an_answer_ends_before_the_stop_token_and_a_long_prompt_is_cut(vllm, make_model, tmp_path):
    model = make_model("llama")
    [first] = model.generate("A dog", max_new_tokens=1)
    model.hf.generation_config.eos_token_id = list(first.token_ids)
    opened = VllmModel(model, tmp_path / "model")
    [answer] = opened.generate(["A dog"], max_new_tokens=4)
    assert (answer.n_tokens, answer.ended, answer.text) == (0, True, "")
    opened.generate(["the cat " * 200], max_new_tokens=4)
    assert model.truncated == 1


def test_without_the_extra_one_line_names_it(llama, tmp_path):
    assert not engine.available()
    with pytest.raises(InputError, match=r"^vLLM is not installed: pip install 'interp\[vllm\]'$"):
        VllmModel(llama, tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_no_room_for_an_answer_is_told(vllm, llama, tmp_path):
    with pytest.raises(InputError, match=r"expected max_new_tokens in 1\.\.95, got 96"):
        VllmModel(llama, tmp_path / "model").generate(["a"], max_new_tokens=96)


def test_a_shorter_context_is_passed_on_and_prompts_are_cut_to_it(llama, vllm, tmp_path):
    model = VllmModel(llama, tmp_path / "m", max_model_len=24)
    assert model.engine.longest == 24
    [answer] = model.generate(["The cat sat on the mat. " * 20], max_new_tokens=4)
    assert answer.n_tokens <= 4
    with pytest.raises(InputError, match=r"max_new_tokens in 1\.\.23"):
        model.generate(["The cat."], max_new_tokens=24)


# --------------------------------------------------------------------------------------------- the command line
def ask(tmp_path, name, *options):
    folder = tmp_path / name
    kqa = tmp_path / "kqa.json"
    kqa.write_text(
        json.dumps([{"prompt": q.prompt, "answers": list(q.answers)} for q in safeedit.load("demo").facts[:4]])
    )
    code = run(["demo", "--kqa", str(kqa), "--max-new-tokens", "8", "--out", str(folder), *options])
    if code:
        return code, None, None
    lines = (folder / "responses.jsonl").read_text().splitlines()
    return code, [json.loads(line)["text"] for line in lines], json.loads((folder / "general.json").read_text())


def test_the_command_asks_an_edit_in_vllm_as_it_does_itself(vllm, tmp_path):
    demo = HookedModel.from_pretrained("demo", device="cpu")
    name, weight = demo.value_name(4), demo.value_weight(4)
    delta = 0.5 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(0))
    file = WeightEdit({name: delta}, Provenance("dinm", demo.source, demo.weight_hash(), layer=4)).save(tmp_path / "e")
    _, plain, _ = ask(tmp_path, "plain")
    _, own, record = ask(tmp_path, "own", "--edit", str(file))
    _, theirs, other = ask(tmp_path, "vllm", "--edit", str(file), "--engine", "vllm")
    assert plain != own == theirs
    assert (record["engine"], other["engine"]) == ("own", "vllm")
    assert record["edit"] == other["edit"]
    assert record["edit"]["method"] == "dinm"
    assert (tmp_path / "vllm" / "checkpoint" / "config.json").exists()
    assert not (tmp_path / "own" / "checkpoint").exists()


def test_the_command_says_what_is_missing_before_it_opens_anything(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(HookedModel, "from_pretrained", lambda *_, **__: pytest.fail("the model was opened"))
    for options, expected in (
        (("--engine", "vllm"), "interp.evaluation: --engine vllm: vLLM is not installed: pip install 'interp[vllm]'"),
        (("--engine", "trt"), "interp.evaluation: --engine: expected own or vllm, got 'trt'"),
        (("--edit", str(tmp_path / "none")), "interp.evaluation: "),
    ):
        assert ask(tmp_path, "o", *options)[0] == 2
        said = capsys.readouterr().err.strip()
        assert said.startswith(expected)
        assert len(said.splitlines()) == 1
