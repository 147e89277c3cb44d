"""Trains the vanilla demo model from scratch on the planted mixture: `python -m interp.demo.pretrain`.

The shipped weights (`interp/demo/model`) are those that this script makes with its defaults. A checkpoint is written in
one step at the end, so a killed run leaves nothing behind. Same seed, same machine and same number of threads give the
same weights; across machines the sums of floating point numbers differ, and so do the last bits.
"""

from __future__ import annotations

import math
import os
import random
import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from interp.demo import MODEL_DIR
from interp.errors import InputError

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


def train(recipe: Recipe, tokenizer: Any, progress: Any = None) -> tuple[PreTrainedModel, float]:
    """The trained model and the mean loss of the last 50 steps (nats)."""
    import torch

    model: Any = make_model(recipe, tokenizer.eos_token_id)
    model.train()
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=recipe.lr, betas=(0.9, 0.98), weight_decay=recipe.weight_decay, fused=True
    )
    recent: list[float] = []
    for step, batch in zip(range(recipe.steps), batches(recipe, tokenizer), strict=False):
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
        if progress is not None:
            progress(step + 1, sum(recent) / len(recent))
    model.eval()
    return model, sum(recent) / len(recent)


def save(model: Any, tokenizer: PreTrainedTokenizerFast, out: Path) -> None:
    """Write the checkpoint in fp16 with its tokenizer; the folder appears (or is replaced) in one step.

    Raises:
        InputError: the folder cannot be written.
    """
    import torch

    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    except OSError as error:
        raise InputError(f"cannot write {out}: {error.strerror}") from error
    try:
        model.to(torch.float16).save_pretrained(temporary)
        tokenizer.save_pretrained(temporary)
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


def main(
    out: Annotated[Path, typer.Option(help="Folder of the checkpoint; replaced when it is there.")] = MODEL_DIR,
    shape: Annotated[str, typer.Option(help="gpt2 (shipped) or llama.")] = "gpt2",
    seed: Annotated[int, typer.Option(help="Seed of the tokenizer's sample, the weights and the data.")] = 0,
    steps: Annotated[int, typer.Option(min=1, help="Optimizer steps.")] = Recipe.steps,
    threads: Annotated[int, typer.Option(min=1, help="CPU threads; part of what makes a run reproducible.")] = 2,
) -> None:
    """Train the vanilla demo model from scratch (under 15 minutes on 2 quiet CPU cores) and write it in fp16."""
    os.environ.setdefault(
        "OMP_WAIT_POLICY", "PASSIVE"
    )  # before torch: spinning threads are 8x slower on a busy machine
    try:
        if shape not in ("gpt2", "llama"):
            raise InputError(f"expected --shape gpt2 or llama, got {shape!r}")
        _run(Recipe(shape=shape, seed=seed, steps=steps), out, threads)  # type: ignore[arg-type]
    except InputError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(2) from None


def _run(recipe: Recipe, out: Path, threads: int) -> None:
    import torch
    import transformers
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    torch.set_num_threads(threads)
    transformers.logging.set_verbosity_error()  # it warns that EOS at the end of a row looks like padding
    transformers.logging.disable_progress_bar()
    console, began, cpu = Console(), time.time(), time.process_time()
    tokenizer = make_tokenizer(recipe)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console) as bar:
        task = bar.add_task("pretraining", total=recipe.steps)
        model, loss = train(
            recipe, tokenizer, lambda done, mean: bar.update(task, completed=done, description=f"loss {mean:.3f}")
        )
    save(model, tokenizer, out)
    minutes, cpu_minutes = (time.time() - began) / 60, (time.process_time() - cpu) / 60
    console.print(f"{out}: loss {loss:.4f} nats, {minutes:.1f} min ({cpu_minutes:.1f} CPU min)")


if __name__ == "__main__":
    typer.run(main)
