"""Rows out of files, and what happens to bad ones."""

import gzip
import json

import pytest
import zstandard

from core.data.retrieval_sets.judged_folders import read_judged
from core.data.rows.row import Reject
from core.data.sources.retrieval import read_retrieval
from core.data.training_rows.pairs import TrainingRow, read_pairs
from core.data.training_rows.table import open_table, write_table
from core.errors import BadData
from tests.conftest import SHARED

PAIR = {"query": "what", "positive": "this"}


def write(path, *rows) -> None:
    path.write_text(
        "\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows), encoding="utf-8"
    )


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        (PAIR, [TrainingRow("what", "this")]),
        ({**PAIR, "negative": "that"}, [TrainingRow("what", "this", ["that"])]),
        ({**PAIR, "negatives": ["a", "b"]}, [TrainingRow("what", "this", ["a", "b"])]),
        ({**PAIR, "negative_1": "a", "negative_2": "b"}, [TrainingRow("what", "this", ["a", "b"])]),
        ({"anchor": "what", "positive": "this"}, [TrainingRow("what", "this")]),
        ({"question": "what", "answer": "this"}, [TrainingRow("what", "this")]),
        (
            {"query": "what", "pos": ["this", "these"], "neg": ["that"]},
            [TrainingRow("what", "this", ["that"]), TrainingRow("what", "these", ["that"])],
        ),
        ({"query": ["find", "what"], "positive": "this"}, [TrainingRow("find what", "this")]),
    ],
)
def test_every_known_shape(tmp_path, row, expected):
    write(tmp_path / "pairs.jsonl", row)
    assert list(read_pairs(tmp_path / "pairs.jsonl")) == expected


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("{not json", "not JSON"),
        ("[1, 2]", "one JSON object a line"),
        ('{"query": "what"}', "no positive column"),
        ('{"query": "", "positive": "this"}', "query is empty"),
        ('{"query": "what", "positive": "  "}', "no positive"),
        ('{"query": true, "positive": "this"}', "text is needed"),
        ('{"query": "half \\ud83d", "positive": "this"}', "not valid Unicode at character 6"),
        ('{"\\ud800": 1}', "the name of column"),
        ("[" * 100_000, "nested too deeply"),
    ],
)
def test_a_bad_row_is_a_reject_with_its_line(tmp_path, line, reason):
    write(tmp_path / "pairs.jsonl", PAIR, "", line, PAIR)
    first, reject, last = read_pairs(tmp_path / "pairs.jsonl")
    assert isinstance(reject, Reject)
    assert (reject.file, reject.line) == ("pairs.jsonl", 3)
    assert reason in reject.reason
    assert first == last == TrainingRow("what", "this")


def test_a_line_that_is_not_utf8(tmp_path):
    (tmp_path / "pairs.jsonl").write_bytes(
        json.dumps(PAIR).encode() + b'\n{"query": "\xff", "positive": "x"}\n'
    )
    assert isinstance(list(read_pairs(tmp_path / "pairs.jsonl"))[1], Reject)


def test_csv_lines_are_counted_from_the_header(tmp_path):
    (tmp_path / "p.csv").write_bytes(b"query,positive\nonly one\na,b\ncaf\xe9,x\n")
    found = list(read_pairs(tmp_path / "p.csv"))
    assert [row.line for row in found if isinstance(row, Reject)] == [2, 4]
    assert found[1] == TrainingRow("a", "b")


def test_a_quote_that_is_never_closed_does_not_swallow_the_rest_in_silence(tmp_path):
    (tmp_path / "p.csv").write_text('query,positive\na,b\n"c,d\n' + "e,f\n" * 100)
    with pytest.raises(BadData, match="never closed"):
        list(read_pairs(tmp_path / "p.csv"))


