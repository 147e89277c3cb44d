"""How alike two models' residual streams are, layer by layer: CKA, principal angles, and the shift of the mean.

Linear CKA (Kornblith et al. 2019, arXiv 1905.00414, Eq. 6) compares which prompts are alike in both models. Its usual
estimate is biased upwards where there are fewer prompts than dimensions, so the unbiased one of Song et al. 2012 is
used; shuffled prompts give 0 by it. Principal angles compare the planes in which the prompts vary. Both take the mean
away and so do not see a shift that is the same for every prompt, which is what steering is: its size stands beside
them. They are read at the last prompt token (`Subject.last`), and CKA also on the mean over each prompt's tokens, which
the end that all prompts share does not dominate; weights are in `spectra`.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from weakref import WeakKeyDictionary

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from interp.capture import capture
from interp.errors import InputError
from interp.mechanism.lab import Analysis, Subject
from interp.mechanism.neurons import between
from interp.records import Curve, Curves, Estimate, Finding

PLANE = 5
"""Principal components of a plane."""
SHUFFLES = 100
SPLITS = 20
FOLDS = 50
"""At most so many groups of prompts are left out in turn for the jackknife."""
CKA, ANGLE, SHIFT = "Linear CKA with vanilla", "Mean principal angle to vanilla's plane", "Shift of the mean"
CKA_MEAN = "Linear CKA with vanilla, mean over the prompt's tokens"
SHUFFLED, HALVES = "shuffled prompts", "vanilla, two halves of the prompts"


def hsic(K: Float[Tensor, "n n"], L: Float[Tensor, "n n"]) -> float:
    """The unbiased estimate of the Hilbert-Schmidt independence criterion (Song et al. 2012, Eq. 5).

    Args:
        K: inner products of n inputs in one space, float64.
        L: the same inputs in another.

    Raises:
        InputError: fewer than 4 inputs.
    """
    n = len(K)
    if n < 4:
        raise InputError(f"expected at least 4 prompts for an unbiased CKA, got {n}")
    K, L = K - torch.diag(K.diag()), L - torch.diag(L.diag())
    a, b = K.sum(dim=0), L.sum(dim=0)
    total = (K * L).sum() + a.sum() * b.sum() / ((n - 1) * (n - 2)) - 2 * (a @ b) / (n - 2)
    return float(total) / (n * (n - 3))


def cka(x: Float[Tensor, "n d"], y: Float[Tensor, "n e"]) -> float:
    """Unbiased linear CKA of n inputs in two spaces: 1 where they are the same up to rotation, shift and scale.

    About 0 where they have nothing to do with each other (it may be negative); 0 where one space does not vary.
    """
    K, L = _gram(x), _gram(y)
    return _cka(K, L)


def _gram(x: Tensor) -> Float[Tensor, "n n"]:
    centred = x.double() - x.double().mean(dim=0)
    return centred @ centred.T


def _cka(K: Tensor, L: Tensor) -> float:
    size = hsic(K, K) * hsic(L, L)
    return hsic(K, L) / size**0.5 if size > 0 else 0.0


def plane(x: Float[Tensor, "n d"], q: int = PLANE) -> Float[Tensor, "d k"]:
    """An orthonormal basis of the first q principal components of centred rows (fewer where there are fewer)."""
    centred = x.double() - x.double().mean(dim=0)
    rank = min(q, len(x) - 1, x.shape[1])
    return torch.linalg.svd(centred, full_matrices=False).Vh[:rank].T


def mean_angle(a: Float[Tensor, "d k"], b: Float[Tensor, "d k"]) -> float:
    """Mean of the principal angles between two planes, degrees (Bjorck and Golub 1973): 0 the same, 90 orthogonal.

    From sines where they are small: the cosine alone cannot tell an angle below 1e-8 from none.
    """
    cosine = torch.linalg.svdvals(a.T @ b).clamp(0, 1)
    sine = torch.linalg.svdvals(b - a @ (a.T @ b)).clamp(0, 1).flip(0)
    return float(torch.rad2deg(torch.where(cosine**2 < 0.5, cosine.acos(), sine.asin())).mean())


def relative_shift(new: Float[Tensor, "n d"], old: Float[Tensor, "n d"]) -> float:
    """Distance between the mean states over the root mean square distance of the old states from their mean."""
    moved = (new.double() - old.double()).mean(dim=0).norm()
    spread = (old.double() - old.double().mean(dim=0)).norm() / len(old) ** 0.5
    return float(moved / spread) if spread > 0 else 0.0


def measure(subject: Subject, vanilla: Subject) -> Finding:
    """The likeness of `subject` to vanilla on the attacked prompts, layer by layer."""
    started, lab, name = time.perf_counter(), vanilla.lab, subject.name
    new, old = subject.last("resid_post"), vanilla.last("resid_post")
    if len(new) < 8:
        raise InputError(f"expected at least 8 prompts to compare the geometry of two models, got {len(new)}")
    panels: tuple[Curves, ...] = ()
    if subject is not vanilla:
        whole = _cka_panel(CKA_MEAN, name, mean_of(subject), mean_of(vanilla), lab.seed)
        first, *others = _panels(name, new, old, lab.seed)
        panels = (first, whole, *others)
    return Finding(
        name="geometry",
        title="Geometry of the residual stream",
        question="In which layers does a model still see the attacked prompts as vanilla does?",
        reading="",
        how_to_read="CKA 1: the same prompts are alike; 0: as if the prompts were shuffled. The angle is 0 for the "
        "same plane; two halves of vanilla's own prompts show what the choice of prompts alone makes of it. The shift "
        "of the mean is in units of vanilla's own spread over prompts.",
        limits="CKA and angles say nothing about a shift common to all prompts, and little about directions in which "
        "the prompts hardly vary, however much they matter. Angle and shift: last prompt token only. A layer that "
        "looks alike may still differ for other prompts.",
        n=len(new),
        seed=lab.seed,
        source="Kornblith et al. 2019 (arXiv 1905.00414); Song et al. 2012 for the unbiased estimate",
        curves=panels,
        facts={"bias": f"unbiased HSIC with n = {len(new)} prompts in {new.shape[2]} dimensions; {PLANE} components"},
        seconds=time.perf_counter() - started,
    )


def _panels(
    name: str, new: Float[Tensor, "n layer d"], old: Float[Tensor, "n layer d"], seed: int
) -> tuple[Curves, ...]:
    layers = range(new.shape[1])
    x = tuple(float(i) for i in layers)
    rng = np.random.default_rng(seed)
    orders = [torch.tensor(rng.permutation(len(new))) for _ in range(SPLITS)]
    angle, halves, shift = [], [], []
    for layer in layers:
        a, b = new[:, layer], old[:, layer]
        angle.append(_angle(a, b, orders))
        parts = [mean_angle(plane(b[order[::2]]), plane(b[order[1::2]])) for order in orders]
        halves.append(between(np.array(parts), "degrees", "splits of the prompts"))
        shift.append(jackknife(lambda keep, a=a, b=b: relative_shift(a[keep], b[keep]), len(a), "of the spread"))
    return (
        _cka_panel(CKA, name, new, old, seed),
        Curves(ANGLE, "layer", "degrees", (
            Curve(name, x, tuple(angle)), Curve(HALVES, x, tuple(halves), control=True))),
        Curves(SHIFT, "layer", "of the spread over prompts", (Curve(name, x, tuple(shift)),)),
    )  # fmt: skip


def _cka_panel(
    title: str, name: str, new: Float[Tensor, "n layer d"], old: Float[Tensor, "n layer d"], seed: int
) -> Curves:
    """CKA of every layer beside that of shuffled prompts."""
    rng, alike, shuffled = np.random.default_rng(seed), [], []
    orders = [torch.tensor(rng.permutation(len(new))) for _ in range(SHUFFLES)]
    for layer in range(new.shape[1]):
        K, L = _gram(new[:, layer]), _gram(old[:, layer])
        alike.append(jackknife(lambda keep, K=K, L=L: _cka(K[keep][:, keep], L[keep][:, keep]), len(new), "CKA"))
        draws = np.array([_cka(K, L[order][:, order]) for order in orders])
        shuffled.append(between(draws, "CKA", "shuffles of the prompts"))
    x = tuple(float(i) for i in range(new.shape[1]))
    curves = Curve(name, x, tuple(alike)), Curve(f"{SHUFFLED}, {name}", x, tuple(shuffled), control=True)
    return Curves(title, "layer", "CKA", curves)


def mean_of(subject: Subject) -> Float[Tensor, "prompt layer d_model"]:
    """Residual stream after every block, mean over the tokens of each attack prompt; taken once, on the CPU."""
    if subject not in _means:
        model, lab = subject.model, subject.lab
        texts = [model.format_prompt(q) for q in lab.queries()]
        got = capture(model, texts, "resid_post", pool="mean", batch_size=lab.batch_size)
        _means[subject] = got.stack("resid_post").transpose(0, 1).float()
    return _means[subject]


_means: WeakKeyDictionary[Subject, Tensor] = WeakKeyDictionary()


def _angle(new: Float[Tensor, "n d"], old: Float[Tensor, "n d"], orders: list[Tensor]) -> Estimate:
    """The angle with the range of half the prompts: it jumps where components change places, so no jackknife."""
    value, size = mean_angle(plane(new), plane(old)), min(len(new), max(len(new) // 2, PLANE + 2))
    draws = [mean_angle(plane(new[order[:size]]), plane(old[order[:size]])) for order in orders]
    low, high = np.quantile(draws, [0.025, 0.975])
    how = f"central 95 % of {len(draws)} random subsets of {size} prompts"
    return Estimate(value, min(value, float(low)), max(value, float(high)), len(new), "degrees", how)


def jackknife(statistic: Callable[[Tensor], float], n: int, unit: str) -> Estimate:
    """A statistic of prompts with a 95 % interval from leaving groups of them out in turn.

    A bootstrap would repeat prompts, and a repeated prompt is perfectly like itself in any two models.

    Args:
        statistic: kept indices (a long tensor) -> a number.
        n: prompts.
        unit: of the number.
    """
    folds = min(n, FOLDS)
    every = torch.arange(n)
    value = float(statistic(every))
    left = np.array([statistic(every[every % folds != fold]) for fold in range(folds)])
    half = 1.96 * float(np.sqrt((folds - 1) / folds * ((left - left.mean()) ** 2).sum()))
    return Estimate(value, value - half, value + half, n, unit, f"jackknife 95 % over prompts, {folds} groups")


def read(finding: Finding) -> str:
    """Per model: where it is least like vanilla, and how that compares with chance."""
    if not finding.curves:
        return "There is no model to compare with vanilla."
    curves = {p.title: {c.name: c for c in p.curves} for p in finding.curves}
    said = []
    for name, curve in curves[CKA].items():
        if curve.control:
            continue
        layer = int(np.argmin([e.value for e in curve.y]))
        moved = max(curves[SHIFT][name].y, key=lambda e: e.value)
        if moved.value == 0:
            said.append(f"{name} has vanilla's residual stream")
            continue
        low, chance = curve.y[layer], curves[CKA][f"{SHUFFLED}, {name}"].y[layer].high
        mean = curves[CKA_MEAN][name].y[layer]
        angle, halves = (curves[ANGLE][key].y[layer].value for key in (name, HALVES))
        said.append(
            f"{name} is least like vanilla after layer {layer} (CKA {low.value:.3f} [{low.low:.3f}, {low.high:.3f}], "
            f"on means over tokens {mean.value:.3f} [{mean.low:.3f}, {mean.high:.3f}], "
            f"shuffled up to {chance:.2f}; planes {angle:.0f} degrees apart, two halves of the prompts {halves:.0f}); "
            f"its mean moves by up to {moved.value:.2f} [{moved.low:.2f}, {moved.high:.2f}] of the spread over prompts"
        )
    return ". ".join(said) + "."


GEOMETRY = Analysis("geometry", measure, read)
"""CKA, principal angles and the shift of the mean between vanilla and each model."""
