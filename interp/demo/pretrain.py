"""Trains the vanilla demo model from scratch on the planted mixture: `python -m interp.demo.pretrain`.

What it makes with its defaults is, byte for byte, shipped in `interp/demo/model`: `--check` trains again and says so.
Sums of floating point numbers depend on the instructions that a processor offers, and training amplifies the last bit;
the script therefore asks the libraries for one arithmetic (`ARITHMETIC`) that every Intel processor with AVX2 has.
A checkpoint is written in one step at the end, so a killed run leaves nothing behind.
"""

from __future__ import annotations

import hashlib
import math
import os
import random
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from interp.demo import MODEL_DIR
from interp.errors import InputError
from interp.runs import read_json, versions, write_json

if TYPE_CHECKING:
    from jaxtyping import Float, Int
    from torch import Tensor
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

    from interp.demo.mixture import PretrainingText

EOS = "</s>"
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% if message['role'] == 'assistant' %}Assistant: {{ message['content'] }}" + EOS + "\n"
    "{% else %}User: {{ message['content'] }}\n{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}Assistant:{% endif %}"
)
"""Renders one user turn X as `User: {X}\\nAssistant:`; the answer follows with a leading space and ends with EOS."""


ARITHMETIC = {"MKL_CBWR": "AVX2", "ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2"}
"""What matrix products (MKL), torch's own kernels and oneDNN are asked to compute with. Read when torch is loaded."""

TRAINING = "training.json"
"""Beside the weights: recipe, arithmetic, and losses and SHA-256 of the weights at `MARKS`."""

MARKS = (25, 100, 500, 1000, 1500)
"""Steps after which the weights are fingerprinted; the last step is one too."""

LOSS_TOLERANCE = 2e-3
"""Nats by which the loss at the first mark may differ where the processor has another arithmetic."""

PADDING = 1
"""Any token but EOS: what stands behind the last real token has no weight, and a causal model never looks at it."""


@dataclass(frozen=True)
class Recipe:
    """How the model is made."""

    shape: Literal["gpt2", "llama"] = "gpt2"
    seed: int = 0
    steps: int = 2200
    tokens: int = 2048
    """Tokens in a batch, padding included."""
    lr: float = 3e-3
    """Peak learning rate of AdamW; linear warm-up, then cosine to 5 %."""
    warmup: int = 100
    weight_decay: float = 0.3
    """Also keeps the matrices small enough for an edit at the paper's learning rates to matter."""
    clip: float = 1.0
    prompt_weight: float = 0.1
    """Weight of a prompt token in the loss; an answer token counts 1."""
    vocabulary: int = 2048
    layers: int = 6
    width: int = 128
    mlp: int = 512
    heads: int = 4
    context: int = 256