def test_a_positive_is_not_its_own_negative(tmp_path):
    write(tmp_path / "p.jsonl", {**PAIR, "negatives": ["this", "that"]})
    assert list(read_pairs(tmp_path / "p.jsonl")) == [TrainingRow("what", "this", ["that"])]


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"positive": "p", "negatives": ["n", "m"], "scores": [3, 2, 1.5]}, [[3, 2, 1.5]]),
        ({"pos": ["p", "q"], "neg": ["n"], "pos_scores": [9, 8], "neg_scores": [1]}, [[9, 1], [8, 1]]),
        # A negative that is a positive goes, and its score with it.
        ({"pos": ["p"], "neg": ["p", "n"], "pos_scores": [9], "neg_scores": [7, 1]}, [[9, 1]]),
        ({"pos": ["p"], "neg": ["n"], "pos_scores": None, "neg_scores": [1]}, [[]]),
        ({"positive": "p", "score": "high"}, [[]]),
    ],
)
def test_a_teachers_scores_stay_beside_their_documents(tmp_path, row, expected):
    path = tmp_path / "pairs.jsonl"
    path.write_text(json.dumps({"query": "q", **row}) + "\n")
    assert [found.scores for found in read_pairs(path)] == expected


@pytest.mark.parametrize("scores", [[1], [1, 2, 3], ["a", "b"], [True, 1], [float("nan"), 1]])
def test_scores_that_do_not_fit_are_a_reject(tmp_path, scores):
    path = tmp_path / "pairs.jsonl"
    path.write_text(json.dumps({"query": "q", "positive": "p", "negatives": ["n"], "scores": scores}) + "\n")
    [found] = read_pairs(path)
    assert isinstance(found, Reject)
    assert "score" in found.reason


def test_an_evaluation_file_with_holes_is_not_evaluated(tmp_path):
    write(tmp_path / "p.jsonl", *[PAIR] * 9, {"query": "what", "postive": "typo"})
    with pytest.raises(BadData, match="line 10"):
        read_retrieval(tmp_path / "p.jsonl", max_reject_share=0.01)
    assert read_retrieval(tmp_path / "p.jsonl", max_reject_share=0.2).rejects == 1


def test_compressed_csv_with_bom_quotes_and_newlines(tmp_path):
    text = '\ufeffquery,positive\r\n"first, with comma","two\nlines"\r\nshort\r\nsecond,"quoted ""word"""\r\n'
    for path, pack in (
        (tmp_path / "a.csv", lambda data: data),
        (tmp_path / "b.csv.gz", gzip.compress),
        (tmp_path / "c.csv.zst", zstandard.ZstdCompressor().compress),
    ):
        path.write_bytes(pack(text.encode()))
        rows = list(read_pairs(path))
        assert rows[0] == TrainingRow("first, with comma", "two\nlines")
        assert isinstance(rows[1], Reject)
        assert rows[2] == TrainingRow("second", 'quoted "word"')


