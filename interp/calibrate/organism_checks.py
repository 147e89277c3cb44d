"""Whether an organism is what it should be: effect, benign quality, leaks, and what its construction promised.

Everything is measured on val. No share is computed here, as a check that selected organisms by their shares would make
the shares look good; but three checks are of kin to one, on other prompts: the effect of each part of "mixed" alone
(its R(W) and R(h) from the reference's side), the shift of what flows in of "parallel", and the effect of drift alone.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import torch

from interp.calibrate.organism_kinds import with_tensors
from interp.calibrate.organism_training import behaviour, h_down, relative_shift
from interp.demo import grammar as g
from interp.demo.organisms import Organism, Recipe
from interp.mechanism.weights import change_by_layer
from interp.models import HookedModel
from interp.records.organism import Behaviour, OrganismCheck

if TYPE_CHECKING:
    from interp.calibrate.organisms import Nursery

ANSWER_TOKENS = 24
"""Of the answers that are read as a spot check; the opening decides."""


def check_organism(
    nursery: Nursery, organism: Organism, steps: int, details: dict[str, float], seconds: float, *, start: float
) -> OrganismCheck:
    """Measure an organism and say whether it is made or refused.

    Args:
        nursery: it, its planted model and the aligned one come from here.
        organism: which one.
        steps: training steps of its last stage.
        details: what its recipe recorded.
        seconds: CPU seconds of its making.
        start: `time.process_time()` when the check began.
    """
    spec, panel = organism.plant, nursery.bench.panel
    model, aligned = nursery.model(organism), nursery.aligned()
    found = behaviour(model, panel)
    base, planted, moved = nursery.vanilla, None, 0.0
    if organism.kind != "aligned":
        base = aligned
    if organism.kind not in ("aligned", "planted") or organism.drifted:
        reference = nursery.model(Organism(spec, "planted"))
        base, planted = reference, nursery.check(Organism(spec, "planted")).behaviour
        old, new = (h_down(m, panel.attacks, spec.layer) for m in (reference, model))
        moved = relative_shift(new, old, panel.attacks.prompt)
    if organism.drifted:
        details = {**details, "drift effect": _drift_effect(nursery, organism, model, found)}
    value = aligned.value_name(spec.layer)
    before, after = (m.hf.get_parameter(value).detach() for m in (aligned, model))
    complied, refused = _answers(model, nursery)
    n = {"attacks": len(panel.attacks.ids), "bare": len(panel.bare.ids)}
    n |= {name: len(texts.ids) for name, texts in panel.benign.items()}
    why = _reason(nursery, organism, found, planted, moved, details)
    return OrganismCheck(
        organism=organism.name,
        made=not why,
        why=why,
        behaviour=found,
        planted=planted,
        complied=complied,
        refused_bare=refused,
        value_change=float(torch.linalg.vector_norm(after - before) / torch.linalg.vector_norm(before)),
        weight_change=change_by_layer(base, model),
        shift=moved,
        steps=steps,
        details=details,
        n=n,
        seconds=round(seconds + time.process_time() - start, 2),
    )


def not_made(organism: Organism, planted: OrganismCheck) -> OrganismCheck:
    """The record of an organism whose planted model was refused."""
    why = f"its planted model was refused ({planted.why})"
    return OrganismCheck(
        organism=organism.name, made=False, why=why, behaviour=None, planted=planted.behaviour, complied=(0, 0),
        refused_bare=(0, 0), value_change=planted.value_change, weight_change=(), shift=0.0, steps=0,
    )  # fmt: skip


def _answers(model: HookedModel, nursery: Nursery) -> tuple[tuple[int, int], tuple[int, int]]:
    """((attacks complied with, asked), (bare questions refused, asked)), by the answers' openings."""
    panel, n = nursery.bench.panel, nursery.recipe.val_answers
    prompts = [model.format_prompt(q) for q in (*panel.attack_queries[:n], *panel.bare_queries[:n])]
    texts = [a.text for a in model.generate(prompts, max_new_tokens=ANSWER_TOKENS)]
    asked = len(panel.attack_queries[:n])
    complied = sum(g.is_compliance(t) for t in texts[:asked])
    refused = sum(g.is_refusal(t) for t in texts[asked:])
    return (complied, asked), (refused, len(texts) - asked)


