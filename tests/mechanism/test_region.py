"""Region toxicity: once by hand, then against edits whose truth is known."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from interp.errors import InputError
from interp.mechanism.region import (
    MEAN_DIFFERENCE,
    PROBE,
    PROBE_AFTER_NORM,
    MeanCosine,
    Region,
    TopCosine,
    WeightedWrite,
    random_directions,
    region_toxicity,
    shaped_directions,
    two_sided_p,
)
from interp.records import RegionToxicity, dumps, loads

# Worked by hand: value vectors (3, 4), (0, 2), (1, 0) have cosines .6, 0, 1 with (1, 0).
W = torch.tensor([[3.0, 4.0], [0.0, 2.0], [1.0, 0.0]])
EDITED = torch.tensor([[3.0, 4.0], [0.0, 2.0], [0.0, 1.0]])
H = torch.tensor([1.0, 2.0, 3.0])
TOXIC = {PROBE: torch.tensor([5.0, 0.0])}


def by_hand() -> Region:
    definitions = (MeanCosine(), TopCosine(2), WeightedWrite())
    return Region.of(W, TOXIC, layer=1, h_down_mean=H, definitions=definitions, n_null=100)


def test_the_three_definitions_agree_with_a_case_worked_by_hand() -> None:
    measured = by_hand().measure("m", [EDITED])
    mean, top, write = measured.toxicity
    assert (mean.vanilla, mean.value.value) == (pytest.approx(1.6 / 3), pytest.approx(0.2))
    assert mean.change.value == pytest.approx(-1 / 3)
    assert (top.vanilla, top.value.value) == (pytest.approx(0.8), pytest.approx(0.3))
    assert (write.vanilla, write.value.value) == (
        pytest.approx(6.0),
        pytest.approx(3.0),
    )  # h @ W = (6, 8), then (3, 11)
    assert measured.weight_change.value == pytest.approx(100 * math.sqrt(2 / 30))
    assert loads(RegionToxicity, dumps(mean)) == mean
    assert (mean.layer, mean.model, mean.definition) == (1, "m", "mean cosine, all value vectors")


def test_the_null_is_the_same_definition_on_random_directions() -> None:
    measured = by_hand().measure("m", [EDITED])
    null = random_directions(2, 100, 0)
    by_definition = [float(sum(w @ r / w.norm() for w in W)) / 3 for r in null]
    assert measured.toxicity[0].null_vanilla.mean == pytest.approx(np.mean(by_definition), abs=1e-6)
    assert measured.toxicity[0].null_vanilla.std == pytest.approx(np.std(by_definition), abs=1e-6)
    assert measured.toxicity[2].null_vanilla.mean == pytest.approx(
        float((null @ torch.tensor([6.0, 8.0])).mean()), abs=1e-5
    )


def test_each_random_direction_has_its_own_top_vectors() -> None:
    d, k = 16, 3
    vanilla = torch.randn(40, d, generator=torch.Generator().manual_seed(1))
    region = Region.of(vanilla, {PROBE: torch.ones(d)}, layer=0, definitions=(TopCosine(k),), n_null=50)
    cosines = torch.nn.functional.normalize(vanilla, dim=1) @ random_directions(d, 50, 0).T
    expected = cosines.topk(k, dim=0).values.mean(dim=0).numpy()
    measured = region.measure("m", [vanilla]).toxicity[0].null_vanilla
    assert measured.mean == pytest.approx(expected.mean(), abs=1e-6)
    assert measured.high == pytest.approx(np.quantile(expected, 0.975), abs=1e-6)


def test_vanilla_against_itself_changes_by_exactly_zero_and_is_never_significant() -> None:
    measured = by_hand().measure("vanilla", [W.clone()])
    assert measured.weight_change.value == 0.0
    for record in measured.toxicity:
        assert record.change.value == 0.0
        assert record.p_change == 1.0


def random_model(seed: int = 0, d_mlp: int = 256, d: int = 64) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    vanilla = torch.randn(d_mlp, d, generator=generator)
    toxic = torch.nn.functional.normalize(torch.randn(d, generator=generator), dim=0)
    h = torch.rand(d_mlp, generator=generator)
    return vanilla, toxic, h


def all_directions(toxic: torch.Tensor) -> dict[str, torch.Tensor]:
    return {PROBE: toxic, PROBE_AFTER_NORM: toxic, MEAN_DIFFERENCE: toxic}


def test_an_edit_that_removes_the_direction_is_seen_beyond_the_null() -> None:
    vanilla, toxic, h = random_model()
    removed = vanilla - torch.outer(vanilla @ toxic, toxic)
    records = region_toxicity(vanilla, [removed], all_directions(toxic), model="erased", layer=2, h_down_mean=h)
    assert len(records) == 5
    for record in records:
        assert record.value.value == pytest.approx(0.0, abs=1e-5), record.definition
        assert record.p_change < 0.05, record.definition


def test_a_random_edit_of_equal_norm_is_seen_no_more_often_than_chance() -> None:
    vanilla, toxic, h = random_model()
    removed = vanilla - torch.outer(vanilla @ toxic, toxic)
    norm = (removed - vanilla).norm()
    region = Region.of(vanilla, all_directions(toxic), layer=0, h_down_mean=h, n_null=1000)
    seen = np.zeros(len(region.prepared))
    trials = 100
    for seed in range(trials):
        noise = torch.randn(vanilla.shape, generator=torch.Generator().manual_seed(100 + seed))
        records = region.measure("drift", [vanilla + norm * noise / noise.norm()]).toxicity
        seen += [record.p_change < 0.05 for record in records]
    assert (seen <= 12).all(), seen  # P(more than 12 of 100 at a rate of .05) = .002
    assert seen.sum() > 0  # the test can fail the other way too: a p-value stuck at 1 would pass the line above


def test_a_drift_inside_the_space_of_the_hidden_states_is_caught_by_the_shaped_null_only() -> None:
    """Hidden states and edit share 4 of 64 dimensions, where chance is larger than evenly spread chance."""
    vanilla, _, _ = random_model()
    generator = torch.Generator().manual_seed(3)
    basis = torch.linalg.qr(torch.randn(64, 4, generator=generator)).Q.T
    features = torch.randn(200, 4, generator=generator) @ basis
    isotropic, shaped = [], []
    for seed in range(30):
        inside = torch.Generator().manual_seed(seed)
        toxic = torch.randn(4, generator=inside) @ basis
        edit = vanilla + 0.5 * torch.randn(256, 4, generator=inside) @ basis
        region = Region.of(vanilla, {PROBE: toxic}, layer=0, features=features, n_null=400, definitions=(MeanCosine(),))
        [record] = region.measure("drift", [edit]).toxicity
        isotropic.append(record.p_change)
        assert record.p_change_shaped is not None
        shaped.append(record.p_change_shaped)
    assert np.mean(np.array(isotropic) < 0.05) > 0.4
    assert np.mean(np.array(shaped) < 0.05) < 0.2


def test_several_edits_are_streamed_and_averaged_with_an_interval() -> None:
    vanilla, toxic, h = random_model()
    region = Region.of(vanilla, all_directions(toxic), layer=0, h_down_mean=h)
    alive: list[int] = []

    def edits():
        for strength in (0.5, 1.0, 1.5):
            alive.append(1)
            yield vanilla - strength * torch.outer(vanilla @ toxic, toxic)

    measured = region.measure("dinm", edits())
    assert len(alive) == 3
    record = measured.toxicity[2]
    write = float(h @ vanilla @ toxic)
    assert record.change.value == pytest.approx(-write, rel=1e-4)
    assert record.change.n == record.value.n == 3
    low, high = sorted([-0.5 * write, -1.5 * write])
    assert low - 1e-3 <= record.change.low < record.change.high <= high + 1e-3
    assert "over edits" in record.change.how
    assert measured.weight_change.low < measured.weight_change.value < measured.weight_change.high


def test_the_null_of_several_edits_is_the_mean_over_edits_for_each_direction() -> None:
    """Two opposite edits cancel, for the toxic direction and for every random one alike."""
    vanilla, toxic, h = random_model()
    delta = torch.outer(vanilla @ toxic, toxic)
    region = Region.of(vanilla, {PROBE: toxic}, layer=0, h_down_mean=h, definitions=(WeightedWrite(),))
    [record] = region.measure("m", [vanilla + delta, vanilla - delta]).toxicity
    assert record.change.value == pytest.approx(0.0, abs=1e-4)
    assert record.null_change.std < 1e-4 < record.null_vanilla.std


def test_two_sided_p_counts_from_the_centre_of_the_null_and_is_never_zero() -> None:
    null = np.array([-1.0, -1.0, 1.0, 1.0])
    assert two_sided_p(5.0, null) == pytest.approx(1 / 5)
    assert two_sided_p(1.0, null) == 1.0
    assert two_sided_p(-5.0, null - 5) == 1.0


def test_directions_are_unit_seeded_and_even() -> None:
    a, b = random_directions(8, 2000, 0), random_directions(8, 2000, 0)
    assert torch.equal(a, b)
    assert not torch.equal(a, random_directions(8, 2000, 1))
    torch.testing.assert_close(a.norm(dim=1), torch.ones(2000))
    assert float((a.T @ a / 2000 - torch.eye(8) / 8).abs().max()) < 0.02
    flat = shaped_directions(torch.tensor([[1.0, 0, 0], [-1.0, 0, 0], [0, 2.0, 0], [0, -2.0, 0]]), 100, 0)
    assert float(flat[:, 2].abs().max()) == 0.0


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: Region.of(W, {PROBE: torch.ones(3)}, layer=0), r"'probe' of shape \[2\], got \[3\]"),
        (lambda: Region.of(W, {PROBE: torch.zeros(2)}, layer=0), "finite non-zero direction 'probe'"),
        (lambda: Region.of(W, {"else": torch.ones(2)}, layer=0), r"no definition can be computed.*\['else'\]"),
        (lambda: Region.of(W, TOXIC, layer=0, h_down_mean=torch.ones(2)), r"h_down_mean of shape \[3\], got \[2\]"),
        (lambda: Region.of(W, TOXIC, layer=0, n_null=0), "at least one random direction"),
        (lambda: Region.of(W * math.nan, TOXIC, layer=4), "finite value vectors at layer 4"),
        (lambda: by_hand().measure("m", []), "at least one weight matrix of m, got none"),
        (lambda: by_hand().measure("m", [W.T]), r"of shape \[3, 2\], got \[2, 3\]"),
        (lambda: by_hand().measure("m", [W * math.inf]), "finite value vectors of m"),
    ],
)
def test_bad_input_is_told_in_one_line(call, said: str) -> None:
    with pytest.raises(InputError, match=said):
        call()
