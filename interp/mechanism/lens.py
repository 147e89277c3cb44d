"""Refuse or comply, layer by layer: the logit lens (nostalgebraist 2020) read on the refusal margin.

After each block the residual stream at the last prompt token goes through the final norm and the unembedding, as if the
model ended there. The margin is the log-odds of a first token that refuses over one that complies (`MarginTokens`).
It shows where the decision can be read off, not where it is caused.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from interp.capture import capture
from interp.errors import InputError
from interp.mechanism.shares import MarginTokens
from interp.models import HookedModel
from interp.records import Instance, LayerScores, PromptKind

UNIT = "refusal margin, nats"


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
    head = model.unembedding
    columns = []
    for layer in range(model.n_layers):
        resid = acts["resid_post", layer].to(next(head.parameters()))
        columns.append(tokens.margin(head(model.final_norm(resid))).double().cpu().numpy())
    return LayerScores(
        model=model.name,
        convention=f"logit lens, {kind}" + (", with S" if suffix else ""),
        unit=UNIT,
        instance_ids=tuple(i.id for i in instances),
        categories=tuple(i.category for i in instances),
        values=np.stack(columns, axis=1),
    )
