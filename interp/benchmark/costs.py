"""Forwards and tokens, peak memory and disk of a benchmark's rows, before they are computed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

from interp.benchmark.arms import Arm, DpoOnSft
from interp.benchmark.design import POOL
from interp.benchmark.engine import Engine
from interp.benchmark.work import Unit
from interp.costs.asking import Asking
from interp.costs.methods import edit_work, locating, made_once, training_lengths
from interp.costs.space import Shape, resident, responses_bytes
from interp.costs.work import NOTHING, Work, total
from interp.evaluation import BENIGN, KQA, Item
from interp.methods._trl import Training
from interp.methods.direction import Direction, writers
from interp.methods.ext_sub import ExtSub
from interp.methods.mend import Mend
from interp.methods.profs import Profs
from interp.pipeline.study import CONVENTIONS
from interp.records import CATEGORIES

MOVED, NOTE, COST, TABLE = 110, 120, 80, 400_000
"""Bytes of a harmless answer that moved, of an edit's note, of a unit's cost, of the table with its figure."""


def asking_of(engine: Engine) -> Asking:
    """What every row is asked with."""
    settings = engine.settings
    return Asking(engine.bench.vanilla, engine.benchmark, settings.max_new_tokens, settings.batch)


def arm_work(engine: Engine, asking: Asking, arm: Arm, units: Iterable[Unit], at_most: bool = False) -> Work:
    """What some units of a row cost, with what its method makes once (where there are any)."""
    units, model = list(units), engine.bench.vanilla
    if not units:
        return NOTHING
    if engine.locating:
        batch = min(engine.settings.batch, 32)
        return total(locating(model, u.instances, CONVENTIONS[arm.name], batch) for u in units)
    found = [made_by(engine, arm)]
    for unit in units:
        groups = asked(engine, arm, unit)
        found.append(asking.answers(groups, at_most=at_most, shared=not isinstance(arm.method, Mend)))
        found += [asking.moved(group, [prompts_of(arm)]) for group in groups]
        if arm.edits:
            found += [edit_work(arm.method, model, i) for i in unit.instances]
    return total(found)


def made_by(engine: Engine, arm: Arm) -> Work:
    """What the method makes once. DPO's SFT is the row before it, where that is of this benchmark."""
    train, val, model = engine.benchmark.train, engine.benchmark.val, engine.bench.vanilla
    if isinstance(arm.method, DpoOnSft):
        below = (
            NOTHING if any(a.method == arm.method.sft for a in engine.arms) else made_once(arm.method.sft, model, train)
        )
        return below + made_once(arm.method.dpo, model, train)
    return made_once(arm.method, model, train, val)


def prompts_of(arm: Arm) -> tuple[str, str]:
    """The texts after and before every query."""
    method: Any = arm.method
    if method is None:
        return arm.suffix, ""
    method = getattr(method, "dpo", getattr(method, "base", method))
    return getattr(method, "suffix", ""), getattr(method, "prefix", "")


def asked(engine: Engine, arm: Arm, unit: Unit) -> list[list[Item]]:
    """What a unit asks: one group of items, or one for each edit. Of Table 11 at most, until vanilla has answered."""
    suffix, prefix = prompts_of(arm)
    design = engine.design
    items = design.items(engine.benchmark, suffix, prefix, engine.settings.seed)
    if not arm.edits:
        return [[item for i in unit.instances for item in items[i.id]]]
    known = design.broken_only and not engine.missing(engine.arms[0])
    most = POOL * len(CATEGORIES) if design.broken_only else None
    broken = engine.broken() if known else [i.id for i in design.asked][:most]
    return [[item for owner in design.asked_of(i, broken) for item in items[owner]] for i in unit.instances]


