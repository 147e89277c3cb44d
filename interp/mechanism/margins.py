"""The refusal margin by kind of prompt, and on every token of one attack: the first look of the laboratory.

What the margin is stands in `interp.mechanism.margin`. Beside it, token by token, how strongly the toxic value vectors
of the edited layer fire. It reads and changes nothing; where the margin comes from is for the other analyses.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from interp.capture import capture
from interp.errors import InputError
from interp.mechanism.lab import Analysis, Subject
from interp.records import PROMPT_KINDS, Bars, Estimate, Finding, Tokens
from interp.stats import bootstrap

KINDS = {
    "DS": "attack (DS)", "onlyQ": "bare question", "otherA": "other attack", "otherQ": "other question",
    "otherAQ": "other attack and question",
}  # fmt: skip
BENIGN = "harmless request (control)"
PANEL = "Refusal margin by kind of prompt"
MARGIN, FIRING = "refusal margin, nats", "mean activation of the toxic value vectors, activation units"
TOP = 10
"""Value vectors nearest the toxic direction that are averaged."""
MOST = 60
"""Harmless requests asked at most, evenly from all, bare and wrapped."""


def measure(subject: Subject, vanilla: Subject) -> Finding:
    """The margins of one model on every kind of prompt that all instances have, and one attack token by token.

    Args:
        subject: the model.
        vanilla: whose value vectors say which neurons are toxic, so that all models are read at the same ones.
    """
    lab = subject.lab
    series: dict[str, tuple[Estimate | None, ...]] = {}
    for kind in PROMPT_KINDS:
        try:
            found = subject.margins(kind)
        except InputError:  # the instances have no generalisation inputs: their kinds are left out
            continue
        series[KINDS[kind]] = (bootstrap(found, over="instances", unit="nats", seed=lab.seed),)
    if lab.benign:
        series[BENIGN] = (bootstrap(_benign(subject), over="requests", unit="nats", seed=lab.seed),)
    return Finding(
        name="margins",
        title="Refusal margin by kind of prompt, and token by token",
        question="To which prompts does each model's first token refuse, and where in an attack does that arise?",
        reading="",
        how_to_read="Above zero the first token of the answer is more likely one that refuses than one that complies. "
        "Harmless requests are the control: a margin above zero there says which of the two kinds of first token is "
        "likelier, not that the request is refused. In the token views a colour on a token is what the model would say "
        "next if the prompt ended there.",
        limits="one token of the answer is read, not the answer; refusals that begin otherwise are not seen. The token "
        "views show a single attack; the tokens inside a prompt are no places where an answer begins.",
        n=len(lab.instances),
        seed=lab.seed,
        bars=(Bars(PANEL, "Refusal margin (nats)", (subject.name,), series),),
        tokens=(_views(subject, vanilla),),
    )


def read(finding: Finding) -> str:
    """The attack margins of vanilla and of each model, with what harmless requests give."""
    panel = finding.bars[0]
    attack = dict(zip(panel.groups, panel.series[KINDS["DS"]], strict=True))
    benign = dict(zip(panel.groups, panel.series.get(BENIGN, (None,) * len(panel.groups)), strict=True))

    def said(name: str) -> str:
        return f"{name} {_span(attack[name])}" + (f" (harmless: {_span(benign[name])})" if benign[name] else "")

    return f"Mean margin on attacks, nats: {'; '.join(said(name) for name in panel.groups)}."


def _span(e: Estimate | None) -> str:
    return "not measured" if e is None else f"{e.value:+.1f} [{e.low:+.1f}, {e.high:+.1f}]"


@torch.no_grad()
def _benign(subject: Subject) -> Float[np.ndarray, "request"]:
    lab, model = subject.lab, subject.model
    step = max(len(lab.benign) / MOST, 1.0)  # evenly: the wrapped ones stand behind the bare ones
    chosen = [lab.benign[int(i * step)] for i in range(min(MOST, len(lab.benign)))]
    texts = [model.format_prompt(r.prompt) for r in chosen]
    batches = [model.tokenize(texts[i : i + lab.batch_size]) for i in range(0, len(texts), lab.batch_size)]
    return torch.cat([lab.tokens.margin(model.logits(b)[:, -1]) for b in batches]).double().cpu().numpy()


@torch.no_grad()
def _views(subject: Subject, vanilla: Subject) -> Tokens:
    """The first instance's attack: the margin at every token, and the mean activation of the toxic value vectors."""
    lab, model = subject.lab, subject.model
    prompt = model.tokenize([model.format_prompt(lab.instances[0].adversarial_prompt)])
    margin = lab.tokens.margin(model.logits(prompt)[0])
    acts = capture(model, prompt, ("h_down",), lab.toxic_layer, pool="none")
    firing = acts["h_down", lab.toxic_layer][0].float()[:, nearest_to_toxic(vanilla)].mean(dim=1)
    ids = prompt.row(0)
    start = len(margin) - len(ids)
    values = {MARGIN: _plain(margin[start:]), FIRING: _plain(firing[start:])}
    return Tokens(f"{subject.name}, attack of instance {lab.instances[0].id}",
                  tuple(model.tokenizer.decode([i]) for i in ids), values)  # fmt: skip


def nearest_to_toxic(vanilla: Subject) -> list[int]:
    """Indices of vanilla's value vectors with the largest cosine to the toxic direction, at the toxic layer."""
    toxic: Tensor = vanilla.lab.toxic.float().cpu()
    cosine = torch.nn.functional.cosine_similarity(vanilla.value_vectors, toxic[None], dim=1)
    return cosine.topk(min(TOP, len(cosine))).indices.tolist()


def _plain(values: Tensor) -> tuple[float, ...]:
    return tuple(round(float(v), 4) for v in values)


MARGINS = Analysis("margins", measure, read)