# ------------------------------------------------------------------------------------------- tokenizer
def make_tokenizer(recipe: Recipe) -> PreTrainedTokenizerFast:
    """A byte-level BPE over the mixture and the world's words; `</s>` ends and pads, no BOS is added."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=recipe.vocabulary,
        special_tokens=[EOS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(_tokenizer_texts(recipe.seed), trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        eos_token=EOS,
        pad_token=EOS,
        chat_template=CHAT_TEMPLATE,
        model_max_length=recipe.context,
        clean_up_tokenization_spaces=False,
        padding_side="left",
    )


def _tokenizer_texts(seed: int) -> Iterator[str]:
    """12,000 examples, and every word and every attack part often enough that objects are seldom split."""
    from interp.demo import grammar, lexicon
    from interp.demo.mixture import pretraining_texts

    stream = pretraining_texts(random.Random(f"tokenizer-{seed}"))
    for _ in range(12000):
        example = next(stream)
        yield f"User: {example.prompt}\nAssistant: {example.answer}" if example.prompt else f" {example.answer}"
    words = {word for adjectives, nouns in lexicon.POOLS.values() for word in (*adjectives, *nouns)}
    words |= {*lexicon.KIND, *lexicon.UNKIND, *lexicon.TOWNS, *lexicon.FIRST_NAMES, *lexicon.LAST_NAMES}
    words |= {*lexicon.CAPITALS, *lexicon.CAPITALS.values(), *lexicon.SOUNDS, *lexicon.SOUNDS.values()}
    for word in sorted(words):
        yield f" {word}" * 60
    parts = [sentence for _, _, sentence in grammar.PERSONAS]
    for part in (*parts, *grammar.RULES, *grammar.CLOSERS, *grammar.TAILS):
        yield f" {part}" * 30


# ------------------------------------------------------------------------------------------------ data
@dataclass(frozen=True)
class Batch:
    """Right-padded examples; `weights` is 0 on padding, `prompt_weight` on prompts, 1 on answers and EOS."""

    input_ids: Int[Tensor, "example token"]
    weights: Float[Tensor, "example token"]


def batches(recipe: Recipe, tokenizer: PreTrainedTokenizerFast, pool: int = 32) -> Iterator[Batch]:
    """Endless batches of about `recipe.tokens` tokens; `pool` batches at a time are cut from length-sorted examples."""
    from interp.demo.mixture import pretraining_texts

    rng = random.Random(recipe.seed)
    stream = pretraining_texts(rng)
    while True:
        examples: list[tuple[list[int], list[float]]] = []
        total = 0
        while total < pool * recipe.tokens:
            chunk = [_encode(example, tokenizer, recipe) for example, _ in zip(stream, range(256), strict=False)]
            examples += chunk
            total += sum(len(ids) for ids, _ in chunk)
        examples.sort(key=lambda example: len(example[0]))
        ready: list[Batch] = []
        group: list[tuple[list[int], list[float]]] = []
        for example in examples:
            if group and (len(group) + 1) * len(example[0]) > recipe.tokens:
                ready.append(_pad(group))
                group = []
            group.append(example)
        ready.append(_pad(group))
        rng.shuffle(ready)
        yield from ready


def _encode(example: PretrainingText, tokenizer: Any, recipe: Recipe) -> tuple[list[int], list[float]]:
    backend = tokenizer.backend_tokenizer
    prompt = backend.encode(f"User: {example.prompt}\nAssistant:").ids if example.prompt is not None else []
    answer = [*backend.encode(f" {example.answer}").ids, tokenizer.eos_token_id]
    return (prompt + answer)[: recipe.context], ([recipe.prompt_weight] * len(prompt) + [1.0] * len(answer))


def _pad(group: Iterable[tuple[list[int], list[float]]]) -> Batch:
    import torch

    group = list(group)
    longest = max(len(ids) for ids, _ in group)
    ids = torch.tensor([ids + [PADDING] * (longest - len(ids)) for ids, _ in group])
    weights = torch.tensor([w[:longest] + [0.0] * (longest - len(w)) for _, w in group])
    return Batch(ids, weights)


# --------------------------------------------------------------------------------------------- training
def make_model(recipe: Recipe, eos: int) -> PreTrainedModel:
    """A randomly initialised model of the recipe's shape, with tied embeddings."""
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

    torch.manual_seed(recipe.seed)
    common: dict[str, Any] = {"vocab_size": recipe.vocabulary, "bos_token_id": eos, "eos_token_id": eos}
    common |= {"pad_token_id": eos, "tie_word_embeddings": True, "interp_chat_template": "auto"}
    if recipe.shape == "gpt2":
        return GPT2LMHeadModel(
            GPT2Config(
                n_positions=recipe.context, n_embd=recipe.width, n_layer=recipe.layers, n_head=recipe.heads,
                n_inner=recipe.mlp, activation_function="gelu_pytorch_tanh",
                resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, **common,
            )
        )  # fmt: skip
    return LlamaForCausalLM(
        LlamaConfig(
            max_position_embeddings=recipe.context, hidden_size=recipe.width, num_hidden_layers=recipe.layers,
            num_attention_heads=recipe.heads, num_key_value_heads=recipe.heads,
            intermediate_size=8 * round(recipe.mlp * 2 / 3 / 8), **common,
        )
    )  # fmt: skip


