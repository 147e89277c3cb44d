"""Opening checkpoints: the demo, a hub id, a folder, a PEFT adapter or a state-dict file, each as a plain HF model.

Nothing here hooks or edits. Whatever does not open is told in one line, and without a network it is told at once.
"""

from __future__ import annotations

import logging
import shutil
import tempfile
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel
from transformers.pytorch_utils import Conv1D

from interp.demo import MODELS
from interp.errors import InputError

log = logging.getLogger("interp")

STATE_DICT_SUFFIXES = (".pt", ".pth", ".bin", ".safetensors")
HUB_TIMEOUT = 10.0
"""Seconds that the hub may take to say whether it has a model."""


@dataclass(frozen=True)
class Checkpoint:
    """An opened checkpoint."""

    hf: PreTrainedModel
    tokenizer: Any
    source: str
    name: str
    notes: tuple[str, ...] = ()
    """What the user should know, a line each."""


# ------------------------------------------------------------------------------------------------- opening
def open_checkpoint(
    source: str | Path,
    *,
    base: str | Path | None = None,
    dtype: torch.dtype | str | None = None,
    device: torch.device | str | None = None,
    device_map: Any = None,
) -> Checkpoint:
    """Open any source that `HookedModel.from_pretrained` takes.

    Args:
        source: "demo" (or another of `interp.demo.MODELS`), a hub id, a checkpoint folder, a PEFT adapter (folder or
            id), a state-dict file.
        base: the model that an adapter or a state dict belongs to; an adapter names its own.
        dtype: a torch dtype or its name, "auto" for the checkpoint's own; None opens in float32 on a CPU and for the
            demo (shipped in float16 only to be small), else in the checkpoint's own.
        device: None takes the GPU where there is one.
        device_map: passed on to transformers (needs accelerate); then `device` must be None.

    Raises:
        InputError: the source is not there or not a checkpoint, or does not fit its base.
    """
    if device is not None and device_map is not None:
        raise InputError(f"expected one of device and device_map, got both ({device}, {device_map})")
    place, kind = _device(device), _dtype(dtype)
    if kind is None and (str(source) in MODELS or (place.type == "cpu" and device_map is None)):
        kind = torch.float32
    folder = demo_folder(str(source)) if str(source) in MODELS else Path(source).expanduser()

    def open_base(other: str | Path) -> Checkpoint:
        return open_checkpoint(other, dtype=kind, device=device, device_map=device_map)

    if folder.is_file():
        return _open_state_dict(folder, base, open_base)
    where, local, files = _find(str(source), folder)
    if "adapter_config.json" in files and "config.json" not in files:
        return _open_adapter(_adapter_folder(where, local), str(source), base, open_base)
    if base is not None:
        raise InputError(f"{source} is a whole model; base ({base}) is only for adapters and state dicts")
    if "config.json" not in files:
        found = ", ".join(sorted(files)[:4]) or "nothing"
        raise InputError(f"{source} is not a model: expected a config.json or adapter_config.json in it, found {found}")
    name = folder.name if folder.is_dir() and str(source) not in MODELS else str(source)
    return Checkpoint(_load_hf(where, kind, place, device_map, local), load_tokenizer(where, local), str(source), name)


def demo_folder(name: str = "demo") -> Path:
    """The folder of a shipped model: "demo" (GPT-2 shape), "demo-llama" or "demo-replica"."""
    folder = MODELS[name]
    if not (folder / "config.json").exists():
        raise InputError(f"the demo model is not in this installation (expected {folder}); reinstall the package")
    return folder


def load_tokenizer(where: Path | str, local: bool = True) -> Any:
    """The tokenizer beside a checkpoint. Raises InputError where there is none."""
    try:
        with quiet():
            return AutoTokenizer.from_pretrained(where, local_files_only=local, trust_remote_code=False)
    except Exception as error:
        raise InputError(f"{where} has no usable tokenizer: {_first_line(error)}") from error


def _find(source: str, folder: Path) -> tuple[Path | str, bool, set[str]]:
    """(folder or id, whether it is here, names of its files)."""
    if folder.is_dir():
        return folder, True, {p.name for p in folder.iterdir()}
    return _find_on_hub(source)


