"""The four neuron groups through which a model writes less along the toxic direction, in activations and in weights.

After Yang et al. 2024 (arXiv 2411.06424). Neuron i of vanilla is toxic (T) where its value vector has a positive cosine
with the probe's toxic row, else anti-toxic (A), and positive (P) or negative (N) by the sign of its mean activation.
Of each kind, those that changed so that less is written along the toxic direction are a group:

    TP-  toxic, less positive        AP+  anti-toxic, more positive
    TN+  toxic, more negative        AN-  anti-toxic, less negative

They judge the direction of change by the activation alone, which is blind to an edit of the value vectors. Here it is
the change of the write, c_i = mean over prompts of (h_m v_m - h_0 v_0) . t with the unit direction t: the same group
where v did not change. It is parted exactly into activations, (h_m - h_0) (v_0 + v_m)/2 . t, and weights,
(v_m - v_0) (h_0 + h_m)/2 . t: the Shapley values of the two. They average over generated tokens; here h is taken at the
last prompt token, where the answer is decided. Directions with the residual stream's covariance are the control.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.mechanism.intervals import of_means
from interp.mechanism.lab import Analysis, Subject
from interp.mechanism.neurons import between, null_directions
from interp.mechanism.region import two_sided_p, unit_rows
from interp.records import Bars, Curve, Curves, Estimate, Finding

GROUPS = ("TP-", "TN+", "AP+", "AN-")
RAISING = "raising"
"""All neurons that write more along the direction than before (or just as much)."""
POINTS = 24
"""Places on the cumulative curve, evenly spaced on the logarithm of the number of neurons."""
UNIT = "residual stream units"
NET, SHARE, CAUSE, CUMULATIVE, LAYERS = (
    "Change of the MLPs' write along the toxic direction",
    "Share of what the four groups take away",
    "Through activations or through weights",
    "Cumulative change, neurons sorted by contribution",
    "Change of the write by layer",
)


@dataclass(frozen=True)
class Changes:
    """What every neuron adds to the change along one direction, per prompt; the two parts sum to the change."""

    activations: Float[np.ndarray, "prompt neuron"]
    weights: Float[np.ndarray, "prompt neuron"]
    group: Int[np.ndarray, "neuron"]
    """Index into GROUPS; 4 for the raising ones."""

    @property
    def total(self) -> Float[np.ndarray, "prompt neuron"]:
        """Change of the write of each neuron."""
        return self.activations + self.weights


def group_of(
    toxicity: Float[np.ndarray, "*n"], activation: Float[np.ndarray, "*n"], change: Float[np.ndarray, "*n"]
) -> Int[np.ndarray, "*n"]:
    """Index into (*GROUPS, RAISING).

    Args:
        toxicity: v_0 . t of each neuron of vanilla; only its sign counts.
        activation: its mean activation on vanilla.
        change: of its mean write along t; a neuron of a group has a negative one.
    """
    kind = np.where(toxicity > 0, 0, 2) + np.where(activation >= 0, 0, 1)
    return np.where(change < 0, kind, 4)


def changes(
    h_old: Float[Tensor, "prompt neuron"],
    h_new: Float[Tensor, "prompt neuron"],
    v_old: Float[Tensor, "neuron"],
    v_new: Float[Tensor, "neuron"],
) -> Changes:
    """The exact split of h_new v_new - h_old v_old, in float64.

    Args:
        h_old: activations of vanilla.
        h_new: activations of the model.
        v_old: vanilla's value vectors times the unit direction.
        v_new: the model's.
    """
    h0, h1, v0, v1 = (x.double().numpy() for x in (h_old, h_new, v_old, v_new))
    activations, weights = (h1 - h0) * (v0 + v1) / 2, (v1 - v0) * (h0 + h1) / 2
    return Changes(activations, weights, group_of(v0, h0.mean(axis=0), (activations + weights).mean(axis=0)))


@dataclass(frozen=True)
class _Sums:
    """Sums over neurons, per prompt for the toxic direction and of prompt means for the random ones."""

    activations: Float[np.ndarray, "prompt 5"]
    weights: Float[np.ndarray, "prompt 5"]
    layers: Float[np.ndarray, "prompt layer"]
    curve: Float[np.ndarray, "prompt point"]
    counts: Int[np.ndarray, "point"]
    """Neurons up to each point of the curve."""
    null_groups: Float[np.ndarray, "direction 5"]
    null_layers: Float[np.ndarray, "direction layer"]
    null_curve: Float[np.ndarray, "direction point"]


def _sums(subject: Subject, vanilla: Subject) -> _Sums:
    """Everything the panels need, layer by layer. Memory: 4 bytes x all neurons x random directions."""
    toxic = unit_rows(vanilla.lab.toxic.float().cpu()[None])
    directions = torch.cat([toxic, null_directions(vanilla)]).double()
    h0, h1 = vanilla.last("h_down"), subject.last("h_down")
    own: list[Changes] = []
    null, groups = [], []
    for layer in range(h0.shape[1]):
        v0, v1 = (m.value_vectors(layer).double().cpu() @ directions.T for m in (vanilla.model, subject.model))
        own.append(changes(h0[:, layer], h1[:, layer], v0[:, 0], v1[:, 0]))
        old = h0[:, layer].double().mean(dim=0)[:, None]
        new = h1[:, layer].double().mean(dim=0)[:, None]
        moved = (new * v1 - old * v0)[:, 1:].numpy()
        signs = group_of(v0[:, 1:].numpy(), np.broadcast_to(old.numpy(), moved.shape), moved)
        groups.append(np.stack([np.where(signs == g, moved, 0.0).sum(axis=0) for g in range(5)], axis=1))
        null.append(moved.astype(np.float32))
    every = np.concatenate([c.total.mean(axis=0) for c in own])
    counts = np.unique(np.geomspace(1, len(every), POINTS).astype(int))
    rank = np.empty(len(every), dtype=int)
    rank[np.argsort(every, kind="stable")] = np.arange(len(every))
    point = np.searchsorted(counts, rank, side="right")
    sizes = np.cumsum([0, *(len(c.group) for c in own)])
    steps = [c.total @ np.eye(len(counts))[point[a:b]] for c, a, b in zip(own, sizes, sizes[1:], strict=False)]
    ordered = np.sort(np.concatenate(null), axis=0).cumsum(axis=0, dtype=np.float64)
    return _Sums(
        np.sum([c.activations @ np.eye(5)[c.group] for c in own], axis=0),
        np.sum([c.weights @ np.eye(5)[c.group] for c in own], axis=0),
        np.stack([c.total.sum(axis=1) for c in own], axis=1),
        np.cumsum(np.sum(steps, axis=0), axis=1),
        counts,
        np.sum(groups, axis=0),
        np.stack([n.sum(axis=0, dtype=np.float64) for n in null], axis=1),
        ordered[counts - 1].T,
    )


def measure(subject: Subject, vanilla: Subject) -> Finding:
    """Which neurons of `subject` write less along the toxic direction than vanilla's, and why."""
    blank = Finding(
        name="neuron_groups",
        title="Neuron groups",
        question="Which neurons write less along the toxic direction, by their activations or by their weights?",
        reading="",
        how_to_read="Each neuron's write along the toxic direction is compared with vanilla's. Four groups write less; "
        "the others more, and the two sides nearly cancel. Beside each model is what random directions give: only a "
        "net change outside it is about toxicity.",
        limits="The groups are chosen by the sign of what they are then said to do, so any change, and any direction, "
        "has four groups that take away. A write along the probe's row is not the behaviour: see the shares for "
        "causes. Biases and norms behind the MLP (Gemma2) are left out, attention's writes too.",
        n=len(vanilla.lab.instances),
        seed=vanilla.lab.seed,
        source="Yang et al. 2024 (arXiv 2411.06424), Sec. 5",
    )
    return blank if subject is vanilla else _panels(blank, subject, vanilla)


