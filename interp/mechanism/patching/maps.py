"""The analysis of activation patching: panels and words from the patches of `activations`; it runs nothing else."""

from __future__ import annotations

import time

import numpy as np
from jaxtyping import Float

from interp.mechanism.lab import Analysis, Subject
from interp.mechanism.patching.activations import GRIDS, OWN_ROLES, PLACES, Patched, all_patches, effects
from interp.mechanism.several import of_edits
from interp.mechanism.shares import CALIBRATED, compliance_drop
from interp.records import Bars, Curve, Curves, Estimate, Finding, Grid

NAMES = {
    "resid_pre": "residual stream",
    "resid_mid": "stream between attention and MLP",
    "resid_post": "stream after the block",
    "attn_out": "attention output",
    "mlp_out": "MLP output",
    "h_down": "inputs of W_V",
}
NO_EFFECT = "no effect to divide"
SHARE = "share of the difference between the models"
INTO_MODEL, INTO_VANILLA = "vanilla's into the model", "the model's into vanilla"


def divisible(subject: Subject, vanilla: Subject) -> tuple[bool, str]:
    """Whether the models differ enough for shares of the difference (the gate of the four shares), and the numbers."""
    drop = compliance_drop(vanilla.margins(), subject.margins(), seed=subject.lab.seed)
    text = f"complying first tokens fell by {drop.value:.0f} points [{drop.low:.0f}, {drop.high:.0f}]"
    return drop.low >= CALIBRATED.gate, text


def undivided(finding: Finding) -> list[str]:
    """What the facts tell of models without an effect; of several edits, of each that has none."""
    found = []
    for name, fact in finding.facts.items():
        without = [said for said in fact.split("; ") if NO_EFFECT in said]  # edits that differ are told one by one
        found += [f"{name}: {', '.join(without)}"] if without else []
    return found


def measure(subject: Subject, vanilla: Subject) -> Finding:
    """About 60 forwards per batch on average half as deep as the model, for 6 layers; nothing of vanilla itself."""
    started, lab = time.perf_counter(), subject.lab
    curves: list[Curves] = []
    bars: tuple[Bars, ...] = ()
    grids: tuple[Grid, ...] = ()
    facts: dict[str, str] = {}
    wide, said = divisible(subject, vanilla)
    if subject is not vanilla and not wide:
        facts[subject.name] = f"{NO_EFFECT}: {said}"
    elif subject is not vanilla:
        found = all_patches(subject, vanilla)
        curves = _curves(subject, found)
        series: dict[str, tuple[Estimate | None, ...]] = {
            role: tuple(effects(found.model, found.vanilla, found.roles[role], lab.seed)) for role in OWN_ROLES
        }
        bars = (Bars(f"residual stream into block {lab.layer}, by role of position", SHARE, (subject.name,), series),)
        grids = tuple(_grid(subject, found, place) for place in GRIDS)
    return Finding(
        name="patching",
        title="Activation patching between the models",
        question="At which layer and position does the activation that changes the answer sit?",
        reading="",
        how_to_read="Vanilla's activation is put into the model (and the model's into vanilla) on the same tokens: 0 "
        "leaves the receiver as it is, 1 makes it the donor. Where the residual stream's curve jumps from one layer to "
        "the next, the block between makes the change. Grey: a random change of the same size. Bootstrap 95 % over "
        "prompts.",
        limits="Shares of places that work together do not add up. A patch shows what an activation carries, not which "
        "weights made it. Only the first answer token is read. Models without an effect are not divided.",
        n=len(lab.instances),
        seed=lab.seed,
        source="Prakash et al. 2024 (cross-model activation patching)",
        curves=tuple(curves),
        bars=bars,
        grids=grids,
        facts=facts,
        seconds=time.perf_counter() - started,
    )


def title(place: str, direction: str) -> str:
    """The panel of a place: equal for all models, so that they share it."""
    return f"{NAMES[place]}, {direction}"


def _curves(subject: Subject, found: Patched) -> list[Curves]:
    seed, marked = subject.lab.seed, (float(subject.lab.layer),)

    def curve(name: str, receiver: np.ndarray, donor: np.ndarray, after: np.ndarray, control: bool = False) -> Curve:
        layers = tuple(float(at) for at in range(after.shape[1]))
        return Curve(name, layers, tuple(effects(receiver, donor, after, seed)), control)

    panels = []
    for place in PLACES:
        there = curve(subject.name, found.model, found.vanilla, found.into_model[place])
        chance = curve(f"random, {subject.name}", found.model, found.vanilla, found.random[place], control=True)
        back = curve(subject.name, found.vanilla, found.model, found.into_vanilla[place])
        panels += [
            Curves(title(place, INTO_MODEL), "layer (0-based)", SHARE, (there, chance), marked),
            Curves(title(place, INTO_VANILLA), "layer (0-based)", SHARE, (back,), marked),
        ]
    return panels


def _grid(subject: Subject, found: Patched, place: str) -> Grid:
    margins = found.last[place]
    layers, backs = margins.shape[1:]
    flat = effects(found.model, found.vanilla, margins.reshape(len(margins), -1), subject.lab.seed)
    return grid_of(subject, f"{NAMES[place]}, one position", np.array([e.value for e in flat]).reshape(layers, backs))


def grid_of(subject: Subject, what: str, values: Float[np.ndarray, "layer back"]) -> Grid:
    """Layer x position, the last position on the right."""
    layers, backs = values.shape
    return Grid(
        f"{subject.name}: {what}",
        "position from the end",
        "layer (0-based)",
        tuple("last" if back == 0 else f"-{back}" for back in reversed(range(backs))),
        tuple(str(at) for at in range(layers)),
        values[:, ::-1].copy(),
        SHARE,
        len(subject.lab.instances),
        signed=True,
        marked=tuple((subject.lab.layer, back) for back in (backs - 1,)),
    )


def words(finding: Finding) -> str:
    """Per model: the block over which the residual stream's share jumps, and the part that carries most by itself."""
    panels = {p.title: p for p in finding.curves}
    stream = panels.get(title("resid_pre", INTO_MODEL))
    said = undivided(finding)
    for curve in [] if stream is None else stream.curves:
        if curve.control:
            continue
        y = [e.value for e in curve.y]
        jumps = [b - a for a, b in zip(y, [*y[1:], 1.0], strict=True)]
        at = int(np.argmax(jumps))
        parts = []
        for place in ("attn_out", "mlp_out"):
            panel = panels[title(place, INTO_MODEL)]
            mine = next(c for c in panel.curves if c.name == curve.name)
            chance = next(c for c in panel.curves if c.name == f"random, {curve.name}")
            best = int(np.argmax([e.value for e in mine.y]))
            top = mine.y[best]
            beyond = "" if top.low > max(chance.y[best].high, 0.0) else ", not clear of chance"
            parts.append(
                f"the {NAMES[place]} of layer {best} alone {100 * top.value:.0f} % "
                f"[{100 * top.low:.0f}, {100 * top.high:.0f}]{beyond}"
            )
        said.append(
            f"{of_edits(curve.name, curve.y[at])}: the largest part of the change is made in block {at} "
            f"({100 * jumps[at]:.0f} % between its input and its output); {', '.join(parts)}"
        )
    return f"{'; '.join(said)}." if said else "Only vanilla was measured: there is nothing to patch."


PATCHING = Analysis("patching", measure, words)
