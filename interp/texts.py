"""What goes into a model and comes out: padded token ids, prompts and answers as text, what a model wrote."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Int
from torch import Tensor


@dataclass(frozen=True)
class Tokens:
    """A padded batch of token ids with its mask (1 = real token)."""

    input_ids: Int[Tensor, "batch seq"]
    attention_mask: Int[Tensor, "batch seq"]

    def __post_init__(self) -> None:
        if self.input_ids.shape != self.attention_mask.shape:
            raise ValueError(f"ids {tuple(self.input_ids.shape)} and mask {tuple(self.attention_mask.shape)} differ")

    def __len__(self) -> int:
        return self.input_ids.shape[0]

    @property
    def position_ids(self) -> Int[Tensor, "batch seq"]:
        """Positions counted over real tokens only, so that padding on the left shifts nothing."""
        return (self.attention_mask.cumsum(-1) - 1).clamp(min=0)

    @property
    def lengths(self) -> Int[Tensor, "batch"]:
        """Real tokens per row."""
        return self.attention_mask.sum(-1)

    def to(self, device: torch.device | str) -> Tokens:
        """The same batch on another device."""
        return Tokens(self.input_ids.to(device), self.attention_mask.to(device))

    def row(self, index: int) -> list[int]:
        """The real token ids of one row."""
        return self.input_ids[index][self.attention_mask[index].bool()].tolist()


@dataclass(frozen=True)
class Generation:
    """What a model wrote after one prompt."""

    text: str
    """The answer without special tokens and surrounding blanks."""
    n_tokens: int
    """Tokens generated, the EOS not counted."""
    ended: bool
    """Whether the model stopped by itself within the limit."""
    token_ids: tuple[int, ...] = ()
    """The generated ids, the EOS not among them."""


@dataclass(frozen=True)
class PromptTemplate:
    """How a query becomes a prompt, and an answer the text after it."""

    mode: Literal["plain", "chat"]
    tokenizer: Any

    def prompt(self, query: str, suffix: str = "", prefix: str = "") -> str:
        """The prompt text: `prefix query suffix` as it is, or as one user turn of the tokenizer's chat template."""
        content = " ".join(part for part in (prefix, query, suffix) if part)
        if self.mode == "plain":
            return content
        turns = [{"role": "user", "content": content}]
        return self.tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)

    def answer(self, query: str, answer: str, suffix: str = "") -> str:
        """The answer's text: one space in front unless the rendered prompt already ends in white space."""
        if self.mode == "chat" and self.prompt(query, suffix)[-1:].isspace():
            return answer
        return f" {answer}"
