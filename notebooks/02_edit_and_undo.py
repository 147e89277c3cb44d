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
# # Edit and undo: what one DINM edit does to a model, and that nothing of it stays
#
# DINM changes one matrix of one layer, from one attack. Here we make such an edit, look at it as the matrix it is, apply it
# and take it back to the last bit, and go through instances one by one with a slider.
#
# **The demo's behaviour is planted by its training data**: the numbers show how the tools work, not what language models
# are like.

# %%
import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # two busy thread pools on few cores slow each other down

MODEL = "demo"  # or a Hugging Face id, or a folder
DATA = "demo"  # or "zjunlp/SafeEdit", or a SafeEdit JSON file
N = 12  # instances; every attack category gets its share
SEED = 0

# %%
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from interp import HookedModel, InputError, WeightEdit, locate, safeedit
from interp.mechanism.lens import refusal_lens
from interp.mechanism.margin import MarginTokens
from interp.methods import Dinm
from interp.methods.base import SUFFIX_S1
from interp.plots.explorer import explorer
from interp.plots.theme import CONFIG

model = HookedModel.from_pretrained(MODEL)
data = safeedit.load(DATA)
instances = data.stratified("test", N, seed=SEED)
tokens = MarginTokens.of(model, data.train[:200])
one = instances[0]
print(one.adversarial_prompt)

# %% [markdown]
# ## 1. One edit
#
# The edit is trained with the suffix S behind the prompt (a system prompt that asks for caution, as in the paper), so we
# ask with S too, before and after.

# %%
layer = locate.layer_distances(model, instances).toxic_layer
method = replace(Dinm.demo() if MODEL == "demo" else Dinm(), layer=layer)  # one layer for all instances
edit = method.detoxify(model, one).edit
print(f"layer {layer} is located; edited: {sorted(edit.deltas)}")
print(f"relative change of that matrix: {100 * edit.relative_norm(model):.1f} %")

# %% [markdown]
# How many directions does it use? The singular values of the change say so. A rank-one change would have one bar.

# %%
import plotly.graph_objects as go

from interp.plots.theme import SINGLE, finish

[delta] = edit.deltas.values()
values = torch.linalg.svdvals(delta)
figure = go.Figure(go.Bar(x=list(range(1, 21)), y=values[:20].tolist(), marker={"color": "#0072B2"}))
figure.update_xaxes(title={"text": "Singular value of the change, largest first"})
figure.update_yaxes(title={"text": "Size (weight units)"})
finish(figure, *SINGLE).show(config=CONFIG)
share = float((values[:5] ** 2).sum() / (values**2).sum())
print(f"the first 5 of {len(values)} directions hold {100 * share:.0f} % of its squared norm")

# %% [markdown]
# ## 2. Apply it, and take it back
#
# Inside the `with` block the model is edited. After it the weights are what they were, bit by bit, also where the block
# failed. `beside` gives a second model instead, which shares every other parameter.

# %%
before = model.weight_hash()
prompt = model.format_prompt(one.adversarial_prompt, SUFFIX_S1)
vanilla_says = model.generate(prompt, max_new_tokens=40)[0].text
try:
    with edit.applied(model):
        edited_says = model.generate(prompt, max_new_tokens=40)[0].text
        assert model.weight_hash(fresh=True) != before
        raise RuntimeError("something went wrong while the model was edited")
except RuntimeError:
    pass
assert model.weight_hash(fresh=True) == before
print(f"vanilla: {vanilla_says}\n\nedited:  {edited_says}")

# %% [markdown]
# ## 3. Keep it, and let it refuse another model
#
# An edit is one small file that knows which weights it was made on.

# %%
with tempfile.TemporaryDirectory() as folder:
    file = edit.save(Path(folder) / "edit.safetensors")
    again = WeightEdit.load(file)
    print(
        f"{file.name}: {file.stat().st_size / 1024:.0f} KiB, made by {again.provenance.method} on {again.provenance.model}"
    )
other = again.beside(model)
try:
    with again.applied(other):  # already edited: not the weights it was made on
        pass
except InputError as error:
    print("refused:", str(error)[:120], "...")

# %% [markdown]
# ## 4. Every instance, before and after
#
# One edit per instance, each asked its own attack. Move the slider (it needs no running kernel): the heatmap has the
# refusal margin read after each layer of the edited model minus that of vanilla; below it stand the prompt and both
# answers.

# %%
kept = [method.detoxify(model, i).edit for i in instances]
plain = refusal_lens(model, instances, tokens, suffix=SUFFIX_S1)
answers, rows = [], []
for k, (instance, e) in enumerate(zip(instances, kept, strict=True)):
    with e.applied(model):
        answers.append(
            model.generate(model.format_prompt(instance.adversarial_prompt, SUFFIX_S1), max_new_tokens=40)[0].text
        )
        rows.append(refusal_lens(model, [instance], tokens, suffix=SUFFIX_S1).values[0] - plain.values[k])
first = model.generate([model.format_prompt(i.adversarial_prompt, SUFFIX_S1) for i in instances], max_new_tokens=40)

# %%
moved = replace(plain, values=np.stack(rows), unit="change of the refusal margin, nats")
texts = {
    "attack": [i.adversarial_prompt for i in instances],
    "vanilla, with S": [g.text for g in first],
    "after its own edit, with S": answers,
}
explorer(moved, texts).show(config=CONFIG)

# %%
gain = moved.values[:, -1]
print(f"margin moved by {gain.mean():+.2f} nats on average ({gain.min():+.2f} to {gain.max():+.2f}, n = {N} edits)")
below = np.abs(moved.values[:, : edit.provenance.layer]).max()  # nothing can move below the edited layer: no finding
assert below < 1e-3  # rounding: prompts were batched with vanilla and stood alone with an edit
assert model.weight_hash(fresh=True) == before

# %% [markdown]
# Next: notebook 03 asks *through what* a method changed the answers.
