"""Figures to files: PNG, SVG, canonical JSON, HTML. Without a browser JSON and HTML are written, and one line says why.

kaleido draws in a headless Chromium that is started once per process, in the background, without MathJax (which it
would otherwise ask a CDN for before every image). kaleido's own server waits for ever on a browser that cannot start,
so the thread that drives it is ours.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import re
import sys
import threading
from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import plotly.graph_objects as go

from interp.errors import InputError
from interp.plots import canonical
from interp.plots.theme import CONFIG
from interp.runs import atomic_path, write_text

T = TypeVar("T")

SCALE = 2
"""Pixels of a PNG per pixel of the canvas."""
START_SECONDS, DRAW_SECONDS = 120.0, 60.0
"""How long a browser may take to start, and to draw one image, before it is given up."""
HOW = "no PNG or SVG ({reason}): install Chromium (Debian: apt-get install chromium fonts-liberation) and run again"
PLOTLY_JS = "plotly.min.js"


@dataclass(frozen=True)
class Saved:
    """What was written, and one line for the user where something was not ("" else)."""

    files: tuple[Path, ...]
    note: str = ""


def save_figure(
    figure: go.Figure, folder: Path, name: str, *, formats: Sequence[str] = ("png", "svg"), html: bool = False
) -> Saved:
    """Write `<name>.json` (canonical), PNG, SVG and, on request, HTML; each atomically.

    HTML pages share one `plotly.min.js` beside them and need no network. They are also written where there is no
    browser to draw PNG and SVG; `note` then says how to get these.

    Raises:
        InputError: a file cannot be written.
    """
    return save_figures({name: figure}, folder, formats=formats, html=html)


def save_figures(
    figures: Mapping[str, go.Figure], folder: Path, *, formats: Sequence[str] = ("png", "svg"), html: bool = False
) -> Saved:
    """`save_figure` for several, drawn in one go."""
    folder = Path(folder)
    for name in figures:
        if not re.fullmatch(r"[\w.-]+", name):
            raise InputError(f"expected a figure name of letters, digits, '-', '_' and '.', got {name!r}")
    files = []
    for name, figure in figures.items():
        write_text(folder / f"{name}.json", canonical.dumps(figure))
        files.append(folder / f"{name}.json")
    images, note = _images(figures, formats)
    for (name, kind), data in images.items():
        target = folder / f"{name}.{kind}"
        with atomic_path(target) as temporary:
            temporary.write_bytes(data)
        files.append(target)
    if figures and (html or note):
        files += _html(figures, folder)
    return Saved(tuple(files), note)


def start_renderer() -> None:
    """Start the browser in the background: it is then up when the first figure is drawn. Never fails, never waits."""
    _RENDERER.start()


# ------------------------------------------------------------------------------------------------- images
def _images(figures: Mapping[str, go.Figure], formats: Sequence[str]) -> tuple[dict[tuple[str, str], bytes], str]:
    jobs = [(name, kind) for name in figures for kind in formats]
    specs = {name: figure.to_dict() for name, figure in figures.items()} if jobs else {}
    try:
        drawn = _RENDERER.draw([(specs[name], kind) for name, kind in jobs]) if jobs else []
    except Exception as error:  # whatever a browser can die of must not cost the run its numbers
        reason = " ".join(str(error).split())[:160] or type(error).__name__
        return {}, HOW.format(reason=reason)
    stable = (_stable_svg(data) if kind == "svg" else data for (_, kind), data in zip(jobs, drawn, strict=True))
    return dict(zip(jobs, stable, strict=True)), ""


def _stable_svg(data: bytes) -> bytes:
    """The same file from run to run: plotly names its clip paths by a random id, and writes the attributes of a
    legend's ground, and now and then of the whole, in another order when a page draws the figure again."""
    text = data.decode("utf-8")
    found = re.search(r'id="(?:top)?defs-([0-9a-f]{6})"', text)
    text = text if found is None else text.replace(found[1], "figure")
    text = re.sub(r'(<svg class="main-svg"[^<>]*)( viewBox="[^"]*")( style="[^"]*")', r"\1\3\2", text)
    return re.sub(r'<rect class="bg"([^<>]*?)(/?)>', _sorted_attributes, text).encode("utf-8")


