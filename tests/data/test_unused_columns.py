"""Every reader and every kind of job names the columns and files that it does not use."""

import csv
import json

import openpyxl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from core.data.documents.passages import AS_WRITTEN, read_passages
from core.data.retrieval_sets.judged_folders import is_judged
from core.data.rows.reading import TEXT_ROLES, Reading
from core.data.sources.corpus import CORPUS_ROLES, read_corpus
from core.data.sources.formats import settle_format
from core.data.sources.retrieval import read_retrieval
from core.data.training_rows.dataset import SCHEMA
from core.data.training_rows.page import DatasetPage
from core.data.training_rows.pairs import read_pairs
from core.jobs.events import EventType
from tests.training.running import of, run

EXTRA = "zzz_extra"
ROWS = [
    {"query": f"what is {number}", "positive": f"this is document {number}", EXTRA: "x", "url": "u"}
    for number in range(8)
]
NAMES = ["query", "positive", EXTRA, "url"]


def table(folder, ending):
    path = folder / f"rows.{ending}"
    values = [[row[name] for name in NAMES] for row in ROWS]
    if ending in ("csv", "tsv"):
        with path.open("w", newline="") as file:
            csv.writer(file, delimiter="," if ending == "csv" else "\t").writerows([NAMES, *values])
    elif ending == "xlsx":
        book = openpyxl.Workbook()
        for row in [NAMES, *values]:
            book.active.append(row)
        book.save(path)
    elif ending == "parquet":
        pq.write_table(pa.Table.from_pylist(ROWS), path)
    elif ending == "arrow":
        found = pa.Table.from_pylist(ROWS)
        with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_stream(sink, found.schema) as writer:
            writer.write_table(found)
    elif ending == "json":
        path.write_text(json.dumps(ROWS))
    else:
        path.write_text("\n".join(map(json.dumps, ROWS)))
    return path


def squad(folder):
    questions = [{"question": row["query"], "answers": [], EXTRA: 1} for row in ROWS]
    paragraph = {"context": "this is it", "qas": questions}
    path = folder / "squad.json"
    path.write_text(json.dumps({"data": [{"title": "t", "paragraphs": [paragraph]}]}))
    return path


def beir(folder):
    (folder / "set" / "qrels").mkdir(parents=True)
    texts = [{"_id": f"d{n}", "text": f"this is document {n}", EXTRA: 1} for n in range(8)]
    queries = [{"_id": f"q{n}", "text": f"what is {n}", "metadata": {}} for n in range(8)]
    for name, rows in (("corpus", texts), ("queries", queries)):
        (folder / "set" / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    lines = ["query-id\tcorpus-id\tscore", *(f"q{n}\td{n}\t1" for n in range(8))]
    for split in ("train", "test"):
        (folder / "set" / "qrels" / f"{split}.tsv").write_text("\n".join(lines))
    return folder / "set"


def prepared(folder):
    (folder / "made").mkdir()
    rows = [{"query": row["query"], "positive": row["positive"], "category": EXTRA} for row in ROWS]
    for split in ("train", "test"):
        pq.write_table(pa.Table.from_pylist(rows, schema=SCHEMA), folder / "made" / f"{split}.parquet")
    DatasetPage(type="triplets", splits={"train": 8, "test": 8}).write(folder / "made")
    return folder / "made"


def chunks(folder):
    path = folder / "chunks.jsonl"
    rows = [{"text": f"this is document {n}", "title": f"title {n}", EXTRA: 1} for n in range(8)]
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


def by_ids(folder):
    (folder / "scored").mkdir()
    for name, key in (("queries", "query_id"), ("documents", "document_id")):
        rows = [{key: str(n), "text": f"{name} {n}", EXTRA: 1} for n in range(8)]
        (folder / "scored" / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    rows = [{"query_id": str(n), "document_ids": ["1", "2"], "scores": [1, 0], EXTRA: 1} for n in range(8)]
    (folder / "scored" / "train.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return folder / "scored"


ENDINGS = ("jsonl", "json", "csv", "tsv", "xlsx", "parquet", "arrow")
SOURCES = {
    **{ending: (lambda folder, ending=ending: table(folder, ending)) for ending in ENDINGS},
    "squad": squad,
    "beir": beir,
    "by_ids": by_ids,
}


def told(reading: Reading, roles) -> str:
    return " ".join(sentence for sentence, _ in reading.report.sentences("it", roles))


@pytest.mark.parametrize("source", SOURCES)
def test_readers_of_rows(tmp_path, source):
    reading = Reading()
    assert list(read_pairs(SOURCES[source](tmp_path), reading=reading))
    assert EXTRA in told(reading, TEXT_ROLES)


@pytest.mark.parametrize("source", [name for name in SOURCES if name != "by_ids"])
def test_readers_of_sets_to_rank(tmp_path, source):
    path = SOURCES[source](tmp_path)
    reading = Reading("test" if is_judged(path) else None)
    assert read_retrieval(path, reading=reading).queries
    assert EXTRA in told(reading, TEXT_ROLES)


@pytest.mark.parametrize("source", [*(name for name in SOURCES if name != "by_ids"), "chunks"])
def test_readers_of_corpora(tmp_path, source):
    reading = Reading()
    path = chunks(tmp_path) if source == "chunks" else SOURCES[source](tmp_path)
    assert list(read_corpus(path, reading=reading))
    assert EXTRA in told(reading, CORPUS_ROLES)


def test_readers_of_passages(tmp_path):
    reading = Reading()
    form, path = settle_format(chunks(tmp_path), "auto")
    assert list(read_passages(path, form, None, AS_WRITTEN, reading))
    assert EXTRA in told(reading, ())


def test_other_files_of_a_tree_of_documents(tmp_path):
    for name in ("a.md", "b.md", "picture.png", "sub/other.png", "paper.pdf"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("# Title\n\nA text about rivers.")
    reading = Reading(columns={"query": "x"})
    assert list(read_passages(tmp_path, "markdown", None, AS_WRITTEN, reading))
    sentences = told(reading, ())
    assert "files that this job does not read: 2 .png, 1 .pdf." in sentences
    assert "columns have no effect" in sentences


def test_prepared_datasets(tmp_path):
    reading = Reading()
    assert list(read_pairs(prepared(tmp_path), reading=reading))
    sentence = told(reading, TEXT_ROLES)
    assert "category" in sentence
    assert "query_id" not in sentence, "preparation adds ids to every row"


KINDS = {
    "train": {"dataset": "{}", "base_model": "MODEL", "batch_size": 4, "max_steps": 1},
    "mine": {"dataset": "{}", "model": "bm25", "num_negatives": 1, "filters": {"positive_aware": None}},
    "evaluate": {"datasets": ["{}"], "models": ["bm25"], "metrics": ["ndcg@10"]},
    "embed": {"corpus": "{}", "model": "MODEL"},
    "prepare": {"source": "{}"},
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_names_the_column(tmp_path, tiny_model, kind):
    path = table(tmp_path, "csv")
    text = json.dumps({"kind": kind, **KINDS[kind]})
    spec = json.loads(text.replace("{}", f"file:{path}").replace("MODEL", f"file:{tiny_model}"))
    result, events = run(spec, tmp_path / "out")
    assert result.state == "succeeded", result.end_reason
    notices = [data["message"] for data in of(events, EventType.NOTICE)]
    [notice] = [text for text in notices if EXTRA in text]
    assert "url" in notice
    if kind == "embed":
        assert "query" in notice
