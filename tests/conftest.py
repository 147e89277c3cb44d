"""Shared fixtures: tiny random models of seven architectures and a tiny tokenizer, made offline in seconds."""

from __future__ import annotations

import gc
import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("HF_HUB_OFFLINE", "1")  # before huggingface_hub is imported: no test may download

from collections.abc import Callable
from functools import partial
from importlib.machinery import SourceFileLoader
from pathlib import Path
from unittest.mock import patch

import jaxtyping._import_hook as hook
import pytest


def _get_code(self: hook._JaxtypingLoader, name: str):
    named = partial(hook._optimized_cache_from_source, self._typechecker.get_hash())
    with patch("importlib._bootstrap_external.cache_from_source", named):
        return SourceFileLoader.get_code(self, name)


# jaxtyping keeps the bytecode of checked modules under names of its own, and looks for that of everything they import
# (torch, transformers, sympy) under such names, too: all of it was compiled anew, 7 s for every process. The names
# matter to `get_code` alone.
hook._JaxtypingLoader.get_code = _get_code
hook._JaxtypingLoader.exec_module = SourceFileLoader.exec_module

GOLDEN = Path(__file__).parent / "golden"
ARCHITECTURES = ("gpt2", "llama", "mistral", "qwen2", "qwen3", "gemma2", "neox")
TEXTS = [
    "The cat sat on the mat and looked at the moon.",
    "A dog.",
    "The moon is far away, and the cat sat on the mat; the dog looked at the cat for a long time.",
    "On the mat sat a dog",
]
CONTEXT = 96
LONG_FILES = (
    "benchmark/test_processes.py",
    "test_devices.py",
    "pipeline/test_compare.py",
    "building/test_pipeline.py",
    "methods/test_sft.py",
    "benchmark/test_files.py",
    "benchmark/test_judged.py",
    "benchmark/test_fig7.py",
)
"""Half of the time of a test run, longest first."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long files come first: files are dealt out to workers in this order, and none of them shall be the last."""
    tests = Path(__file__).parent
    places = {tests / name: place for place, name in enumerate(LONG_FILES)}
    items.sort(key=lambda item: places.get(item.path, len(LONG_FILES)))


def tiny_tokenizer(bos: bool = False, pad: str | None = "<pad>", eos: str | None = "</s>", template: str | None = None):
    """A byte-level BPE tokenizer of 320 ids; `bos` puts <s> in front of every text."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=320,
        show_progress=False,
        special_tokens=["<s>", "</s>", "<pad>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    core.train_from_iterator(
        [*TEXTS, "User: Assistant: I am sorry, I cannot help with that. Sure, here is"] * 4, trainer
    )
    if bos:
        core.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, bos_token="<s>", eos_token=eos, pad_token=pad)
    if template is not None:
        tokenizer.chat_template = template
    return tokenizer


def tiny_hf(architecture: str, seed: int = 0, n_layers: int = 3, **config_options):
    """A random model: d_model 32, d_mlp 48, large enough weights that greedy choices are clear."""
    import torch
    import transformers as t

    common = {
        "vocab_size": 320,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": n_layers,
        "num_attention_heads": 4,
        "max_position_embeddings": CONTEXT,
        "initializer_range": 0.3,
        "bos_token_id": 0,
        "eos_token_id": 1,
        "pad_token_id": 2,
    }
    grouped = {**common, "num_key_value_heads": 2, "head_dim": 8}
    if architecture == "gpt2":
        config = t.GPT2Config(
            vocab_size=320,
            n_embd=32,
            n_inner=48,
            n_layer=n_layers,
            n_head=4,
            n_positions=CONTEXT,
            initializer_range=0.3,
            bos_token_id=0,
            eos_token_id=1,
            pad_token_id=2,
            **config_options,
        )
    elif architecture == "neox":
        config = t.GPTNeoXConfig(**{**common, **config_options})
    else:
        kind = {
            "llama": t.LlamaConfig,
            "mistral": t.MistralConfig,
            "qwen2": t.Qwen2Config,
            "qwen3": t.Qwen3Config,
            "gemma2": t.Gemma2Config,
        }[architecture]
        extra = {"mistral": {"sliding_window": 8}, "gemma2": {"sliding_window": 8, "query_pre_attn_scalar": 8}}
        config = kind(**{**grouped, **extra.get(architecture, {}), **config_options})
    torch.manual_seed(seed)
    return t.AutoModelForCausalLM.from_config(config, dtype=torch.float32)


@pytest.fixture(scope="module", autouse=True)
def settled() -> None:
    """What imports and earlier files left stays to the end: no later collection of garbage looks at it again.

    A training ends in several full collections (accelerate's and our own); over all that is imported, each took half a
    second.
    """
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def golden() -> Path:
    """The folder of the authors' own numbers (tests/golden/README.md)."""
    return GOLDEN


@pytest.fixture(scope="session")
def golden_model():
    """The small Llama that the golden data was computed on, in float32 on the CPU."""
    from interp.models import HookedModel

    return HookedModel.from_pretrained(GOLDEN / "tiny_model", device="cpu")


@pytest.fixture(scope="session")
def make_tokenizer() -> Callable:
    """`make_tokenizer(bos=False, pad="<pad>", eos="</s>", template=None)`: a tiny byte-level tokenizer."""
    return tiny_tokenizer


@pytest.fixture(scope="session")
def make_hf() -> Callable:
    """`make_hf(architecture, seed=0, n_layers=3, **config)`: a tiny random transformers model."""
    return tiny_hf


@pytest.fixture(scope="session")
def make_model() -> Callable:
    """`make_model(architecture, seed=0, bos=..., chat_template=None, n_layers=3, **tokenizer)`: free to be changed."""
    from interp.models import HookedModel

    def make(
        architecture: str = "llama",
        seed: int = 0,
        bos: bool | None = None,
        chat_template: str | None = None,
        n_layers: int = 3,
        **tokenizer,
    ):
        with_bos = architecture not in ("gpt2", "neox", "qwen2", "qwen3") if bos is None else bos
        hf = tiny_hf(architecture, seed, n_layers)
        return HookedModel.from_hf(hf, tiny_tokenizer(with_bos, **tokenizer), f"tiny-{architecture}", chat_template)

    return make


@pytest.fixture(scope="session")
def tiny_models(make_model) -> dict:
    """One tiny HookedModel per architecture, shared: leave them as they are."""
    return {architecture: make_model(architecture) for architecture in ARCHITECTURES}


@pytest.fixture(params=ARCHITECTURES)
def tiny_model(request, tiny_models):
    """A tiny random model of each architecture in turn. Shared: leave it as it is."""
    return tiny_models[request.param]


@pytest.fixture(scope="session")
def llama(tiny_models):
    """The tiny Llama. Shared: leave it as it is."""
    return tiny_models["llama"]


@pytest.fixture(scope="session")
def texts() -> list[str]:
    """Four texts of different lengths, all within the tiny context."""
    return list(TEXTS)


@pytest.fixture
def spilled(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many edits were on disk alone, for each store of edits when it is closed."""
    from interp.multi import EditStore

    found: list[int] = []
    close = EditStore.close

    def counted(store: EditStore) -> None:
        found.append(store.spilled)
        close(store)

    monkeypatch.setattr(EditStore, "close", counted)
    return found
