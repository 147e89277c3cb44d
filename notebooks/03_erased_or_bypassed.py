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
# # Erased or bypassed?
#
# A method made the model refuse. Did it take the toxicity out of the toxic region's weights (*erased*), or does the region
# still stand and nothing flows into it any more (*bypassed*)? Comparing weights or activations cannot tell: both move
# in either case. What can is a **swap**: put vanilla's part back into the detoxified model and see how much of the unsafe
# behaviour comes back.
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
# ## 1. Was there an effect?
#
# Before anything is divided into shares there must be something to divide. The margin is the log-odds of a first token
# that refuses over one that complies; the harmless requests are the control.

# %%
from interp.mechanism.margins import MARGINS

look(MARGINS)

# %% [markdown]
# ## 2. The four shares
#
# At one layer: through the matrix W_V (*erased*), through what flows into it (*bypassed*), up to the block but around the
# region (*parallel*), after the block (*downstream*; "masked" where it is most). They sum to 100 %. For the DINM edit,
# which changed this one matrix and nothing else, "erased" is 100 % **by algebra**: it would be, whatever the edit did.

# %%
from interp.mechanism.shares import swap_shares, verdict
from interp.mechanism.swaps import swap_margins

queries = [i.adversarial_prompt for i in instances]


def shares_at(other, layer, name, identity=False):
    margins = swap_margins(model, other, queries, layer, tokens, identity=identity)
    return swap_shares(margins, model=name, layer=layer, identity=identity, seed=SEED)


with sft.applied(model) as tuned:
    found = [shares_at(tuned, layer, "sft") for layer in range(model.n_layers)]
for s in found:
    parts = {"erased": s.erased, "bypassed": s.bypassed, "parallel": s.parallel, "downstream": s.downstream}
    print(
        f"layer {s.layer}: {verdict(s):>10}  "
        + "  ".join(f"{k} {100 * e.value:3.0f} % [{100 * e.low:.0f}, {100 * e.high:.0f}]" for k, e in parts.items())
    )

# %%
from interp.records import Bars, Estimate, Finding

names = ("erased: W_V", "bypassed: its inputs", "parallel: around the region", "downstream: after the block")
columns = [(s.erased, s.bypassed, s.parallel, s.downstream) for s in found]
series = {
    name: tuple(Estimate(100 * c[i].value, 100 * c[i].low, 100 * c[i].high, c[i].n, "%") for c in columns)
    for i, name in enumerate(names)
}
groups = tuple(f"layer {s.layer}" for s in found)
panel = Bars("SFT: through what its change passes", "Share of the change (%)", groups, series, stacked=True)
finding = Finding("shares", panel.title, "", "", "", "", n=N, seed=SEED, bars=(panel,))
draw_finding(finding).figure.show(config=CONFIG)

# %% [markdown]
# Read from left to right, the shares say *how far the change has come* at each layer: at the bottom most of it is still to
# be made (downstream), at the top it has been made and flows in (bypassed). "Bypassed at layer l" says that *this* matrix
# was gone around. It takes a layer that was located without looking at any edit to say more.

# %%
dinm = shares_at(edited.model, edit.provenance.layer, "dinm", identity=True)
drop = dinm.compliance_drop
print(
    f"DINM, one edit on {N} attacks without S: compliance lost {drop.value:.0f} points [{drop.low:.0f}, {drop.high:.0f}]: {verdict(dinm)}"
)

# %% [markdown]
# ## 3. Which weights carry the change?
#
# The same question asked of every block and component: vanilla's weights into the model, one at a time. Random changes of
# the same size are the control.

# %%
from interp.mechanism.patching import WEIGHT_SWAPS

look(WEIGHT_SWAPS, names=("sft",))

# %% [markdown]
# ## 4. Can it be brought back?
#
# A bypassed region is still there. If so, the behaviour should return when inputs are pushed back along the way they were
# moved; if nothing returns, the change is spread over more than this.

# %%
from interp.mechanism.interventions import REACTIVATION

look(REACTIVATION, names=("sft",))

# %% [markdown]
# Next: notebook 04 looks at neurons and directions; `python -m interp.compare sft dpo dinm --deep` runs everything.
