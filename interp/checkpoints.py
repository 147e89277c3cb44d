"""Opening checkpoints: the demo, a hub id, a folder, a PEFT adapter or a state-dict file, each as a plain HF model.

Nothing here hooks or edits. Whatever does not open is told in one line, and without a network it is told at once.
"""

from __future__ import annotations

import json
import logging
import shutil
import tempfile
import threading
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from interp.errors import InputError
from interp.runs import read_json

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


# ------------------------------------------------------------------------------------------------- opening
def open_checkpoint(
    source: str | Path,
    *,
    base: str | Path | None = None,
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
    device_map: Any = None,
) -> Checkpoint:
    """Open any source that `HookedModel.from_pretrained` takes.

    Args:
        source: "demo", a hub id, a checkpoint folder, a PEFT adapter (folder or id), or a state-dict file.
        base: the model that an adapter or a state dict belongs to; an adapter names its own.
        dtype: None opens in float32 on a CPU and for the demo, else in the checkpoint's own dtype.
        device: None takes the GPU where there is one.
        device_map: passed on to transformers (needs accelerate); then `device` must be None.

    Raises:
        InputError: the source is not there or not a checkpoint, or does not fit its base.
    """
    if device is not None and device_map is not None:
        raise InputError(f"expected one of device and device_map, got both ({device}, {device_map})")
    place = _device(device)
    if str(source) == "demo":
        folder, dtype = demo_folder(), dtype or torch.float32
    else:
        folder = Path(source).expanduser()
    if dtype is None and place.type == "cpu" and device_map is None:
        dtype = torch.float32

    def load(where: Path | str, local: bool) -> PreTrainedModel:
        return _load_hf(where, dtype, place, device_map, local)

    if folder.is_file():
        return _open_state_dict(
            folder, base, lambda b: open_checkpoint(b, dtype=dtype, device=device, device_map=device_map)
        )
    if folder.is_dir():
        where, local, files = folder, True, {p.name for p in folder.iterdir()}
    else:
        where, local, files = _find_on_hub(str(source))
    if "adapter_config.json" in files and "config.json" not in files:
        adapter = Path(where) if local and Path(where).is_dir() else _download_adapter(str(where), local)
        return _open_adapter(adapter, str(source), base, dtype, device, device_map)
    if base is not None:
        raise InputError(f"{source} is a whole model: base={base} is only for adapters and state dicts")
    if "config.json" not in files:
        raise InputError(
            f"{source} is not a model: expected a config.json or adapter_config.json in it, found {_some(files)}"
        )
    name = "demo" if str(source) == "demo" else folder.name if local and folder.is_dir() else str(source)
    return Checkpoint(load(where, local), load_tokenizer(where, local), str(source), name)


def demo_folder() -> Path:
    """The folder of the shipped demo model."""
    folder = Path(__file__).parent / "demo" / "model"
    if not (folder / "config.json").exists():
        raise InputError(f"the demo model is not in this installation (expected {folder}); reinstall the package")
    return folder


def load_tokenizer(where: Path | str, local: bool = True) -> Any:
    """The tokenizer beside a checkpoint. Raises InputError where there is none."""
    try:
        with quiet():
            return AutoTokenizer.from_pretrained(where, local_files_only=local)
    except Exception as error:
        raise InputError(f"{where} has no usable tokenizer: {_first_line(error)}") from error


