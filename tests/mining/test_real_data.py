"""Candidates before filters, on SciFact and tldr: those of comparing every query with every document."""

from pathlib import Path

import numpy as np
import pytest
import torch

from core.data.rows.hashing import text_hash
from core.data.sources.inputs import make_context
from core.jobs.protocol import RunRequest
from core.mining.finders.dense import DenseFinder
from core.mining.read_input import gather
from core.retrieval import encode as encode_room
from core.runtime.reporter import RecordingReporter
from core.spec import parse_spec

DATA = Path(__file__).parents[3] / "shared" / "data"


def hashed_words(texts, _role):
    """Counts of words in 48 drawers: whole numbers, whose products no rounding touches, with many ties."""
    found = np.zeros((len(texts), 48), np.float32)
    for row, text in enumerate(texts):
        for word in text.lower().split():
            found[row, text_hash(word) % 48] += 1
    return torch.from_numpy(found)


@pytest.mark.parametrize(
    ("dataset", "corpus"),
    [
        ({"ref": "scifact", "split": "train"}, "scifact"),
        ({"ref": "scifact", "split": "test"}, None),
        ({"ref": "tldr/pairs.jsonl.gz"}, None),
    ],
)
def test_candidates_equal_brute_force(dataset, corpus, tiny_model, tmp_path, monkeypatch):
    if not (DATA / dataset["ref"]).exists():
        pytest.skip("the data beside the checkout are not there")
    monkeypatch.setattr(encode_room, "SHARD", 1000)
    monkeypatch.setattr("core.mining.finders.dense.SHARD", 1000)
    monkeypatch.setattr("core.families.dense.make_encode", lambda *_: hashed_words)
    spec = parse_spec(
        {
            "kind": "mine",
            "dataset": {**dataset, "ref": f"file:{DATA / dataset['ref']}"},
            "corpus": f"file:{DATA / corpus}" if corpus else None,
            "model": f"file:{tiny_model}",
            "block_mb": 3,
            "filters": {"near_duplicates": None},
        }
    )
    request = RunRequest(
        job_id="job_x", attempt=1, spec={}, checkpoints=tmp_path / "checkpoints", cache=tmp_path / "cache"
    )
    context = make_context(request, tmp_path, RecordingReporter())
    gathered = gather(spec, context, DATA / dataset["ref"], tmp_path)
    found = DenseFinder(spec, context).find(gathered, 50)
    queries = hashed_words(list(gathered.queries.all_texts()), "query").numpy()
    documents = hashed_words(list(gathered.documents.all_texts()), "document").numpy()
    assert len(queries) > 250
    assert gathered.candidates > 250
    for start in range(0, len(queries), 500):
        scores = queries[start : start + 500] @ documents[: gathered.candidates].T
        best = np.argsort(-scores, axis=1, kind="stable")[:, :50]
        assert (found.documents[start : start + 500] == best).all()
        assert (found.scores[start : start + 500] == np.take_along_axis(scores, best, axis=1)).all()
    pairs = gathered.pairs
    assert (found.of_pairs == (queries[pairs[:, 0]] * documents[pairs[:, 1]]).sum(1)).all()
