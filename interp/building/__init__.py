"""Building a benchmark in SafeEdit's layout: the paper's five steps (Sec. 2), resumable; read `pipeline.build`.

Questions and attack templates become adversarial queries; generators answer them unsafely and safely; a judge checks
every answer, and what it rejects goes to a file for people. Reading the finished data is `interp.safeedit`.
"""

from __future__ import annotations

from interp.building.settings import BuildSettings

__all__ = ["BuildSettings"]
