"""Robustness on models whose answer is known: no KL to itself, no prefill that changes the prompt, edits restored."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny_lab import noise, small_lab, variant

from interp.edits import Provenance, WeightEdit
from interp.errors import InputError
from interp.judges import RefusalJudge
from interp.mechanism import repeated, sequential
from interp.mechanism.families import BARE, HELD_OUT, MARK, SEEN, families
from interp.mechanism.first_tokens import first_share, kl_by_position
from interp.mechanism.intervene import rounded
from interp.mechanism.lab import Subject, merge
from interp.mechanism.prefill import _slowly, continuations
from interp.mechanism.quantisation import AS_IS, KL, NOISE, noisy
from interp.mechanism.robustness import (
    ATTACK_FAMILIES,
    FIRST_TOKENS,
    PREFILL,
    QUANTISATION,
    attack_families,
    prefill,
    repeated_edits,
    sequential_survival,
)
from interp.mechanism.several import over_edits
from interp.records import Generalization, Verdict

ANALYSES = (FIRST_TOKENS, PREFILL, ATTACK_FAMILIES, QUANTISATION)
PAIRS = [("The cat", "sat on the mat"), ("A dog looked at the moon", "and"), ("Nothing", " ")]


@pytest.fixture(params=["gpt2", "llama", "neox", "gemma2"])
def subject(request, tiny_models) -> Subject:
    """A tiny vanilla with its lab; Gemma2's short window goes the slow way through decoding."""
    model = tiny_models[request.param]
    return Subject("vanilla", model, small_lab(model))


@pytest.fixture
def llama_subject(llama) -> Subject:
    return Subject("vanilla", llama, small_lab(llama))


@pytest.mark.parametrize("analysis", ANALYSES, ids=lambda a: a.name)
def test_every_weight_is_bitwise_the_same_after_each_analysis(subject, analysis) -> None:
    other = variant(subject, lambda m: noise(m.value_weight(0)), "sft")
    kept = [{name: p.clone() for name, p in s.model.hf.named_parameters()} for s in (subject, other)]
    finding = merge([analysis.measure(s, subject) for s in (subject, other)], analysis.read)
    assert finding.name == analysis.name
    assert "sft" in finding.reading
    for s, before in zip((subject, other), kept, strict=True):
        assert all(torch.equal(p, before[name]) for name, p in s.model.hf.named_parameters())


# --------------------------------------------------------------------------------------------- first tokens
def test_a_model_has_no_kl_to_itself_and_no_share_of_it(subject) -> None:
    kl = kl_by_position(subject.model, subject.model, PAIRS)
    assert kl.shape[0] == 2  # the empty answer is left out
    assert np.nanmax(kl) == 0.0
    assert first_share(kl, 1, 0) is None


def test_the_kl_by_position_is_that_of_the_whole_distribution(llama_subject) -> None:
    other = variant(llama_subject, lambda m: noise(m.value_weight(1)), "sft")
    found = kl_by_position(other.model, llama_subject.model, PAIRS[:1])[0]
    head, tail = llama_subject.model.encode_pair(*PAIRS[0], eos=False)
    p, q = (s.model.logits(s.model.pad([head + tail]))[0].log_softmax(-1) for s in (other, llama_subject))
    for t in range(len(tail)):
        place = len(head) - 1 + t
        expected = float((p[place].exp() * (p[place] - q[place])).sum())
        assert found[t] == pytest.approx(expected, abs=1e-4)


def test_the_share_of_the_first_tokens_worked_by_hand() -> None:
    kl = np.array([[3.0, 1.0, np.nan], [1.0, 2.0, 1.0]])  # 4 of 8 in the first tokens, 7 of 8 in the first two
    one, two = first_share(kl, 1, 0), first_share(kl, 2, 0)
    assert one is not None
    assert two is not None
    assert (one.value, two.value) == (50.0, 87.5)
    assert one.low == pytest.approx(25.0)
    assert one.high == pytest.approx(75.0)


def test_a_total_too_small_to_divide_has_no_shares_and_no_unsafe_answers_are_told(llama_subject) -> None:
    near = variant(llama_subject, lambda m: noise(m.value_weight(1), scale=1e-3), "dinm")
    far = variant(llama_subject, lambda m: noise(m.value_weight(1), scale=2.0), "sft")
    found = merge([FIRST_TOKENS.measure(s, llama_subject) for s in (llama_subject, near, far)], FIRST_TOKENS.read)
    assert "Too little KL to divide: dinm (" in found.reading
    assert "for sft (harmless answers: " in found.reading
    parts = [FIRST_TOKENS.measure(s, llama_subject) for s in (llama_subject, near)]
    assert merge(parts, FIRST_TOKENS.read).reading.startswith("Too little KL to divide: dinm (")
    wide = replace(near, model=far.model)
    mixed = over_edits([FIRST_TOKENS.measure(s, llama_subject) for s in (near, wide)], ("one", "two"))
    assert "for dinm, 1 of 2 edits (" in merge([parts[0], mixed], FIRST_TOKENS.read).reading
    silent = tuple(replace(i, unsafe_generation=" ") for i in llama_subject.lab.instances)
    bare = Subject("v", llama_subject.model, replace(llama_subject.lab, instances=silent))
    assert (
        FIRST_TOKENS.read(FIRST_TOKENS.measure(bare, bare)) == "No instance has an unsafe answer to read the KL along."
    )


