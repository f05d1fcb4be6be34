"""Pictures of the dashboard for the documentation: ``python -m scripts.screenshots URL`` writes
docs/screenshots/. The service at the URL has no keys and a pipeline of a recipe that has ended."""

import argparse
import shutil
from pathlib import Path

import httpx
from playwright.sync_api import Page, sync_playwright

OUT = Path(__file__).parents[1] / "docs" / "screenshots"
_SIZE = {"width": 1200, "height": 800}


def addresses(url: str) -> dict[str, str]:
    """The pages by the name of their picture."""
    with httpx.Client(base_url=url) as http:
        pipelines = http.get("/pipelines").json()["items"]
        pipeline = next(one for one in pipelines if one["state"] == "succeeded")
        whole = http.get(f"/pipelines/{pipeline['id']}").json()
        stages = whole["stages"]
        trained = stages["train"]["reused_from"] or stages["train"]["job"]

        def output(stage: str, name: str) -> str:
            made = http.get(f"/jobs/{stages[stage]['job']}/artifacts").json()["items"]
            return next(str(one["id"]) for one in made if one["output"] == name)

        dataset, report = output("prepare", "dataset"), output("compare", "report")
        index = output("index", "embeddings")
    return {
        "jobs": "",
        "job": f"ui/jobs/{trained}",
        "pipeline": f"ui/pipelines/{pipeline['id']}",
        "dataset": f"ui/artifacts/{dataset}",
        "queries": f"ui/artifacts/{report}/queries",
        "try": f"ui/try?embeddings={index}",
        "new": "ui/new/documents",
        "queue": "ui/queue",
        "settings": "ui/settings",
    }


def prepare(page: Page, name: str) -> None:
    """What a picture shows beyond the page as it opens."""
    if name == "try":
        page.get_by_label("Query").fill("how do I upload a file")
        page.get_by_role("button", name="Search").click()
        page.wait_for_selector("#found li", timeout=120_000)
    if name == "job":
        page.wait_for_timeout(1500)  # the curves are drawn


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url")
    url = parser.parse_args().url.rstrip("/")
    OUT.mkdir(exist_ok=True)
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        found = addresses(url)
        for name, address in found.items():
            page = browser.new_page(viewport=_SIZE)  # type: ignore[arg-type]
            page.goto(f"{url}/{address}")
            prepare(page, name)
            page.screenshot(path=OUT / f"{name}.png")
            page.close()
        dark = browser.new_page(viewport=_SIZE, color_scheme="dark")  # type: ignore[arg-type]
        dark.goto(f"{url}/{found['pipeline']}")
        dark.screenshot(path=OUT / "pipeline-dark.png")
        browser.close()


if __name__ == "__main__":
    main()
