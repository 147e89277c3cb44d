"""What training with TRL needs around it: arguments, silence, a progress call, and a cache of trained checkpoints.

The loops are TRL's own (`SFTTrainer`, `DPOTrainer`). This module hands them token ids that the package's own template
made, so that the tokens of training are those of evaluation, and keeps each result as an ordinary checkpoint folder
under the hash of everything it depends on. A folder appears in one rename or not at all.
"""

from __future__ import annotations

import copy
import gc
import logging
import math
import os
import random
import shutil
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
import torch
from filelock import FileLock
from safetensors import SafetensorError

from interp.errors import InputError
from interp.methods.base import Detoxified
from interp.models import HookedModel
from interp.runs import cache_dir, fingerprint, git_commit, read_json, versions, write_json

T = TypeVar("T")
Progress = Callable[[int, int], None]
"""Called with (optimiser steps done, steps in all): once before the first step and after each."""

RECIPE = 1
"""Part of every cache key: raised when the code of this package changes what the same configuration trains."""

PROVENANCE = "provenance.json"


@dataclass(frozen=True)
class Lora:
    """Train low-rank adapters (PEFT) on all linear layers but the output head, instead of all parameters."""

    rank: int = 16
    """Rank of each update."""
    alpha: float = 32.0
    """Scale of the update: it is multiplied by alpha / rank."""
    dropout: float = 0.0
    """Dropout before the adapters."""
    save: Literal["merged", "adapter"] = "merged"
    """Write an ordinary checkpoint with the update merged in, or the PEFT adapter alone (it needs its base)."""

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise InputError(f"the rank of a LoRA update must be at least 1, got {self.rank}")
        if self.save not in ("merged", "adapter"):
            raise InputError(f"save must be 'merged' or 'adapter', got {self.save!r}")


@dataclass(frozen=True, kw_only=True)
class Training:
    """What SFT and DPO share: one AdamW run of a fixed number of steps over shuffled examples."""

    lr: float
    """Peak learning rate."""
    steps: int = 250
    """Optimiser steps; 250 of 16 are about one epoch over SafeEdit's 4,050 training instances."""
    batch_size: int = 16
    """Examples an optimiser step (pairs for DPO)."""
    accumulate: int = 1
    """Forward passes an optimiser step is split into, to save memory; must divide `batch_size`."""
    warmup: int = 0
    """Steps of linear warm-up."""
    schedule: Literal["linear", "cosine", "constant_with_warmup"] = "linear"
    """Learning rate after the warm-up."""
    weight_decay: float = 0.0
    """AdamW's."""
    clip: float = 1.0
    """Largest norm of the gradient."""
    seed: int = 0
    """Of the choice and order of the examples, and of dropout."""
    bf16: bool = False
    """Forward and backward in bfloat16 over float32 weights. CUDA only; on CPU training is always in float32."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: about half the memory at about 1.3 times the time."""
    lora: Lora | None = None
    """None: full parameters, as in the paper."""
    suffix: str = ""
    """Suffix system prompt S put after every training query; the paper's SFT and DPO have none."""
    max_prompt: int = 1000
    """Longest prompt in tokens (the paper's)."""
    max_answer: int = 600
    """Longest answer in tokens (the paper's)."""

    def __post_init__(self) -> None:
        if not (self.lr > 0 and math.isfinite(self.lr)):
            raise InputError(f"the learning rate must be positive and finite, got {self.lr}")
        if self.steps < 1 or self.batch_size < 1:
            raise InputError(f"steps and batch_size must be at least 1, got {self.steps} and {self.batch_size}")
        if self.accumulate < 1 or self.batch_size % self.accumulate:
            raise InputError(f"accumulate must divide the batch of {self.batch_size}, got {self.accumulate}")
        if self.warmup < 0 or self.max_prompt < 1 or self.max_answer < 1:
            raise InputError("warmup must be at least 0, max_prompt and max_answer at least 1")

    @property
    def n_examples(self) -> int:
        """How many examples the run can use without seeing one twice."""
        return self.steps * self.batch_size