def _load_hf(where: Path | str, dtype: Any, device: torch.device, device_map: Any, local: bool) -> PreTrainedModel:
    try:
        with quiet():
            config = AutoConfig.from_pretrained(where, local_files_only=local, trust_remote_code=False)
            if getattr(config, "is_encoder_decoder", False):
                raise InputError(f"{where} is an encoder-decoder model ({config.model_type}); expected a decoder")
            loaded: Any = AutoModelForCausalLM.from_pretrained(
                where,
                dtype=dtype or "auto",
                device_map=device_map,
                local_files_only=local,
                trust_remote_code=False,  # False, not unset: transformers would ask on the terminal
                output_loading_info=True,
            )
            hf, info = loaded
    except InputError:
        raise
    except Exception as error:
        raise InputError(f"cannot open {where}: {_first_line(error)}") from error
    if info["missing_keys"]:
        missing = sorted(info["missing_keys"])
        raise InputError(f"{where} lacks {len(missing)} weights of its architecture, first {missing[0]}")
    return hf if device_map is not None else hf.to(device)


def _dtype(dtype: torch.dtype | str | None) -> torch.dtype | str | None:
    if not isinstance(dtype, str) or dtype == "auto":
        return dtype
    known = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16, "float64": torch.float64}
    if dtype not in known:
        raise InputError(f"unknown dtype {dtype!r}; expected one of auto, {', '.join(known)}")
    return known[dtype]


def _device(device: torch.device | str | None) -> torch.device:
    if device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        torch.empty(0, device=device)
        return torch.device(device)
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"no such device here: {device} ({_first_line(error)})") from error


# ------------------------------------------------------------------------------------------------- adapters
def _open_adapter(
    folder: Path, source: str, base: str | Path | None, open_base: Callable[[str | Path], Checkpoint]
) -> Checkpoint:
    """The adapter merged onto its base (the one it names, or `base`)."""
    from peft import PeftConfig, PeftModel

    try:
        named = PeftConfig.from_pretrained(str(folder)).base_model_name_or_path
    except Exception as error:
        raise InputError(f"{source} is not a usable adapter: {_first_line(error)}") from error
    if base is None and not named:
        raise InputError(f"the adapter {source} does not name its base model; pass base")
    try:
        below = open_base(base or str(named))
    except InputError as error:
        raise InputError(f"the adapter {source} needs its base model: {error}") from error
    check_adapter_fits(folder, below, source, str(named))
    try:
        with quiet(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            merged: Any = PeftModel.from_pretrained(below.hf, str(folder)).merge_and_unload()
    except Exception as error:
        raise InputError(f"the adapter {source} does not fit {below.source}: {_first_line(error)}") from error
    tokenizer = load_tokenizer(folder) if (folder / "tokenizer_config.json").exists() else below.tokenizer
    notes = ()
    if base is not None and named and str(base) != str(named):
        notes = (f"the adapter {source} was made for {named} and is merged onto {base}",)
    return Checkpoint(merged, tokenizer, source, Path(source).name, notes)


def check_adapter_fits(folder: Path, below: Checkpoint, source: str, named: str) -> None:
    """Every low-rank pair of the adapter must match a matrix of the base, by name and shape; else an InputError."""
    file = folder / "adapter_model.safetensors"
    if not file.exists():
        raise InputError(f"the adapter {source} has no adapter_model.safetensors")
    modules = dict(below.hf.named_modules())
    shapes = {name: shape for name, shape in _shapes(file).items() if ".lora_A." in name or ".lora_B." in name}
    if not shapes:
        raise InputError(f"the adapter {source} holds no LoRA matrices; other PEFT methods are not supported")
    for key, shape in shapes.items():
        name, _, which = key.removeprefix("base_model.model.").partition(".lora_")
        misfit = f"the adapter {source} (made for {named}) does not fit {below.source}: "
        module: Any = modules.get(name)
        if module is None:
            raise InputError(f"{misfit}it has no {name}")
        weight = module.weight.T if isinstance(module, Conv1D) else module.weight
        side = 1 if which.startswith("A") else 0  # A reads what the matrix reads, B writes what it writes
        if shape[side] != weight.shape[side]:
            raise InputError(f"{misfit}{name} is {tuple(weight.shape)}, its lora_{which[0]} {shape}")


def _shapes(file: Path) -> dict[str, tuple[int, ...]]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(file), framework="pt") as tensors:
            return {name: tuple(tensors.get_slice(name).get_shape()) for name in tensors.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise InputError(f"cannot read the weights in {file}: {_first_line(error)}") from error


def _adapter_folder(where: Path | str, local: bool) -> Path:
    if isinstance(where, Path):
        return where
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(where, local_files_only=local))
    except Exception as error:
        raise InputError(f"cannot download the adapter {where}: {_first_line(error)}") from error


