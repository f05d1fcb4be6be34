"""New jobs from forms, in a real browser: uploads, the estimate, problems beside their fields."""

import json
import re

import pytest
from playwright.sync_api import Page, expect


@pytest.fixture
def rows(tmp_path):
    path = tmp_path / "pairs of mine.jsonl"
    lines = [{"query": f"what is number {n}", "positive": f"it is the number {n} of them"} for n in range(40)]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def test_a_file_becomes_a_pipeline(watched: Page, target, rows, store):
    watched.get_by_role("link", name="New", exact=True).click()
    watched.get_by_role("link", name="pairs", exact=True).click()
    watched.locator("#file").set_input_files(rows)
    expect(watched.locator("#uploaded")).to_have_text("dataset:pairs-of-mine@1: 40 train")
    expect(watched.get_by_label("data (needed)")).to_have_value("dataset:pairs-of-mine@1")
    stages = "prepare → baseline → mine → train → compare → index"
    expect(watched.locator("#estimate")).to_contain_text(stages, timeout=30_000)
    watched.get_by_label("name", exact=True).fill("mine")
    watched.get_by_role("button", name="Start the pipeline").click()
    expect(watched.get_by_role("heading", level=1)).to_contain_text("mine")
    made = store.pipelines.page()[0][0]
    assert made.recipe["name"] == "pairs"
    inputs = made.recipe["inputs"]
    assert (inputs["data"], inputs["name"]) == ("dataset:pairs-of-mine@1", "mine")


def test_a_folder_is_sent_as_one_archive(watched: Page, target, tmp_path):
    deep = tmp_path / "handbook" / ("a" * 60) / ("b" * 60)
    deep.mkdir(parents=True)
    (tmp_path / "handbook" / ".hidden").write_text("not this")
    for number, folder in enumerate((tmp_path / "handbook", deep)):
        (folder / f"page-{number}.md").write_text(f"# Page {number}\n\nIt says something of {number}.\n")
    watched.goto(f"{target.url}/ui/new/documents")
    watched.locator("#folder").set_input_files(tmp_path / "handbook")
    expect(watched.locator("#uploaded")).to_have_text("dataset:handbook@1: 2 documents")


def test_problems_stand_beside_their_fields(watched: Page, target, rows, store):
    watched.goto(f"{target.url}/ui/new/train")
    watched.get_by_role("button", name="Submit").click()
    expect(watched.locator(".field[data-path=base_model] .problem")).to_have_text("This is needed.")
    watched.get_by_label("base_model (needed)").fill("o/m")
    watched.locator("#file").set_input_files(rows)
    expect(watched.get_by_label("dataset (needed)")).to_have_value(re.compile("^dataset:"))
    watched.get_by_label("batch_size", exact=True).fill("1")
    expect(watched.locator(".field[data-path=batch_size] .problem")).to_contain_text(
        "greater than or equal to 2"
    )
    watched.get_by_label("batch_size", exact=True).fill("16")
    expect(watched.locator(".field[data-path=batch_size] .problem")).to_be_hidden()
    expect(watched.locator("#estimate")).to_contain_text("device")
    watched.get_by_text("All other settings").click()
    watched.locator(".field[data-path=loss] > details > summary").click()
    watched.locator("[name='loss.temperature']").fill("0.02")
    watched.get_by_label("dry_run").select_option("true")
    watched.get_by_role("button", name="Submit").click()
    expect(watched.get_by_role("heading", level=1)).to_contain_text("job_")
    job = store.jobs.page()[0][0]
    assert (job.spec["batch_size"], job.spec["loss"]["temperature"], job.spec["dry_run"]) == (16, 0.02, True)
    watched.get_by_role("link", name="New like this").click()
    expect(watched.get_by_label("batch_size", exact=True)).to_have_value("16")
    expect(watched.locator("[name='loss.temperature']")).to_have_value("0.02")
    expect(watched.locator("[name='loss.temperature']")).to_be_visible()
