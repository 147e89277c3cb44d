"""Spectra of weight changes: planted ranks are found, and nothing is where nothing changed."""

from __future__ import annotations

import pytest
import torch
from tiny_lab import again, noise, small_lab, variant

from interp.errors import InputError
from interp.mechanism import spectra
from interp.mechanism.lab import Subject, merge
from interp.mechanism.spectra import (
    ATTENTION,
    EMBEDDINGS,
    OTHER,
    W_IN,
    W_V,
    WEIGHT_SPECTRA,
    cells,
    components,
    gaussian,
    spectrum,
)


def test_a_matrix_of_rank_one_has_every_rank_one() -> None:
    found = spectrum(torch.outer(torch.arange(1.0, 9.0), torch.ones(5)))
    assert found.norm == pytest.approx(float((5 * torch.arange(1.0, 9.0) ** 2).sum() ** 0.5))
    assert (found.stable, found.effective, found.first) == pytest.approx((1.0, 1.0, 1.0), abs=1e-3)


def test_the_identity_has_full_rank_by_every_measure() -> None:
    found = spectrum(3 * torch.eye(12))
    assert (found.stable, found.effective, found.first) == pytest.approx((12.0, 12.0, 1 / 12), rel=1e-4)


def test_two_unequal_directions_are_worked_by_hand() -> None:
    found = spectrum(torch.diag(torch.tensor([3.0, 1.0, 0.0])))
    assert found.stable == pytest.approx(10 / 9)
    assert found.effective == pytest.approx(4 / (3**0.75))  # exp of -(3/4) ln(3/4) - (1/4) ln(1/4)
    assert found.first == pytest.approx(0.75)


def test_nothing_changed_is_all_zero_and_bad_matrices_are_one_line() -> None:
    assert spectrum(torch.zeros(4, 3)) == spectra.Spectrum(0.0, 0.0, 0.0, 0.0)
    for bad in (torch.ones(3), torch.full((2, 2), float("nan"))):
        with pytest.raises(InputError, match="expected a finite matrix"):
            spectrum(bad)


def test_the_randomised_part_keeps_norm_and_stable_rank_and_bounds_the_effective_rank(monkeypatch) -> None:
    generator = torch.Generator().manual_seed(0)
    low = torch.randn(300, 8, generator=generator) @ torch.randn(8, 200, generator=generator)
    D = low + 0.05 * torch.randn(300, 200, generator=generator)
    exact = spectrum(D)
    monkeypatch.setattr(spectra, "WHOLE", 100)
    state = torch.random.get_rng_state()
    rough = spectrum(D)
    assert torch.equal(state, torch.random.get_rng_state())
    assert rough.norm == exact.norm
    assert rough.stable == pytest.approx(exact.stable, rel=1e-3)
    assert exact.effective <= rough.effective + 1e-3 < 1.2 * exact.effective
    assert rough.first <= exact.first + 1e-6


def test_a_gaussian_matrix_is_far_from_low_rank_and_seeded() -> None:
    found = gaussian((48, 32), 0)
    assert found.norm == pytest.approx(1.0, abs=1e-5)
    assert found.stable > 8
    assert found.effective > 25
    assert gaussian((48, 32), 0) == found
    assert gaussian((48, 32), 1) != found


def test_every_parameter_has_one_place(tiny_model) -> None:
    places = list(components(tiny_model))
    assert [name for _, _, name in places] == [name for name, _ in tiny_model.hf.named_parameters()]
    for layer in range(tiny_model.n_layers):
        assert [name for c, at, name in places if (c, at) == (W_V, layer)] == [tiny_model.value_name(layer)]
        assert {W_V, W_IN, ATTENTION} <= {c for c, at, _ in places if at == layer}
    assert {c for c, at, _ in places if at is None} >= {EMBEDDINGS}


def test_a_rank_one_edit_shows_as_rank_one_where_it_is_and_as_nothing_elsewhere(tiny_model) -> None:
    vanilla = Subject("vanilla", tiny_model, small_lab(tiny_model))
    change = torch.outer(torch.ones(tiny_model.d_mlp), torch.linspace(-1, 1, tiny_model.d_model))
    edited = variant(vanilla, lambda m: m.value_vectors(1).add_(change), "edited")
    found = cells(tiny_model, edited.model)
    size = 100 * float(change.norm() / tiny_model.value_vectors(1).norm())
    for where, cell in found.items():
        if where == (W_V, 1):
            assert cell.relative == pytest.approx(size, rel=1e-4)
            assert (cell.stable, cell.effective, cell.first) == pytest.approx((1.0, 1.0, 1.0), abs=1e-2)
            assert cell.chance.stable > 5
        else:
            assert (cell.relative, cell.stable, cell.effective) == (0.0, 0.0, 0.0)
    parts = [WEIGHT_SPECTRA.measure(s, vanilla) for s in (vanilla, again(vanilla), edited)]
    finding = merge(parts, WEIGHT_SPECTRA.read)
    assert "same has vanilla's weights" in finding.reading
    assert "edited changes only W_V of layer 1, by" in finding.reading
    assert "with an effective rank of 1 (" in finding.reading
    grid = next(g for g in finding.grids if g.title.startswith("edited:"))
    assert grid.x == (W_V, W_IN, ATTENTION, OTHER)
    assert (grid.values > 0).sum() == 1


def test_a_change_of_everything_is_read_where_it_is_largest(llama) -> None:
    vanilla = Subject("vanilla", llama, small_lab(llama))

    def change(m) -> None:
        for i, p in enumerate(m.hf.parameters()):
            noise(p, i, 0.001)
        noise(m.blocks[2].mlp.up_proj.weight, 99, 0.2)

    found = merge([WEIGHT_SPECTRA.measure(variant(vanilla, change, "other"), vanilla)], WEIGHT_SPECTRA.read)
    assert "other changes most W_in of layer 2, by" in found.reading
    assert found.bars[0].series[EMBEDDINGS][0].value > 0


def test_another_shape_is_one_line(llama, make_model) -> None:
    with pytest.raises(InputError, match="does not have the shape"):
        cells(llama, make_model("gpt2"))
    alone = Subject("vanilla", llama, small_lab(llama))
    assert WEIGHT_SPECTRA.read(merge([WEIGHT_SPECTRA.measure(alone, alone)])).startswith("There is no model")