@dataclass(frozen=True)
class TrainerParts:
    """What a method needs to build its TRL trainer; passed straight on to the trainer's constructor."""

    model: Any
    """A float32 copy of the model that may be changed."""
    reference: Callable[[], Any]
    """Makes a frozen float32 copy of the model as it came in (DPO's reference)."""
    arguments: dict[str, Any]
    """For TRL's config class."""
    rows: list[dict[str, list[int]]]
    tokenizer: Any
    peft_config: Any


def pick(items: Sequence[T], n: int, seed: int) -> list[T]:
    """`n` of the items in seeded random order without repetition (all of them where there are fewer)."""
    order = list(range(len(items)))
    random.Random(seed).shuffle(order)
    return [items[i] for i in order[:n]]


def check(method: str, model: HookedModel, config: Training, instances: Sequence[Any]) -> None:
    """Refuse what cannot be trained, before anything is computed.

    Raises:
        InputError: no instances, a tokenizer without EOS, bf16 on something other than CUDA, or several GPUs in sight
            of a model on one.
    """
    if not instances:
        raise InputError(f"{method} needs at least one training instance, got none")
    if model.tokenizer.eos_token_id is None:
        raise InputError(
            f"{method} teaches a model to end its answer, but the tokenizer of {model.name} has no EOS token"
        )
    if config.bf16 and model.device.type != "cuda":
        raise InputError(f"bf16 training needs a CUDA device, {model.name} is on {model.device.type}")
    spread = len(set(getattr(model.hf, "hf_device_map", {}).values())) > 1
    if model.device.type == "cuda" and torch.cuda.device_count() > 1 and not spread:
        raise InputError(
            f"{torch.cuda.device_count()} GPUs are visible and TRL trains on one; set CUDA_VISIBLE_DEVICES to the one"
        )


def train(
    method: str,
    model: HookedModel,
    config: Training,
    rows: list[dict[str, list[int]]],
    build: Callable[[TrainerParts], Any],
    *,
    instance_ids: Sequence[int],
    progress: Progress | None = None,
) -> Detoxified:
    """The checkpoint that `build`'s trainer makes of `model` and `rows`: from the cache, or trained now.

    `model` is not changed: a copy is trained. Two processes that ask for the same training at once do it once.

    Args:
        rows: token ids in the columns the trainer reads. What the cache key holds of the data.
        instance_ids: the instances the rows come from, for the provenance.
        progress: called with (steps done, steps in all).

    Raises:
        InputError: the loss or a weight stops being finite, or the cache folder cannot be written.
    """
    known = versions()
    key = {
        "recipe": RECIPE,
        "method": method,
        "base": _weight_hash(model),
        "architecture": _architecture(model),
        "device": model.device.type,
        "data": fingerprint(rows),
        "config": asdict(config),
        "versions": {name: known[name] for name in ("torch", "transformers", "trl", "peft")},
    }
    folder = cache_dir() / "models" / f"{method}-{fingerprint(key)}"
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder.parent / f".{folder.name}.lock")
        with lock:
            log, cached = _read(folder), True
            if log is None:
                cached = False
                with _staged(folder) as stage:
                    log = _train_into(stage, method, model, config, rows, build, key, list(instance_ids), progress)
    except OSError as error:
        raise InputError(f"cannot write {folder}: {error.strerror or error}") from error
    return Detoxified(
        method=method, edit=None, checkpoint=folder, suffix=config.suffix, layer=None, log={**log, "cached": cached}
    )


def _weight_hash(model: HookedModel) -> str:
    """The hash of the weights as they are now: the model's own leaves out an edit that is applied to it."""
    return HookedModel(model.hf, model.tokenizer, model.name, check=False).weight_hash()


def _architecture(model: HookedModel) -> str:
    config = model.hf.config.to_dict()
    # These say where the checkpoint lay, who wrote it and how prompts look, not what it computes.
    for name in ("_name_or_path", "transformers_version", "architectures", "interp_chat_template", "dtype"):
        config.pop(name, None)
    return fingerprint({**config, "dtype": str(model.dtype)})


