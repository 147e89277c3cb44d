"""Capturing all resid_post against one plain Hugging Face forward over the same tokens. Claim: at most 1.5 times it.

The plain forward sees the same batch with its vocabulary logits.
"""

from __future__ import annotations

from common import instances, medians, model_a, report, script

N, CLAIM = 8, 1.5


def main(repeats: int) -> None:
    """Measure and report."""
    import torch

    from interp.capture import capture

    model = model_a()
    tokens = model.tokenize([i.adversarial_prompt for i in instances(N, prompt=(128, 128))], side="right")

    def plain() -> None:
        with torch.no_grad():
            model.hf(tokens.input_ids, attention_mask=tokens.attention_mask, use_cache=False)

    rows = []
    for pool in ("none", "mean"):
        times = medians({"plain": plain, "capture": lambda pool=pool: capture(model, tokens, pool=pool)}, repeats)
        ratio = times["capture"] / times["plain"]
        rows.append(
            {
                "pool": pool,
                "tokens": tokens.input_ids.numel(),
                "plain forward s": times["plain"],
                "capture s": times["capture"],
                "ratio": ratio,
                "at most": CLAIM,
                "holds": ratio <= CLAIM,
            }
        )
    report("capture", rows, repeats=repeats, model="Llama, 12 layers, d_model 768, d_mlp 2048, vocabulary 8000")


if __name__ == "__main__":
    script(main, 5, __doc__)
