"""CKA, angles and shifts: exact where the truth is known, zero where there is nothing to find."""

from __future__ import annotations

import pytest
import torch
from tiny_lab import again, noise, small_lab, variant

from interp.errors import InputError
from interp.mechanism.geometry import (
    ANGLE,
    CKA,
    GEOMETRY,
    HALVES,
    SHIFT,
    cka,
    hsic,
    jackknife,
    mean_angle,
    plane,
    relative_shift,
)
from interp.mechanism.lab import Subject, merge


def gaussian(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_cka_is_one_under_rotation_shift_and_scale_and_about_zero_for_strangers() -> None:
    x = gaussian(30, 8)
    turn = torch.linalg.qr(gaussian(8, 8, seed=1)).Q
    assert cka(x, 3 * x @ turn + 5) == pytest.approx(1.0, abs=1e-5)
    strangers = [cka(gaussian(12, 64, seed=2 * i), gaussian(12, 64, seed=2 * i + 1)) for i in range(40)]
    assert abs(sum(strangers) / 40) < 0.05  # the biased estimate is above .8 here
    assert cka(x, torch.ones(30, 8)) == 0.0


def test_hsic_is_the_mean_over_different_quadruples() -> None:
    x, y = gaussian(6, 3).double(), gaussian(6, 3, seed=1).double()
    K, L = x @ x.T, y @ y.T
    total, count = 0.0, 0
    for i in range(6):
        for j in range(6):
            for q in range(6):
                for r in range(6):
                    if len({i, j, q, r}) == 4:
                        total += float(K[i, j] * (L[i, j] + L[q, r] - 2 * L[i, q]))
                        count += 1
    assert hsic(K, L) == pytest.approx(total / count)
    with pytest.raises(InputError, match="at least 4 prompts"):
        hsic(K[:3, :3], L[:3, :3])


def test_planes_of_a_known_angle_are_that_far_apart() -> None:
    eye, angle = torch.eye(6).double(), torch.deg2rad(torch.tensor(30.0)).double()
    turned = torch.stack([eye[0], angle.cos() * eye[1] + angle.sin() * eye[2]], dim=1)
    assert mean_angle(eye[:, :2], turned) == pytest.approx(15.0)
    assert mean_angle(eye[:, :2], eye[:, :2]) == 0.0
    assert mean_angle(eye[:, :2], eye[:, 2:4]) == pytest.approx(90.0)


def test_the_plane_is_where_the_rows_vary() -> None:
    rows = gaussian(20, 2) @ torch.eye(7)[[1, 4]] * 5 + 3 + 0.01 * gaussian(20, 7, seed=1)
    assert mean_angle(plane(rows, 2), torch.eye(7).double()[:, [1, 4]]) < 1.0
    assert plane(rows[:3], 5).shape == (7, 2)


def test_a_common_shift_is_seen_by_the_mean_and_not_by_cka() -> None:
    x = gaussian(40, 6)
    spread = float((x.double() - x.double().mean(0)).norm()) / 40**0.5
    step = torch.zeros(6)
    step[0] = 2 * spread
    assert relative_shift(x + step, x) == pytest.approx(2.0, abs=1e-4)
    assert cka(x + step, x) == pytest.approx(1.0, abs=1e-6)


def test_the_jackknife_of_a_mean_is_its_standard_error() -> None:
    x = gaussian(30).double()
    found = jackknife(lambda keep: float(x[keep].mean()), 30, "u")
    assert found.high - found.value == pytest.approx(1.96 * float(x.std()) / 30**0.5, rel=1e-6)


def test_a_model_equal_to_vanilla_is_at_one_and_an_edit_shows_from_its_layer_on(tiny_model) -> None:
    vanilla = Subject("vanilla", tiny_model, small_lab(tiny_model, 12))
    edited = variant(vanilla, lambda m: noise(m.value_weight(1)), "edited")
    found = merge([GEOMETRY.measure(s, vanilla) for s in (vanilla, again(vanilla), edited)], GEOMETRY.read)
    panels = {p.title: {c.name: [e.value for e in c.y] for c in p.curves} for p in found.curves}
    assert panels[CKA]["same"] == pytest.approx([1.0] * 3)
    assert panels[ANGLE]["same"] == pytest.approx([0.0] * 3, abs=1e-5)
    assert panels[SHIFT]["same"] == [0.0] * 3
    assert panels[CKA]["edited"][0] == pytest.approx(1.0, abs=1e-6)
    assert panels[SHIFT]["edited"][0] == pytest.approx(0.0, abs=1e-5)
    assert panels[SHIFT]["edited"][1] > 0.01
    assert panels[CKA]["edited"][1] < 0.9999
    assert max(abs(v) for v in panels[CKA]["shuffled prompts, edited"]) < 0.2
    assert min(panels[ANGLE][HALVES]) > 1.0
    assert "same has vanilla's residual stream" in found.reading
    assert "edited is least like vanilla after layer" in found.reading


def test_too_few_prompts_are_one_line(llama) -> None:
    vanilla = Subject("vanilla", llama, small_lab(llama, 5))
    with pytest.raises(InputError, match="at least 8 prompts"):
        GEOMETRY.measure(again(vanilla), vanilla)
