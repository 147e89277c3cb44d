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
# # Layer heatmaps: where does a model tell safe from unsafe?
#
# We load a model and SafeEdit data, measure in which layer a safe and an unsafe response to the same attack lie furthest
# apart (Eq. 6 of the DINM paper), look at where the decision to refuse can be read off, edit one matrix with DINM, and look
# again.
#
# Everything here runs on the embedded demo, without a network. **The demo's behaviour is planted by its training data**: the
# numbers show how the tools work, not what language models are like. To use your own model, change the two names below.

# %%
import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # two busy thread pools on few cores slow each other down

MODEL = "demo"  # or a Hugging Face id, or a folder
DATA = "demo"  # or "zjunlp/SafeEdit", or SafeEdit_test.json
N = 18  # instances; every attack category gets its share
SEED = 0

# %%
from interp import HookedModel, locate, safeedit
from interp.mechanism.lens import refusal_lens
from interp.mechanism.shares import MarginTokens
from interp.methods import Dinm
from interp.plots import layers
from interp.plots.theme import CONFIG

model = HookedModel.from_pretrained(MODEL)
data = safeedit.load(DATA)
instances = data.stratified("test", N, seed=SEED)
model, f"{len(instances)} of {len(data.test)} test instances, seed {SEED}"

# %% [markdown]
# One instance: a harmful question inside an attack prompt, with the response a safe and an unsafe model would give. All
# demo content is mild and made up.

# %%
one = instances[0]
for name in ("category", "attack_name", "adversarial_prompt", "safe_generation", "unsafe_generation"):
    print(f"{name:>20}: {getattr(one, name)}\n")

# %% [markdown]
# ## 1. Distance between safe and unsafe, layer by layer
#
# The paper's toxic layer of an instance is the layer with the largest distance (marked). Two things to notice before
# believing it: the distance grows with the norm of the residual stream, so that late layers win by default; and what "the
# last layer" means matters. Before the final norm it is a residual stream like the others, after it (as Hugging Face's last
# hidden state is) it is on another scale.

# %%
distances = locate.layer_distances(model, instances)
layers.layer_heatmap(distances).show(config=CONFIG)

# %%
conventions = [locate.layer_distances(model, instances, c) for c in locate.CONVENTIONS.values()]
layers.layer_histogram(conventions).show(config=CONFIG)

# %%
for scores in conventions:
    print(f"{scores.convention:>28}: toxic layer {scores.toxic_layer}, counts {scores.counts}")

# %% [markdown]
# ## 2. Where can the decision be read off?
#
# The logit lens at the last prompt token: the residual stream after each layer goes through the final norm and the
# unembedding, and we read the log-odds of a first token that refuses over one that complies. The colour
# bar says which sign is which. The bare questions beside the attacked ones are the control: same questions, no attack.

# %%
tokens = MarginTokens.of(model, data.train[:200])
print("refuse:", [model.tokenizer.decode([t]) for t in tokens.refuse])
print("comply:", [model.tokenizer.decode([t]) for t in tokens.comply])

# %%
attacked = refusal_lens(model, instances, tokens)
layers.logit_lens_heatmap(attacked, located=distances.toxic_layer).show(config=CONFIG)

# %%
bare = refusal_lens(model, instances, tokens, kind="onlyQ")
layers.logit_lens_heatmap(bare, located=distances.toxic_layer).show(config=CONFIG)

# %% [markdown]
# ## 3. Edit one matrix, and look again
#
# DINM trains `W_V` of the toxic layer for ten steps on one instance. The edit is a `WeightEdit`: inside the `with` block the
# model is edited, after it the weights are back to the last bit.

# %%
method = Dinm.demo() if MODEL == "demo" else Dinm()
dinm = method.detoxify(model, one)
print(f"layer {dinm.layer}, relative change of its W_V {100 * dinm.edit.relative_norm(model):.1f} %")

# %%
prompt = model.format_prompt(one.adversarial_prompt)
before = model.generate(prompt, max_new_tokens=60)[0].text
with dinm.applied(model):
    after = model.generate(prompt, max_new_tokens=60)[0].text
    edited = refusal_lens(model, instances, tokens)
undone = model.generate(prompt, max_new_tokens=60)[0].text
print(f"before: {before}\n\nedited: {after}\n\nundone: {undone}")
assert undone == before

# %%
layers.logit_lens_heatmap(edited, located=dinm.layer).show(config=CONFIG)

# %% [markdown]
# Below the edited layer nothing moved: those columns are computed before `W_V` is used. That is an identity of the method,
# not a finding about it.

# %%
moved = edited.values - attacked.values
for layer in range(model.n_layers):
    column = moved[:, layer]
    print(
        f"layer {layer}: margin moved by {column.mean():+.2f} nats on average ({column.min():+.2f} to {column.max():+.2f}, n = {N})"
    )
assert (moved[:, : dinm.layer] == 0).all()

# %% [markdown]
# Next: `python -m interp.compare sft dpo dinm` measures three methods side by side, with controls, and writes one report.