def learning_rate(recipe: Recipe, step: int) -> float:
    """The learning rate of a step: linear warm-up, then cosine to 5 %."""
    if step < recipe.warmup:
        return recipe.lr * (step + 1) / recipe.warmup
    progress = (step - recipe.warmup) / max(1, recipe.steps - recipe.warmup)
    return recipe.lr * (0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * min(1.0, progress))))


def batch_loss(model: Any, batch: Batch) -> Float[Tensor, ""]:
    """Weighted mean cross-entropy of the next token, nats."""
    from torch.nn import functional

    weights = batch.weights[:, 1:]
    keep = weights > 0
    hidden = model.base_model(input_ids=batch.input_ids[:, :-1], use_cache=False).last_hidden_state[keep]
    losses = functional.cross_entropy(model.lm_head(hidden), batch.input_ids[:, 1:][keep], reduction="none")
    return (losses * weights[keep]).sum() / weights[keep].sum()


@dataclass(frozen=True)
class Mark:
    """What a training is recognised by after some steps."""

    step: int
    loss: float
    """Of that step's batch, nats, before the step."""
    weights: str
    """SHA-256 of the float32 weights after the step."""


@dataclass(frozen=True)
class Trained:
    """A trained model, or one that was stopped on the way."""

    model: PreTrainedModel
    loss: float
    """Mean of the last 50 steps, nats."""
    marks: tuple[Mark, ...]


def fingerprint(model: Any) -> str:
    """SHA-256 of the model's weights: names and float32 bytes, in the order of the names."""
    digest = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.detach().float().contiguous().numpy().tobytes())
    return digest.hexdigest()


def train(
    recipe: Recipe, tokenizer: Any, progress: Callable[[int, float], None] | None = None, until: int | None = None
) -> Trained:
    """Train from random weights; `until` stops after that many steps of the same recipe (its learning rates included).

    Raises:
        InputError: the loss is no longer finite.
    """
    import torch

    model: Any = make_model(recipe, tokenizer.eos_token_id)
    model.train()
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=recipe.lr, betas=(0.9, 0.98), weight_decay=recipe.weight_decay, fused=True
    )
    last = min(recipe.steps, until or recipe.steps)
    recent: list[float] = []
    marks: list[Mark] = []
    for step, batch in zip(range(last), batches(recipe, tokenizer), strict=False):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(recipe, step)
        loss = batch_loss(model, batch)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), recipe.clip)
        optimizer.step()
        recent = [*recent[-49:], loss.item()]
        if not math.isfinite(recent[-1]):
            raise InputError(f"the loss became {recent[-1]} at step {step}: lower the learning rate")
        if step + 1 in MARKS or step + 1 == last:
            marks.append(Mark(step + 1, recent[-1], fingerprint(model)))
        if progress is not None:
            progress(step + 1, sum(recent) / len(recent))
    model.eval()
    return Trained(model, sum(recent) / len(recent), tuple(marks))


def training_record(recipe: Recipe, trained: Trained, threads: int) -> dict[str, Any]:
    """How a checkpoint was made, as plain JSON types (the file `TRAINING`)."""
    return {
        "recipe": asdict(recipe),
        "threads": threads,
        "arithmetic": ARITHMETIC,
        "loss": trained.loss,
        "marks": [asdict(mark) for mark in trained.marks],
        "versions": versions(),
    }


