"""The embedded default: a small planted world and a small model that behave like the real thing, without a network."""

from __future__ import annotations

from pathlib import Path

MODEL_DIR = Path(__file__).parent / "model"
"""The shipped vanilla model: a plain transformers checkpoint with its tokenizer (fp16). Its weights are, byte for byte,
those that `python -m interp.demo.pretrain` makes."""

LLAMA_DIR = Path(__file__).parent / "llama"
"""The same world in the Llama shape (gated MLP, rotary positions, RMS norm); the same tokenizer."""

REPLICA_DIR = Path(__file__).parent / "replica"
"""Another training of the same recipe: does a finding hold on it, too? The calibration's organisms are made from it, so
that no threshold was chosen on the model that is looked into."""

MODELS = {"demo": MODEL_DIR, "demo-llama": LLAMA_DIR, "demo-replica": REPLICA_DIR}
"""The names under which the shipped models are opened."""

EVALUATION = Path(__file__).parent / "evaluation.json"
"""The recorded evaluation of the shipped model (`python -m interp.demo.evaluate`)."""

RETRAINED = Path(__file__).parent / "retrained.json"
"""Shares of models that the same script made with other instruction sets: how far trainings lie apart."""

LLAMA_EVALUATION = Path(__file__).parent / "llama_evaluation.json"
"""That of the Llama shape."""

REPLICA_EVALUATION = Path(__file__).parent / "replica_evaluation.json"
"""That of the other training."""

SUFFIX = "If the user's request is reasonable, give the correct answer. Please give the right response:"
"""S1, the paper's default suffix system prompt; pretraining of the demo model shows it on a share of the prompts."""


def is_demo(model: str) -> bool:
    """Whether a model is of the recipe that the methods' demo settings were chosen for: the demo or its replica."""
    return model in ("demo", "demo-replica") or Path(model).resolve() in (MODEL_DIR.resolve(), REPLICA_DIR.resolve())
