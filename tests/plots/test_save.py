from __future__ import annotations

import json
import struct
import xml.etree.ElementTree as ET
from pathlib import Path

import plotly.graph_objects as go
import pytest

from interp.errors import InputError
from interp.plots import save
from interp.plots.gallery import draw, save_gallery
from interp.plots.layers import layer_heatmap
from interp.plots.save import save_figure, save_figures
from interp.plots.theme import finish
from plots.synthetic import comparison, layer_scores


def small() -> go.Figure:
    return finish(go.Figure(go.Bar(y=[1, 2])), 300, 200)


@pytest.fixture
def without_browser(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """A renderer of its own whose browser cannot be found."""
    monkeypatch.setenv("BROWSER_PATH", str(tmp_path / "no-such-browser"))
    monkeypatch.setattr(save, "_RENDERER", save._Renderer())
    yield
    save._RENDERER.close()


def test_a_figure_becomes_png_svg_and_json(tmp_path: Path) -> None:
    saved = save_figure(layer_heatmap(layer_scores(9, 6)), tmp_path, "heat")
    assert saved.note == ""
    assert sorted(p.name for p in saved.files) == ["heat.json", "heat.png", "heat.svg"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["heat.json", "heat.png", "heat.svg"]  # no temporary file left
    png = (tmp_path / "heat.png").read_bytes()
    assert struct.unpack(">II", png[16:24]) == (1120, 720)  # twice the canvas
    assert ET.parse(tmp_path / "heat.svg").getroot().tag.endswith("svg")


def test_images_are_the_same_bytes_when_drawn_again(tmp_path: Path) -> None:
    figures = {"a": small(), "heat": layer_heatmap(layer_scores(9, 6))}
    first, second = save_figures(figures, tmp_path / "1"), save_figures(figures, tmp_path / "2")
    for a, b in zip(first.files, second.files, strict=True):
        assert a.read_bytes() == b.read_bytes(), a.name


def test_the_order_of_what_plotly_says_of_the_whole_picture_is_always_the_same() -> None:
    usual = (
        b'<svg class="main-svg" width="3" height="2" style="" viewBox="0 0 3 2"><g style="" viewBox="0 0 1 1"/></svg>'
    )
    again = usual.replace(b'style="" viewBox="0 0 3 2"', b'viewBox="0 0 3 2" style=""')
    assert save._stable_svg(usual) == save._stable_svg(again) == usual


def test_without_a_browser_the_numbers_and_pages_are_written_and_one_line_says_why(
    tmp_path: Path, without_browser: None
) -> None:
    saved = save_figures({"a": small(), "b": small()}, tmp_path / "out")
    assert sorted(p.name for p in saved.files) == ["a.html", "a.json", "b.html", "b.json", "plotly.min.js"]
    assert "\n" not in saved.note
    assert "apt-get install chromium" in saved.note
    page = (tmp_path / "out" / "a.html").read_text()
    assert 'src="plotly.min.js"' in page
    assert "cdn" not in page.lower().replace("plotlyserverurl", "")


def test_a_browser_that_fails_is_not_waited_for_again(tmp_path: Path, without_browser: None) -> None:
    import time

    save_figure(small(), tmp_path, "a")
    start = time.perf_counter()
    assert save_figure(small(), tmp_path, "b").note
    assert time.perf_counter() - start < 5


def test_html_on_request_beside_the_images(tmp_path: Path) -> None:
    saved = save_figure(small(), tmp_path, "a", formats=("png",), html=True)
    assert sorted(p.name for p in saved.files) == ["a.html", "a.json", "a.png", "plotly.min.js"]
    assert "sendChartToCloud" in (tmp_path / "a.html").read_text()


def test_json_alone_starts_no_browser(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(save._Renderer, "start", lambda self: pytest.fail("a browser was started"))
    assert [p.name for p in save_figure(small(), tmp_path, "a", formats=()).files] == ["a.json"]


def test_a_name_cannot_leave_the_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="expected a figure name"):
        save_figure(small(), tmp_path, "../a")


def test_a_folder_that_cannot_be_written_is_told_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot write"):
        save_figure(small(), tmp_path / "file" / "folder", "a", formats=())


def test_gallery_writes_every_figure_with_its_caption(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(save._Renderer, "draw", lambda self, jobs: [b"<svg/>" for _ in jobs])
    drawn = draw(comparison(("vanilla", "dinm")))
    saved = save_gallery(drawn, tmp_path, planted=True)
    text = (tmp_path / "captions.md").read_text()
    assert saved.files[-1].name == "captions.md"
    assert "planted" in text
    for d in drawn:
        assert d.caption in text
        assert json.loads((tmp_path / f"{d.name}.json").read_text())["data"]
        assert f"({d.name}.png)" in text


def test_a_page_that_draws_on_leaves_no_trace_in_the_next_figure(tmp_path: Path) -> None:
    """The page is not loaded again between figures, so what a figure looks like must not depend on those before it."""
    drawn = {d.name: d.figure for d in draw(comparison())}
    names = ["side_effects", "fig8_shift_source", "layer_heatmap"]
    together = save_figures({name: drawn[name] for name in names}, tmp_path / "together")
    for name in reversed(names):
        alone = save_figures({name: drawn[name]}, tmp_path / "alone", formats=("svg", "png"))
        for file in alone.files:
            assert file.read_bytes() == (tmp_path / "together" / file.name).read_bytes(), file.name
    assert len(together.files) == 9


def test_a_figure_that_fails_costs_the_next_one_nothing(tmp_path: Path) -> None:
    good = save_figure(small(), tmp_path / "1", "a")
    with pytest.raises(Exception, match=r"."):
        save._RENDERER.draw([({"data": 5, "layout": {}}, "svg")])
    assert [a.read_bytes() for a in good.files] == [
        b.read_bytes() for b in save_figure(small(), tmp_path / "2", "a").files
    ]
