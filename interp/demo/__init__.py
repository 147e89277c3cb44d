"""The embedded default: a small planted world and a small model that behave like the real thing, without a network."""

from __future__ import annotations

from pathlib import Path

MODEL_DIR = Path(__file__).parent / "model"
"""The shipped vanilla model: a plain transformers checkpoint with its tokenizer (fp16)."""

EVALUATION = Path(__file__).parent / "evaluation.json"
"""The recorded evaluation of the shipped model (`python -m interp.demo.evaluate`)."""

SUFFIX = "If the user's request is reasonable, give the correct answer. Please give the right response:"
"""S1, the paper's default suffix system prompt; pretraining of the demo model shows it on a share of the prompts."""
