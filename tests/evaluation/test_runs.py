"""TREC runs: what is written is read back, and a foreign file is checked."""

import pytest
import pytrec_eval

from core.data.retrieval_sets.judgments import RetrievalSet
from core.errors import BadData
from core.ranking.metrics import evaluate_run, in_order
from core.ranking.runs import read_run, write_run


@pytest.fixture
def dataset() -> RetrievalSet:
    return RetrievalSet(
        {"q 1": "one", "q2": "two"},
        {"a b": "x", "c%20d": "y", "e": "z"},
        {"q 1": {"a b": 1}},
        excluded={"q2": {"e"}},
    )


def test_a_run_comes_back_whatever_its_ids(tmp_path, dataset):
    run = {"q 1": {"a b": 0.25, "c%20d": 1.5}, "q2": {"a b": -1.0}}
    write_run(tmp_path / "deep" / "run.trec", run, "my model")
    lines = (tmp_path / "deep" / "run.trec").read_text().splitlines()
    assert lines[0].split() == ["q%201", "Q0", "c%20d", "1", "1.5", "my%20model"]
    assert [line.split()[3] for line in lines] == ["1", "2", "1"]
    assert read_run(tmp_path / "deep" / "run.trec", dataset) == run


def test_what_a_query_must_leave_out_is_no_candidate(tmp_path, dataset):
    path = tmp_path / "run.txt"
    path.write_text("q2 Q0 e 1 3.5 them\nq2 Q0 c%20d 2 3.0 them\nother Q0 e 1 1 them\n\n")
    assert read_run(path, dataset) == {"q2": {"c%20d": 3.0}}


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("q2 Q0 e one\n", "line 1: query, Q0, document, rank, score and tag are needed"),
        ("q2 Q0 e 1 high tag\n", "line 1: query, Q0"),
        ("q2 Q0 unknown 1 1.0 tag\n", "the corpus has no document 'unknown'"),
        ("other Q0 e 1 1.0 tag\n", "ranks no document for any query"),
        ("", "ranks no document for any query"),
        ("q2 Q0 a%20b 1 2 tag\nq2 Q0 c%20d 2 nan tag\n", "line 2: the score 'nan' is not a finite number"),
        ("other Q0 e 1 NaN tag\n", "line 1: the score 'NaN' is not"),
        ("q2 Q0 a%20b 1 inf tag\n", "line 1: the score 'inf'"),
        ("q2 Q0 a%20b 1 -Infinity tag\n", "line 1: the score '-Infinity'"),
        ("q2 Q0 a%20b 1 1e999 tag\n", "line 1: the score '1e999'"),
        ("q2 Q0 a%20b 1 2 tag\nq2 Q0 a%20b 2 1 tag\n", "line 2: query 'q2' has document 'a b' twice"),
        ("q2 Q0 gone 1 2 tag\nq2 Q0 lost 2 1 tag\n", "2 lines rank .* on_missing: drop"),
    ],
)
def test_a_file_that_is_no_run_is_refused(tmp_path, dataset, text, sentence):
    path = tmp_path / "run.txt"
    path.write_text(text)
    with pytest.raises(BadData, match=sentence):
        read_run(path, dataset)


def test_documents_that_are_missing_are_dropped_and_counted(tmp_path, dataset):
    path = tmp_path / "run.txt"
    lines = [
        "q2 Q0 gone 1 9 t",
        "q2 Q0 a%20b 2 8 t",
        "q2 Q0 lost 3 7 t",
        "q2 Q0 c%20d 4 6 t",
        "q8 Q0 e 1 1 t",
    ]
    path.write_text("\n".join(lines))
    run = read_run(path, dataset, "drop")
    assert run == {"q2": {"a b": 8.0, "c%20d": 6.0}}
    assert dataset.remarks.as_dict() == {
        "run_document_missing": {"count": 2, "examples": ["gone", "lost"]},
        "run_query_unknown": {"count": 1, "examples": ["q8"]},
        "run_query_missing": {"count": 1, "examples": ["q 1"]},
    }
    write_run(tmp_path / "again.trec", run, "t")
    assert [line.split()[3] for line in (tmp_path / "again.trec").read_text().splitlines()] == ["1", "2"]


TIES = [
    pytest.param({"a": 0.5, "b": 0.5, "c": 0.5}, ["c", "b", "a"], id="by_falling_id"),
    pytest.param({"d10": 1.0, "d9": 1.0, "d1": 2.0}, ["d1", "d9", "d10"], id="ids_are_texts"),
    pytest.param({"a": 0.1 + 1e-12, "b": 0.1}, ["b", "a"], id="equal_in_single_precision"),
    pytest.param({"é": 1.0, "z": 1.0, "😀": 1.0, "龍": 1.0}, ["😀", "龍", "é", "z"], id="beyond_ascii"),
    pytest.param({"a": -1.0, "b": -2.0}, ["a", "b"], id="negative"),
]


@pytest.mark.parametrize(("documents", "order"), TIES)
def test_ties_are_in_trec_evals_order(documents, order):
    assert in_order(documents) == order
    for place, name in enumerate(order, 1):
        judged = {"q": {name: 1}}
        evaluator = pytrec_eval.RelevanceEvaluator(judged, {"recip_rank"})
        theirs = evaluator.evaluate({"q": documents})["q"]["recip_rank"]
        assert theirs == pytest.approx(1 / place)
        ours = evaluate_run(judged, {"q": documents}, [f"mrr@{place}", f"recall@{place}"])
        assert ours[f"mrr@{place}"]["q"] == pytest.approx(theirs)
        assert ours[f"recall@{place}"]["q"] == 1.0


def test_a_written_run_is_in_the_order_of_its_scores_and_ties(tmp_path):
    write_run(tmp_path / "run.trec", {"q": {"a": 1.0, "b": 2.0, "c": 1.0}}, "t")
    lines = (tmp_path / "run.trec").read_text().splitlines()
    assert [line.split()[2] for line in lines] == ["b", "c", "a"]
