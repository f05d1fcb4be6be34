"""Rows as people have them: column names, cells of spreadsheets, lists in texts, nested JSON."""

import csv
import json

import openpyxl
import pytest

from core.data.rows.columns import assign_roles
from core.data.rows.reading import NO_VALUES, TEXT_ROLES
from core.data.rows.record import TrainingRow
from core.data.rows.row import Reject
from core.data.sources.corpus import read_corpus
from core.data.sources.retrieval import read_retrieval
from core.data.training_rows.pairs import Reading, read_pairs
from core.errors import BadData

ONE = [TrainingRow("what", "this one")]


def lines(path, *rows):
    path.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows) + "\n")
    return path


def told(path, reading=None, roles=TEXT_ROLES) -> str:
    """What a job that uses these roles says of the source."""
    reading = reading or Reading()
    list(read_pairs(path, reading=reading))
    return " ".join(sentence for sentence, _ in reading.report.sentences("it", roles))


@pytest.mark.parametrize(
    ("query", "positive"),
    [
        ("sentence_0", "sentence_1"),
        ("sentence_1", "sentence_2"),
        ("sentence1", "sentence2"),
        ("sentence_A", "sentence_B"),
        ("text1", "text2"),
        ("text_a", "text_b"),
        ("question1", "question2"),
        ("premise", "hypothesis"),
        ("Query", " Positive "),
        ("Query Text", "Positive-Text"),
        ("question", "context"),
        ("question", "response"),
        ("anchor", "positive"),
    ],
)
def test_columns_are_known_by_the_usual_names(tmp_path, query, positive):
    path = lines(tmp_path / "rows.jsonl", {query: "what", positive: "this one"})
    assert list(read_pairs(path)) == ONE


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"negative": ["a"], "hard_negatives": ["b"]}, ["a", "b"]),
        ({"negative_10": "c", "negative_2": "b", "negative_1": "a"}, ["a", "b", "c"]),
        ({"neg_1": "a", "hard_negative_1": "b"}, ["b", "a"]),
        ({"hard_negative_ctxs": [{"title": "t", "text": "a"}]}, ["t\na"]),
        ({"negative": None, "negative_1": float("nan"), "negative_2": "a"}, ["a"]),
        ({"negatives": ["a", None, "", float("nan"), "b"]}, ["a", "b"]),
        ({"negatives": [7, 2.5]}, ["7", "2.5"]),
    ],
)
def test_negatives_of_all_columns(tmp_path, values, expected):
    path = lines(tmp_path / "rows.jsonl", {"query": "what", "positive": "this one", **values})
    [row] = read_pairs(path)
    assert isinstance(row, TrainingRow)
    assert sorted(row.negatives) == sorted(expected)
    if "negative_10" in values:
        assert row.negatives == expected


def test_the_third_of_unnamed_columns_is_the_negative():
    roles = assign_roles(("sentence_0", "sentence_1", "sentence_2"))
    assert (roles.query, roles.positive, roles.negatives) == ("sentence_0", "sentence_1", ("sentence_2",))


@pytest.mark.parametrize(
    ("scores", "expected"), [([5, 4, 1], [5, 4, 1]), ([5, 4], None), ([5, 4, 9, 1], [5, 4, 1])]
)
def test_scores_stay_with_their_documents_where_texts_are_missing(tmp_path, scores, expected):
    row = {"query": "q", "positive": "p", "negatives": ["a", None, "b"], "scores": scores}
    [found] = read_pairs(lines(tmp_path / "rows.jsonl", row))
    assert getattr(found, "scores", None) == expected


def test_the_context_is_the_document_and_the_answer_is_named_as_unused(tmp_path):
    row = {"question": "what", "context": "this one", "answer": "yes", "id": 3}
    path = lines(tmp_path / "rows.jsonl", row)
    assert list(read_pairs(path)) == ONE
    assert "columns that are not used: answer, id." in told(path)


@pytest.mark.parametrize("name", ["search_query", "question", "premise"])
def test_records_with_lists_are_not_taken_for_an_object_with_a_list_of_records(tmp_path, name):
    text = {"premise": {"premise": "q", "hypothesis": "p"}}.get(name, {name: "q", "positive": "p"})
    record = {**text, "negative_passages": [{"text": "n"}]}
    path = tmp_path / "rows.json"
    path.write_text(f"{json.dumps(record)}\n{json.dumps(record)}\n", encoding="utf-8")
    assert [(row.query, row.positive) for row in read_pairs(path)] == [("q", "p")] * 2


