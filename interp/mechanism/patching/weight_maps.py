"""The analysis of weight swaps: one part, one block, all blocks up to a layer; a random change is the control."""

from __future__ import annotations

import time

import numpy as np
import torch
from jaxtyping import Float
from torch import nn

from interp.mechanism.lab import Analysis, Subject
from interp.mechanism.patching.activations import effects
from interp.mechanism.patching.maps import NO_EFFECT, SHARE, divisible, undivided
from interp.mechanism.patching.weights import COMPONENTS, Part, Receiver, donated
from interp.mechanism.several import of_edits
from interp.models import HookedModel
from interp.records import Curve, Curves, Finding, Grid

UP, DOWN, BLOCK = "vanilla's weights up to a block", "vanilla's weights from a block on", "one block's weights"
ROWS = (*COMPONENTS, "block")


def measure(subject: Subject, vanilla: Subject) -> Finding:
    """Up to 2 x layers x 5 swaps and 3 x layers further ones; what is equal in both models costs no forward."""
    started, lab, model = time.perf_counter(), subject.lab, subject.model
    curves: tuple[Curves, ...] = ()
    grids: tuple[Grid, ...] = ()
    facts: dict[str, str] = {}
    wide, said = divisible(subject, vanilla)
    if subject is not vanilla and not wide:
        facts[subject.name] = f"{NO_EFFECT}: {said}"
    elif subject is not vanilla:
        mine, theirs = (Receiver(s.model, subject.prompts(), lab.tokens) for s in (subject, vanilla))
        cells = [Part(layer, component) for layer in range(model.n_layers) for component in ROWS]
        into = np.stack([mine.with_parts(vanilla.model, [p]) for p in cells], axis=1)
        back = np.stack([theirs.with_parts(model, [p]) for p in cells], axis=1)
        grids = (
            _grid(subject, "vanilla's weights into it", mine.margins, theirs.margins, into),
            _grid(subject, "its weights into vanilla", theirs.margins, mine.margins, back),
        )
        curves = _curves(subject, vanilla, mine, theirs, into[:, len(COMPONENTS) :: len(ROWS)])
    return Finding(
        name="weight_swaps",
        title="Weight swaps between the models",
        question="In which weights does the change of behaviour sit?",
        reading="",
        how_to_read="A part computes with the other model's parameters: 0 leaves the receiver as it is, 1 makes it the "
        "donor. Grids: one component of one layer. Curves: all blocks up to a layer (with the embeddings), all from a "
        "layer on (with the final norm and unembedding), and one block; grey: the block's parameters moved as far in "
        "a random direction. Bootstrap 95 % over prompts.",
        limits="Parts that work together do not add up: a single part may bring back nothing although all together "
        "bring back everything. For an edit of one matrix its share is 1 and all others 0 by algebra.",
        n=len(lab.instances),
        seed=lab.seed,
        curves=curves,
        grids=grids,
        facts=facts,
        seconds=time.perf_counter() - started,
    )


def _curves(
    subject: Subject, vanilla: Subject, mine: Receiver, theirs: Receiver, block: Float[np.ndarray, "prompt layer"]
) -> tuple[Curves, ...]:
    model, lab = subject.model, subject.lab
    n, draw = model.n_layers, torch.Generator().manual_seed(lab.seed)
    below = [[Part(None, "embeddings"), *(Part(i, "block") for i in range(at + 1))] for at in range(n)]
    above = [[*(Part(i, "block") for i in range(at, n)), Part(None, "head")] for at in range(n)]
    chance = [
        mine.swapped(_random(model, donated(model, vanilla.model, [Part(at, "block")]), draw), at) for at in range(n)
    ]
    layers = tuple(float(at) for at in range(n))

    def curve(after: np.ndarray, name: str = subject.name, control: bool = False) -> Curve:
        return Curve(name, layers, tuple(effects(mine.margins, theirs.margins, after, lab.seed)), control)

    panels = {
        BLOCK: (curve(block), curve(np.stack(chance, axis=1), f"random, {subject.name}", control=True)),
        UP: (curve(np.stack([mine.with_parts(vanilla.model, p) for p in below], axis=1)),),
        DOWN: (curve(np.stack([mine.with_parts(vanilla.model, p) for p in above], axis=1)),),
    }
    return tuple(Curves(title, "layer (0-based)", SHARE, c, (float(lab.layer),)) for title, c in panels.items())


def _grid(subject: Subject, what: str, receiver: np.ndarray, donor: np.ndarray, after: np.ndarray) -> Grid:
    flat = effects(receiver, donor, after, subject.lab.seed)
    values = np.array([e.value for e in flat]).reshape(-1, len(ROWS))
    return Grid(
        f"{subject.name}: {what}",
        "component",
        "layer (0-based)",
        ROWS,
        tuple(str(at) for at in range(len(values))),
        values,
        SHARE,
        len(subject.lab.instances),
        signed=True,
        marked=((subject.lab.layer, 0),),
    )


def words(finding: Finding) -> str:
    """Per model: the single block and the single component that bring back most, beside the random control."""
    said = undivided(finding)
    panel = next((p for p in finding.curves if p.title == BLOCK), None)
    for curve in () if panel is None else panel.curves:
        if panel is None or curve.control:
            continue
        best = int(np.argmax([e.value for e in curve.y]))
        top = curve.y[best]
        chance = next(c for c in panel.curves if c.name == f"random, {curve.name}").y[best]
        grid = next(g for g in finding.grids if g.title == f"{curve.name}: vanilla's weights into it")
        single = grid.values[:, :-1]
        layer, component = np.unravel_index(int(single.argmax()), single.shape)
        said.append(
            f"{of_edits(curve.name, top)}: vanilla's block {best} alone brings back {100 * top.value:.0f} % "
            f"[{100 * top.low:.0f}, {100 * top.high:.0f}] (random {100 * chance.value:.0f} %), of single components "
            f"{grid.x[component]} of layer {layer} most ({100 * single[layer, component]:.0f} %)"
        )
    return f"{'; '.join(said)}." if said else "Only vanilla was measured: there is nothing to swap."


def _random(model: HookedModel, weights: dict[str, nn.Parameter], draw: torch.Generator) -> dict[str, nn.Parameter]:
    """The model's own parameters moved as far as to these, each in a random direction."""
    own, found = dict(model.hf.named_parameters()), {}
    for name, new in weights.items():
        base = own[name].detach()
        noise = torch.randn(base.shape, generator=draw).to(base)
        moved = base + noise / noise.norm() * (new.detach().to(base) - base).norm()
        found[name] = nn.Parameter(moved, requires_grad=False)
    return found


WEIGHT_SWAPS = Analysis("weight_swaps", measure, words)