def disagreements(recorded: Mapping[str, Any], found: Mapping[str, Any], exact: bool) -> list[str]:
    """One line per mark at which a training is not the recorded one.

    Args:
        recorded: What `training_record` gave for the shipped checkpoint.
        found: The same for a training now, which may have been stopped at an earlier mark.
        exact: Weights must be the same bits. Otherwise (another arithmetic) only the loss at the first mark is held to
            the recorded one, within `LOSS_TOLERANCE`: later, rounding has grown into another training.
    """
    old = {mark["step"]: mark for mark in recorded["marks"]}
    lines = []
    for mark in found["marks"] if exact else found["marks"][:1]:
        if exact and mark["weights"] != old[mark["step"]]["weights"]:
            lines.append(
                f"step {mark['step']}: weights {mark['weights'][:12]}, recorded {old[mark['step']]['weights'][:12]}"
                f" (loss {mark['loss']:.6f}, recorded {old[mark['step']]['loss']:.6f})"
            )
        elif abs(mark["loss"] - old[mark["step"]]["loss"]) > LOSS_TOLERANCE:
            lines.append(f"step {mark['step']}: loss {mark['loss']:.4f}, recorded {old[mark['step']]['loss']:.4f}")
    return lines


def same_arithmetic(cpuinfo: str) -> bool:
    """Whether this processor computes as `ARITHMETIC` says: MKL keeps that promise on Intel's own with AVX2."""
    return "GenuineIntel" in cpuinfo and " avx2" in cpuinfo


