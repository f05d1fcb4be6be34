"""Labels and scores beside pairs: never taken for positives in silence."""

import csv
import json

import pytest
from pydantic import ValidationError

from core.data.rows.labels import LEFT_OUT
from core.data.rows.record import TrainingRow
from core.data.rows.row import Reject
from core.data.training_rows.pairs import Reading, read_pairs
from core.errors import BadData
from core.spec.parts.rows import Labels


def write(path, names, *rows):
    if path.suffix == ".csv":
        with path.open("w", newline="") as file:
            csv.writer(file).writerows([names, *rows])
    else:
        path.write_text("\n".join(json.dumps(dict(zip(names, row, strict=True))) for row in rows))
    return path


def read(path, labels="auto", **options):
    reading = Reading(labels=labels, **options)
    rows = list(read_pairs(path, reading=reading))
    return [row for row in rows if isinstance(row, TrainingRow)], rows, reading


@pytest.mark.parametrize("ending", ["csv", "jsonl"])
@pytest.mark.parametrize(
    "names",
    [
        ("sentence1", "sentence2", "label"),
        ("query", "positive", "labels"),
        ("question1", "question2", "is_duplicate"),
        ("Query", "Document", "Is Relevant"),
    ],
)
@pytest.mark.parametrize("values", [(1, 0), ("1", "0"), (1.0, 0.0), (True, False)])
def test_label_0_is_a_negative_of_its_query(tmp_path, ending, names, values):
    if ending == "csv" and values == (True, False):
        values = (1, 0)
    yes, no = values
    rows = [
        ("q", "before", no),
        ("q", "good", yes),
        ("r", "alone", no),
        ("q", "after", no),
        ("s", "fine", yes),
    ]
    found, every, reading = read(write(tmp_path / f"rows.{ending}", names, *rows))
    assert found == [TrainingRow("q", "good", ["before", "after"]), TrainingRow("s", "fine")]
    assert len(every) == 2
    assert reading.counts[LEFT_OUT] == 1
    [sentence] = [s for s, _ in reading.report.sentences("it", ("label",)) if "labels:" in s]
    assert "2 pairs are positives, 2 are negatives of their query, 1 are left out" in sentence


def test_a_pair_that_is_labelled_both_ways_stays_a_positive(tmp_path):
    path = write(
        tmp_path / "r.csv", ("query", "positive", "label"), ("q", "p", 1), ("q", "p", 0), ("q", "n", 0)
    )
    found, _, reading = read(path)
    assert found == [TrainingRow("q", "p", ["n"])]
    assert reading.counts[LEFT_OUT] == 1


@pytest.mark.parametrize(
    ("names", "value", "remedy"),
    [
        (("sentence1", "sentence2", "score"), 0.95, "min_positive: 0.8"),
        (("sentence1", "sentence2", "score"), 1, "positive: [1], negative: [0]"),
        (("query", "document", "similarity"), 0.0, "labels: {column: similarity"),
        (("query", "document", "relevance"), 3, "labels: {column: relevance"),
        (("text1", "text2", "similarity_score"), "4.5", "cosent"),
        (("query", "document", "label"), 2, "positive: [1]"),
        (("query", "document", "label"), 0.5, "labels: {column: label"),
        (("premise", "hypothesis", "label"), 0, "positive: [0], negative: [2]"),
        (("premise", "hypothesis", "label"), 1, "positive: [0], negative: [2]"),
        (("query", "document", "label"), "yes", "positive: ['yes']"),
    ],
)
def test_what_would_have_to_be_guessed_is_refused_with_the_lines_that_say_it(tmp_path, names, value, remedy):
    with pytest.raises(BadData) as refused:
        read(write(tmp_path / "rows.csv", names, ("q", "p", value)))
    assert remedy in str(refused.value)
    found, _, reading = read(tmp_path / "rows.csv", "ignore")
    assert found == [TrainingRow("q", "p")]
    assert any(
        "not used" in sentence for sentence, _ in reading.report.sentences("it", ("query", "positive"))
    )


def test_a_later_label_of_another_kind_is_refused_too(tmp_path):
    rows = [("q", f"p{number}", 1) for number in range(200)]
    with pytest.raises(BadData, match="line 202"):
        read(write(tmp_path / "rows.csv", ("query", "positive", "label"), *rows, ("q", "p", 7)))


def test_entailment_in_words(tmp_path):
    rows = [("q", "p", "entailment"), ("q", "n", "Contradiction"), ("q", "m", "neutral"), ("r", "x", "-")]
    found, _, reading = read(write(tmp_path / "nli.csv", ("premise", "hypothesis", "gold_label"), *rows))
    assert found == [TrainingRow("q", "p", ["n"])]
    assert reading.counts[LEFT_OUT] == 2


def test_a_label_of_something_else_is_a_column_that_is_not_used(tmp_path):
    found, _, reading = read(write(tmp_path / "r.csv", ("query", "positive", "label"), ("q", "p", "biology")))
    assert found == [TrainingRow("q", "p")]
    assert "label" in reading.report.unused


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        (Labels(min_positive=4), ([("q", "a", [])], 3)),
        (Labels(min_positive=4, max_negative=2), ([("q", "a", ["c", "d"])], 1)),
        (Labels(positive=[5, "3"], negative=[0]), ([("q", "a", ["d"]), ("q", "b", ["d"])], 1)),
    ],
)
def test_thresholds_and_values(tmp_path, labels, expected):
    rows = [("q", "a", 5), ("q", "b", 3.0), ("q", "c", 1.5), ("q", "d", 0)]
    found, _, reading = read(
        write(tmp_path / "r.jsonl", ("query", "document", "grade"), *rows),
        labels.model_copy(update={"column": "grade"}),
    )
    assert [(row.query, row.positive, row.negatives) for row in found] == expected[0]
    assert reading.counts[LEFT_OUT] == expected[1]


def test_an_empty_label_among_labels_is_a_reject(tmp_path):
    path = write(tmp_path / "r.csv", ("query", "positive", "label"), ("q", "p", 1), ("q", "x", ""))
    assert [type(row) for row in read(path)[1]] == [TrainingRow, Reject]


def test_a_label_beside_explicit_negatives_is_not_used(tmp_path):
    path = write(tmp_path / "r.jsonl", ("query", "positive", "negative", "label"), ("q", "p", "n", 0))
    found, _, reading = read(path)
    assert found == [TrainingRow("q", "p", ["n"])]
    assert "label" in reading.report.unused


def test_scores_that_a_loss_learns(tmp_path):
    rows = [("q", "a", 4), ("q", "b", "2.5"), ("q", "c", "high")]
    path = write(tmp_path / "r.csv", ("sentence1", "sentence2", "score"), *rows)
    found, every, _ = read(path, Labels(divide_by=5), graded=True)
    assert [row.scores for row in found] == [[0.8], [0.5]]
    assert isinstance(every[-1], Reject)


@pytest.mark.parametrize(
    "values",
    [
        {"negative": [0]},
        {"max_negative": 0.1},
        {"positive": [1], "min_positive": 1},
        {"positive": [1], "negative": ["1"]},
        {"min_positive": 0.5, "max_negative": 0.5},
    ],
)
def test_labels_that_contradict_themselves(values):
    with pytest.raises(ValidationError):
        Labels(**values)
