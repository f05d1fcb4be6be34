"""Evaluate and embed jobs over HTTP, of a model that is still being trained when they are sent."""

import json
import subprocess
import sys

from tests.faults.service import ROOT
from tests.tiny import WORDS


def test_a_model_is_trained_compared_embedded_and_asked(running, tiny_model, tmp_path):
    rows = tmp_path / "pairs.jsonl"
    rows.write_text(
        "".join(json.dumps({"query": f"a {w}", "positive": f"the {w} of {w}"}) + "\n" for w in WORDS)
    )
    trained = running.client.submit(
        {
            "kind": "train",
            "base_model": f"file:{tiny_model}",
            "dataset": f"file:{rows}",
            "max_steps": 5,
            "batch_size": 8,
        }
    )
    model = f"job:{trained.id}/model"
    compared = running.client.submit(
        {
            "kind": "evaluate",
            "models": [model, {"ref": f"file:{tiny_model}", "name": "base"}],
            "datasets": [{"ref": f"file:{rows}", "name": "rows"}],
            "metrics": ["ndcg@10"],
        }
    )
    embedded = running.client.submit({"kind": "embed", "model": model, "corpus": f"file:{rows}"})
    for job in (trained, compared, embedded):
        done = running.wait(job.id)
        assert done.state == "succeeded", done.end_reason
    running.client.download(f"job:{compared.id}/report", tmp_path / "report")
    found = json.loads((tmp_path / "report" / "report.json").read_text())
    name = f"{trained.id}-model"
    assert set(found["scores"]) == {name, "base"}
    assert found["comparisons"][0]["model"] == name
    assert found["inputs"][model]["sha256"]
    assert "<img" in (tmp_path / "report" / "report.html").read_text()
    series = {item.name for item in running.client.metrics(compared.id)}
    assert series == {f"{name}/ndcg@10", "base/ndcg@10"}
    running.client.download(f"job:{compared.id}/run", tmp_path / "run")
    assert (tmp_path / "run" / "rows" / "base.trec").exists()

    # The embeddings and their model lie with the service: both are fetched, once.
    asked = [sys.executable, "-m", "client.cli", "search", f"job:{embedded.id}/embeddings"]
    environment = {**running.environment, "REASON_API_URL": f"http://127.0.0.1:{running.port}"}
    answer = subprocess.run(
        [*asked, f"the {WORDS[3]} of {WORDS[3]}", "-k", "2", "--json"],
        env=environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert answer.returncode == 0, answer.stderr
    hits = json.loads(answer.stdout.splitlines()[-1])["hits"]
    assert hits[0]["text"] == f"the {WORDS[3]} of {WORDS[3]}"
    missing = subprocess.run(
        [*asked[:-1], "job:nothing/embeddings", "x"],
        env=environment,
        cwd=ROOT,
        capture_output=True,
        check=False,
    )
    assert missing.returncode == 2
