"""What changed inside: probe, region toxicity, activation shift and its source, swaps, and how to read them."""

from interp.mechanism.activations import PromptActivations, inputs_untouched, join, record
from interp.mechanism.probe import Probe, Site, TrainedProbe, toxic_directions, train_probe, train_probes
from interp.mechanism.probe_data import load_probe_texts
from interp.mechanism.reading import conclude, paper_rule
from interp.mechanism.region import DEFINITIONS, Region, RegionMeasurement, region_toxicity
from interp.mechanism.shares import MarginTokens, SwapMargins, swap_margins, swap_shares
from interp.mechanism.shift import activation_shift
from interp.mechanism.source import shift_source
from interp.mechanism.weights import change_by_layer, changed_parameters, edited_value_vectors, edits_change_by_layer

__all__ = [
    "DEFINITIONS",
    "MarginTokens",
    "Probe",
    "PromptActivations",
    "Region",
    "RegionMeasurement",
    "Site",
    "SwapMargins",
    "TrainedProbe",
    "activation_shift",
    "change_by_layer",
    "changed_parameters",
    "conclude",
    "edited_value_vectors",
    "edits_change_by_layer",
    "inputs_untouched",
    "join",
    "load_probe_texts",
    "paper_rule",
    "record",
    "region_toxicity",
    "shift_source",
    "swap_margins",
    "swap_shares",
    "toxic_directions",
    "train_probe",
    "train_probes",
]
