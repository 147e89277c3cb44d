from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from interp.errors import InputError
from interp.plots.gallery import draw
from interp.plots.report import report, write_report
from interp.plots.tokens import TokenView, bundle, token_page, token_views
from interp.records import Comparison, Conclusion

HOSTILE = (
    "<s>",
    "</script><script>window.hacked = 1</script>",
    '<img src=x onerror="window.hacked = 2">',
    "<script>window.hacked = 3</script>",
    "<iframe/srcdoc='<script>parent.hacked=6</script>'></iframe>",  # without the escape this one runs
    "&lt;b&gt;",
    "<!--",
    "' onmouseover='window.hacked = 4",
    "\u2028${window.hacked = 5}\\",
)


@pytest.fixture(scope="module")
def page_file(usual: Comparison, tmp_path_factory: pytest.TempPathFactory) -> Path:
    view = TokenView(HOSTILE, tuple(0.1 * i for i in range(len(HOSTILE))), "logits <b>")
    return write_report(usual, draw(usual), tmp_path_factory.mktemp("report") / "report.html", token_view=[view])


class Visit:
    """A page in a real browser, with everything it asked for and complained of."""

    def __init__(self, browser: Any, path: Path, width: int = 1400) -> None:
        self.page = browser.new_page(viewport={"width": width, "height": 900})
        self.requests: list[str] = []
        self.complaints: list[str] = []
        self.page.on("request", lambda r: self.requests.append(r.url))
        self.page.on("console", lambda m: self.complaints.append(f"{m.type}: {m.text}"))
        self.page.on("pageerror", lambda e: self.complaints.append(str(e)))
        self.page.set_default_timeout(120_000)  # a page of 6 MB on a busy machine
        self.page.goto(path.as_uri())
        self.page.wait_for_load_state("networkidle")


@pytest.fixture(scope="module", params=[1400, 400])
def visit(request: pytest.FixtureRequest, browser: Any, page_file: Path):
    visit = Visit(browser, page_file, request.param)
    yield visit
    visit.page.close()


# --------------------------------------------------------------------------------------------- report
def test_report_asks_no_host_for_anything_and_complains_of_nothing(visit: Visit, page_file: Path) -> None:
    assert [url for url in visit.requests if not url.startswith(("data:", "blob:"))] == [page_file.as_uri()]
    assert visit.complaints == []


def test_report_draws_every_figure_and_fits_its_window(visit: Visit, usual: Comparison) -> None:
    assert visit.page.locator(".js-plotly-plot .main-svg").count() >= 2 * len(draw(usual))
    wide, window = visit.page.evaluate("[document.documentElement.scrollWidth, document.documentElement.clientWidth]")
    assert wide <= window  # tables and figures scroll in their boxes, the page does not
    assert visit.page.evaluate("getComputedStyle(document.body).fontSize") == "16px"


def test_hostile_tokens_are_shown_as_they_are_and_never_run(visit: Visit) -> None:
    assert visit.page.evaluate("window.hacked") is None
    shown = visit.page.locator("#tokens-0").inner_text().replace("\u00a0", " ")
    for token in HOSTILE[:-1]:
        assert token in shown
    assert visit.page.locator("#tokens-0 :is(img, script, iframe, s)").count() == 0


def test_the_policy_of_the_page_stops_what_would_leave_it(browser: Any, page_file: Path) -> None:
    visit = Visit(browser, page_file)
    answer = visit.page.evaluate("fetch('http://127.0.0.1:9/').then(() => 'left', () => 'stopped')")
    assert answer == "stopped"
    assert any("Content Security Policy" in line for line in visit.complaints)
    visit.page.close()


def test_report_names_origin_conclusions_and_planted_behaviour(usual: Comparison) -> None:
    text = report(usual, draw(usual)[:1])
    for expected in (
        "0123456789ab",
        "torch 2.13.0",
        "planted by its training data",
        "How to read this",
        "52.0 %",
        "Judge: demo, right on 99.0",
    ):
        assert expected in text
    assert text.count('class="verdict ') == 3
    assert "planted by" not in report(replace(usual, planted=False), ())


def test_plotly_is_embedded_once(usual: Comparison) -> None:
    text = report(usual, draw(usual)[:3])
    assert len(re.findall(r"plotly\.js v\d", text)) == 1
    assert "<script src" not in text
    assert "mathjax" not in re.sub(r"<script.*?</script>", "", text, flags=re.S).lower()
    assert len(text) < 6_000_000


def test_report_is_the_same_when_written_again(usual: Comparison) -> None:
    drawn = draw(usual)[:3]
    assert report(usual, drawn) == report(usual, drawn)


def test_report_escapes_every_text_of_the_comparison(usual: Comparison) -> None:
    evil = "<script>window.hacked = 1</script>"
    row = replace(usual.rows[1], name=evil, source=evil, conclusion=Conclusion("undecided", evil))
    odd = replace(
        usual, model=evil, data=evil, suffix=evil, commit=evil, rows=(usual.rows[0], row), warnings=(evil,),
        config={evil: evil}, versions={evil: evil}, probe=replace(usual.probe, source=evil),
    )  # fmt: skip
    assert evil not in report(odd, draw(odd))


def test_every_hard_case_has_a_report(case: Comparison) -> None:
    assert "</html>" in report(case, ())


# --------------------------------------------------------------------------------------------- tokens
def test_token_page_works_alone_and_loads_nothing(browser: Any, tmp_path: Path) -> None:
    path = tmp_path / "tokens.html"
    path.write_text(token_page([TokenView(HOSTILE, tuple([1.0] * len(HOSTILE)))], "a <title>"), encoding="utf-8")
    visit = Visit(browser, path)
    assert "<s>" in visit.page.locator("#tokens-0").inner_text()
    assert visit.page.evaluate("window.hacked") is None
    assert [url for url in visit.requests if not url.startswith("data:")] == [path.as_uri()]
    assert visit.complaints == []
    visit.page.close()


def test_bundle_is_embedded_once_for_many_views() -> None:
    views = [TokenView(("a", "b"), (0.0, 1.0))] * 4
    text = token_views(views)
    assert len(bundle()) < len(text) < len(bundle()) + 5000
    assert len(token_views(views, "more", bundled=False)) < 5000


def test_tokens_are_escaped_twice_once_for_each_reader() -> None:
    text = token_views([TokenView(("<b>&",), (1.0,))], bundled=False)
    assert "\\u0026lt;b\\u0026gt;\\u0026amp;" in text
    assert "<b>" not in text


def test_bundle_cannot_end_its_script_element() -> None:
    assert "</script" not in bundle().lower()
    assert "<!--" not in bundle()
    assert "sourceMappingURL" not in bundle()


@pytest.mark.parametrize(
    ("tokens", "values", "message"),
    [(("a",), (1.0, 2.0), "one value per token"), (("a",), (float("nan"),), "finite token values")],
)
def test_token_views_refuse_values_that_do_not_fit(tokens, values, message: str) -> None:
    with pytest.raises(InputError, match=message):
        TokenView(tokens, values)


def test_prefix_of_token_views_must_be_an_id() -> None:
    with pytest.raises(InputError, match="expected a prefix"):
        token_views([], "a b")