def _panels(blank: Finding, subject: Subject, vanilla: Subject) -> Finding:
    started, lab, s, name = time.perf_counter(), vanilla.lab, _sums(subject, vanilla), subject.name
    options = {"over": "prompts", "seed": lab.seed}
    groups = of_means(s.activations + s.weights, _with_net, unit=UNIT, **options)
    shares = of_means(s.activations + s.weights, _shares, unit="%", **options)
    parts = [of_means(x, _with_net, unit=UNIT, **options) for x in (s.activations, s.weights)]
    null_net = s.null_groups.sum(axis=1)
    chance, names = f"{name}, random", (*GROUPS, RAISING, "net")
    nulls = [between(column, UNIT) for column in _with_net(s.null_groups).T]
    null_shares = [between(column, "%") for column in _shares(s.null_groups).T]
    x, layers = tuple(float(n) for n in s.counts), tuple(float(i) for i in range(s.layers.shape[1]))
    p = two_sided_p(groups[-1].value, null_net)
    return replace(
        blank,
        bars=(
            Bars(NET, UNIT, (name, chance), _series(names, groups, nulls)),
            Bars(SHARE, "%", (name, chance), _series(GROUPS, shares, null_shares), stacked=True),
            Bars(CAUSE, UNIT, tuple(f"{name} {g}" for g in names),
                 {"activations": tuple(parts[0]), "weights": tuple(parts[1])}, stacked=True),
        ),
        curves=(
            Curves(CUMULATIVE, "neurons, most lowering first", UNIT, (
                Curve(name, x, tuple(of_means(s.curve, lambda m: m, unit=UNIT, **options))),
                Curve(chance, x, tuple(between(c, UNIT) for c in s.null_curve.T), control=True),
            ), log_x=True),
            Curves(LAYERS, "layer", UNIT, (
                Curve(name, layers, tuple(of_means(s.layers, lambda m: m, unit=UNIT, **options))),
                Curve(chance, layers, tuple(between(c, UNIT) for c in s.null_layers.T), control=True),
            ), marked=(float(lab.toxic_layer),)),
        ),
        facts={f"{name}: net change against random directions": f"p = {p:.3f} (two-sided, {len(null_net)} directions)"},
        seconds=time.perf_counter() - started,
    )  # fmt: skip


