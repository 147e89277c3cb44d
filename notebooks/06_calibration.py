# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Calibration: can these measures be trusted?
#
# A measure that says "erased" or "layer 3" should first be shown models where somebody knows the answer. *Organisms* are
# such models: a demo (another training than the one that is looked into elsewhere) is aligned until attacks fail, a
# behaviour is planted in one matrix, and then taken away by a route that its construction fixes: put back (**erased**), through the inputs of the matrix (**bypassed**), around it
# (**parallel**), after it (**masked**), in two parts (**mixed**), or not at all.
#
# This notebook reads the committed calibration and then makes and looks at one organism itself.

# %%
import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # two busy thread pools on few cores slow each other down

from collections import Counter
from pathlib import Path

from interp.calibrate.output import summary
from interp.plots.calibration import confusion_figure, locators_figure, rules_figure, shares_figure
from interp.plots.theme import CONFIG
from interp.records import loads
from interp.records.calibration import Calibration

calibration = loads(Calibration, Path("../figures/calibration/calibration.json").read_text(encoding="utf-8"))
counts = Counter(o.truth for o in calibration.organisms)
print(f"{len(calibration.organisms)} organisms: {dict(counts)}; {len(calibration.refused)} refused")
print(*summary(calibration), sep="\n")

# %% [markdown]
# ## Which verdict can be trusted
#
# Thresholds were chosen on one half of the plants (pale); the other bars are the held-out half, and plants made after
# everything had been fixed. The paper's two measures, the
# toxicity of the region and the shift of its inputs, know only three answers; the right panel asks them for no more.

# %%
rules_figure(calibration.rules).show(config=CONFIG)

# %%
confusion_figure(calibration.rules).show(config=CONFIG)

# %% [markdown]
# Every organism by its four shares: truths lie apart, and the threshold could be moved a good way without touching one.

# %%
shares_figure(calibration).show(config=CONFIG)

# %% [markdown]
# ## Which locator finds the planted layer
#
# The distance of the paper's Eq. 6 grows with the norm of the residual stream and names late layers whatever was planted.
# What reads an effect on the refusal margin finds the plant. The controls read the size of weights: a decoy of the same
# size in another layer misleads the Frobenius norm, while the singular values still see that a trained change is of low
# rank and a random one is not, which says nothing about behaviour.

# %%
locators_figure(calibration.locators).show(config=CONFIG)

# %% [markdown]
# ## One organism, by hand
#
# Vanilla complies under attack. Here its behaviour is taken away after the last block alone: the final norm is followed by
# logits that are pushed towards refusing. Nothing in the located layer changed, so the right word is *masked*.

# %%
import copy

import torch

from interp import HookedModel, safeedit
from interp.mechanism.localise import locate_behaviour
from interp.mechanism.shares import MarginTokens, swap_margins, swap_shares, verdict

vanilla = HookedModel.from_pretrained("demo")
data = safeedit.load("demo")
instances = data.stratified("test", 18, seed=0)
tokens = MarginTokens.of(vanilla, data.train[:200])
layer = locate_behaviour(vanilla, instances, tokens).toxic_layer

masked = HookedModel.from_hf(copy.deepcopy(vanilla.hf), vanilla.tokenizer, "masked", vanilla.chat_template)
with torch.no_grad():
    head = masked.unembedding.weight
    towards = head[list(tokens.refuse)].mean(dim=0) - head[list(tokens.comply)].mean(dim=0)
    masked.value_module(masked.n_layers - 1).bias.add_(40 * towards / towards.norm())

queries = [i.adversarial_prompt for i in instances]
shares = swap_shares(swap_margins(vanilla, masked, queries, layer, tokens), model="masked", layer=layer)
for name in ("erased", "bypassed", "parallel", "downstream"):
    share = getattr(shares, name)
    print(f"{name:10s} {share.value:+.2f} [{share.low:+.2f}, {share.high:+.2f}]")
print(f"layer {layer}, n = {shares.n} prompts: {verdict(shares)}")

# %% [markdown]
# ## Limits
#
# Organisms calibrate a *measure*. They are models of 1.5 million parameters whose behaviour was planted in one matrix, and
# nothing here says that a real model keeps a behaviour in one place. `python -m interp.calibrate` makes and scores all of
# them; `--small` a few, in about two minutes.
