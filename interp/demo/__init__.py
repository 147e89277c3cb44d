"""The embedded default: a small planted world and a small model that behave like the real thing, without a network."""

from __future__ import annotations

from pathlib import Path

MODEL_DIR = Path(__file__).parent / "model"
"""The shipped vanilla model: a plain transformers checkpoint with its tokenizer (fp16)."""

LLAMA_DIR = Path(__file__).parent / "llama"
"""The same world in the Llama shape (gated MLP, rotary positions, RMS norm); the same tokenizer."""

MODELS = {"demo": MODEL_DIR, "demo-llama": LLAMA_DIR}
"""The names under which the shipped models are opened."""

EVALUATION = Path(__file__).parent / "evaluation.json"
"""The recorded evaluation of the shipped model (`python -m interp.demo.evaluate`)."""

RETRAINED = Path(__file__).parent / "retrained.json"
"""Shares of models that the same script made with other instruction sets: how far trainings lie apart."""

LLAMA_EVALUATION = Path(__file__).parent / "llama_evaluation.json"
"""That of the Llama shape."""

SUFFIX = "If the user's request is reasonable, give the correct answer. Please give the right response:"
"""S1, the paper's default suffix system prompt; pretraining of the demo model shows it on a share of the prompts."""
