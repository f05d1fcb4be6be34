"""A teacher's scores by ids, as PyLate's sets have them."""

import json
from pathlib import Path

import pytest

from core.data.rows.row import Reject
from core.data.training_rows.pairs import read_pairs


@pytest.fixture
def folder(tmp_path) -> Path:
    files = {
        "queries": [{"query_id": 1, "text": "what flies"}, {"query_id": 2, "text": "what swims"}],
        "documents": [{"document_id": f"d{n}", "text": f"text {n}"} for n in range(4)],
        "train": [
            {"query_id": 1, "document_ids": ["d0", "d1", "d2"], "scores": [0.1, 0.9, 0.5]},
            {"query_id": "2", "document_ids": json.dumps(["d3", "gone"]), "scores": json.dumps([1.5, 2.5])},
            {"query_id": 7, "document_ids": ["d0"], "scores": [1.0]},
            {"query_id": 1, "document_ids": ["d0"], "scores": [1.0, 2.0]},
            {"query_id": 1, "document_ids": 3, "scores": [1.0]},
        ],
    }
    for name, rows in files.items():
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path


def test_the_best_document_is_the_positive_and_scores_go_with_it(folder):
    found = list(read_pairs(folder))
    first, second = (row for row in found if not isinstance(row, Reject))
    assert (first.query, first.positive, first.negatives) == ("what flies", "text 1", ["text 2", "text 0"])
    assert first.scores == [0.9, 0.5, 0.1]
    assert (first.positive_id, first.negative_ids) == ("d1", ["d2", "d0"])
    assert (second.query, second.positive, second.negatives, second.scores) == (
        "what swims",
        "text 3",
        [],
        [1.5],
    )


def test_rows_that_cannot_be_used_say_why(folder):
    reasons = [row.reason for row in read_pairs(folder) if isinstance(row, Reject)]
    assert reasons[0] == "there is no query '7'"
    assert reasons[1] == "2 scores stand beside 1 documents"
    assert "a list is needed" in reasons[2]