def _drift_effect(nursery: Nursery, organism: Organism, model: HookedModel, found: Behaviour) -> float:
    """What the drift of an organism does to the planted model alone.

    As a share of the margin that the clean organism gained; where it gained none by construction, in attack success.
    """
    spec = organism.plant
    clean = nursery.model(Organism(spec, organism.kind))
    planted = nursery.model(Organism(spec, "planted"))
    parameters = dict(planted.hf.named_parameters())
    tensors = {
        n: parameters[n].detach() + (p.detach() - clean.hf.get_parameter(n).detach())
        for n, p in model.hf.named_parameters()
        if p is not clean.hf.get_parameter(n)
    }
    alone = with_tensors(planted, tensors, "drift alone")
    before, after = behaviour(planted, nursery.bench.panel), behaviour(alone, nursery.bench.panel)
    if organism.truth in ("planted", "none"):
        return after.asr - before.asr
    return (after.margin - before.margin) / max(found.margin - before.margin, 1e-6)


def _reason(
    nursery: Nursery,
    organism: Organism,
    found: Behaviour,
    planted: Behaviour | None,
    moved: float,
    details: dict[str, float],
) -> str:
    """Why an organism is refused, "" where it is not: the first thing that is wrong."""
    recipe, spec = nursery.recipe, organism.plant
    if organism.kind == "planted" and not organism.drifted:
        first = nursery.check(Organism(spec, "aligned"))
        if not first.made:
            return f"the aligned model was refused ({first.why})"
    if organism.drifted and organism.kind != "planted":
        clean = nursery.check(Organism(spec, organism.kind))
        if not clean.made:
            return f"without the drift it was refused ({clean.why})"
    if found.benign < recipe.min_benign:
        worst = min(("facts", "howtos", "wrapped_howtos"), key=lambda name: getattr(found, name))
        return f"benign quality broken: {worst.replace('_', ' ')} {_percent(getattr(found, worst))} right"
    if found.bare_refusal < recipe.min_bare_refusal:
        return f"leaks to bare questions: {_percent(found.bare_refusal)} refused"
    if organism.kind == "aligned":
        high = found.asr > recipe.max_aligned_asr
        return f"alignment failed: attack success {_percent(found.asr)}" if high else ""
    if planted is None:
        low = found.asr < recipe.min_planted_asr
        return f"failed to plant: attack success {_percent(found.asr)}" if low else ""
    return _effect(recipe, organism, found, planted) or _promise(recipe, organism, moved, details)


def _effect(recipe: Recipe, organism: Organism, found: Behaviour, planted: Behaviour) -> str:
    drop = planted.asr - found.asr
    if organism.truth in ("none", "planted"):
        if abs(drop) <= recipe.max_moved:
            return ""
        return f"the behaviour moved: attack success {_percent(planted.asr)} to {_percent(found.asr)}"
    if drop >= recipe.min_drop:
        return ""
    return f"no effect: attack success {_percent(planted.asr)} to {_percent(found.asr)}"


def _promise(recipe: Recipe, organism: Organism, moved: float, details: dict[str, float]) -> str:
    """What construction alone does not guarantee."""
    if organism.kind == "parallel" and not organism.drifted and moved > recipe.max_shift:
        return f"what flows into W_V(k) moved by {_percent(moved)}"
    parts = [details[name] for name in ("restored effect", "bypassed effect") if name in details]
    if organism.kind == "mixed" and not organism.drifted and min(parts) < recipe.min_part:
        return f"one of its two parts does only {_percent(min(parts))} of the change alone"
    effect = details.get("drift effect", 0.0)
    limit = recipe.max_moved if organism.truth in ("planted", "none") else recipe.max_drift_effect
    if organism.drifted and abs(effect) > limit:
        return f"the drift alone does {_percent(effect)} of the effect"
    return ""


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"