# ------------------------------------------------------------------------------------------------- state dicts
OLD_BUFFERS = (".attn.bias", ".attn.masked_bias", ".attention.bias", ".attention.masked_bias", ".rotary_emb.inv_freq")
"""Masks and frequencies that older transformers wrote among the weights; every model computes them itself now."""


def _open_state_dict(file: Path, base: str | Path | None, open_base: Callable[[str | Path], Checkpoint]) -> Checkpoint:
    if file.suffix not in STATE_DICT_SUFFIXES:
        kinds = ", ".join(STATE_DICT_SUFFIXES)
        raise InputError(f"expected a folder, a hub id or a state dict ({kinds}), got the file {file}")
    if base is None:
        raise InputError(f"{file} holds only weights; pass base, the model they belong to")
    state = read_state_dict(file)
    below = open_base(base)
    own = below.hf.state_dict()
    state = _renamed(state, set(own), below.hf.base_model_prefix)
    state = {name: value for name, value in state.items() if name in own or not name.endswith(OLD_BUFFERS)}
    unknown = sorted(set(state) - set(own))
    missing = sorted(min(group) for group in _tied_groups(below.hf) if not group & set(state))
    if unknown or missing:
        what = f"{base} has no {unknown[0]}" if unknown else f"{missing[0]} is missing in the file"
        count = f"{len(unknown)} unknown and {len(missing)} missing weights"
        raise InputError(f"{file} does not fit {base}: {what} ({count})")
    for name, value in state.items():
        if value.shape != own[name].shape:
            have, want = tuple(value.shape), tuple(own[name].shape)
            raise InputError(f"{file} does not fit {base}: {name} is {have}, expected {want}")
    with torch.no_grad():
        for name, value in state.items():
            own[name].copy_(value)
    return Checkpoint(below.hf, below.tokenizer, str(file), file.stem)


def _renamed(state: dict[str, Tensor], own: set[str], base_prefix: str) -> dict[str, Tensor]:
    """The state under the model's own names, where a wrapper or a missing head changed the front of all of them."""
    if own & set(state):
        return state
    for prefix in ("module.", "_orig_mod.", "model.", "hf.", f"{base_prefix}."):
        for renamed in (
            {name.removeprefix(prefix): value for name, value in state.items()},
            {f"{prefix}{name}": value for name, value in state.items()},
        ):
            if own & set(renamed):
                return renamed
    return state


def read_state_dict(file: Path) -> dict[str, Tensor]:
    """The tensors of a `.safetensors` or `torch.save` file; pickled code is never run.

    Raises:
        InputError: damaged, not a dict of tensors, or holding more than tensors.
    """
    try:
        if file.suffix == ".safetensors":
            from safetensors.torch import load_file

            data: Any = load_file(file)
        else:
            data = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:
        raise InputError(f"cannot read the weights in {file} (tensors only): {_first_line(error)}") from error
    for key in ("state_dict", "model_state_dict", "state", "model"):  # what training scripts wrap around it
        if isinstance(data, Mapping) and isinstance(data.get(key), Mapping):
            data = data[key]
    if not isinstance(data, Mapping) or not data or not all(isinstance(v, Tensor) for v in data.values()):
        raise InputError(f"{file} is not a state dict: expected names and tensors, got {type(data).__name__}")
    return dict(data)


def _tied_groups(hf: PreTrainedModel) -> list[set[str]]:
    """The names in the state dict, those of one tensor (a tied lm_head) together."""
    names: dict[int, set[str]] = {}
    for name, value in hf.state_dict(keep_vars=True).items():
        names.setdefault(id(value), set()).add(name)
    return list(names.values())


