"""A real browser."""

import re
import shutil
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from core.store import open_store
from tests.fuzz import serving


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("there is no Chromium here: apt-get install chromium")
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield launched
        launched.close()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    opened = browser.new_page(viewport={"width": 1000, "height": 900})
    yield opened
    opened.close()


@pytest.fixture
def target(settings):
    with serving(settings) as found:
        yield found


@pytest.fixture
def store(settings, target):
    found = open_store(settings)
    yield found
    found.close()


_REFUSED = re.compile(r"404 \(Not Found\)|409 \(Conflict\)|422 \(Unproc")
"""What the browser says of answers that tests ask for."""


@pytest.fixture
def watched(page: Page, target):
    """A page that is signed in. At its end: nobody was asked but the service, and nothing has gone wrong."""
    said, asked = [], []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(f"{target.url}/ui/queue")
    page.get_by_label("API key").fill(target.key)
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", level=1)).to_have_text("Queue and workers")
    yield page
    assert [url for url in asked if not url.startswith((target.url, "data:"))] == []
    assert [sentence for sentence in said if not _REFUSED.search(sentence)] == []
