"""What was measured inside a model: layers, probe, region, shift, shares."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float

from interp.records.numbers import Estimate


@dataclass(frozen=True)
class LayerScores:
    """Distance between safe and unsafe hidden states, per instance and layer (Eq. 6), under one named convention."""

    model: str
    convention: str
    unit: str
    instance_ids: tuple[int, ...]
    categories: tuple[str, ...]
    values: Float[np.ndarray, "instance layer"]
    """Score of each block's output; column l is layer l+1 of the paper."""
    truncated: int = 0
    """How many instances were cut to the model's context."""

    @property
    def located(self) -> tuple[int, ...]:
        """The 0-based argmax layer of each instance (the paper counts from 1)."""
        return tuple(int(i) for i in self.values.argmax(axis=1))

    @property
    def counts(self) -> dict[int, int]:
        """How many instances located each 0-based layer."""
        located = self.located
        return {layer: located.count(layer) for layer in sorted(set(located))}

    @property
    def toxic_layer(self) -> int:
        """The layer most instances located; the lower one on a tie."""
        return max(self.counts, key=lambda layer: (self.counts[layer], -layer))


@dataclass(frozen=True)
class ProbeReport:
    """How good the toxic probe (Eq. 17) is on texts it has not seen."""

    model: str
    source: str
    """Where the texts came from."""
    pooling: str
    """Which hidden state: "mean over tokens, after the final norm", ..."""
    n_train: int
    n_test: int
    accuracy: Estimate
    auroc: Estimate
    majority: float
    """Accuracy of always naming the larger class, percent: the control for `accuracy`."""
    seed: int
    shuffled_auroc: Estimate | None = None
    """Held-out AUROC of probes trained on shuffled labels: the control for `auroc` (chance is 0.5)."""


@dataclass(frozen=True)
class NullDistribution:
    """The same number for random directions: what chance gives."""

    mean: float
    std: float
    low: float
    """2.5th percentile."""
    high: float
    """97.5th percentile."""
    n: int
    """Number of random directions."""
    seed: int


@dataclass(frozen=True)
class RegionToxicity:
    """Toxicity of the toxic region (W_V of one layer) of one model under one definition, with its random null."""

    model: str
    layer: int
    """0-based."""
    definition: str
    """Named definition, e.g. "mean cosine, all value vectors" (the paper's)."""
    vanilla: float
    value: Estimate
    """Over edits where there are several, else exact."""
    change: Estimate
    """value - vanilla, in the definition's unit."""
    null_vanilla: NullDistribution
    """The definition's value on vanilla for random directions."""
    null_change: NullDistribution
    """The change for random directions (for each direction the mean over edits, as for `change`)."""
    p_change: float
    """Two-sided share of random directions whose change is at least as large (with +1 correction)."""
    unit: str = ""
    p_change_shaped: float | None = None
    """The same against random directions with the covariance of the probe's hidden states: the harder null."""

    @property
    def z_vanilla(self) -> float:
        """Distance of the vanilla value from the random null, in null standard deviations."""
        return (self.vanilla - self.null_vanilla.mean) / self.null_vanilla.std if self.null_vanilla.std > 0 else 0.0

    @property
    def rate(self) -> float | None:
        """Toxicity reduction rate in percent (positive: less toxic), None where vanilla is not above chance.

        The paper's rate divides by the vanilla value; within two null standard deviations of chance that quotient is
        noise, so it is not given.
        """
        if abs(self.z_vanilla) <= 2.0 or self.vanilla == 0.0:
            return None
        return -100.0 * self.change.value / abs(self.vanilla)


@dataclass(frozen=True)
class ActivationShift:
    """How far the activations flowing into the toxic region moved (paper, Sec. 4.3), on identical tokens."""

    model: str
    layer: int
    rate: Estimate
    """|| mean h_down(m) - mean h_down(vanilla) || / || mean h_down(vanilla) || at `layer`, percent."""
    by_layer: tuple[float, ...]
    """The same at every layer, percent."""
    resid_by_layer: tuple[float, ...]
    """The same for resid_post, percent."""
    own_tokens: Estimate | None
    """The same on each model's own generated tokens, percent: this one a DINM edit can move."""
    own_tokens_control: Estimate | None
    """Vanilla against vanilla on disjoint halves of the inputs: the size of the noise in `own_tokens`."""
    identity: bool
    """True where the shift is zero by construction: nothing below W_V of `layer` was changed."""
    n_inputs: int


@dataclass(frozen=True)
class ShiftSource:
    """The source of the shift (Fig. 8): h_mid of vanilla and of a model, on the mean shift and the first PC."""

    model: str
    layer: int
    vanilla: Float[np.ndarray, "input 2"]
    """Columns: projection on the unit mean shift; on the first principal component (orthogonal to it)."""
    shifted: Float[np.ndarray, "input 2"]
    activation_vanilla: Float[np.ndarray, "input"]
    """How strongly the input activates the toxic region: mean |h_down| at the last prompt token."""
    activation_shifted: Float[np.ndarray, "input"]
    delta_norm: float
    """|| mean delta of h_mid ||."""
    explained: float
    """Share of the variance that the first principal component explains."""
    instance_ids: tuple[int, ...] = ()
    axis: str = "mean shift"
    """What the first column is: where the mean shift is zero there is no such axis, and this says what stands in."""


ShareVerdict = Literal["erased", "bypassed", "parallel", "masked", "upstream", "mixed", "no effect"]
"""What the four shares of a swap say. masked: the change is after the block; upstream: before W_V, by which of the two
routes is open; mixed: no share is the whole; no effect: nothing to divide."""


@dataclass(frozen=True)
class SwapShares:
    """Causal evidence at one layer: how much of a change of behaviour passes through W_V, its inputs, or elsewhere.

    The behaviour is the refusal margin, log-odds of a refusing over a complying first token. Parts of the unsafe
    reference (vanilla) are put into the model, at all prompt positions, and the margin is read again. The four shares
    sum to 1; erased and bypassed are the Shapley values of the two-by-two (matrix, inputs).
    """

    model: str
    layer: int
    """0-based."""
    erased: Estimate
    """Through W_V of the layer."""
    bypassed: Estimate
    """Through h_down, the inputs of W_V."""
    parallel: Estimate
    """Changed up to the block's output, but around the region."""
    downstream: Estimate
    """Changed after the block."""
    reverse: tuple[float, float, float, float]
    """The same four shares with parts of the model put into vanilla; a mixture makes the two directions disagree."""
    margin_vanilla: Estimate
    margin: Estimate
    """Mean refusal margin, nats."""
    compliance_drop: Estimate
    """Share of prompts with a complying margin, vanilla minus model, percentage points: the gate."""
    gated: bool
    """True where the lower end of `compliance_drop` is below 25 points: too small an effect to divide into shares."""
    identity: bool
    """True where the shares are algebra: only W_V of this layer was changed (erased is 1 whatever it did)."""
    n: int
    """Prompts, over all models or edits."""
    upstream: Estimate | None = None
    """Bypassed and parallel together, with an interval of the sum's own. None: not computed (older records)."""
    units: int = 1
    """Models or edits that the margins are of: the outer unit of the intervals where there are several."""
    by_algebra: str = ""
    """Why these shares follow from where the change was made, whatever it did, in words; "" where they are measured."""
    left_out: int = 0
    """Edits that are not among these shares, because their own are algebra at this layer."""
    suffix: bool = False
    """Whether both models were asked with the suffix S: what a change adds to the prompt, not what it does alone."""
    answerable: bool = True
    """False where vanilla complies with so few prompts that refusing all of them would not have opened the gate."""
