"""What tests of models ask for."""

import json
from pathlib import Path

import numpy as np
import pytest

from core.data.sources.inputs import make_context
from core.jobs.protocol import RunRequest
from core.runtime.context import RunContext
from core.runtime.reporter import RecordingReporter
from tests.tiny import WORDS, make_colbert, make_cross_encoder, make_model


@pytest.fixture
def context(tmp_path) -> RunContext:
    """Of a job without a service."""
    request = RunRequest(
        job_id="job", attempt=1, spec={}, checkpoints=tmp_path / "c", cache=tmp_path / "cache", offline=True
    )
    return make_context(request, tmp_path, RecordingReporter())


@pytest.fixture(scope="session")
def steady(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Without dropout: however a batch is cut, the same comes out."""
    return make_model(tmp_path_factory.mktemp("models") / "steady", dropout=0.0)


@pytest.fixture(scope="session")
def bases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Path]]:
    """By dropout: with it, and without."""
    found = {}
    for name, dropout in (("lively", 0.1), ("steady", 0.0)):
        folder = tmp_path_factory.mktemp(name)
        bi_encoder = make_model(folder / "bi-encoder", dropout=dropout)
        found[name] = {
            "dense": bi_encoder,
            "late_interaction": make_colbert(folder / "colbert", bi_encoder),
            "cross_encoder": make_cross_encoder(folder / "cross-encoder", bi_encoder),
        }
    return found


@pytest.fixture(scope="session")
def uneven_rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Several negatives, texts of all lengths, one that many rows share, an odd number of rows."""
    path = tmp_path_factory.mktemp("rows") / "rows.jsonl"
    drawn = np.random.default_rng(0)

    def text(row: int) -> str:
        return f"{row} " + " ".join(drawn.choice(WORDS, drawn.integers(1, 30)))

    lines = []
    for row in range(45):
        query = text(row)
        lines.append({"query": query, "positive": f"{query} of it", "negatives": [text(row), "one for all"]})
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


@pytest.fixture(scope="session")
def word_rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A row a word; every other one has a negative."""
    path = tmp_path_factory.mktemp("rows") / "rows.jsonl"
    lines = [
        {
            "query": f"what is {word}",
            "positive": f"{word} is the document of {word} , and of {WORDS[index - 1]}",
            "negatives": [f"{WORDS[index - 2]} and {WORDS[index - 5]}"][: index % 2],
        }
        for index, word in enumerate(WORDS)
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path