# ------------------------------------------------------------------------------------------------- space
def memory(engine: Engine, asking: Asking) -> dict[str, int]:
    """Bytes resident at once in the largest stages, libraries included."""
    shape, settings = Shape.of(engine.bench.vanilla), engine.settings
    units = [(arm, unit) for arm in engine.arms for unit in engine.units(arm)]
    together = [[item for group in asked(engine, *pair) for item in group] for pair in units]
    items = [item for group in together for item in group]
    prompt = max(map(asking.prompt, items))
    edits = max((len(unit.instances) for arm, unit in units if arm.edits), default=0)
    rows = min(settings.batch, max(map(len, together)))
    harmless = [i for i in items if i.kind in (KQA, BENIGN)]
    read = shape.reading(*asking.harmless(harmless))
    sizes = {
        "answers": 2 * shape.weights
        + shape.decoding(rows, prompt + settings.max_new_tokens, edits, settings.delta_bytes),
        "harmless answers": 2 * shape.weights + read,
    }
    for arm in engine.arms:
        method: Any = getattr(arm.method, "dpo", arm.method)
        if isinstance(method, Training):
            longest = max(training_lengths(method, engine.bench.vanilla, engine.benchmark.train), default=0)
            trained = shape.training(method, longest, isinstance(arm.method, DpoOnSft))
            sizes[f"{arm.name}: training"] = 2 * shape.weights + trained
        if isinstance(method, Mend):
            sizes[f"{arm.name}: training"] = shape.weights + 5 * editor_bytes(engine, method)
    return resident(sizes, any(isinstance(a.method, (Training, DpoOnSft)) for a in engine.arms))


def disk(engine: Engine, asking: Asking) -> dict[str, int]:
    """Bytes that the whole benchmark leaves: in its folder, and in the cache."""
    folder, cache = float(TABLE if not engine.locating else TABLE // 2), 0.0
    for arm in engine.arms:
        for unit in engine.units(arm):
            folder += COST + (NOTE * len(unit.instances) if arm.edits or engine.locating else 0)
            if engine.locating:
                continue
            items = [item for group in asked(engine, arm, unit) for item in group]
            harmless = sum(i.kind in (KQA, BENIGN) for i in items)
            folder += 2 * responses_bytes(asking, items) + MOVED * harmless
        made, kept = made_bytes(engine, arm)
        folder, cache = folder + made, cache + kept
    return {"run folder": round(folder), "cache": round(cache)}


def made_bytes(engine: Engine, arm: Arm) -> tuple[int, int]:
    """What a method made: as an edit in the run folder, as a checkpoint in the cache."""
    model, method = engine.bench.vanilla, arm.method
    shape = Shape.of(model)
    tokenizer = len(model.tokenizer.backend_tokenizer.to_str())
    if isinstance(method, ExtSub):
        matrices = [p for block in model.blocks for p in block.parameters() if p.dim() == 2]
        rank = method.lora.rank if method.lora else 0
        adapters = 2 * 4 * rank * sum(sum(w.shape) for w in matrices)
        return 4 * sum(w.numel() for w in matrices), adapters + 2 * tokenizer
    if isinstance(method, (Training, DpoOnSft)):
        return 0, shape.weights + tokenizer
    if isinstance(method, Profs):
        start = method.start_layer if method.start_layer is not None else model.n_layers * 15 // 32
        return 4 * shape.matrix * (model.n_layers - start), 0
    if isinstance(method, Direction):
        return 4 * sum(model.hf.get_parameter(n).numel() for n in writers(model, method.matrices)), 0
    return (0, editor_bytes(engine, method)) if isinstance(method, Mend) else (0, 0)


def editor_bytes(engine: Engine, method: Mend) -> int:
    """Of MEND's hypernetwork: for each shape of matrix `depth` low-rank layers over input and output together."""
    model = engine.bench.vanilla
    counts = Counter(tuple(model.hf.get_parameter(n).shape) for n in method._names(model))
    return sum(_layers_bytes(sum(shape), n, method) for shape, n in counts.items())


def _layers_bytes(width: int, matrices: int, method: Mend) -> int:
    layer = 2 * width * min(method.rank, width) + width + 2 * matrices * width
    return 4 * (method.depth * layer + 2 * width)
