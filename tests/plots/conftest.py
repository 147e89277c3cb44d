"""Fixtures of the plot tests: made-up comparisons, and a real browser."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from typing import Any

import pytest

from interp.records import Comparison
from plots.synthetic import comparison, hard_cases

CASES = hard_cases()


@pytest.fixture(scope="session")
def usual() -> Comparison:
    """Four models, 27 instances, six layers, with and without the suffix."""
    return comparison()


@pytest.fixture(params=sorted(CASES))
def case(request: pytest.FixtureRequest) -> Comparison:
    """Every hard case in turn."""
    return CASES[request.param]


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """A headless Chromium. Its absence is an error and never a skip: these tests guard against scripts that run."""
    from playwright.sync_api import sync_playwright

    path = next((p for name in ("chromium", "chromium-browser", "google-chrome") if (p := shutil.which(name))), None)
    if path is None:
        pytest.fail("the page tests need Chromium: apt-get install chromium fonts-liberation", pytrace=False)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()
