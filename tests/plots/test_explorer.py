"""The explorer in a real browser: its slider works without a kernel and without a network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from interp.errors import InputError
from interp.plots.explorer import explorer
from interp.plots.theme import CONFIG
from plots.synthetic import layer_scores

N = 12


@pytest.fixture(scope="module")
def figure() -> Any:
    said = {name: [f"{name} number {i} <b onclick='x'>" for i in range(N)] for name in ("prompt", "before", "after")}
    return explorer(layer_scores(N, 6), said, signed=False)


def test_moving_the_slider_moves_the_outline_and_the_texts(figure: Any, browser: Any, tmp_path: Path) -> None:
    path = tmp_path / "explorer.html"
    figure.write_html(path, include_plotlyjs=True, include_mathjax=False, div_id="e", config=CONFIG)
    page = browser.new_page(viewport={"width": 1000, "height": 700})
    requests: list[str] = []
    page.on("request", lambda r: requests.append(r.url))
    page.goto(path.as_uri())
    table = page.locator("#e .table")
    table.wait_for()
    assert "beforenumber0" in "".join(table.text_content().split())  # lines are broken anywhere
    rail = page.locator("#e .slider-rail-touch-rect").bounding_box()
    page.mouse.click(rail["x"] + rail["width"] * 7 / (N - 1), rail["y"] + rail["height"] / 2)
    page.wait_for_function("document.getElementById('e')._fullData[1].x[0] === 6.5")
    text = "".join(table.text_content().split())
    assert "beforenumber7" in text
    assert "afternumber7" in text
    assert "number0" not in text
    assert "<bonclick='x'>" in text  # shown, not taken for markup
    assert [url for url in requests if not url.startswith(("data:", "blob:"))] == [path.as_uri()]
    page.close()


def test_columns_must_have_one_text_per_instance() -> None:
    with pytest.raises(InputError, match="expected 12 texts in the column 'before', one per instance, got 1"):
        explorer(layer_scores(N, 6), {"before": ["a"]})
    with pytest.raises(InputError, match="at least one column"):
        explorer(layer_scores(N, 6), {})