def _series(
    names: tuple[str, ...], own: list[Estimate], null: list[Estimate]
) -> dict[str, tuple[Estimate | None, ...]]:
    return {name: (value, chance) for name, value, chance in zip(names, own, null, strict=True)}


def _with_net(sums: Float[np.ndarray, "*r 5"]) -> Float[np.ndarray, "*r 6"]:
    return np.concatenate([sums, sums.sum(axis=-1, keepdims=True)], axis=-1)


def _shares(sums: Float[np.ndarray, "*r 5"]) -> Float[np.ndarray, "*r 4"]:
    """Percent of the four groups' sum; 0 where nothing was taken away."""
    taken = sums[..., :4].sum(axis=-1, keepdims=True)
    return np.where(taken == 0, 0.0, 100 * sums[..., :4] / np.where(taken == 0, 1.0, taken))


def read(finding: Finding) -> str:
    """Per model: the net change against chance, which group did most of it, and how much the weights did."""
    if not finding.bars:
        return "There is no model to compare with vanilla."
    net, share, cause = (next(b for b in finding.bars if b.title == t) for t in (NET, SHARE, CAUSE))
    said = []
    for i in range(0, len(net.groups), 2):
        name, value, null = net.groups[i], net.series["net"][i], net.series["net"][i + 1]
        if value is None or null is None:
            continue
        if value.value == null.low == null.high == 0:
            said.append(f"{name} writes what vanilla writes")
            continue
        inside = "within" if null.low <= value.value <= null.high else "outside"
        group = max(GROUPS, key=lambda g, i=i: e.value if (e := share.series[g][i]) else 0.0)
        most, where = share.series[group][i], cause.groups.index(f"{name} net")
        active, weights = cause.series["activations"][where], cause.series["weights"][where]
        chance = share.series[group][i + 1]
        if most is None or active is None or weights is None or chance is None:
            continue
        said.append(
            f"{name} changes the write along the toxic direction by {value.value:+.3f} [{value.low:+.3f}, "
            f"{value.high:+.3f}], {inside} the {null.low:+.3f} to {null.high:+.3f} of random directions: "
            f"{active.value:+.3f} through activations and {weights.value:+.3f} through weights. {group} makes up "
            f"{most.value:.0f} % of what is taken away, {_beside(most, chance)} the {chance.low:.0f} to "
            f"{chance.high:.0f} % that it makes up along random directions"
        )
    return ". ".join(said) + "."


def _beside(value: Estimate, chance: Estimate) -> str:
    return "within" if chance.low <= value.value <= chance.high else "outside"


NEURON_GROUPS = Analysis("neuron_groups", measure, read)
"""The four groups, and activations against weights."""
