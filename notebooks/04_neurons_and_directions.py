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
# # Neurons and directions
#
# Which neurons write toxicity, what did a method do to them, and is there one direction along which all methods make the
# model refuse? Each figure has its control: random directions see something too.
#
# **The demo's behaviour is planted by its training data**: the numbers show how the tools work.

# %%
import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # two busy thread pools on few cores slow each other down

MODEL = "demo"  # or a Hugging Face id, or a folder
DATA = "demo"  # or "zjunlp/SafeEdit", or a SafeEdit JSON file
N = 18  # instances; every attack category gets its share
SEED = 0

# %%
from interp import HookedModel, locate, safeedit
from interp.mechanism.lab import Lab, Subject, merge
from interp.mechanism.localise import locate_behaviour
from interp.mechanism.margin import MarginTokens
from interp.mechanism.probe import train_probe
from interp.mechanism.probe_data import load_probe_texts
from interp.methods import Dinm, Sft
from interp.plots.findings import draw_finding
from interp.plots.theme import CONFIG

model = HookedModel.from_pretrained(MODEL)
data = safeedit.load(DATA)
instances = data.stratified("test", N, seed=SEED)
tokens = MarginTokens.of(model, data.train[:200])
toxic_layer = locate.layer_distances(model, instances).toxic_layer
causal_layer = locate_behaviour(model, instances, tokens).toxic_layer
probe = train_probe(model, load_probe_texts("demo", limit=1000, seed=SEED), seed=SEED)
lab = Lab(
    instances=tuple(instances), train=tuple(data.train[:100]), benign=tuple(data.benign), tokens=tokens,
    layer=causal_layer, toxic_layer=toxic_layer, toxic=probe.probe.toxic, seed=SEED, batch_size=48,
)  # fmt: skip
print(f"DINM's layer: {toxic_layer}; where the behaviour sits by the default locator: {causal_layer} (0-based)")

# %% [markdown]
# Two detoxified models: SFT (all weights, trained once and kept in the cache) and one DINM edit (one matrix).

# %%
sft = (Sft.demo() if MODEL == "demo" else Sft()).detoxify(model, data.train)
edit = (Dinm.demo() if MODEL == "demo" else Dinm()).detoxify(model, instances[0]).edit
vanilla = Subject("vanilla", model, lab)
edited = Subject("dinm", edit.beside(model), lab)


def look(analysis, names=("vanilla", "sft", "dinm")):
    """One analysis on the models, drawn; prints what it says, how to read it and what it does not say."""
    with sft.applied(model) as tuned:
        subjects = {"vanilla": vanilla, "sft": Subject("sft", tuned, lab), "dinm": edited}
        finding = merge([analysis.measure(subjects[name], vanilla) for name in names], analysis.read)
    drawn = draw_finding(finding)
    if drawn is not None:
        drawn.figure.show(config=CONFIG)
    print(
        f"{finding.reading}\n\nHow to read it: {finding.how_to_read}\n\nLimits: {finding.limits}\n\nn = {finding.n}, seed {finding.seed}"
    )


# %% [markdown]
# ## 1. Toxic value vectors
#
# The rows of W_V that point most along the probe's toxic direction (Lee et al. 2024), and what they say through the
# unembedding. The control is what as many rows do for a random direction.

# %%
from interp.mechanism.neurons import NEURONS

look(NEURONS)

# %% [markdown]
# ## 2. Four groups of neurons
#
# Sign of the cosine with the probe, sign of the activation, direction of the change (arXiv 2411.06424).

# %%
from interp.mechanism.neuron_groups import NEURON_GROUPS

look(NEURON_GROUPS, names=("sft", "dinm"))

# %% [markdown]
# ## 3. The refusal direction
#
# Difference of means between prompts that are refused and prompts that are answered (arXiv 2406.11717), per layer, and
# where each model's prompts lie on it.

# %%
from interp.mechanism.directions import REFUSAL_DIRECTION

look(REFUSAL_DIRECTION)

# %% [markdown]
# ## 4. Where the decision can be read off
#
# The logit lens over layers and positions.

# %%
from interp.mechanism.lens import MARGIN_LENS

look(MARGIN_LENS)
