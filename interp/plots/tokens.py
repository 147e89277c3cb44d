"""Tokens coloured by a value (CircuitsVis), offline and safe: whatever a token holds is shown, never run.

CircuitsVis parses tokens as HTML and loads itself from a CDN. Here its bundle is read from the installed package and
embedded once per page, every token is escaped, and so is the JSON that carries it. Importing `circuitsvis` would
import torch; reading its file does not.
"""

from __future__ import annotations

import html
import importlib.util
import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from interp.errors import InputError

POSITIVE, NEGATIVE = "#D55E00", "#0072B2"
"""Vermillion above zero, blue below: as in the figures."""


@dataclass(frozen=True)
class TokenView:
    """One text, its tokens coloured by one number each."""

    tokens: tuple[str, ...]
    values: tuple[float, ...]
    caption: str = ""
    """What the values are, with their unit."""
    reach: float | None = None
    """Value of the deepest colour; default the largest absolute value. Give one to views that are to be compared."""

    def __post_init__(self) -> None:
        if len(self.tokens) != len(self.values):
            raise InputError(f"expected one value per token, got {len(self.tokens)} tokens, {len(self.values)} values")
        if not all(math.isfinite(v) for v in self.values):
            raise InputError("expected finite token values, got NaN or infinity")


def token_views(views: Sequence[TokenView], prefix: str = "tokens", *, bundled: bool = True) -> str:
    """A piece of HTML that shows the views; it works on a page without a network.

    Args:
        views: what to show.
        prefix: of the ids of the page's elements; different for each call on one page.
        bundled: embed CircuitsVis itself (1.3 MB). False for every call on a page but the first.

    Raises:
        InputError: `prefix` is no id, or the installed circuitsvis lacks its bundle.
    """
    if not re.fullmatch(r"[A-Za-z][\w-]*", prefix):
        raise InputError(f"expected a prefix of letters, digits, '-' and '_', got {prefix!r}")
    parts = [f"<script>{bundle()}</script>"] if bundled else []
    for i, view in enumerate(views):
        ident = f"{prefix}-{i}"
        caption = f"<figcaption>{html.escape(view.caption)}</figcaption>" if view.caption else ""
        parts.append(
            f'<figure class="tokens"><div id="{ident}"></div>{caption}</figure>'
            f"<script>CircuitsVis.render({json.dumps(ident)}, CircuitsVis.ColoredTokens, {_props(view)})</script>"
        )
    return "\n".join(parts)


def token_page(views: Sequence[TokenView], title: str = "Tokens") -> str:
    """A whole page of views."""
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f'<title>{html.escape(title)}</title><link rel="icon" href="data:,"></head>'
        f"<body>{token_views(views)}</body></html>\n"
    )


@cache
def bundle() -> str:
    """The JavaScript of the installed CircuitsVis, fit to stand inside a script element.

    Raises:
        InputError: circuitsvis is not installed, or lacks its bundle.
    """
    spec = importlib.util.find_spec("circuitsvis")
    folders = spec.submodule_search_locations if spec is not None else None
    path = Path(folders[0]) / "dist" / "cdn" / "iife.js" if folders else None
    if path is None or not path.is_file():
        raise InputError(
            "the token view needs the package circuitsvis with its JavaScript bundle: pip install circuitsvis"
        )
    code = path.read_text(encoding="utf-8")
    code = re.sub(r"//# sourceMappingURL=\S*\s*$", "", code)  # a map that no page has beside it
    return code.replace("</script", "<\\/script").replace("<!--", "<\\!--")


def _props(view: TokenView) -> str:
    reach = view.reach or max((abs(v) for v in view.values), default=0.0) or 1.0
    props = {
        # The component takes tokens for HTML: the first escape is for it, the one below for the script element.
        "tokens": [html.escape(token, quote=False) for token in view.tokens],
        "values": [float(v) for v in view.values],
        "minValue": -reach,
        "maxValue": reach,
        "positiveColor": POSITIVE,
        "negativeColor": NEGATIVE,
    }
    text = json.dumps(props, allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
