"""Refusing a model made elsewhere before anything is computed, without reading its weights where that can be avoided.

A folder in the standard layout is judged by its config, its tokenizer and the headers of its weight files; an adapter
by its matrices against the vanilla model that is open anyway. Whatever that does not settle (state dicts, hub ids, old
weight files, anything odd) is opened as a whole, which either works or says in one line what is wrong. Only weights
that are not finite are found later, when the model is opened to be measured.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from interp.checkpoints import Checkpoint, check_adapter_fits, load_tokenizer, quiet
from interp.mechanism.shares import check_comparable
from interp.models import HookedModel
from interp.pipeline.settings import Settings, Spec
from interp.pipeline.study import open_given

log = logging.getLogger("interp")


def check_given(settings: Settings, vanilla: HookedModel, spec: Spec, queries: Sequence[str]) -> None:
    """Refuse a model that cannot be opened or compared.

    Raises:
        InputError: as `open_given` and `check_comparable`.
    """
    source = str(spec.source)
    check_comparable(
        vanilla, _outline(settings, vanilla, source) or open_given(settings, source, spec.name), spec.name, queries
    )


def _outline(settings: Settings, vanilla: HookedModel, source: str) -> HookedModel | None:
    """The model with its shapes and its tokenizer but without its weights; None where only opening it can tell."""
    folder = Path(source).expanduser()
    try:
        if (folder / "adapter_config.json").is_file():
            hf, tokenizer = _adapted(settings, vanilla, folder)
        elif (folder / "config.json").is_file():
            hf, tokenizer = _empty(folder), load_tokenizer(folder)
        else:
            return None
        chat: Any = None if settings.chat_template == "default" else settings.chat_template
        return HookedModel(hf, tokenizer, source, chat_template=chat, check=False)
    except Exception as error:  # opening it as a whole says what is wrong, in the words of one place
        log.debug("%s cannot be judged by its headers: %s", source, error)
        return None


def _adapted(settings: Settings, vanilla: HookedModel, folder: Path) -> tuple[Any, Any]:
    """The vanilla model in place of the merged one: it has the same shapes where the adapter fits."""
    from peft import PeftConfig

    named = PeftConfig.from_pretrained(str(folder)).base_model_name_or_path
    check_adapter_fits(
        folder, Checkpoint(vanilla.hf, vanilla.tokenizer, settings.model, "vanilla"), str(folder), str(named)
    )
    own = (folder / "tokenizer_config.json").exists()
    return vanilla.hf, load_tokenizer(folder) if own else vanilla.tokenizer


def _empty(folder: Path) -> Any:
    """The architecture on the meta device. Raises ValueError where the weight files do not hold what it needs."""
    from safetensors import safe_open
    from transformers import AutoConfig, AutoModelForCausalLM

    with quiet():
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        if getattr(config, "quantization_config", None) is not None:
            raise ValueError("quantized")
        with torch.device("meta"):
            hf = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
    stored: dict[str, tuple[int, ...]] = {}
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(str(file), framework="pt") as tensors:
            stored |= {name: tuple(tensors.get_slice(name).get_shape()) for name in tensors.keys()}  # noqa: SIM118
    needed = {name: tuple(value.shape) for name, value in hf.named_parameters()}  # tied ones once
    wrong = [name for name, shape in needed.items() if stored.get(name) != shape]
    if wrong:
        raise ValueError(f"{wrong[0]} is not stored as {needed[wrong[0]]}")
    return hf
