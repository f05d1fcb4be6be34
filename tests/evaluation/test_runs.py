"""TREC runs: what is written is read back, and a foreign file is checked."""

import pytest

from core.data.judgments import RetrievalSet
from core.errors import BadData
from core.evaluation.runs import read_run, write_run

DATASET = RetrievalSet(
    {"q 1": "one", "q2": "two"},
    {"a b": "x", "c%20d": "y", "e": "z"},
    {"q 1": {"a b": 1}},
    excluded={"q2": {"e"}},
)


def test_a_run_comes_back_whatever_its_ids(tmp_path):
    run = {"q 1": {"a b": 0.25, "c%20d": 1.5}, "q2": {"a b": -1.0}}
    write_run(tmp_path / "deep" / "run.trec", run, "my model")
    lines = (tmp_path / "deep" / "run.trec").read_text().splitlines()
    assert lines[0].split() == ["q%201", "Q0", "c%20d", "1", "1.5", "my%20model"]
    assert [line.split()[3] for line in lines] == ["1", "2", "1"]
    assert read_run(tmp_path / "deep" / "run.trec", DATASET) == run


def test_what_a_query_must_leave_out_is_no_candidate(tmp_path):
    path = tmp_path / "run.txt"
    path.write_text("q2 Q0 e 1 3.5 them\nq2 Q0 c%20d 2 3.0 them\nother Q0 e 1 1 them\n\n")
    assert read_run(path, DATASET) == {"q2": {"c%20d": 3.0}}


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("q2 Q0 e one\n", "line 1: query, Q0, document, rank, score and tag are needed"),
        ("q2 Q0 e 1 high tag\n", "line 1: query, Q0"),
        ("q2 Q0 unknown 1 1.0 tag\n", "the corpus has no document 'unknown'"),
        ("other Q0 e 1 1.0 tag\n", "ranks no document for any query"),
    ],
)
def test_a_file_that_is_no_run_is_refused(tmp_path, text, sentence):
    path = tmp_path / "run.txt"
    path.write_text(text)
    with pytest.raises(BadData, match=sentence):
        read_run(path, DATASET)
