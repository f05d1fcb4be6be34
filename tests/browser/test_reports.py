"""Reports in a real browser: one file, its plots inside, nothing fetched, the calculator reckons."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from core.process.local import run_local
from core.runtime.reporter import RecordingReporter
from tests.tiny import WORDS, make_model


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> dict[str, Path]:
    """A training's report, and one of the trained model against its base."""
    folder = tmp_path_factory.mktemp("reports")
    model = make_model(folder / "base")
    pairs = folder / "pairs.jsonl"
    rows = [{"query": f"what is {word} <b>", "positive": f"the {word} & of {word}"} for word in WORDS]
    pairs.write_text("".join(json.dumps(row) + "\n" for row in rows))
    training = {
        "kind": "train",
        "base_model": f"file:{model}",
        "dataset": f"file:{pairs}",
        "max_steps": 12,
        "batch_size": 8,
        "logging_steps": 1,
        "evaluation": {"datasets": [f"file:{pairs}"], "every_steps": 4},
    }
    evaluation = {
        "kind": "evaluate",
        "name": "New against old",
        "models": [f"file:{folder / 'training' / 'model'}", f"file:{model}"],
        "datasets": [f"file:{pairs}"],
        "precisions": ["int8", "binary"],
        "latency_queries": 2,
    }
    for name, spec in (("training", training), ("evaluation", evaluation)):
        result = run_local(spec, folder / name, RecordingReporter())
        assert result.state == "succeeded", result.end_reason
    return {name: folder / name / "report" for name in ("training", "evaluation")}


@pytest.mark.parametrize(("name", "plots"), [("training", 2), ("evaluation", 4)])
def test_a_report_is_one_file_with_its_plots(made, page, tmp_path, name, plots):
    alone = tmp_path / "sent around.html"
    alone.write_bytes((made[name] / "report.html").read_bytes())
    said, asked = [], []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(alone.as_uri())
    widths = page.eval_on_selector_all("img", "images => images.map(image => image.naturalWidth)")
    assert len(widths) >= plots
    assert min(widths) > 300
    assert said == []
    assert [url for url in asked if not url.startswith(("file:", "data:"))] == []
    # What is on the screen: matplotlib's blue, or the green, grey or red of an interval, in every plot.
    for image in page.query_selector_all("img"):
        shot = np.asarray(Image.open(io.BytesIO(image.screenshot())).convert("RGB")).astype(int)
        coloured = (np.abs(shot - shot.mean(2, keepdims=True)).max(2) > 20) | (shot.mean(2) < 200)
        assert 0.001 < coloured.mean() < 0.7


def test_the_calculator_reckons_for_any_number_of_documents(made, page):
    page.goto((made["evaluation"] / "report.html").as_uri())
    rows = page.locator("form.sizes").first.locator("tbody tr")
    assert rows.first.locator("td").nth(2).inner_text() == "128 MB"  # a million times 32 floats
    page.locator("form.sizes input").first.fill("5000000")
    assert rows.first.locator("td").nth(2).inner_text() == "640 MB"
    assert "binary" in rows.last.inner_text()
    assert rows.last.locator("td").nth(2).inner_text() == "20 MB"


def test_texts_are_texts(made, page):
    """Queries come from anybody: their angle brackets are no tags."""
    page.goto((made["evaluation"] / "report.html").as_uri())
    assert page.locator("h1").inner_text() == "New against old"
    assert page.locator("b").count() == 0
    html = (made["evaluation"] / "report.html").read_text()
    assert "what is" not in html or "&lt;b&gt;" in html