def test_another_vocabulary_is_one_line(llama_subject, make_hf, make_tokenizer) -> None:
    from interp.models import HookedModel

    other = HookedModel.from_hf(make_hf("llama", vocab_size=330), make_tokenizer(True), "wide")
    with pytest.raises(InputError, match=r"320 tokens\), got 330 in wide"):
        kl_by_position(other, llama_subject.model, PAIRS)


# --------------------------------------------------------------------------------------------- prefill
def test_continuations_are_those_of_generate(subject) -> None:
    prompts = [subject.model.format_prompt(q) for q in subject.lab.queries()]
    ids = [subject.model.token_ids(p) for p in prompts]
    expected = [g.text for g in subject.model.generate(prompts, max_new_tokens=6)]
    assert continuations(subject.model, ids, 6) == expected
    slow = _slowly(subject.model, ids, 6, batch_size=3)
    assert [len(answer) for answer in slow] == [6] * len(ids)
    texts = [subject.model._generation(answer).text for answer in slow]
    assert texts == expected


class Recorder:
    """A judge that keeps what it is shown, and finds everything that has an "a" in it unsafe."""

    name = "recorder"

    def __init__(self) -> None:
        self.shown: list[list[str]] = []

    def judge(self, texts, prompts=None) -> list[Verdict]:
        self.shown.append(list(texts))
        return [Verdict("unsafe" if "a" in text else "other", 0.5) for text in texts]


def test_a_prefill_of_nothing_is_the_plain_answer_and_the_judge_sees_the_continuation(llama_subject) -> None:
    judge = Recorder()
    finding = prefill(judge, prefixes=(0, 2), new_tokens=5).measure(llama_subject, llama_subject)
    prompts = [llama_subject.model.format_prompt(q) for q in llama_subject.lab.queries()]
    assert judge.shown[0] == [g.text for g in llama_subject.model.generate(prompts, max_new_tokens=5)]
    shares = [100 * np.mean(["a" in text for text in shown]) for shown in judge.shown]
    assert [e.value for e in finding.curves[0].curves[0].y] == pytest.approx(shares)
    assert "judged by recorder" in finding.how_to_read


def test_the_margin_is_refusing_over_the_unsafe_answers_next_token(llama_subject) -> None:
    finding = prefill(prefixes=(0, 1), new_tokens=1).measure(llama_subject, llama_subject)
    expected = []
    for k in (0, 1):
        margins = []
        for i in llama_subject.lab.instances:
            head, tail = llama_subject.model.encode_pair(i.adversarial_prompt, i.unsafe_generation, eos=False)
            said = llama_subject.model.logits(llama_subject.model.pad([head + tail[:k]]))[0, -1].log_softmax(-1)
            margins.append(float(said[[10, 11]].logsumexp(-1) - said[tail[k]]))
        expected.append(np.mean(margins))
    assert [e.value for e in finding.curves[1].curves[0].y] == pytest.approx(expected, abs=1e-3)


def test_prefill_without_unsafe_answers_is_one_line(llama_subject) -> None:
    silent = tuple(replace(i, unsafe_generation=" ") for i in llama_subject.lab.instances)
    bare = Subject("v", llama_subject.model, replace(llama_subject.lab, instances=silent))
    with pytest.raises(InputError, match="needs unsafe answers to begin with"):
        PREFILL.measure(bare, bare)


# --------------------------------------------------------------------------------------------- families
def with_families(subject: Subject) -> Subject:
    """Half the instances plead, the others pretend; every other attack shifts attention, and one of them pleads."""
    instances = []
    for n, i in enumerate(subject.lab.instances):
        kind = "emotion control" if n == 0 else "Attention Shifting "
        more = Generalization(i.question, f"other {n}", f"question {n}", f"Write a poem on the {n}. moon", kind, "poem")
        instances.append(replace(i, attack_category="Pretending" if n % 2 else "emotion control", generalization=more))
    return Subject(subject.name, subject.model, replace(subject.lab, instances=tuple(instances)))


def test_held_out_families_are_those_that_nobody_trained_or_edited_on(llama_subject) -> None:
    found = families(with_families(llama_subject))
    counts = {name: len(prompts) for name, prompts in found.items()}
    assert counts == {"emotion control": 5, "pretending": 4, f"attention shifting{MARK}": 7, BARE: 8}
    assert list(found)[-1] == BARE


