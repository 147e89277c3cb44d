"""Decode with many edited models at once: rows of one batch that differ in the W_V they run through.

Edits of one model share all weights but a matrix or two. So one forward serves the rows of many of them: everything but
the edited matrices runs on the whole batch, and there each edit's rows go through its own weight. A prompt that several
of them are asked is read once, as far as they are alike. The tokens are those of each edited model decoded alone (in
float32; rounding depends on batch shapes, in 16 bits visibly).
"""

from interp.multi.generation import generate_edited
from interp.multi.prompts import SharedPrompts
from interp.multi.store import EditStore
from interp.multi.weights import RowWeights, shareable

__all__ = ["EditStore", "RowWeights", "SharedPrompts", "generate_edited", "shareable"]