def test_parquet(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as parquet

    parquet.write_table(
        pa.table({"query": ["a"], "positive": ["b"], "negatives": [["c"]]}), tmp_path / "p.parquet"
    )
    assert list(read_pairs(tmp_path / "p.parquet")) == [TrainingRow("a", "b", ["c"])]
    (tmp_path / "broken.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(BadData, match="not a readable Parquet"):
        list(read_pairs(tmp_path / "broken.parquet"))


def test_a_compressed_file_that_breaks_off(tmp_path):
    whole = gzip.compress("\n".join(json.dumps({**PAIR, "n": index}) for index in range(1000)).encode())
    (tmp_path / "cut.jsonl.gz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(BadData, match="breaks off"):
        list(read_pairs(tmp_path / "cut.jsonl.gz"))


def test_missing_and_unknown_files(tmp_path):
    with pytest.raises(BadData, match="no file"):
        list(read_pairs(tmp_path / "none.jsonl"))
    (tmp_path / "file.docx").write_text("x")
    with pytest.raises(BadData, match="expected one of"):
        list(read_pairs(tmp_path / "file.docx"))
    with pytest.raises(BadData, match="folder"):
        list(read_pairs(tmp_path))


def test_the_table_keeps_good_rows_and_lists_the_bad(tmp_path):
    write(tmp_path / "pairs.jsonl", *[PAIR] * 99, "broken")
    written = write_table(read_pairs(tmp_path / "pairs.jsonl"), tmp_path / "t", tmp_path / "r.jsonl", 0.05)
    assert (written.kept, written.count) == (99, 1)
    assert open_table(tmp_path / "t").num_rows == 99
    assert json.loads((tmp_path / "r.jsonl").read_text())["line"] == 100
    with pytest.raises(BadData, match=r"pairs\.jsonl, line 100"):
        write_table(read_pairs(tmp_path / "pairs.jsonl"), tmp_path / "t", tmp_path / "r.jsonl", 0.005)


def test_nothing_to_train_on(tmp_path):
    (tmp_path / "empty.jsonl").write_text("")
    with pytest.raises(BadData, match="empty"):
        write_table(read_pairs(tmp_path / "empty.jsonl"), tmp_path / "t", tmp_path / "r", 1.0)


def make_beir(folder, qrels="q1\td1\t1\nq1\td2\t0\nq2\td2\t2\n"):
    folder.mkdir()
    write(
        folder / "corpus.jsonl",
        {"_id": "d1", "title": "T", "text": "one"},
        {"_id": "d2", "title": "", "text": "two"},
    )
    write(folder / "queries.jsonl", {"_id": "q1", "text": "first"}, {"_id": "q2", "text": "second"})
    (folder / "qrels").mkdir()
    (folder / "qrels" / "test.tsv").write_text(f"query-id\tcorpus-id\tscore\n{qrels}")
    return folder


def test_a_beir_folder_for_evaluating_and_for_training(tmp_path):
    folder = make_beir(tmp_path / "beir")
    found = read_judged(folder, "test")
    assert found.corpus == {"d1": "T\none", "d2": "two"}
    assert found.qrels == {"q1": {"d1": 1, "d2": 0}, "q2": {"d2": 2}}
    assert list(read_pairs(folder, "test")) == [
        TrainingRow("first", "T\none", query_id="q1", positive_id="d1"),
        TrainingRow("second", "two", query_id="q2", positive_id="d2"),
    ]
    with pytest.raises(BadData, match="no split 'train'; it has test"):
        list(read_pairs(folder))


def test_judgments_of_unknown_documents_are_refused(tmp_path):
    folder = make_beir(tmp_path / "beir", "q1\tnowhere\t1\n")
    with pytest.raises(BadData, match="nowhere"):
        read_judged(folder, "test")


@pytest.mark.parametrize(
    ("name", "line", "words"),
    [
        ("corpus.jsonl", '{"_id": "d3", "title": 3, "text": "x"}', "line 3: title and text must be text"),
        ("corpus.jsonl", '{"_id": "d3", "text": "\\udc00"}', "line 3: not valid Unicode"),
        ("queries.jsonl", "{broken", "line 3: not JSON"),
        ("qrels/test.tsv", "q1\tnot enough", "line 5"),
    ],
)
def test_a_beir_folder_with_a_bad_line(tmp_path, name, line, words):
    folder = make_beir(tmp_path / "beir")
    with (folder / name).open("a") as file:
        file.write(line if name.startswith("qrels") else f"\n{line}\n")
    with pytest.raises(BadData, match=words):
        read_judged(folder, "test")


def test_judgments_that_are_all_zero_are_refused(tmp_path):
    with pytest.raises(BadData, match="no relevant document"):
        read_judged(make_beir(tmp_path / "beir", "q1\td1\t0\n"), "test")


def test_pairs_as_a_retrieval_set(tmp_path):
    write(
        tmp_path / "p.jsonl",
        {**PAIR, "negative": "that"},
        {"query": "what", "positive": "also"},
        {"query": "x", "positive": "this"},
    )
    found = read_retrieval(tmp_path / "p.jsonl")
    assert list(found.corpus.values()) == ["this", "that", "also"]
    assert found.qrels == {"q0": {"d0": 1, "d1": 0, "d2": 1}, "q1": {"d0": 1}}


@pytest.mark.skipif(not SHARED.exists(), reason="the shared data are not beside the checkout")
def test_scifact():
    found = read_judged(SHARED / "scifact", "test")
    assert (len(found.corpus), len(found.queries)) == (5183, 300)
    assert sum(len(judged) for judged in found.qrels.values()) == 339
