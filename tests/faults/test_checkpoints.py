"""Checkpoints as models: while the training runs, after it has failed, and what is kept of them."""

import json
import os
import subprocess
import sys
import time

import pytest
from sentence_transformers import SentenceTransformer

from core.errors import Conflict, NotFound
from tests.faults.service import ROOT
from tests.tiny import WORDS

TEXTS = [f"a {word} and another" for word in WORDS[:8]]


@pytest.fixture
def training(tiny_model, tmp_path):
    """With an evaluation after each checkpoint, so that there is a best one."""
    rows = tmp_path / "pairs.jsonl"
    rows.write_text(
        "".join(json.dumps({"query": f"a {w}", "positive": f"the {w} of {w}"}) + "\n" for w in WORDS)
    )
    return {
        "kind": "train",
        "base_model": f"file:{tiny_model}",
        "dataset": f"file:{rows}",
        "max_steps": 12,
        "batch_size": 8,
        "learning_rate": 1e-3,
        "checkpoint": {"every_steps": 3, "keep": 2},
        "evaluation": {
            "holdout": 0.2,
            "every_steps": 3,
            "metrics": ["ndcg@10", "mrr@10"],
            "early_stopping": {"metric": "ndcg@10", "patience": 50},
        },
    }


def reason(running, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "client.cli", *words],
        cwd=ROOT,
        env={**os.environ, **running.environment, "REASON_API_URL": f"http://127.0.0.1:{running.port}"},
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_checkpoint_is_the_model_that_the_training_ends_with(running, training, tmp_path):
    """The last step's weights, exported, are those of the model that the training has published."""
    del training["evaluation"]
    trained = running.wait(running.client.submit(training).id)
    assert trained.state == "succeeded", trained.end_reason
    found = running.client.checkpoints(trained.id)
    assert [one.step for one in found] == [9, 12], "checkpoint.keep is 2"
    assert [(one.best, one.last) for one in found] == [(False, False), (False, True)]

    made = reason(running, "download", f"job:{trained.id}/checkpoint@last", str(tmp_path / "last"))
    assert made.returncode == 0, made.stderr
    running.client.download(f"job:{trained.id}/model", tmp_path / "model")
    for name in ("model.safetensors", "tokenizer.json", "config.json", "modules.json"):
        assert (tmp_path / "last" / name).read_bytes() == (tmp_path / "model" / name).read_bytes(), name
    earlier = f"job:{trained.id}/checkpoint@9"
    running.client.download(earlier, tmp_path / "earlier")
    before, after = (SentenceTransformer(str(tmp_path / name)) for name in ("earlier", "last"))
    assert abs(before.encode(TEXTS) - after.encode(TEXTS)).max() > 1e-4, "three steps apart"
    with pytest.raises(NotFound, match="early_stopping"):
        running.client.submit({"kind": "embed", "model": f"job:{trained.id}/checkpoint@best", "texts": ["a"]})
    with pytest.raises(NotFound, match=r"there is @9, @12"):
        running.client.submit({"kind": "embed", "model": f"job:{trained.id}/checkpoint@3", "texts": ["a"]})


def test_checkpoints_are_compared_embedded_and_searched(running, training):
    trained = running.wait(running.client.submit(training).id)
    assert trained.state == "succeeded", trained.end_reason
    found = {one.step: one for one in running.client.checkpoints(trained.id)}
    assert {9, 12} <= set(found)
    [best] = [one for one in found.values() if one.best]
    curve = running.client.metrics(trained.id, ["ndcg@10"])[0].points
    values = {point.step: point.value for point in curve}
    assert values[best.step] == max(value for step, value in values.items() if step in (*found, 0, 3, 6))
    for one in found.values():
        assert one.metrics["ndcg@10"] == pytest.approx(values[one.step])

    rows = training["dataset"]
    compared = running.client.submit(
        {
            "kind": "evaluate",
            "models": [f"job:{trained.id}/checkpoint@best", f"job:{trained.id}/checkpoint@9", "bm25"],
            "datasets": [{"ref": rows, "name": "rows"}],
            "metrics": ["ndcg@10"],
        }
    )
    spec = running.client.job(compared.id).spec
    assert spec["models"][0]["ref"] == f"job:{trained.id}/checkpoint@{best.step}", "the step is settled now"
    ended = running.wait(compared.id)
    assert ended.state == "succeeded", ended.end_reason
    exports = [job for job in running.client.jobs(kind="export") if job.labels.get("part_of") == compared.id]
    assert len(exports) == len({best.step, 9})
    made = ended.inputs[f"job:{trained.id}/checkpoint@9"]
    above = running.client.lineage(f"artifact:{made.artifact}")
    assert trained.id in {job.id for job in above.jobs}, "the lineage leads to the training"

    again = reason(running, "reproduce", f"artifact:{made.artifact}")
    assert "made of a checkpoint" in again.stderr, again.stderr

    embedded = running.wait(
        running.client.submit(
            {"kind": "embed", "model": f"job:{trained.id}/checkpoint@last", "corpus": rows}
        ).id
    )
    assert embedded.state == "succeeded", embedded.end_reason
    asked = f"the {WORDS[3]} of {WORDS[3]}"
    answer = reason(running, "search", f"job:{embedded.id}/embeddings", asked, "-k", "1", "--json")
    assert answer.returncode == 0, answer.stderr
    assert json.loads(answer.stdout.splitlines()[-1])["hits"][0]["text"] == asked
    listed = reason(running, "checkpoints", trained.id)
    assert f"checkpoint@{best.step}" in listed.stdout
    assert "best" in listed.stdout


def test_while_it_runs_and_after_it_was_cancelled(running, training, long_spec):
    """What a job has resolved stays, though the training drops the checkpoint meanwhile."""
    spec = {**long_spec, "checkpoint": {"every_steps": 20, "keep": 2}, "epochs": 40}
    submitted = running.client.submit(spec)
    with pytest.raises(Conflict, match="not saved this checkpoint yet"):
        running.client.submit(
            {"kind": "embed", "model": f"job:{submitted.id}/checkpoint@999999", "texts": ["a"]}
        )
    deadline = time.monotonic() + 120
    while not (found := running.client.checkpoints(submitted.id)):
        assert time.monotonic() < deadline, running.logs()
        time.sleep(0.05)
    first = found[-1]
    embedded = running.client.submit({"kind": "embed", "model": first.reference, "texts": ["a text"]})
    while running.client.checkpoints(submitted.id)[-1].step < first.step + 60:
        assert time.monotonic() < deadline, running.logs()
        time.sleep(0.1)
    steps = [one.step for one in running.client.checkpoints(submitted.id)]
    assert len(steps) == 3, "the newest two, and the one that a job waits to read"
    assert steps[0] == first.step
    running.client.cancel(submitted.id)
    assert running.wait(submitted.id).state == "cancelled"
    ended = running.wait(embedded.id)
    assert ended.state == "succeeded", ended.end_reason
    last = running.client.checkpoints(submitted.id)[-1]
    again = running.wait(running.client.submit({"kind": "export", "model": last.reference}).id)
    assert again.state == "succeeded", again.end_reason