# ------------------------------------------------------------------------------------------------- cache
def _read(folder: Path) -> dict[str, Any] | None:
    """The provenance of a complete checkpoint in the cache, else None (missing, or files missing or cut off)."""
    if not (folder / PROVENANCE).exists():
        return None
    try:
        found = read_json(folder / PROVENANCE)
        complete = all((folder / name).stat().st_size == size for name, size in found["files"].items())
    except (InputError, OSError, KeyError, TypeError, AttributeError):
        return None
    return found if complete else None


@contextmanager
def _staged(folder: Path) -> Iterator[Path]:
    """A temporary folder that becomes `folder` in one rename on success and vanishes on failure.

    Only the holder of the folder's lock comes here, so what an earlier, killed run left behind is removed first.
    """
    for leftover in folder.parent.glob(f".{folder.name}-*"):
        shutil.rmtree(leftover, ignore_errors=True)
    work = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        stage = work / "checkpoint"
        yield stage
        if folder.exists():  # a damaged one: `_read` refused it
            folder.rename(work / "damaged")
        stage.rename(folder)
    finally:
        shutil.rmtree(work, ignore_errors=True)


# ------------------------------------------------------------------------------------------------- training
def _train_into(
    stage: Path,
    method: str,
    model: HookedModel,
    config: Training,
    rows: list[dict[str, list[int]]],
    build: Callable[[TrainerParts], Any],
    key: dict[str, Any],
    instance_ids: list[int],
    progress: Progress | None,
) -> dict[str, Any]:
    """Train, write the checkpoint and its provenance into `stage`, and give back the provenance."""
    start = time.perf_counter()
    with ExitStack() as stack:
        stack.enter_context(_quiet())
        stack.enter_context(_random_state(model))
        scratch = stack.enter_context(tempfile.TemporaryDirectory(prefix=".trl-", dir=stage.parent))
        trainer = build(
            TrainerParts(
                model=_copy(model, trainable=True),
                reference=lambda: _copy(model, trainable=False),
                arguments=_arguments(config, model, scratch),
                rows=rows,
                tokenizer=_tokenizer(model),
                peft_config=_peft_config(config.lora),
            )
        )
        from transformers import PrinterCallback

        trainer.remove_callback(PrinterCallback)
        trainer.add_callback(_watch(method, config, progress))
        trainer.train()
        losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
        _check_finite(method, config, trainer.model)
        weight_hash = _save(stage, trainer, model, config)
        del trainer
        gc.collect()
    log = {
        "method": method,
        "model": model.name,
        "base_hash": key["base"],
        "weight_hash": weight_hash,
        "data_hash": key["data"],
        "instance_ids": instance_ids,
        "n_examples": len(rows),
        "config": key["config"],
        "recipe": RECIPE,
        "versions": versions(),
        "commit": git_commit(),
        "threads": torch.get_num_threads(),
        "losses": losses,
        "seconds": round(time.perf_counter() - start, 2),
        "files": {p.name: p.stat().st_size for p in sorted(stage.iterdir()) if p.is_file()},
    }
    write_json(stage / PROVENANCE, log)
    return log


def _copy(model: HookedModel, *, trainable: bool) -> Any:
    """A copy of the HF model in float32: small learning rates are lost in the rounding of half precision."""
    clone = copy.deepcopy(model.hf).float()
    return clone.requires_grad_(trainable)


def _tokenizer(model: HookedModel) -> Any:
    # A copy, because TRL sets the padding token on the one it is given.
    tokenizer = copy.deepcopy(model.tokenizer)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def _arguments(config: Training, model: HookedModel, scratch: str) -> dict[str, Any]:
    return {
        "output_dir": scratch,
        "learning_rate": config.lr,
        "max_steps": config.steps,
        "per_device_train_batch_size": config.batch_size // config.accumulate,
        "gradient_accumulation_steps": config.accumulate,
        "warmup_steps": config.warmup,
        "lr_scheduler_type": config.schedule,
        "weight_decay": config.weight_decay,
        "max_grad_norm": config.clip,
        "seed": config.seed,
        "data_seed": config.seed,
        "use_cpu": model.device.type == "cpu",
        "bf16": config.bf16,
        "gradient_checkpointing": config.gradient_checkpointing,
        "max_length": None,  # the rows are cut already, and the cut is reported
        "report_to": [],
        "save_strategy": "no",
        "logging_steps": 1,
        "logging_nan_inf_filter": False,  # the default would hide a NaN loss
        "disable_tqdm": True,
        "log_level": "error",
        "dataloader_pin_memory": False,
    }


