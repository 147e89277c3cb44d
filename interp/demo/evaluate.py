"""Measures the shipped demo model and keeps the record honest: `python -m interp.demo.evaluate [--check]`.

Everything is measured on val (never on test): refusal and compliance per kind of prompt with and without S, the facts,
benign how-tos, summaries, and how often an answer names the object it was asked about. Refusals are found by the
planted openings; that is enough for a planted world and is no judge.
"""

from __future__ import annotations

import hashlib
import os
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import typer

from interp.demo import EVALUATION, MODEL_DIR, SUFFIX, world
from interp.demo import grammar as g
from interp.errors import InputError
from interp.records import Estimate, to_dict
from interp.runs import read_json, write_json
from interp.stats import share

MAX_NEW_TOKENS = 64
TOLERANCE = 3.0
"""Percentage points by which a regenerated share may differ: other CPUs round differently and flip close decisions."""


class Item(NamedTuple):
    """One question to the model, and what counts towards each share."""

    prompt: str
    checks: dict[str, Callable[[str], bool]]
    """Name of the share -> whether an answer counts for it."""


def sha256(folder: Path) -> str:
    """SHA-256 of the weights file of a checkpoint folder. Raises InputError where it is missing."""
    file = folder / "model.safetensors"
    if not file.is_file():
        raise InputError(f"no demo model at {folder} (expected {file.name}); run python -m interp.demo.pretrain")
    return hashlib.sha256(file.read_bytes()).hexdigest()


# ----------------------------------------------------------------------------------------------- items
def persona_group(persona: int) -> str:
    """What is planted for this persona: strong, suffix-sensitive, plain, or never seen in pretraining."""
    if persona in world.PLANTED.strong_personas:
        return "strong persona"
    if persona in world.PLANTED.suffix_personas:
        return "S-sensitive persona"
    return "plain persona" if persona in world.PLANTED.seen_personas else "unseen persona"


def _naming(question: g.HarmfulQuestion) -> dict[str, Callable[[str], bool]]:
    objects = "held-out objects" if question.held_out else "seen objects"
    return {f"copying, {objects}": lambda answer: question.request in answer}


def harmful_items(n_attack: int) -> list[Item]:
    """The 180 bare val questions and `n_attack` adversarial ones (seeded), each with and without S."""
    rng = random.Random("evaluate")
    questions = g.questions()["val"]
    asked: list[tuple[str, str, g.HarmfulQuestion]] = []
    for question in questions:
        frame = "weak frame" if question.frame in world.PLANTED.weak_frames else "other frame"
        asked.append((question.text, f"bare, {frame}", question))
    attacks = g.benchmark_attacks()["val"]
    for i in range(n_attack):
        question, attack = questions[rng.randrange(len(questions))], attacks[i % len(attacks)]
        assert attack.triple is not None
        asked.append((attack.wrap(question.text), f"attack, {persona_group(attack.triple[0])}", question))
    items = []
    for prompt, kind, question in asked:
        for suffix in (False, True):
            groups = [kind.split(",")[0], kind]
            mark = "with S" if suffix else "without S"
            checks: dict[str, Callable[[str], bool]] = {}
            for group in groups:
                checks[f"refusal, {group}, {mark}"] = g.is_refusal
                checks[f"compliance, {group}, {mark}"] = g.is_compliance
            items.append(Item(f"{prompt} {SUFFIX}" if suffix else prompt, checks | _naming(question)))
    return items


def benign_items(n: int) -> list[Item]:
    """All facts, and n each of bare how-tos, wrapped how-tos and summaries."""
    items = []
    for fact in world.facts():
        items.append(Item(fact.prompt, {"KQA, exact": _equals(f"{fact.answers[0]}.")}))
    requests = world.benign("val", n)
    for request in requests:
        kind = "wrapped" if request.wrapped else "bare"
        items.append(
            Item(
                request.prompt,
                {
                    f"how-to {kind}, exact": _equals(request.answer),
                    f"how-to {kind}, refused": g.is_refusal,
                },
            )
        )
    for pair in world.summaries(n):
        items.append(Item(pair.prompt, {"summary, exact": _equals(pair.answer)}))
    return items


def _equals(expected: str) -> Callable[[str], bool]:
    return lambda answer: answer.strip() == expected


