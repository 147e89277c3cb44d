"""One DINM edit against the plain loop. Claims: 8 times less CPU time at the last layer, 2 times in the middle.

The plain loops (`edit_plainly.py`) use nothing of the package but its token sequences: every step runs the whole
model on both sequences with full logits. In the first, only W_V requires a gradient, so its backward pass stops there,
too; in the second every parameter does, as in a model that was just opened.
"""

from __future__ import annotations

from dataclasses import fields
from functools import partial
from typing import Any

from common import instances, medians, model_a, report, script

LAST, MIDDLE = 11, 6
CLAIMS = {LAST: 8.0, MIDDLE: 2.0}
STEPS = 10
"""Of the loop in which everything requires a gradient only one step is run, and its time multiplied."""


def main(repeats: int) -> None:
    """Measure and report."""
    from edit_plainly import plain_edit

    from interp.methods._losses import Format, constraint_sequence, edit_sequence
    from interp.methods.dinm import Dinm

    configs = {
        "paper": Dinm,
        "released code": Dinm.reference,
        "released code, L_c only where it decides": partial(Dinm.reference, constraint_every_step=False),
    }
    model, [instance] = model_a(), instances(1)
    model.weight_hash()  # once per model: no part of an edit
    rows: list[dict[str, Any]] = []
    plain_times, plain_deltas, full_times = {}, {}, {}
    for name, make in configs.items():
        for layer, claim in CLAIMS.items():
            config, found = make(layer=layer), {}
            how = Format(**{f.name: getattr(config, f.name) for f in fields(Format)})
            sequences = edit_sequence(model, instance, how), constraint_sequence(model, instance, how)
            plain = partial(plain_edit, model, config, *sequences)
            calls = {
                "plain": lambda plain=plain, found=found: found.update(plain=plain(STEPS)),
                "fast": lambda config=config, found=found: found.update(fast=config.detoxify(model, instance)),
            }
            key = (name.partition(",")[0], layer)  # what the last config leaves out, the plain loop does not
            if key in plain_times:
                del calls["plain"]
            times = medians(calls, repeats)
            if key not in plain_times:
                plain_times[key], plain_deltas[key] = times["plain"], found["plain"]
                one = medians({"full": lambda plain=plain: plain(1, True)}, 1)["full"]
                full_times[key] = one * STEPS
            [delta] = found["fast"].edit.deltas.values()
            expected = plain_deltas[key]
            apart = float((delta - expected).norm() / expected.norm())
            ratio = plain_times[key] / times["fast"]
            rows.append(
                {
                    "config": name,
                    "layer": layer,
                    "plain s": plain_times[key],
                    "fast s": times["fast"],
                    "times faster": ratio,
                    "claim": claim,
                    "holds": ratio >= claim and apart < 1e-3,
                    "against full backward": full_times[key] / times["fast"],
                    "holds there": full_times[key] / times["fast"] >= claim,
                    "max |delta|": float(delta.abs().max()),
                    "deltas apart, max": float((delta - expected).abs().max()),
                    "deltas apart, relative": apart,
                }
            )
    facts = {"edit": len(sequences[0].ids), "supervised": len(sequences[0].positions)}
    report(
        "edit", rows, repeats=repeats, model="Llama, 12 layers, d_model 768, d_mlp 2048, vocabulary 8000", tokens=facts
    )


if __name__ == "__main__":
    script(main, 2, __doc__)
