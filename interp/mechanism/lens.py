"""Refuse or comply, layer by layer: the logit lens (nostalgebraist 2020) read on the refusal margin.

After each block the residual stream at the last prompt token goes through the final norm and the unembedding, as if the
model ended there. The margin is the log-odds of a first token that refuses over one that complies (`MarginTokens`).
It shows where the decision can be read off, not where it is caused.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from interp.capture import capture, stream
from interp.errors import InputError
from interp.mechanism.intervals import bands, of_means
from interp.mechanism.lab import Analysis, Subject
from interp.mechanism.margin import MarginTokens, read_off
from interp.mechanism.neurons import between, most_toxic
from interp.models import HookedModel
from interp.records import Curve, Curves, Estimate, Finding, Grid, Instance, LayerScores, PromptKind
from interp.records import Tokens as TokenView

UNIT = "refusal margin, nats"
POSITIONS = 12
"""How many of the last prompt positions a grid shows."""
ROWS = 256
"""Residual streams that are turned into logits at a time."""
DRAWS = 200
"""Random sets of tokens."""
LENS, AGAINST = "Refusal margin read after each block, last prompt token", "The same, against vanilla"
BARE, CHANCE = "vanilla, bare questions", "random tokens"


@torch.no_grad()
def refusal_lens(
    model: HookedModel,
    instances: Sequence[Instance],
    tokens: MarginTokens,
    *,
    kind: PromptKind = "DS",
    suffix: str = "",
    batch_size: int = 8,
) -> LayerScores:
    """The refusal margin read after every block, for one prompt of each instance.

    Args:
        model: vanilla, a checkpoint, or a model inside `edit.applied(model)`.
        instances: whose prompts are asked.
        tokens: the first tokens of refusals and of compliant answers.
        kind: which of the five prompts ("DS" is the adversarial one, "onlyQ" the bare question).
        suffix: the suffix S.
        batch_size: prompts per forward pass.

    Returns:
        Margins [instance, layer] in nats; positive means refusal. The last column is the model's own margin.

    Raises:
        InputError: no instances, or one without that prompt.
    """
    if not instances:
        raise InputError("the logit lens needs at least one instance, got none")
    prompts = [model.format_prompt(i.prompt(kind), suffix) for i in instances]
    acts = capture(model, prompts, ("resid_post",), pool="last", batch_size=batch_size)
    like = next(model.unembedding.parameters())
    columns = []
    for layer in range(model.n_layers):
        columns.append(read_off(model, acts["resid_post", layer].to(like), tokens).double().cpu().numpy())
    return LayerScores(
        model=model.name,
        convention=f"logit lens, {kind}" + (", with S" if suffix else ""),
        unit=UNIT,
        instance_ids=tuple(i.id for i in instances),
        categories=tuple(i.category for i in instances),
        values=np.stack(columns, axis=1),
    )


# --------------------------------------------------------------------------------------------- the analysis
@torch.no_grad()
def lens_margins(
    model: HookedModel, resid: Float[Tensor, "*n d_model"], tokens: MarginTokens
) -> Float[np.ndarray, "*n"]:
    """The refusal margin of residual streams from any layer and position, nats, a few rows at a time.

    Args:
        model: whose final norm and unembedding read them.
        resid: residual streams, on any device.
        tokens: first tokens of refusing and complying answers.
    """
    like = next(model.unembedding.parameters())
    found = [
        read_off(model, rows.to(like), tokens).double().cpu() for rows in resid.reshape(-1, resid.shape[-1]).split(ROWS)
    ]
    return torch.cat(found).reshape(resid.shape[:-1]).numpy()


def position_margins(subject: Subject, k: int = POSITIONS) -> tuple[Float[np.ndarray, "layer k"], list[str], int]:
    """Mean margin after every block at the last k positions of the attacked prompts.

    Returns:
        The means (over the prompts that are so long), what stands at each position where it is the same for all
        prompts (else ""), and the fewest prompts behind a mean.
    """
    model, lab = subject.model, subject.lab
    rows = model.tokenize([model.format_prompt(q) for q in lab.queries()])
    k = min(k, int(rows.lengths.max()))
    total, count = np.zeros((model.n_layers, k)), np.zeros(k)
    seen: list[set[int]] = [set() for _ in range(k)]
    for batch in stream(model, rows, "resid_post", batch_size=lab.batch_size):
        ids, real = (x[:, -k:].cpu() for x in (batch.tokens.input_ids, batch.tokens.attention_mask.bool()))
        width = ids.shape[1]  # a batch of short prompts is narrower
        count[-width:] += real.sum(dim=0).numpy()
        for column in range(1, width + 1):
            seen[-column] |= set(ids[real[:, -column], -column].tolist())
        for layer in range(model.n_layers):
            margins = lens_margins(model, batch.acts["resid_post", layer][:, -width:], lab.tokens)
            total[layer, -width:] += np.where(real.numpy(), margins, 0.0).sum(axis=0)
    names = [model.tokenizer.decode(list(ids)) if len(ids) == 1 else "" for ids in seen]
    return total / count, names, int(count.min())


def token_view(subject: Subject, vanilla: Subject) -> TokenView:
    """The first attacked prompt: on each token the margin if the prompt ended there, and the most toxic neuron."""
    model, lab = subject.model, vanilla.lab
    layer, neuron, cosine = most_toxic(vanilla)
    rows = model.tokenize([model.format_prompt(lab.queries()[0])])
    got = capture(model, rows, ("resid_post", "h_down"), sorted({layer, model.n_layers - 1}), batch_size=1)
    margins = lens_margins(model, got["resid_post", model.n_layers - 1][0], lab.tokens)
    active = got["h_down", layer][0, :, neuron].float()
    return TokenView(
        f"{subject.name}: the attacked prompt of instance {lab.instances[0].id}",
        tuple(model.tokenizer.decode([i]) for i in rows.row(0)),
        {
            "refusal margin if the prompt ended here, nats": tuple(margins.tolist()),
            f"activation of value vector {layer}.{neuron} (cosine {cosine:.2f})": tuple(active.tolist()),
        },
    )


def measure(subject: Subject, vanilla: Subject) -> Finding:
    """The lens over layers and positions, and token by token."""
    started, lab, name = time.perf_counter(), vanilla.lab, subject.name
    layers = tuple(float(i) for i in range(subject.model.n_layers))
    margins = lens_margins(subject.model, subject.last("resid_post"), lab.tokens)
    base = lens_margins(vanilla.model, vanilla.last("resid_post"), lab.tokens)
    curves = [Curve(name, layers, _means(margins, lab.seed))]
    panels = []
    if subject is vanilla:
        bare = lens_margins(vanilla.model, vanilla.last("resid_post", "onlyQ"), lab.tokens)
        curves.append(Curve(BARE, layers, _means(bare, lab.seed), control=True))
    else:
        panels.append(Curves(AGAINST, "layer", UNIT, (
            Curve(name, layers, tuple(bands(margins - base, over="prompts", unit="nats", seed=lab.seed))),
            Curve(f"{CHANCE}, {name}", layers, _chance(subject, vanilla), control=True),
        )))  # fmt: skip
    grid, names, n = position_margins(subject)
    places = tuple(f"{i - len(names)} {said!r}" if said else str(i - len(names)) for i, said in enumerate(names))
    return Finding(
        name="margin_lens",
        title="Refuse or comply, by layer and position",
        question="In which layer and at which token can the decision to refuse be read off?",
        reading="",
        how_to_read="Above zero the model would begin with a refusing token if it ended at that layer and position. "
        "The last row of a grid is the model itself, its last column the token after which the answer begins.",
        limits="Where a decision can be read off is not where it is made, and the unembedding is not the language of "
        "early layers: compare a lead over vanilla with that of random tokens. The token views are of one prompt.",
        n=len(lab.instances),
        seed=lab.seed,
        source="nostalgebraist 2020, interpreting GPT: the logit lens",
        curves=(Curves(LENS, "layer", UNIT, tuple(curves), marked=(float(lab.toxic_layer),)), *panels),
        grids=(
            Grid(f"{name}: refusal margin", "position from the end of the prompt", "layer", places,
                 tuple(str(i) for i in range(len(grid))), grid, "nats", n, signed=True),
        ),
        tokens=(token_view(subject, vanilla),),
        seconds=time.perf_counter() - started,
    )  # fmt: skip


def _means(data: Float[np.ndarray, "n layer"], seed: int) -> tuple[Estimate, ...]:
    return tuple(of_means(data, lambda m: m, over="prompts", unit="nats", seed=seed))


@torch.no_grad()
def _chance(subject: Subject, vanilla: Subject) -> tuple[Estimate, ...]:
    """How the mean margin between as many tokens drawn at random differs from vanilla's, layer by layer."""
    lab, rng = vanilla.lab, np.random.default_rng(vanilla.lab.seed)
    sizes = len(lab.tokens.refuse), len(lab.tokens.comply)
    ids = [rng.choice(vanilla.model.vocab_size, sum(sizes), replace=False).tolist() for _ in range(DRAWS)]
    draws = [MarginTokens(tuple(i[: sizes[0]]), tuple(i[sizes[0] :])) for i in ids]
    found = []
    for layer in range(vanilla.model.n_layers):
        means = []
        for one in (subject, vanilla):
            resid = one.last("resid_post")[:, layer].to(next(one.model.unembedding.parameters()))
            means.append(np.array([float(read_off(one.model, resid, d).mean()) for d in draws]))
        found.append(between(means[0] - means[1], "nats", "random sets of tokens"))
    return tuple(found)