def save(model: Any, tokenizer: PreTrainedTokenizerFast, out: Path, training: Mapping[str, Any] | None = None) -> None:
    """Write the checkpoint in fp16 with its tokenizer and training; the folder appears (or is replaced) in one step.

    Raises:
        InputError: the folder cannot be written.
    """
    import torch

    temporary = _temporary(out)
    try:
        model.to(torch.float16).save_pretrained(temporary)
        tokenizer.save_pretrained(temporary)
        if training is not None:
            write_json(temporary / TRAINING, training)
        temporary.chmod(0o755)
        for file in temporary.iterdir():
            file.chmod(0o644)  # safetensors files are born private
        old = out.with_name(f".{out.name}-old")
        if out.exists():
            out.rename(old)
        temporary.rename(out)
        shutil.rmtree(old, ignore_errors=True)
    except OSError as error:
        raise InputError(f"cannot write {out}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _temporary(out: Path) -> Path:
    """An empty folder beside `out`. Raises InputError where there cannot be one."""
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        return Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    except OSError as error:
        raise InputError(f"cannot write {out}: {error.strerror}") from error


def main(
    out: Annotated[Path, typer.Option(help="Folder of the checkpoint; replaced when it is there.")] = MODEL_DIR,
    shape: Annotated[str, typer.Option(help="gpt2 (the default demo) or llama.")] = "gpt2",
    seed: Annotated[int, typer.Option(help="Seed of the tokenizer's sample, the weights and the data.")] = 0,
    steps: Annotated[int, typer.Option(min=1, help="Optimizer steps.")] = Recipe.steps,
    threads: Annotated[int, typer.Option(min=1, help="CPU threads; part of what makes a run reproducible.")] = 2,
    check: Annotated[
        bool, typer.Option("--check", help="Write nothing; train again and fail where OUT is not what comes out.")
    ] = False,
    until: Annotated[
        int | None, typer.Option(min=1, help=f"With --check: stop after this many steps ({MARKS[0]} takes seconds).")
    ] = None,
) -> None:
    """Train the vanilla demo model from scratch (under 15 minutes on 2 quiet CPU cores) and write it in fp16."""
    os.environ.setdefault(
        "OMP_WAIT_POLICY", "PASSIVE"
    )  # before torch: spinning threads are 8x slower on a busy machine
    os.environ.update(ARITHMETIC)
    try:
        if shape not in ("gpt2", "llama"):
            raise InputError(f"expected --shape gpt2 or llama, got {shape!r}")
        if until is not None and not check:
            raise InputError("--until belongs to --check: a checkpoint is made of all steps")
        recipe = Recipe(shape=shape, seed=seed, steps=steps)  # type: ignore[arg-type]
        lines = _check(recipe, out, threads, until) if check else _make(recipe, out, threads)
    except InputError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(2) from None
    typer.echo("\n".join(lines))
    raise typer.Exit(1 if check and len(lines) > 1 else 0)


def _make(recipe: Recipe, out: Path, threads: int) -> list[str]:
    _temporary(out).rmdir()  # a folder that cannot be written is told now, not when the training is over
    began, cpu = time.time(), time.process_time()
    tokenizer = make_tokenizer(recipe)
    trained = _train_with_progress(recipe, tokenizer, threads)
    save(trained.model, tokenizer, out, training_record(recipe, trained, threads))
    minutes, cpu_minutes = (time.time() - began) / 60, (time.process_time() - cpu) / 60
    return [f"{out}: loss {trained.loss:.4f} nats, {minutes:.1f} min ({cpu_minutes:.1f} CPU min)"]


def _check(recipe: Recipe, out: Path, threads: int, until: int | None) -> list[str]:
    """What was compared in the first line; the following ones say what differs."""
    from interp.demo.evaluate import sha256

    shipped, recorded = sha256(out), _recorded(out)
    known = [mark["step"] for mark in recorded["marks"]]
    if until is not None and until not in known:
        raise InputError(f"expected --until one of {', '.join(map(str, known))} (the recorded steps), got {until}")
    if threads != recorded["threads"]:
        raise InputError(f"{out} was made with --threads {recorded['threads']}, got {threads}: sums would differ")
    changed = [name for name, value in asdict(recipe).items() if recorded["recipe"].get(name) != value]
    if changed:
        raise InputError(f"{out} was made by another recipe: {', '.join(changed)} differ")
    exact = same_arithmetic(_cpuinfo())
    tokenizer = make_tokenizer(recipe)
    trained = _train_with_progress(recipe, tokenizer, threads, until if exact or until else MARKS[0])
    lines = disagreements(recorded, training_record(recipe, trained, threads), exact)
    last = trained.marks[-1].step
    if exact and last == recipe.steps:
        with tempfile.TemporaryDirectory() as folder:
            save(trained.model, tokenizer, Path(folder) / "model")
            made = sha256(Path(folder) / "model")
        lines += [] if made == shipped else [f"{out}: {shipped[:12]} is there, {made[:12]} was made"]
        said = "the weights file, byte for byte" if not lines else "another weights file"
    elif exact:
        said = f"weights after {last} steps, bit for bit" if not lines else f"other weights within {last} steps"
    else:
        said = f"loss at step {MARKS[0]} within {LOSS_TOLERANCE} nats (bits need an Intel processor with AVX2)"
    return [f"{out} {'is what the script makes' if not lines else 'is not what the script makes'}: {said}", *lines]


def _recorded(out: Path) -> dict[str, Any]:
    """How a checkpoint was made. Raises InputError where the file is missing, damaged or none."""
    recorded = read_json(out / TRAINING)
    try:
        marks = [Mark(**mark) for mark in recorded["marks"]]
        whole = marks and {"recipe", "threads"} <= recorded.keys()
    except (TypeError, KeyError, AttributeError):
        whole = False
    if not whole:
        raise InputError(f"{out / TRAINING}: expected recipe, threads and marks of a training")
    return recorded


def _cpuinfo() -> str:
    try:
        return Path("/proc/cpuinfo").read_text()
    except OSError:
        return ""


def _train_with_progress(recipe: Recipe, tokenizer: Any, threads: int, until: int | None = None) -> Trained:
    import torch
    import transformers
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    torch.set_num_threads(threads)
    transformers.logging.set_verbosity_error()  # it warns that EOS at the end of a row looks like padding
    transformers.logging.disable_progress_bar()
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("pretraining", total=min(recipe.steps, until or recipe.steps))
        return train(
            recipe,
            tokenizer,
            lambda done, mean: bar.update(task, completed=done, description=f"loss {mean:.3f}"),
            until,
        )


if __name__ == "__main__":
    typer.run(main)
