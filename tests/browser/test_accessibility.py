"""Every page, light and dark, by the rules of axe-core."""

import json
from pathlib import Path

import pytest
from playwright.sync_api import Page

from api.pages.fetch_assets import fetch_all
from tests.outputs import with_output

HERE = Path(__file__).parent


@pytest.fixture(scope="session")
def axe() -> str:
    """axe-core, fetched once from the npm registry."""
    try:
        fetch_all(HERE / "vendor.json", HERE / "vendor")
    except SystemExit as error:
        pytest.skip(f"axe-core cannot be fetched: {error}")
    return (HERE / "vendor" / "axe.js").read_text(encoding="utf-8")


@pytest.fixture
def report(store, settings, target) -> str:
    """The id of an evaluation's report."""
    folder = settings.data_dir / "report"
    folder.mkdir(parents=True)
    scores = {"new": {"test": {"ndcg@10": 0.5}}}
    page = {
        "leading": "ndcg@10",
        "models": {"new": {}, "base": {}},
        "datasets": {"test": {}},
        "scores": scores,
    }
    (folder / "report.json").write_text(json.dumps(page))
    document = {"id": "d1", "text": "a text", "grade": 1, "score": 1.0}
    lines = [
        {
            "dataset": "test",
            "query_id": f"q{number}",
            "query": f"what is {number}",
            "values": {"new": {"ndcg@10": number / 10}, "base": {"ndcg@10": 0.5}},
            "first": {"new": document, "base": {**document, "grade": None}},
        }
        for number in range(11)
    ]
    (folder / "queries.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    spec = {"kind": "evaluate", "models": ["o/m"], "datasets": ["file:/d"]}
    job = with_output(store, settings, spec, folder, "report", {"name": "mine"})
    return store.artifacts.of_job(job)[0].id


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_page_passes_axe(watched: Page, target, report, axe, scheme):
    watched.emulate_media(color_scheme=scheme)
    ids = target.ids
    pages = [
        "",
        f"ui/jobs/{ids['job_id']}",
        "ui/pipelines",
        f"ui/pipelines/{ids['pipeline_id']}",
        "ui/datasets",
        "ui/models",
        f"ui/artifacts/{ids['artifact_id']}",
        f"ui/artifacts/{report}/queries",
        "ui/try",
        "ui/new",
        "ui/new/train",
        "ui/new/documents",
        "ui/queue",
        "ui/settings",
        "ui/jobs/job_01k9zq5m2w8r4t6y0b3d5f7h9j",  # there is none: the page of an error
    ]
    found = {}
    for page in pages:
        watched.goto(f"{target.url}/{page}", wait_until="load")
        watched.evaluate(axe)
        result = watched.evaluate("axe.run()")
        for violation in result["violations"]:
            nodes = [node["html"][:120] for node in violation["nodes"][:3]]
            found.setdefault(violation["id"], (violation["help"], []))[1].append((page, nodes))
    assert found == {}
