"""Where a behaviour sits: locators of many kinds behind one protocol, and what they say of a model's layers.

`locate_behaviour(model, instances, tokens)` asks the default locator; `LOCATORS` holds them all by name. Which of them
can be believed is what `interp.calibrate` measures on models whose truth is known. A natural behaviour need not sit in
one layer at all: then a locator names the largest part of it.
"""

from __future__ import annotations

from collections.abc import Sequence

from interp.errors import InputError
from interp.locate import CONVENTIONS
from interp.mechanism.localise import distances, pair, single, weights
from interp.mechanism.localise.locator import Inputs, Locator, Scored
from interp.mechanism.shares import MarginTokens
from interp.models import HookedModel
from interp.records import Instance, LayerScores, PromptKind

_PAPER = "Wang et al. 2024 (DINM), Eq. 6"
_OURS = "ours, after Eq. 6"
_TRACING = "Meng et al. 2022 (causal tracing)"
_CROSS = "Prakash et al. 2024 (cross-model patching)"
_GAIN = "nats of refusal margin"
_CONTROL = {"per_instance": False, "control": True}
_ALL = (
    *(Locator(f"Eq. 6, {c.name}", c.unit, _PAPER, distances.distance(c)) for c in CONVENTIONS.values()),
    Locator("relative distance", "distance / norm of the stream", _OURS, distances.relative_distance),
    Locator("distance increment", "L2 distance that the block adds", _OURS, distances.increment),
    Locator("relative increment", "added / previous distance", _OURS, distances.relative_increment),
    Locator("probe AUROC", "AUROC, held-out instances", "Alain and Bengio 2016", distances.probe_auroc),
    Locator("difference in means", "standard deviations", "ours, after Arditi et al. 2024", distances.separability),
    Locator("logit-lens push", _GAIN, "nostalgebraist 2020; Elhage et al. 2021", single.push),
    Locator("mean ablation", _GAIN, "Wang et al. 2022 (IOI)", single.mean_ablation),
    Locator("mean ablation, last token", _GAIN, "ours, after Wang et al. 2022", single.mean_ablation_last),
    Locator("zero ablation", _GAIN, "Olsson et al. 2022", single.zero_ablation),
    Locator("gradient x weight", _GAIN, "Michel et al. 2019", single.gradient_weight),
    Locator("residual patch jump, bare", _GAIN, _TRACING, single.residual_jump),
    Locator("last-token MLP patch, bare", _GAIN, _TRACING, single.mlp_patch),
    Locator("Frobenius norm", "norm of W_V", "ours", weights.frobenius, **_CONTROL),
    Locator("singular value share", "share of the squared norm", "ours", weights.singular_share, **_CONTROL),
    Locator("W_V swap", _GAIN, "ours", pair.weight_swap, needs_reference=True),
    Locator("MLP-output patch", _GAIN, _CROSS, pair.output_patch, needs_reference=True),
    Locator("residual patch jump, models", _GAIN, _CROSS, pair.residual_jump_between, needs_reference=True),
    Locator(
        "gradient x weight difference",
        _GAIN,
        "Nanda 2023 (attribution patching), of weights",
        pair.gradient_weight_change,
        needs_reference=True,
    ),
    Locator(
        "relative weight change",
        "|| change || / || W_V ||",
        "ours",
        weights.relative_change,
        needs_reference=True,
        **_CONTROL,
    ),
)

LOCATORS: dict[str, Locator] = {locator.name: locator for locator in _ALL}
"""Every locator by its name."""
DEFAULT_LOCATOR = "gradient x weight"
"""What analyses locate with where nothing else is asked for: of the locators that need no second model and are no
controls, the one that found most planted layers on the half of the organisms on which choices are made (zero ablation
found as many at twice the cost). On the other half it found all 20 (`figures/calibration`)."""


def get_locator(name: str | Locator) -> Locator:
    """The locator of that name (or itself). Raises InputError naming the known ones."""
    if isinstance(name, Locator):
        return name
    if name not in LOCATORS:
        raise InputError(f"no locator {name!r}; expected one of: {'; '.join(LOCATORS)}")
    return LOCATORS[name]


def locate_behaviour(
    model: HookedModel,
    instances: Sequence[Instance],
    tokens: MarginTokens,
    *,
    locator: str | Locator = DEFAULT_LOCATOR,
    kind: PromptKind = "DS",
    bare: PromptKind | None = "onlyQ",
    suffix: str = "",
    reference: HookedModel | None = None,
    batch_size: int = 16,
) -> LayerScores:
    """Scores of every layer for each instance under one locator; `toxic_layer` of the result is the layer most name.

    The numbers do not depend on `batch_size`, but for float rounding. A method takes the layer as a plain number:
    `Dinm(layer=locate_behaviour(model, val, tokens).toxic_layer)`.

    Args:
        model: the model that shows the behaviour, complying under attack.
        instances: whose prompts are asked.
        tokens: first tokens of refusing and complying answers (`MarginTokens.of`).
        locator: one of `LOCATORS`, by name or itself.
        kind: the attack prompt.
        bare: the prompt without the attack; None where there is none.
        suffix: the suffix S after every prompt (not in the paper's own locators, whose convention says).
        reference: a model of the same shape that behaves otherwise, for a locator that needs one.
        batch_size: prompts per forward.

    Raises:
        InputError: an unknown locator, no or too few instances, a reference that is missing or of another shape.
    """
    inputs = Inputs(tuple(instances), tokens, kind, bare, suffix, batch_size)
    return get_locator(locator).score(model, inputs, reference)


__all__ = ["DEFAULT_LOCATOR", "LOCATORS", "Inputs", "Locator", "Scored", "get_locator", "locate_behaviour"]