def test_columns_of_dates_are_named(tmp_path):
    import datetime

    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.table({"query": ["what"], "positive": ["this one"], "day": [datetime.date(2026, 1, 1)]})
    pq.write_table(table, tmp_path / "rows.parquet")
    assert list(read_pairs(tmp_path / "rows.parquet")) == ONE
    assert "not used: day." in told(tmp_path / "rows.parquet")


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        ({"query": "ask", "positive": "body"}, ["q", "b", []]),
        ({"query": "ask", "positive": "body", "negatives": ["w1", "w2"]}, ["q", "b", ["x", "y"]]),
        ({"query": "ASK", "positive": "positive"}, ["q", "p", []]),
    ],
)
def test_columns_that_the_spec_names(tmp_path, columns, expected):
    row = {"ask": "q", "body": "b", "w1": "x", "w2": "y", "positive": "p"}
    [found] = read_pairs(lines(tmp_path / "rows.jsonl", row), reading=Reading(columns=columns))
    assert isinstance(found, TrainingRow)
    assert [found.query, found.positive, found.negatives] == expected


@pytest.mark.parametrize(
    ("first", "columns", "message"),
    [
        ({"titel": "a", "inhalt": "b"}, {}, "columns: {query: titel, positive: inhalt}"),
        ({"query": "a", "inhalt": "b", "n": 3}, {}, "columns: {query: query, positive: inhalt}"),
        ({"query": "a", "body": "b"}, {"positive": "bdy"}, "columns.positive is 'bdy'"),
    ],
)
def test_unknown_columns_are_refused_with_the_lines_that_would_name_them(tmp_path, first, columns, message):
    path = lines(tmp_path / "rows.jsonl", first, first)
    with pytest.raises(BadData) as refused:
        list(read_pairs(path, reading=Reading(columns=columns)))
    assert message in str(refused.value)


TRIPLE = "what is it\tthis one\tno other"


def test_a_file_without_a_header_is_refused_and_read_by_numbers(tmp_path):
    path = lines(tmp_path / "triples.tsv", TRIPLE, TRIPLE)
    with pytest.raises(BadData, match=r"columns: \{query: 1, positive: 2, negatives: 3\}"):
        list(read_pairs(path))
    numbered = Reading(columns={"query": 1, "positive": 2, "negatives": [3]})
    assert (
        list(read_pairs(path, reading=numbered)) == [TrainingRow("what is it", "this one", ["no other"])] * 2
    )
    with pytest.raises(BadData, match="columns by number"):
        list(read_pairs(lines(tmp_path / "rows.jsonl", {"query": "q"}), reading=numbered))


@pytest.mark.parametrize(
    "text",
    [
        "query;positive;;;\nwhat;this one;;;\n",
        "\ufeffquery;positive;;\nwhat;this one\n",
        "sep=;\nquery;positive\nwhat;this one\n",
        '"sep=|"\r\nquery|positive\r\nwhat|this one\r\n',
        "\n\nQuery , POSITIVE \nwhat,this one\n",
        "query,positive,negative_1\nwhat,this one\n",
        'query\t"positive"\nwhat\tthis one\n',
        '"query";"positive"\n"what";"this one"\n',
        "query,positive,,\nwhat,this one,,,,,,\n",
    ],
)
def test_the_dialects_of_spreadsheets(tmp_path, text):
    (tmp_path / "rows.csv").write_bytes(text.encode())
    assert list(read_pairs(tmp_path / "rows.csv")) == ONE


def test_cells_too_many_are_a_reject_and_cells_without_a_name_are_told(tmp_path):
    path = lines(tmp_path / "rows.csv", "query,positive,,", "what,this one,x,", "what,this one,,,y", "q,p")
    first, second, third = read_pairs(path)
    assert first == ONE[0]
    assert isinstance(second, Reject)
    assert "5 cells" in second.reason
    assert third == TrainingRow("q", "p")
    assert "not used: column 3." in told(path)


@pytest.mark.parametrize(
    ("cell", "expected"),
    [
        ("['a', 'b']", ["a", "b"]),
        ('["a", "b"]', ["a", "b"]),
        ("""["it's", 'b']""", ["it's", "b"]),
        ("[]", []),
        ("[1] as said in [2]", ["[1] as said in [2]"]),
        ("[1]", ["[1]"]),
        ("[a, b]", ["[a, b]"]),
    ],
)
def test_lists_in_cells(tmp_path, cell, expected):
    with (tmp_path / "rows.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["query", "positive", "negatives"], ["what", "this one", cell]])
    [row] = read_pairs(tmp_path / "rows.csv")
    assert isinstance(row, TrainingRow)
    assert row.negatives == expected


@pytest.mark.parametrize("cell", ["['a' 'b']", "['a'\n 'b']", "['it's', 'b']"])
def test_a_list_that_cannot_be_read_is_no_text(tmp_path, cell):
    with (tmp_path / "rows.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["query", "positive", "negatives"], ["what", "this one", cell]])
    [row] = read_pairs(tmp_path / "rows.csv")
    assert isinstance(row, Reject)
    assert "write lists as JSON" in row.reason


def test_code_in_json_is_no_list(tmp_path):
    path = lines(tmp_path / "rows.jsonl", {"query": "a list of two", "positive": "['a', 'b']"})
    assert list(read_pairs(path)) == [TrainingRow("a list of two", "['a', 'b']")]


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        ("Größe der Brücke, «Test», €5", "cp1252"),
        ("こんにちは世界、これは日本語の文章です。検索モデルを訓練します。", "shift_jis"),
        ("Привет, мир: это русский текст, в котором ищут данные", "cp1251"),
    ],
)
def test_the_encoding_is_offered_and_not_guessed(tmp_path, text, encoding):
    path = tmp_path / "rows.csv"
    path.write_bytes(("query;positive\n" + f"{text};{text}\n" * 20).encode(encoding))
    reject = next(iter(read_pairs(path)))
    assert isinstance(reject, Reject)
    offered = reject.reason.partition("`encoding: ")[2].partition("`")[0]
    row = next(iter(read_pairs(path, reading=Reading(encoding=offered))))
    assert isinstance(row, TrainingRow)
    assert row.query == text


