"""What moves the refusal margin when it is taken from another model: activations, their linear estimate, or weights."""

from interp.mechanism.patching.activations import Patched, effects, patch
from interp.mechanism.patching.attribution import ATTRIBUTION, Attribution, attribute
from interp.mechanism.patching.maps import PATCHING
from interp.mechanism.patching.places import Clean, Place, check_place, patched, places_of, read
from interp.mechanism.patching.positions import ROLES, by_role, everywhere, from_end
from interp.mechanism.patching.weight_maps import WEIGHT_SWAPS
from interp.mechanism.patching.weights import COMPONENTS, Part, parameter_names, with_weights

__all__ = [
    "ATTRIBUTION",
    "COMPONENTS",
    "PATCHING",
    "ROLES",
    "WEIGHT_SWAPS",
    "Attribution",
    "Clean",
    "Part",
    "Patched",
    "Place",
    "attribute",
    "by_role",
    "check_place",
    "effects",
    "everywhere",
    "from_end",
    "parameter_names",
    "patch",
    "patched",
    "places_of",
    "read",
    "with_weights",
]
