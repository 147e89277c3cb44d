"""Every figure of a comparison with its caption: what it shows, its n, how to read it, and what it does not say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import plotly.graph_objects as go

from interp.plots.defense import defense_rates, side_effects
from interp.plots.flow import toxic_flow
from interp.plots.layers import layer_heatmap, layer_histogram, located_by_model
from interp.plots.mechanism import by_layer, stacked_shares, swap_shares
from interp.plots.panels import methods
from interp.plots.region import region_and_shift, region_definitions
from interp.plots.save import Saved, save_figures
from interp.plots.source import shift_source
from interp.plots.table import PLANTED
from interp.plots.text import fixed, ns_of, states
from interp.records import Comparison
from interp.runs import write_text


@dataclass(frozen=True)
class Drawn:
    """A figure with what stands under it."""

    name: str
    """File name without ending."""
    title: str
    figure: go.Figure
    shows: str
    read: str
    """How to read it."""
    limits: str

    @property
    def caption(self) -> str:
        """The whole caption as one paragraph."""
        return f"{self.shows} {self.read} Limits: {self.limits}"


def draw(comparison: Comparison) -> tuple[Drawn, ...]:
    """Every figure that the comparison has data for, in the order of a report."""
    makers = (
        _flow,
        _fig5,
        _definitions,
        _swaps,
        _stacked,
        _defense,
        _costs,
        _heatmap,
        _histogram,
        _located,
        _by_layer,
        _fig8,
    )
    found = (make(comparison) for make in makers)
    return tuple(drawn for drawn in found if drawn is not None)


def save_gallery(drawn: Sequence[Drawn], folder: Path, *, planted: bool = False, html: bool = False) -> Saved:
    """Write the figures, and their captions as `captions.md` beside them.

    Raises:
        InputError: a file cannot be written.
    """
    saved = save_figures({d.name: d.figure for d in drawn}, folder, html=html)
    lines = ["# Figures", ""] + ([PLANTED, ""] if planted else [])
    for d in drawn:
        image = f"{d.name}.png" if Path(folder, f"{d.name}.png").exists() else None
        lines += [f"## {d.title}", "", *([f"![{d.title}]({image})", ""] if image else []), d.caption, ""]
    captions = Path(folder) / "captions.md"
    write_text(captions, "\n".join(lines))
    return Saved((*saved.files, captions), saved.note)


# ------------------------------------------------------------------------------------------------- captions
def _flow(c: Comparison) -> Drawn | None:
    if not any(row.region for row in c.rows):
        return None
    inputs = ns_of(len(s.activation_vanilla) for s in c.sources)
    return Drawn(
        "fig4_flow",
        "What flows into the toxic region, and what the region is",
        toxic_flow(c),
        shows=f"The paper's Figure 4, drawn from measurements: one panel per model, W_V of layer {c.layer} as a box. "
        "The box is coloured by how far its toxicity is from random directions (z), the dots by how strongly the "
        f"inputs activate it (10th to 90th percentile of {inputs} adversarial inputs); Δ and p compare with vanilla.",
        read="Dots move to the right of vanilla's grey rings by the activation shift. A bypass would show as moved "
        "dots over an unchanged box, an erasure as a paler box over unmoved dots.",
        limits="a box as dark as vanilla's is no proof of a bypass, and an edit of only W_V cannot move the dots. "
        "Safe answers are DS without the suffix.",
    )


def _fig5(c: Comparison) -> Drawn | None:
    if not any(row.region or row.shift for row in methods(c)):
        return None
    base = next((row.region[0] for row in c.rows if row.region), None)
    chance = ""
    if base is not None:
        end = "; its rate is therefore not given." if base.rate is None and abs(base.z_vanilla) <= 2 else "."
        chance = f" Vanilla's own value is {fixed(base.z_vanilla)} sd from what random directions give{end}"
    return Drawn(
        "fig5_region_and_shift",
        "Toxicity reduction and activation shift",
        region_and_shift(c),
        shows="The paper's Figure 5. Left: reduction of the region's toxicity (mean cosine of the value vectors with "
        "the probe's toxic row) as a percentage of vanilla; middle: the same change in standard deviations of its "
        f"null; right: shift of the mean activation, bars on the same prompts, diamonds on own answers.{chance}",
        read="Bars inside the grey are what random directions see under the same weight change. Under the diamonds, "
        "grey is vanilla against itself on disjoint halves of the inputs. Whiskers: 95 %, over edits or inputs.",
        limits="a single checkpoint has one matrix and so no interval on its toxicity; a shift of 0 'by construction' "
        "follows from what the method edits and is not evidence.",
    )


def _definitions(c: Comparison) -> Drawn | None:
    if not any(row.region for row in methods(c)):
        return None
    return Drawn(
        "region_definitions",
        "Region toxicity under every definition",
        region_definitions(c),
        shows="Left: vanilla's distance from random directions under each definition. Right: what each method took "
        "away, in standard deviations of the change that random directions see; right of zero is less toxic.",
        read="Grey is chance (left 2 sd, right the central 95 % of random directions). Filled markers are beyond both "
        "nulls at p < 0.05: random directions, and directions shaped like the probe's hidden states.",
        limits="the definitions are not independent of each other, and none says that the region causes anything.",
    )


def _swaps(c: Comparison) -> Drawn | None:
    found = [swap for row in c.rows if (swap := row.causal or row.swap) is not None]
    if not found:
        return None
    return Drawn(
        "swap_shares",
        "Through what the change of behaviour passes",
        swap_shares(c),
        shows=f"Parts of vanilla are put into each model at layer {found[0].layer} on {ns_of(s.n for s in found)} "
        "prompts; the share of the change of the refusal margin that comes back is the part's. Filled: vanilla's parts "
        "in the model, with 95 % intervals; open: the model's parts in vanilla.",
        read="The four shares sum to 100 %. Filled and open markers that disagree mean that parts work together.",
        limits="grey ground, 'by algebra': what was changed decides the shares, whatever it did (W_V of this layer "
        "alone: erased; nothing up to its block: after). 'with S': both models are asked with the suffix. The shares "
        "are of this layer only: at a wrong one an erasure reads as masked or parallel.",
    )


def _stacked(c: Comparison) -> Drawn | None:
    found = [swap for row in c.rows for swap in (row.causal, row.swap) if swap is not None]
    if not found:
        return None
    causal = next((row.causal.layer for row in c.rows if row.causal is not None), c.layer)
    return Drawn(
        "stacked_shares",
        "Erased, bypassed, parallel, masked",
        stacked_shares(c),
        shows=f"The four shares of each method's change of behaviour as one bar (n = {ns_of(s.n for s in found)} "
        f"prompts), at layer {causal}, where vanilla's behaviour was located, and at the toxic layer {c.layer}.",
        read="A bar of one colour would be a clean answer. Where the two bars of a method differ, the answer is about "
        "the layer as much as about the method; the verdict follows from the first.",
        limits="intervals stand in the figure before. Hatched, 'by algebra': what was changed decides the bar, "
        "whatever it did. 'with S': both models are asked with the suffix.",
    )


def _defense(c: Comparison) -> Drawn | None:
    found = [d for row in c.rows for d in row.defense]
    if not found:
        return None
    judges = ", ".join(sorted({d.judge for d in found}))
    n = ns_of(e.n for d in found for e in d.by_kind.values())
    both = " Above without, below with the suffix S, so that prompt and edit stay apart." if len(states(c)) > 1 else ""
    return Drawn(
        "defense_rates",
        "Defence success and generalisation",
        defense_rates(c),
        shows=f"Share of safe answers per kind of input (n = {n} instances; judge: {judges}).{both}",
        read="Whiskers: 95 % Wilson intervals, for DG-Avg a bootstrap over instances. Overlapping whiskers do not mean "
        "equal: all models answered the same prompts.",
        limits="an empty or degenerate answer counts half; a refusal of everything scores 100 %, so read this beside "
        "its costs.",
    )


def _costs(c: Comparison) -> Drawn | None:
    found = [g for row in c.rows for g in row.general]
    if not found:
        return None
    n = ns_of(e.n for g in found for e in (g.kqa, g.over_refusal, g.over_refusal_wrapped) if e is not None)
    return Drawn(
        "side_effects",
        "What the defence costs",
        side_effects(c),
        shows="Harmless requests refused (bare, and wrapped in an attack), empty or degenerate answers, knowledge "
        f"questions answered (n = {n} questions or edits), and the n-gram entropy of the answers.",
        read="Arrows say which way is better. Whiskers: 95 %.",
        limits="knowledge questions alone do not see over-refusal; entropy falls with short answers too, refusals "
        "among them.",
    )


def _heatmap(c: Comparison) -> Drawn | None:
    if not c.layer_scores:
        return None
    scores = c.layer_scores[0]
    cut = f" {scores.truncated} were cut to the model's context." if scores.truncated else ""
    return Drawn(
        "layer_heatmap",
        "Distance between safe and unsafe answers, layer by layer",
        layer_heatmap(scores),
        shows=f"{scores.unit} (convention: {scores.convention}) for {len(scores.instance_ids)} instances of the "
        f"vanilla model; circles mark the layer located for each instance, its largest distance.{cut}",
        read="Columns are instances, grouped by category; layers count from 0: layer l here is l + 1 in the paper.",
        limits="the distance grows with the norm of the residual stream, which favours late layers whatever they do.",
    )


def _histogram(c: Comparison) -> Drawn | None:
    if not c.layer_scores:
        return None
    n = len(c.layer_scores[0].instance_ids)
    return Drawn(
        "toxic_layers",
        "Which layer is located, by convention",
        layer_histogram(c.layer_scores),
        shows=f"How many of {n} instances located each layer of the vanilla model, under each reading of the paper's "
        f"formula; blue is the one in use. The region is at layer {c.layer}.",
        read="One tall bar means that all instances agree.",
        limits="agreement is not evidence for the layer: a trend over layers gives the same argmax everywhere.",
    )


def _located(c: Comparison) -> Drawn | None:
    if not c.layer_scores or len(c.rows) < 2:
        return None
    return Drawn(
        "located_by_model",
        "Which layer is located in each model",
        located_by_model(c),
        shows=f"Instances that located each layer, per model, convention {c.layer_scores[0].convention}.",
        read="Rows that look alike mean that the method left the ranking of layers as it was.",
        limits="an edited model is located on vanilla, before its edit.",
    )


def _by_layer(c: Comparison) -> Drawn | None:
    if not methods(c):
        return None
    return Drawn(
        "by_layer",
        "What moved at every layer",
        by_layer(c),
        shows="Shift of the mean input of W_V, of the residual stream, and relative change of each block's weights, "
        "against vanilla on the same prompts.",
        read=f"The toxic layer ({c.layer}) is shaded. An edit of one layer moves nothing below it.",
        limits="means over inputs: shifts that differ between inputs cancel. No intervals are drawn here.",
    )


def _fig8(c: Comparison) -> Drawn | None:
    if not c.sources:
        return None
    n = ns_of(len(s.vanilla) for s in c.sources)
    return Drawn(
        "fig8_shift_source",
        "Where the inputs of the region went",
        shift_source(c.sources),
        shows=f"The paper's Figure 8: the residual stream before the MLP of layer {c.layer} at the last prompt token, "
        f"for {n} adversarial inputs; along the mean shift and the first principal component, from vanilla (circle) to "
        "the model (diamond).",
        read="Colour is how strongly the input activates the region. Parallel dotted lines are a common shift.",
        limits="two of many dimensions. Where the mean shift is zero by construction the second component stands in "
        "for it.",
    )