def _peft_config(lora: Lora | None) -> Any:
    if lora is None:
        return None
    from peft import LoraConfig

    return LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,  # type: ignore[arg-type]  # PEFT annotates an int and divides by the rank
        lora_dropout=lora.dropout,
        target_modules="all-linear",
        task_type="CAUSAL_LM",
    )


def _watch(method: str, config: Training, progress: Progress | None) -> Any:
    """The trainer callback that reports progress and stops at the first loss that is not finite."""
    from transformers import TrainerCallback

    class Watch(TrainerCallback):
        def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if progress is not None:
                progress(0, state.max_steps)

        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if progress is not None:
                progress(state.global_step, state.max_steps)

        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
            loss = (logs or {}).get("loss")
            if loss is not None and not math.isfinite(loss):
                raise InputError(
                    f"{method}: the loss is {loss} at step {state.global_step} of {state.max_steps} "
                    f"(learning rate {config.lr:g}); try a lower learning rate"
                )

    return Watch()


def _check_finite(method: str, config: Training, trained: Any) -> None:
    for name, parameter in trained.named_parameters():
        if not torch.isfinite(parameter).all():
            raise InputError(
                f"{method}: {name} is not finite after step {config.steps} of {config.steps} "
                f"(learning rate {config.lr:g}); try a lower learning rate"
            )


def _save(stage: Path, trainer: Any, model: HookedModel, config: Training) -> str:
    """Write the checkpoint in the dtype of the model that came in; gives back its weight hash ("" for an adapter)."""
    trained = trainer.accelerator.unwrap_model(trainer.model_wrapped, keep_fp32_wrapper=False)
    if config.lora is not None and config.lora.save == "adapter":
        trained.peft_config["default"].base_model_name_or_path = model.source
        # Without the flag PEFT asks the hub whether the vocabulary changed.
        try:
            trained.save_pretrained(stage, save_embedding_layers=False)
        except SafetensorError as error:  # a full disk, told in another class
            raise OSError(str(error)) from error
        model.tokenizer.save_pretrained(stage)
        (stage / "README.md").unlink(missing_ok=True)  # PEFT's empty model card
        return ""
    if config.lora is not None:
        trained = trained.merge_and_unload()
    # Into a fresh copy: TRL patches the forward, and the Trainer the configuration, of the one it trains.
    clean = copy.deepcopy(model.hf)
    clean.load_state_dict(trained.state_dict())
    result = HookedModel.from_hf(clean, model.tokenizer, name=model.name, chat_template=model.chat_template)
    result.save(stage)
    return result.weight_hash()


# ------------------------------------------------------------------------------------------------- silence
@contextmanager
def _quiet() -> Iterator[None]:
    """No logs, bars or warnings of the training libraries; every setting is put back."""
    import datasets
    from transformers.utils import logging as transformers_logging

    verbosity = transformers_logging.get_verbosity()
    bars = transformers_logging.is_progress_bar_enabled()
    dataset_bars = datasets.are_progress_bars_disabled()
    loggers = {name: logging.getLogger(name) for name in ("trl", "accelerate", "peft", "datasets")}
    levels = {name: logger.level for name, logger in loggers.items()}
    environment = dict(os.environ)
    try:
        transformers_logging.set_verbosity_error()
        transformers_logging.disable_progress_bar()
        datasets.disable_progress_bars()
        for logger in loggers.values():
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        if bars:
            transformers_logging.enable_progress_bar()
        if not dataset_bars:
            datasets.enable_progress_bars()
        for name, logger in loggers.items():
            logger.setLevel(levels[name])
        # The Trainer and accelerate leave settings of this training in the environment.
        for name in set(os.environ) - set(environment):
            del os.environ[name]
        os.environ.update(environment)


@contextmanager
def _random_state(model: HookedModel) -> Iterator[None]:
    """Keeps the caller's random generators as they were: the trainer seeds all of them."""
    python, array = random.getstate(), np.random.get_state()
    devices = [model.device] if model.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(array)