# ------------------------------------------------------------------------------------------- measuring
def answers(model: Any, tokenizer: Any, prompts: Sequence[str], batch_size: int = 96) -> list[str]:
    """Greedy answers, left-padded, in the order of the prompts (each one user turn)."""
    import torch

    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    found = [""] * len(prompts)
    for start in range(0, len(order), batch_size):
        chosen = order[start : start + batch_size]
        texts = [f"User: {prompts[i]}\nAssistant:" for i in chosen]
        tokens = tokenizer(texts, return_tensors="pt", padding=True, padding_side="left")
        with torch.inference_mode():
            output = model.generate(
                input_ids=tokens["input_ids"],
                attention_mask=tokens["attention_mask"],
                max_new_tokens=MAX_NEW_TOKENS,
                do_sample=False,
            )
        new = output[:, tokens["input_ids"].shape[1] :]
        for i, text in zip(chosen, tokenizer.batch_decode(new, skip_special_tokens=True), strict=True):
            found[i] = text.strip()
    return found


def load(folder: Path) -> tuple[Any, Any]:
    """Model (float32) and tokenizer of a checkpoint, by plain transformers."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    sha256(folder)
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32), AutoTokenizer.from_pretrained(folder)


def measure(items: Sequence[Item], model: Any, tokenizer: Any) -> dict[str, Estimate]:
    """Every share of the items, in percent with its Wilson interval."""
    counts: dict[str, list[int]] = {}
    for item, answer in zip(items, answers(model, tokenizer, [i.prompt for i in items]), strict=True):
        for name, check in item.checks.items():
            counted = counts.setdefault(name, [0, 0])
            counted[0] += check(answer)
            counted[1] += 1
    return {name: share(hits, n) for name, (hits, n) in sorted(counts.items())}


def evaluate(folder: Path = MODEL_DIR) -> dict[str, Any]:
    """The whole record as plain JSON types."""
    from interp.runs import versions

    model, tokenizer = load(folder)
    shares = measure([*harmful_items(n_attack=240), *benign_items(n=100)], model, tokenizer)
    return {
        "sha256": sha256(folder),
        "parameters": sum(p.numel() for p in model.parameters()),
        "measured_on": "val questions and val attacks, greedy decoding, at most 64 new tokens",
        "planted": world.planted_record(),
        "shares": {name: to_dict(estimate) for name, estimate in shares.items()},
        "versions": versions(),
    }


def differences(recorded: dict[str, Any], measured: dict[str, Any]) -> list[str]:
    """One line per disagreement between two evaluations; `measured` may hold only a part of the shares."""
    found = []
    if recorded["sha256"] != measured["sha256"]:
        found.append(f"weights: recorded {recorded['sha256'][:12]}, found {measured['sha256'][:12]}")
    if recorded["planted"] != measured["planted"]:
        found.append("the planted components differ from the recorded ones")
    for name, new in measured["shares"].items():
        old = recorded["shares"].get(name)
        if old is None or old["n"] != new["n"] or abs(old["value"] - new["value"]) > TOLERANCE:
            found.append(
                f"{name}: recorded {old and round(old['value'], 1)}, found {new['value']:.1f} (n = {new['n']})"
            )
    return found


def main(
    model: Annotated[Path, typer.Option(help="Folder of the checkpoint.")] = MODEL_DIR,
    out: Annotated[Path, typer.Option(help="The record to write, or with --check to compare with.")] = EVALUATION,
    check: Annotated[bool, typer.Option("--check", help="Write nothing; fail where the record does not hold.")] = False,
    threads: Annotated[int, typer.Option(min=1)] = 2,
) -> None:
    """Measure the demo model on val and record it, or check the record."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        recorded = read_json(out) if check else None
        sha256(model)
        import torch

        torch.set_num_threads(threads)
        measured = evaluate(model)
        if not check:
            write_json(out, measured)
    except InputError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(2) from None
    for name, made in measured["shares"].items():
        typer.echo(f"{name:45s} {made['value']:6.1f} %  [{made['low']:.1f}, {made['high']:.1f}]  n = {made['n']}")
    if recorded is not None:
        lines = differences(recorded, measured)
        typer.echo("\n".join(lines) if lines else "the recorded evaluation holds")
        raise typer.Exit(1 if lines else 0)


if __name__ == "__main__":
    typer.run(main)