# ------------------------------------------------------------------------------------------------- the hub
def _find_on_hub(source: str) -> tuple[str, bool, set[str]]:
    """(id, local only, file names) of a hub model; a quick InputError where it cannot be had."""
    from huggingface_hub.utils import HFValidationError, validate_repo_id

    try:
        validate_repo_id(source)
    except HFValidationError:
        raise InputError(f"no such folder, and no hub id: {source}") from None
    cached = _cached_files(source)
    answer = _ask_hub(source)
    if isinstance(answer, set):
        return source, False, answer
    if cached:
        log.info("%s: using the downloaded copy (%s)", source, answer)
        return source, True, cached
    raise InputError(f"cannot open {source}: {answer}")


def _ask_hub(source: str) -> set[str] | str:
    """The repository's file names, or in words why they cannot be had. Takes HUB_TIMEOUT seconds at most."""
    result: list[set[str] | str] = ["the Hugging Face hub did not answer (no network?), and no such folder is here"]

    def ask() -> None:
        from huggingface_hub import HfApi
        from huggingface_hub import errors as hub

        try:
            info = HfApi().model_info(source, timeout=HUB_TIMEOUT / 2)
            result[0] = {s.rfilename for s in info.siblings or []}
        except hub.GatedRepoError:
            result[0] = f"it is gated; ask for access at https://huggingface.co/{source}, then run `hf auth login`"
        except hub.RepositoryNotFoundError:
            result[0] = "the hub has no such model (or it is private: run `hf auth login`), and no such folder is here"
        except hub.OfflineModeIsEnabled:
            result[0] = "the hub is switched off (HF_HUB_OFFLINE), and no such folder is here"
        except Exception as error:
            log.debug("asking the hub for %s: %s", source, error)

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(HUB_TIMEOUT)
    return result[0]


def _cached_files(source: str) -> set[str]:
    from huggingface_hub import try_to_load_from_cache

    names = ("config.json", "adapter_config.json")
    return {n for n in names if isinstance(try_to_load_from_cache(source, n), str)}


# ------------------------------------------------------------------------------------------------- writing
def save_checkpoint(hf: PreTrainedModel, tokenizer: Any, folder: Path) -> None:
    """Write an ordinary transformers checkpoint in one step: the folder is complete or not there.

    An older checkpoint at `folder` is replaced; a folder with anything else in it is not touched.

    Raises:
        InputError: not writable, disk full, or `folder` holds something that is no checkpoint.
    """
    folder = Path(folder)
    if folder.exists() and not folder.is_dir():
        raise InputError(f"expected a folder to save the model in, got the file {folder}")
    if folder.is_dir() and any(folder.iterdir()) and not (folder / "config.json").exists():
        raise InputError(f"{folder} is not empty and holds no checkpoint (no config.json); choose another folder")
    temporary: Path | None = None
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
        with quiet():
            hf.save_pretrained(temporary)
            tokenizer.save_pretrained(temporary)
        temporary.chmod(0o755)
        if folder.exists():
            old = Path(tempfile.mkdtemp(prefix=f".{folder.name}-old-", dir=folder.parent))
            folder.replace(old)
            temporary.replace(folder)
            shutil.rmtree(old, ignore_errors=True)
        else:
            temporary.replace(folder)
    except Exception as error:
        if not isinstance(error, OSError) and type(error).__name__ != "SafetensorError":
            raise
        reason = getattr(error, "strerror", None) or _first_line(error)
        raise InputError(f"cannot write the model to {folder}: {reason}") from error
    finally:
        if temporary is not None and temporary.exists():
            shutil.rmtree(temporary, ignore_errors=True)


# ------------------------------------------------------------------------------------------------- small things
@contextmanager
def quiet() -> Iterator[None]:
    """Without transformers' progress bars and advice, restored afterwards."""
    logs = transformers.utils.logging
    verbosity, bars = logs.get_verbosity(), logs.is_progress_bar_enabled()
    logs.set_verbosity_error()
    logs.disable_progress_bar()
    try:
        yield
    finally:
        logs.set_verbosity(verbosity)
        if bars:
            logs.enable_progress_bar()


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__)[:200]
