"""Inside the decoding of many edits: the product with W_V, edits made as one, bfloat16, and where the time goes."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from common import instances, medians, model_a
from decoding import ASKED, EDITS, LAST, SLOTS, Measured, Tokens, random_edit, row, seconds, texts

from interp import attention, products, stats
from interp.methods.dinm import Dinm
from interp.models import HookedModel
from interp.multi import RowWeights, generate_edited

SMALL = "Llama, 6 layers, d_model 264, d_mlp 704, vocabulary 8000, random weights"


def small_model() -> HookedModel:
    """A model of 11M parameters, for what needs no large one."""
    return model_a(n_layers=6, d_model=264, d_mlp=704)


def product(model: HookedModel, rounds: int) -> Measured:
    """The product of 80 rows with the matrices of 16 edits: one for each edit, or one batched over the stack; and that
    of rows with one matrix, by oneDNN and by MKL."""
    edits, rounds = [random_edit(model, LAST, seed) for seed in range(EDITS)], max(3, rounds)
    weights, which = RowWeights(model, edits), [i // ASKED for i in range(EDITS * ASKED)]
    stack, [name] = next(iter(weights.stacks.values())), list(weights.stacks)
    deltas, base = torch.stack([e.deltas[name] for e in edits]), model.value_weight(LAST).detach()
    h = torch.randn(EDITS * ASKED, 1, base.shape[1], generator=torch.Generator().manual_seed(0))
    grouped = h.reshape(EDITS, ASKED, -1)
    module = model.value_module(LAST)
    weights.choose(which)

    def repeated(call: Callable[[], torch.Tensor]) -> Callable[[], list[torch.Tensor]]:
        return lambda: [call() for _ in range(10)]

    ways = {
        "one product for each edit": lambda: module(h).reshape(EDITS, ASKED, -1),
        "batched over the edited matrices": lambda: torch.bmm(grouped, stack.transpose(1, 2)),
        "base, and batched over the deltas": lambda: grouped @ base.T + torch.bmm(grouped, deltas.transpose(1, 2)),
    }
    with weights.applied(), torch.no_grad():
        took = medians({name: repeated(call) for name, call in ways.items()}, rounds)
        exact = ways["one product for each edit"]()
        apart = {name: float((call() - exact).abs().max()) for name, call in ways.items()}
    first, *others = took
    rows = [
        row("product of 80 rows with 16 edits: one each", other, took[other], took[first], None, n=rounds)
        for other in others
    ]
    if not products.possible():
        return rows, {"apart, max": apart, "oneDNN": "cannot be asked, or there is no MKL to compare it with"}
    fast = partial(products.onednn, weight=module.weight, bias=None)
    for n in (8, EDITS * ASKED, 1500):
        x = torch.randn(n, base.shape[1], generator=torch.Generator().manual_seed(n))
        with torch.no_grad():
            took = medians({"oneDNN": repeated(lambda x=x: fast(x)), "MKL": repeated(lambda x=x: module(x))}, rounds)
            apart[f"oneDNN, {n} rows"] = float((fast(x) - module(x)).abs().max())
        rows.append(row(f"product of {n} rows by oneDNN", "by MKL", took["MKL"], took["oneDNN"], None, n=rounds))
    return rows, {"apart, max": apart}


def edits_together(model: HookedModel, rounds: int) -> Measured:
    """8 DINM edits of one layer one by one, and as one."""
    data, rows = instances(8), []
    facts: dict[str, Any] = {}
    for layer in (5, 3):
        config, made = Dinm(layer=layer), {}
        calls = {
            n: lambda n=n, config=config, made=made: made.update({n: config.detoxify_many(model, data, together=n)})
            for n in (1, 8)
        }
        took = medians(calls, rounds)
        pairs = zip(made[1], made[8], strict=True)
        deltas = [[next(iter(d.edit.deltas.values())) for d in pair] for pair in pairs]
        facts[f"deltas of layer {layer} apart, relative"] = max(float((a - b).norm() / b.norm()) for a, b in deltas)
        rows.append(row(f"8 edits of layer {layer} as one", "one by one", took[1], took[8], None, n=rounds))
    return rows, {**facts, "model of this part": SMALL}


def sixteen_bits(model: HookedModel, rounds: int) -> Measured:
    """bfloat16: how many answers differ between one batch shape and another, and between shared and alone."""
    n, asked, new = 16, 16, 32
    model.hf.to(torch.bfloat16)
    edits = [random_edit(model, 5, seed) for seed in range(n)]
    prompts = texts(asked, 40, 40, seed=5)
    alone, batch = [], []
    for edit in edits:
        with edit.applied(model):
            alone += [model.generate([p], max_new_tokens=new)[0].token_ids for p in prompts]
            batch += [g.token_ids for g in model.generate(prompts, max_new_tokens=new)]
    which = [i for i in range(n) for _ in prompts]
    shared = [g.token_ids for g in generate_edited(model, prompts * n, which, edits, max_new_tokens=new)]
    before, attention.shareable = attention.shareable, lambda hf: True
    try:  # what is not done: in 16 bits the sums of attention over shared prompts round otherwise
        beside = [g.token_ids for g in generate_edited(model, prompts * n, which, edits, max_new_tokens=new)]
    finally:
        attention.shareable = before

    def apart(one: Tokens, other: Tokens) -> dict[str, Any]:
        pairs = list(zip(one, other, strict=True))
        tokens = [a != b for x, y in pairs for a, b in zip(x, y, strict=False)]
        return {
            "answers that differ": vars(stats.share(sum(x != y for x, y in pairs), len(pairs))),
            "first tokens that differ": vars(stats.share(sum(x[:1] != y[:1] for x, y in pairs), len(pairs))),
            "tokens that differ, after a first one too": sum(tokens) / len(tokens),
        }

    return [], {
        f"each edited model alone, one prompt against a batch of {asked}": apart(alone, batch),
        "shared against alone, one prompt": apart(alone, shared),
        f"shared against alone, a batch of {asked}": apart(batch, shared),
        "keys and values of prompts kept once (not done in 16 bits) against alone, one prompt": apart(alone, beside),
        "different answers": len(set(alone)),
        "model of this part": f"{SMALL}, bfloat16",
    }


def profile(model: HookedModel, rounds: int) -> Measured:
    """Where the time goes when 16 edits answer 5 prompts each: reading, and with steps; shared and own prompts."""
    from torch.profiler import ProfilerActivity
    from torch.profiler import profile as profiled

    edits, which = [random_edit(model, LAST, seed) for seed in range(EDITS)], [i // ASKED for i in range(EDITS * ASKED)]
    asked = {"shared": texts(ASKED, seed=1) * EDITS, "own": texts(EDITS * ASKED, seed=1)}
    runs = {
        f"{kind} prompts, {name}": (rows, tokens)
        for kind, rows in asked.items()
        for name, tokens in (("reading", 1), ("reading and 4 steps", 5))
    }
    shares, whole_time = {}, {}
    for name, (rows, tokens) in runs.items():
        with profiled(activities=[ProfilerActivity.CPU]) as seen:
            whole_time[name], _ = seconds(
                partial(generate_edited, model, rows, which, edits, max_new_tokens=tokens, batch_size=SLOTS)
            )
        parts = dict.fromkeys([*KERNELS.values(), "other"], 0.0)
        for event in seen.key_averages():
            kind = next((kind for key, kind in KERNELS.items() if key in event.key), "other")
            parts[kind] += event.self_cpu_time_total
        shares[name] = {kind: took / sum(parts.values()) for kind, took in parts.items()}
    return [], {"shares": shares, "CPU seconds, profiler included": whole_time}


KERNELS = {
    "scaled_dot_product": "attention",
    "aten::mm": "matrix products",
    "aten::addmm": "matrix products",
    "aten::bmm": "attention",  # of new tokens; what is left of it is the product of edits, if batched
    "mkldnn::_linear_pointwise": "matrix products",
    "index_put": "writing keys and values",
    "copy_": "copying",
}
"""Part of an operation's name -> what the profile calls it."""
