"""Records in, figures, tables and pages out. No model is loaded here and torch is never imported."""

from interp.plots.gallery import Drawn, draw, save_gallery
from interp.plots.report import write_report
from interp.plots.save import Saved, save_figure, save_figures, start_renderer
from interp.plots.table import markdown, print_comparison

__all__ = [
    "Drawn",
    "Saved",
    "draw",
    "markdown",
    "print_comparison",
    "save_figure",
    "save_figures",
    "save_gallery",
    "start_renderer",
    "write_report",
]