def read(finding: Finding) -> str:
    """The margins at the last layer, and the first layer where each model leads vanilla by more than chance."""
    lens = next(p for p in finding.curves if p.title == LENS)
    last = "; ".join(
        f"{c.name} {c.y[-1].value:+.2f} [{c.y[-1].low:+.2f}, {c.y[-1].high:+.2f}]" for c in lens.curves if not c.control
    )
    said = f"Refusal margin on attacked prompts at the last layer, nats: {last}."
    against = {c.name: c for p in finding.curves if p.title == AGAINST for c in p.curves}
    depth = max((len(c.x) for c in against.values()), default=0)
    for curve in (c for c in against.values() if not c.control):
        chance = against[f"{CHANCE}, {curve.name}"].y
        layers = [i for i, (e, c) in enumerate(zip(curve.y, chance, strict=True)) if e.low > 0 and e.value > c.high]
        if layers:
            said += f" {curve.name} leads vanilla by more than random tokens do after {_listed(layers)}."
        else:
            said += f" {curve.name} leads vanilla by more than random tokens do after no layer."
    if depth:
        said += f" (The leads' bands hold for all {depth} layers at once, the range of random tokens for each.)"
    return said


def _listed(layers: list[int]) -> str:
    """Runs, as "layer 0, layers 2 to 5"."""
    starts = [i for i in layers if i - 1 not in layers]
    ends = [i for i in layers if i + 1 not in layers]
    return ", ".join(f"layers {a} to {b}" if b > a else f"layer {a}" for a, b in zip(starts, ends, strict=True))


MARGIN_LENS = Analysis("margin_lens", measure, read)
"""The logit lens on the refusal margin, over layers, positions and tokens."""
