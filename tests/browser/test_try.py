"""A query against two models, side by side, in a real browser."""

import pytest
from playwright.sync_api import Page, expect

from core.store.schema.access import Access
from tests.outputs import embedded
from tests.tiny import make_model

TEXTS = {"a": "river water", "b": "market bread", "c": "mountain snow"}


@pytest.fixture
def two(store, settings, target, tiny_model, tmp_path) -> list[str]:
    owner = Access(store.keys.all()[0].id)
    other = make_model(tmp_path / "other", seed=7)
    return [embedded(store, settings, model, TEXTS, owner) for model in (tiny_model, other)]


def test_two_models_answer_side_by_side(watched: Page, target, two):
    watched.get_by_role("link", name="Try", exact=True).click()
    watched.get_by_label("Beside them").select_option(index=2)
    watched.get_by_label("Query").fill("market bread")
    watched.get_by_role("button", name="Search").click()
    columns = watched.locator("#found section")
    expect(columns).to_have_count(2, timeout=60_000)
    for number in range(2):
        expect(columns.nth(number).locator("li").first).to_contain_text("market bread")
        expect(columns.nth(number).locator("li").first).to_contain_text("there: 1")
    expect(columns.nth(0).locator("li")).to_have_count(3)
