"""/docs in a real browser: it renders, calls the API, and fetches nothing from elsewhere."""

from playwright.sync_api import expect

from tests.fuzz import serving


def test_the_page_of_the_api(settings, page):
    said, asked = [], []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    with serving(settings) as target:
        page.goto(f"{target.url}/docs")
        expect(page.locator("h1.title, h2.title").first).to_contain_text("reason", timeout=60_000)
        paths = page.request.get(f"{target.url}/openapi.json").json()["paths"]
        expect(page.locator(".opblock")).to_have_count(sum(len(path) for path in paths.values()))
        # A key is entered, and a call made with it.
        page.locator("button.authorize").first.click()
        page.locator(".auth-container input").fill(target.key)
        page.locator(".auth-container button[type=submit]").click()
        page.locator(".modal-ux .close-modal").click()
        queue = page.locator("#operations-fleet-queue_queue_get")
        queue.locator("button.opblock-summary-control").click()
        queue.locator("button.try-out__btn").click()
        queue.locator("button.execute").click()
        expect(queue.locator(".live-responses-table .response-col_status").last).to_contain_text(
            "200", timeout=60_000
        )
        assert [url for url in asked if not url.startswith((target.url, "data:"))] == []
    assert said == []