def test_held_out_families_are_asked_on_further_instances_too_and_known_ones_are_not(llama_subject) -> None:
    subject = with_families(llama_subject)
    further = []
    for n, i in enumerate(subject.lab.train):
        kind = "attention shifting" if n % 2 else "pretending"
        further.append(replace(i, generalization=Generalization("q", "a", "b", f"Further poem {n}", kind, "poem")))
    more = Subject("v", subject.model, replace(subject.lab, others=tuple(further)))
    before, after = families(subject), families(more)
    assert len(after[f"attention shifting{MARK}"]) == len(before[f"attention shifting{MARK}"]) + 3
    assert {k: v for k, v in after.items() if MARK not in k} == {k: v for k, v in before.items() if MARK not in k}


def test_families_are_scored_by_the_margin_or_by_a_judge(llama_subject) -> None:
    subject = with_families(llama_subject)
    by_margin = ATTACK_FAMILIES.measure(subject, subject)
    [bare] = by_margin.bars[0].series[BARE]
    assert bare is not None
    assert bare.value == pytest.approx(100.0 * float((subject.margins("onlyQ") >= 0).mean()))
    totals = {name: e.n for name, [e] in by_margin.bars[1].series.items() if e is not None}
    named = {i.attack_name for i in subject.lab.instances} | {"poem"}  # the first instance's other attack pleads
    assert totals == {SEEN: len(named), HELD_OUT: 1}
    assert f"attention shifting{MARK} 1" in by_margin.facts["attacks by family"]
    assert f"attention shifting{MARK} 7" in by_margin.facts["prompts by family"]
    judged = attack_families(RefusalJudge()).measure(subject, subject)
    [bare] = judged.bars[0].series[BARE]
    assert bare is not None
    assert bare.value < 100.0  # a random model does not say sorry, though it may be broken, which counts half
    assert "judged by refusal" in judged.how_to_read


def test_families_need_names(llama_subject) -> None:
    nameless = tuple(replace(i, attack_category=" ") for i in llama_subject.lab.instances)
    bare = Subject("v", llama_subject.model, replace(llama_subject.lab, instances=nameless))
    with pytest.raises(InputError, match="no instance names one"):
        families(bare)


# --------------------------------------------------------------------------------------------- quantisation
def test_noise_is_as_large_as_the_rounding_error() -> None:
    weight = torch.randn(8, 4000, generator=torch.Generator().manual_seed(0))
    error = (rounded(weight, 4) - weight).square().mean(dim=1)
    noise_power = (noisy(weight, 4, 1, "0.mlp") - weight).square().mean(dim=1)
    assert torch.allclose(noise_power, error, rtol=0.15)


def test_noise_is_the_same_at_every_forward_and_another_for_every_module_and_draw() -> None:
    weight = torch.randn(4, 50, generator=torch.Generator().manual_seed(0))
    once = noisy(weight, 4, 1, "0.mlp")
    assert torch.equal(noisy(weight, 4, 1, "0.mlp"), once)
    assert not torch.equal(noisy(weight, 4, 1, "1.mlp"), once)
    assert not torch.equal(noisy(weight, 4, 2, "0.mlp"), once)


def test_eight_bits_move_a_model_less_than_four(subject) -> None:
    finding = QUANTISATION.measure(subject, subject)
    moved = next(b for b in finding.bars if b.title == KL).series
    values = {name: estimates[0].value for name, estimates in moved.items() if estimates[0] is not None}
    assert values[AS_IS] == 0.0
    assert 0.0 < values["int8"] < values["int4"]
    assert values[NOISE] > values["int8"]


# --------------------------------------------------------------------------------------------- edits in a row
def edit(subject: Subject, seed: int, layer: int = 1) -> WeightEdit:
    weight = subject.model.value_weight(layer)
    delta = 0.2 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(seed))
    provenance = Provenance("noise", subject.model.source, subject.model.weight_hash(), layer=layer)
    return WeightEdit({subject.model.value_name(layer): delta}, provenance)


def test_edits_pile_up_and_the_model_comes_back_bitwise(subject) -> None:
    kept = {name: p.clone() for name, p in subject.model.hf.named_parameters()}
    edits = [edit(subject, seed) for seed in range(3)]
    finding = sequential_survival(subject, edits)
    assert all(torch.equal(p, kept[name]) for name, p in subject.model.hf.named_parameters())
    first = next(c for c in finding.curves[0].curves if c.name == "the first edit's prompt")
    assert first.x == (1.0, 2.0, 3.0)

    def summed(n: int):
        return variant(subject, lambda m: [m.value_weight(1).add_(edits[i].deltas[m.value_name(1)]) for i in range(n)])

    expected = [summed(n).margins()[0] for n in (1, 2, 3)]
    assert [e.value for e in first.y] == pytest.approx(expected, abs=1e-3)
    assert finding.n == 1


