"""Forwards and tokens by hand, and counted where models run."""

from __future__ import annotations

import copy

import torch

from interp.costs.counting import Counted, bytes_under, counting
from interp.costs.space import Shape
from interp.costs.work import Work, answered, passed, total
from interp.edits import Provenance, WeightEdit
from interp.models import HookedModel
from interp.multi import generate_edited
from interp.prefix import from_layer, prefix_residual, value_state


def test_batches_are_padded_to_their_longest_row() -> None:
    # By hand: 2 2 | 3 5 | 9 -> 4 + 10 + 9 tokens of 5 rows.
    assert passed([9, 2, 3, 2, 5], batch=2) == Work(5, 23)


def test_a_share_of_the_blocks_is_that_share_of_a_forward() -> None:
    assert passed([4, 4], share=0.5, batch=2, learning=True) == Work(1, 4, 4)


def test_answers_cost_their_prompts_and_every_token_but_the_first() -> None:
    # By hand: prompts of 3 and 5 in one batch, answers of 4 and 1 tokens: 3 further tokens.
    assert answered([3, 5], [4, 1], slots=8) == Work(2 + 3, 10 + 3)


def test_a_sum_has_no_name_and_adds_up() -> None:
    assert total([Work(1, 2, 3, "a"), Work(10, 20, 30, "b")]) == Work(11, 22, 33)


def per_block(counted: Counted, model: HookedModel) -> tuple[float, float]:
    return counted.passes / model.n_layers, counted.positions / model.n_layers


def test_a_whole_forward_counts_its_rows_and_their_padded_positions(tiny_model: HookedModel) -> None:
    tokens = tiny_model.tokenize(["The cat sat on the mat", "A dog."], side="right")
    with counting() as counted:
        tiny_model.logits(tokens)
    assert per_block(counted, tiny_model) == (2, tokens.input_ids.numel())
    assert counted.learning == 0


def test_a_forward_that_ends_or_begins_half_way_counts_the_blocks_it_passed(llama: HookedModel) -> None:
    tokens = llama.tokenize(["The cat sat on the mat"], side="right")
    with counting() as counted:
        resid = prefix_residual(llama, tokens, 2)
    assert counted.passes == 2
    with counting() as counted, from_layer(llama, 2, resid):
        llama.logits(tokens)
    assert counted.passes == llama.n_layers - 2
    with counting() as counted:
        value_state(llama, tokens, 1)
    assert counted.passes == 2


def test_copies_are_counted_and_so_is_what_learns(llama: HookedModel) -> None:
    tokens = llama.tokenize(["A dog."], side="right")
    hf = copy.deepcopy(llama.hf).requires_grad_(True)
    with counting() as counted, torch.enable_grad():
        hf(input_ids=tokens.input_ids)
    assert counted.passes == llama.n_layers
    assert counted.learning == counted.positions > 0


def test_equal_prompts_of_many_edits_count_one_reading_and_every_step(llama: HookedModel) -> None:
    """The attention of the edited layer is wrapped all the while: what it runs counts, what it is given does not."""
    name = llama.value_name(llama.n_layers - 1)
    weights = Provenance("random", llama.source, llama.weight_hash())
    edits = [WeightEdit({name: 0.1 * torch.randn(llama.value_weight(0).shape)}, weights) for _ in range(4)]
    with counting() as counted:
        answers = generate_edited(llama, ["The cat sat on the mat"] * 4, [0, 1, 2, 3], edits, max_new_tokens=8)
    steps = sum(len(a.token_ids) + a.ended for a in answers) - len(answers)  # the first token comes with the reading
    assert counted.passes == llama.n_layers * (1 + steps)


def test_a_wrapped_module_counts_like_a_plain_one(llama: HookedModel) -> None:
    from accelerate.hooks import AlignDevicesHook, add_hook_to_module

    hf = copy.deepcopy(llama.hf)
    for module in hf.modules():
        add_hook_to_module(module, AlignDevicesHook(execution_device="cpu"))
    tokens = llama.tokenize(["A dog."], side="right")
    with counting() as counted:
        hf(input_ids=tokens.input_ids)
    assert counted.passes == llama.n_layers


def test_a_budget_for_deltas_bounds_what_is_planned_for_them(llama: HookedModel) -> None:
    shape = Shape.of(llama)
    cache, all_of_them = shape.decoding(8, 100), shape.decoding(8, 100, edits=10)
    assert all_of_them - cache == 10 * shape.matrix * (4 + shape.item)
    assert shape.decoding(8, 100, 10, budget=2 * shape.matrix * 4) - cache == 2 * shape.matrix * (4 + 4)
    assert shape.decoding(8, 100, 10, budget=1) - cache == 1 + shape.matrix * shape.item


def test_nothing_is_counted_after_the_block(llama: HookedModel) -> None:
    tokens = llama.tokenize(["A dog."], side="right")
    with counting() as counted:
        pass
    llama.logits(tokens)
    assert counted.passes == 0


def test_bytes_of_all_files_below_folders(tmp_path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "one").write_bytes(b"12345")
    (tmp_path / "two").write_bytes(b"12")
    assert bytes_under(tmp_path) == 7