def workbook(path, *sheets):
    book = openpyxl.Workbook()
    book.remove(book.active)
    for number, rows in enumerate(sheets):
        sheet = book.create_sheet(f"sheet {number}")
        for row in rows:
            sheet.append(row)
    book.save(path)
    return path


def test_excel_workbooks(tmp_path):
    rows = [["Query ", "Positive", None, "year"], ["what", "this one"], [None], ["q", 42, None, "#N/A"]]
    path = workbook(tmp_path / "rows.xlsx", [], rows, [["other"], ["sheet"]])
    assert list(read_pairs(path)) == [*ONE, TrainingRow("q", "42")]
    sentence = told(path)
    assert "columns that are not used: year." in sentence
    assert "rows.xlsx: sheet sheet 2" in sentence
    assert "1 texts are numbers" in sentence
    numbered = Reading(columns={"query": 1, "positive": 2})
    assert len(list(read_pairs(path, reading=numbered))) == 3


@pytest.mark.parametrize("content", [b"no workbook", b"PK\x03\x04 cut", b""])
def test_what_is_no_workbook_is_refused(tmp_path, content):
    (tmp_path / "rows.xlsx").write_bytes(content)
    with pytest.raises(BadData, match="Excel workbook"):
        list(read_pairs(tmp_path / "rows.xlsx"))


def test_old_spreadsheets_are_refused_with_the_remedy(tmp_path):
    (tmp_path / "rows.xls").write_bytes(b"\xd0\xcf\x11\xe0")
    with pytest.raises(BadData, match="save it as"):
        list(read_pairs(tmp_path / "rows.xls"))


def test_nested_squad(tmp_path):
    questions = [{"question": "what", "id": "1", "answers": []}, {"question": "q", "is_impossible": True}]
    article = {"title": "t", "paragraphs": [{"context": "this one", "qas": questions}]}
    path = tmp_path / "squad.json"
    path.write_text(json.dumps({"version": "2.0", "data": [article]}, indent=1))
    row, reject = read_pairs(path)
    assert row == ONE[0]
    assert isinstance(reject, Reject)
    assert "impossible" in reject.reason


@pytest.mark.parametrize("indent", [None, 2])
def test_queries_corpus_and_relevant_docs(tmp_path, indent):
    path = tmp_path / "set.json"
    values = {
        "queries": {"a": "what"},
        "corpus": {"1": "this one", "2": "another"},
        "relevant_docs": {"a": ["1"]},
    }
    path.write_text(json.dumps(values, indent=indent))
    assert list(read_pairs(path)) == [TrainingRow("what", "this one", query_id="a", positive_id="1")]
    assert len(read_retrieval(path).corpus) == 2, "documents that nobody asks for can be found, too"
    assert [found.name for found in read_corpus(path)] == ["1", "2"]
    values["relevant_docs"] = {"a": ["3"]}
    path.write_text(json.dumps(values, indent=indent))
    with pytest.raises(BadData, match="'3'"):
        list(read_pairs(path))


def test_files_beside_the_split_are_named(tmp_path):
    for name in ("train", "dev"):
        lines(tmp_path / f"{name}.jsonl", {"query": "what", "positive": "this one"})
    (tmp_path / "README.md").write_text("# about")
    assert "files that this job does not read: README.md, dev.jsonl." in told(tmp_path)


@pytest.mark.parametrize("word", ["NaN", "nan", "null", "NULL", "None", "N/A", "<NA>", " NaN "])
def test_words_for_no_value_in_a_table_are_no_texts(tmp_path, word):
    path = tmp_path / "rows.csv"
    path.write_text(f"query,positive,negative\na b,c d,{word}\ne f,{word},g\n")
    reading = Reading()
    good, bad = read_pairs(path, reading=reading)
    assert (good.positive, good.negatives) == ("c d", [])
    assert isinstance(bad, Reject)
    assert reading.counts[NO_VALUES] == 2
    said = [sentence for sentence, _ in reading.report.sentences("it", TEXT_ROLES)]
    assert any("2 cells of texts hold a word for no value" in line for line in said)


def test_they_are_texts_where_json_says_so(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"query": "python constant", "positive": "None"}\n')
    [row] = read_pairs(path)
    assert row.positive == "None"