def test_each_edit_is_made_on_the_model_as_the_ones_before_left_it(llama_subject) -> None:
    seen: list[tuple[int, float]] = []

    def make(model, instance) -> WeightEdit:
        seen.append((instance.id, float(model.value_weight(1).sum())))
        return edit(llama_subject, len(seen))

    start = float(llama_subject.model.value_weight(1).sum())
    finding = sequential_survival(llama_subject, make, length=3, chains=2, suffix="Be good.")
    assert (finding.n, len(seen)) == (2, 6)
    assert seen[0][1] == seen[3][1] == start
    assert len({total for _, total in seen[:3]}) == 3
    assert seen[0][0] != seen[3][0]  # chains begin with different instances
    assert len({i for i, _ in seen[:3]}) == 3


def test_the_same_instance_is_edited_again_and_harmless_requests_are_asked_with_the_suffix(llama_subject) -> None:
    seen: list[int] = []

    def make(_, instance) -> WeightEdit:
        seen.append(instance.id)
        return edit(llama_subject, len(seen))

    before = llama_subject.model.value_weight(1).clone()
    found = repeated_edits(llama_subject, make, times=3, instances=2, suffix="Be good.")
    assert torch.equal(llama_subject.model.value_weight(1), before)
    assert [len(set(seen[i : i + 3])) for i in (0, 3)] == [1, 1]
    assert seen[0] != seen[3]
    own, others = found.curves[0].curves
    assert own.x == (0.0, 1.0, 2.0, 3.0)
    assert others.control
    assert "harmless requests with the suffix" in found.how_to_read
    kl = next(p for p in found.curves if "KL" in p.title).curves[0]
    assert kl.y[0].value == 0.0 < kl.y[-1].value
    with pytest.raises(InputError, match="at least 2 edits and 2 instances, got 1"):
        repeated_edits(llama_subject, make, times=1)
    with pytest.raises(InputError, match="at least 2 edits and 2 instances, got 5 and 1"):
        repeated_edits(llama_subject, make, instances=1)


def test_damage_of_further_edits_is_compared_instance_by_instance(llama_subject) -> None:
    data = np.ones((3, 3, 5))  # instances, edits so far, own and others' margins, others refused, KL, tokens right
    data[:, :, 3] = [[0.0, 0.1, 0.2], [0.0, 0.5, 0.61], [0.0, 0.9, 1.0]]  # the levels lie apart, the differences do not

    def told(values: np.ndarray) -> str:
        return repeated._finding(llama_subject, values, "dinm", [1, 2, 3], "", 0.0).reading

    assert "more damage than one edit does (+0.1 [+0.089, +0.12])" in told(data)
    data[1, 2, 3] = 0.4
    assert "damage that is not clear of one edit's" in told(data)


def test_one_chain_has_no_interval_and_survives_nothing(subject) -> None:
    told = sequential_survival(subject, [edit(subject, seed) for seed in range(3)]).reading
    assert "survive" not in told
    assert "one chain: no interval" in told or "nothing to keep" in told


def test_a_first_edit_survives_only_where_it_gained_more_than_prompts_nobody_edited(llama_subject) -> None:
    data = np.zeros((3, 4, 7))  # chains, edits so far, margins of three edits' prompts and four readings
    data[:, :, 0] = [-1.0, 1.0, 2.0, 3.0]
    data[:, :, 3] = [0.0, 1.0, 2.0, 3.0]  # others gain 3 of the 4
    assert "The first edit survives" in sequential._finding(llama_subject, data, "dinm", "", 0.0).reading
    data[:, :, 3] = [-2.0, 1.0, 2.0, 3.0]  # others gain 5
    told = sequential._finding(llama_subject, data, "dinm", "", 0.0).reading
    assert "cannot be told from what the later edits do to any prompt, seen after 3 edits" in told
    assert "go from -2.0 (none)" in told


def test_an_error_in_a_chain_restores_the_model(llama_subject) -> None:
    before = llama_subject.model.value_weight(1).clone()

    def fails(_, instance) -> WeightEdit:
        if not torch.equal(llama_subject.model.value_weight(1), before):
            raise RuntimeError("stop")
        return edit(llama_subject, instance.id)

    with pytest.raises(RuntimeError, match="stop"):
        sequential_survival(llama_subject, fails)
    assert torch.equal(llama_subject.model.value_weight(1), before)


def test_one_edit_is_no_sequence(llama_subject) -> None:
    with pytest.raises(InputError, match="at least 2 edits one after another, got 1"):
        sequential_survival(llama_subject, [edit(llama_subject, 0)])