def _sorted_attributes(rect: re.Match[str]) -> str:
    attributes = sorted(re.findall(r'[\w:-]+="[^"]*"', rect[1]))
    return f'<rect class="bg" {" ".join(attributes)}{rect[2]}>'


def _html(figures: Mapping[str, go.Figure], folder: Path) -> list[Path]:
    from plotly.offline import get_plotlyjs

    write_text(folder / PLOTLY_JS, get_plotlyjs())
    files = [folder / PLOTLY_JS]
    for name, figure in figures.items():
        page = figure.to_html(
            include_plotlyjs="directory", include_mathjax=False, div_id=f"figure-{name}", config=CONFIG
        )
        write_text(folder / f"{name}.html", page)
        files.append(folder / f"{name}.html")
    return files


class _Renderer:
    """A headless Chromium driven from a thread of its own; a failure is remembered and not tried again."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._opened: Any = None
        self._kaleido: Any = None
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        with self._lock:
            if self._loop is not None:
                return
            self._loop = asyncio.new_event_loop()
            self._thread = threading.Thread(target=_run, args=(self._loop,), name="interp-figures", daemon=True)
            self._thread.start()
            self._opened = asyncio.run_coroutine_threadsafe(self._open(), self._loop)
            atexit.register(self.close)

    def draw(self, jobs: Sequence[tuple[dict[str, Any], str]]) -> list[bytes]:
        self.start()
        self._opened.result(START_SECONDS)
        return self._wait(self._draw(jobs), DRAW_SECONDS * len(jobs))

    def close(self) -> None:
        """Stop the browser and the thread; drawing again starts a new one."""
        with self._lock:
            loop, self._loop = self._loop, None
        if loop is None:
            return
        with contextlib.suppress(Exception):  # the process is ending: nothing is left to save
            with contextlib.suppress(Exception):
                self._opened.result(10)  # a browser that is just starting would outlive the process
            asyncio.run_coroutine_threadsafe(self._close(), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        if self._thread is not None:
            self._thread.join(10)

    def _wait(self, work: Coroutine[Any, Any, T], seconds: float) -> T:
        if self._loop is None:
            raise RuntimeError("the browser was stopped")
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(seconds)

    async def _open(self) -> None:
        import logging

        for name in ("kaleido", "choreographer"):
            logging.getLogger(name).setLevel(logging.ERROR)
        browser = _browser()
        await asyncio.wait_for(browser.open(), START_SECONDS)
        self._kaleido = browser

    async def _draw(self, jobs: Sequence[tuple[dict[str, Any], str]]) -> list[bytes]:
        draw = self._kaleido.calc_fig
        work = [draw(spec, opts={"format": kind, "scale": SCALE if kind == "png" else 1}) for spec, kind in jobs]
        return list(await asyncio.gather(*work))

    async def _close(self) -> None:
        browser, self._kaleido = self._kaleido, None
        if browser is not None:
            await browser.close()


def _browser() -> Any:
    """kaleido's browser with one tab that keeps its page: loading plotly.js anew for every image takes longer than to
    draw it."""
    from kaleido import Kaleido

    class OnePage(Kaleido):
        async def _return_kaleido_tab(self, tab: Any) -> None:
            if sys.exc_info()[0] is not None:  # a failed drawing may have left anything behind
                await super()._return_kaleido_tab(tab)
            else:
                await self.tabs_ready.put(tab)

    return OnePage(n=1, timeout=DRAW_SECONDS, mathjax=False)


def _run(loop: asyncio.AbstractEventLoop) -> None:
    loop.run_forever()
    loop.close()


_RENDERER = _Renderer()