def _load_hf(where: Path | str, dtype: torch.dtype | None, device: torch.device, device_map: Any, local: bool) -> Any:
    try:
        with quiet():
            config = AutoConfig.from_pretrained(where, local_files_only=local)
            if getattr(config, "is_encoder_decoder", False):
                raise InputError(f"{where} is an encoder-decoder model ({config.model_type}); expected a decoder")
            loaded: Any = AutoModelForCausalLM.from_pretrained(
                where, dtype=dtype or "auto", device_map=device_map, local_files_only=local, output_loading_info=True
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
    folder: Path, source: str, base: str | Path | None, dtype: Any, device: Any, device_map: Any
) -> Checkpoint:
    from peft import PeftConfig, PeftModel

    try:
        config = PeftConfig.from_pretrained(str(folder))
    except Exception as error:
        raise InputError(f"{source} is not a usable adapter: {_first_line(error)}") from error
    named = config.base_model_name_or_path
    if base is None and not named:
        raise InputError(f"the adapter {source} does not name its base model; pass base=")
    below = open_checkpoint(base or str(named), dtype=dtype, device=device, device_map=device_map)
    _check_adapter_fits(folder, below, source, str(named))
    try:
        with quiet(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            merged: Any = PeftModel.from_pretrained(below.hf, str(folder)).merge_and_unload()
    except Exception as error:
        raise InputError(f"the adapter {source} does not fit {below.source} ({_first_line(error)})") from error
    has_own_tokenizer = (folder / "tokenizer_config.json").exists()
    tokenizer = load_tokenizer(folder) if has_own_tokenizer else below.tokenizer
    return Checkpoint(merged, tokenizer, source, Path(source).name)


def _check_adapter_fits(folder: Path, below: Checkpoint, source: str, named: str) -> None:
    """Every low-rank pair of the adapter must match a matrix of the base, by name and shape."""
    file = folder / "adapter_model.safetensors"
    if not file.exists():
        raise InputError(f"the adapter {source} has no adapter_model.safetensors")
    from safetensors import safe_open

    modules = dict(below.hf.named_modules())
    matched = 0
    with safe_open(str(file), framework="pt") as tensors:
        for key in tensors.keys():  # noqa: SIM118 (safe_open is no mapping)
            if ".lora_A." not in key and ".lora_B." not in key:
                continue
            name, _, which = key.removeprefix("base_model.model.").partition(".lora_")
            module: Any = modules.get(name)
            if module is None:
                raise InputError(
                    f"the adapter {source} (made for {named}) does not fit {below.source}: it has no {name}"
                )
            weight = module.weight.T if type(module).__name__ == "Conv1D" else module.weight
            have = tuple(tensors.get_slice(key).get_shape())
            side = weight.shape[1] if which.startswith("A") else weight.shape[0]
            if have[1 if which.startswith("A") else 0] != side:
                raise InputError(
                    f"the adapter {source} (made for {named}) does not fit {below.source}: "
                    f"{name} is {tuple(weight.shape)}, its lora_{which[0]} {have}"
                )
            matched += 1
    if matched == 0:
        raise InputError(f"the adapter {source} holds no LoRA matrices; other PEFT methods are not supported")


def _download_adapter(repo: str, local: bool) -> Path:
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(repo, local_files_only=local))
    except Exception as error:
        raise InputError(f"cannot download the adapter {repo}: {_first_line(error)}") from error


# ------------------------------------------------------------------------------------------------- state dicts
def _open_state_dict(file: Path, base: str | Path | None, open_base: Any) -> Checkpoint:
    if file.suffix not in STATE_DICT_SUFFIXES:
        raise InputError(
            f"expected a folder, a hub id or a state dict ({', '.join(STATE_DICT_SUFFIXES)}), got the file {file}"
        )
    if base is None:
        raise InputError(f"{file} holds only weights; pass base=, the model they belong to")
    state = read_state_dict(file)
    below = open_base(base)
    own = below.hf.state_dict()
    if not any(k in own for k in state):  # saved from a wrapper: "model.", "module.", "_orig_mod." in front
        for prefix in ("module.", "_orig_mod.", "model.", "hf.", f"{below.hf.base_model_prefix}."):
            stripped = {k.removeprefix(prefix): v for k, v in state.items()}
            added = {f"{prefix}{k}": v for k, v in state.items()}
            state = next((s for s in (stripped, added) if any(k in own for k in s)), state)
    unknown = sorted(set(state) - set(own))
    tied = _tied_names(below.hf)
    missing = sorted(k for k in own if k not in state and k not in tied)
    if unknown or missing:
        what = f"it has no {unknown[0]}" if unknown else f"{missing[0]} is missing in the file"
        raise InputError(
            f"{file} does not fit {base}: {what} ({len(unknown)} unknown, {len(missing)} missing of {len(own)} weights)"
        )
    with torch.no_grad():
        for name, value in state.items():
            if value.shape != own[name].shape:
                raise InputError(
                    f"{file} does not fit {base}: {name} is {tuple(value.shape)}, expected {tuple(own[name].shape)}"
                )
            own[name].copy_(value)
    return Checkpoint(below.hf, below.tokenizer, str(file), file.stem)


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


def _tied_names(hf: PreTrainedModel) -> set[str]:
    """Names in the state dict that share one tensor with another name, e.g. a tied lm_head."""
    names: dict[int, list[str]] = {}
    for name, value in hf.state_dict(keep_vars=True).items():
        names.setdefault(id(value), []).append(name)
    return {name for group in names.values() if len(group) > 1 for name in group}


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


def read_config(folder: Path) -> dict[str, Any]:
    """The config.json of a checkpoint folder."""
    config = read_json(Path(folder) / "config.json")
    if not isinstance(config, dict):
        raise InputError(f"{folder}/config.json is not a model configuration: {json.dumps(config)[:60]}")
    return config


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


def _some(files: set[str]) -> str:
    return ", ".join(sorted(files)[:5]) or "nothing"
