"""Every shape that data come in is read as what it is."""

import io
import json
import tarfile
import zipfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.data.fetching.hub import fetch_dataset
from core.data.io import json_lists
from core.data.io.archives import extract
from core.data.io.folders import files_of_split, split_files
from core.data.io.readers import read_rows
from core.data.retrieval_sets.judged_folders import read_judged
from core.data.rows.record import TrainingRow, parse_row
from core.data.rows.row import Reject, Row
from core.data.sources.formats import settle_format
from core.data.sources.retrieval import read_retrieval
from core.data.training_rows.pairs import Reading, read_pairs
from core.errors import BadData, InvalidRequest
from core.process.local import run_local
from core.runtime.reporter import RecordingReporter
from core.spec import parse_spec
from core.spec.parts.refs import parse_ref
from tests.data.running import facts, prepare, rows, write

PAIR = {"query": "what", "positive": "this"}


def one(values: dict) -> list[TrainingRow | Reject]:
    return list(parse_row(Row("f", 1, values)))


def test_flag_embedding_with_a_prompt():
    [row] = one(
        {
            "query": "what",
            "pos": ["this"],
            "neg": ["that", "those"],
            "pos_scores": [0.9],
            "neg_scores": [0.2, 0.1],
            "prompt": "Find it: ",
        }
    )
    assert row.query == "Find it: what"
    assert row.instruction == "Find it:"
    assert row.scores == [0.9, 0.2, 0.1]


def test_tevatron_with_passages():
    [row] = one(
        {
            "query_id": "7",
            "query": "what",
            "positive_passages": [{"docid": "a", "title": "T", "text": "this"}],
            "negative_passages": [
                {"docid": "b", "title": "", "text": "that"},
                {"docid": "c", "text": "T\nthis"},
            ],
        }
    )
    assert row == TrainingRow("what", "T\nthis", ["that"], query_id="7", positive_id="a", negative_ids=["b"])


def test_tevatron_with_ids_and_a_corpus(tmp_path):
    write(tmp_path / "corpus.jsonl", [{"docid": f"d{n}", "text": f"document {n}"} for n in range(5)])
    write(
        tmp_path / "train.jsonl",
        [
            {
                "query_id": "1",
                "query_text": "what",
                "positive_document_ids": ["d1"],
                "negative_document_ids": ["d3", "d9"],
            },
            {
                "query_id": "2",
                "query_text": "none",
                "positive_document_ids": ["gone"],
                "negative_document_ids": [],
            },
        ],
    )
    reading = Reading(corpus=tmp_path / "corpus.jsonl")
    row, reject = read_pairs(tmp_path / "train.jsonl", reading=reading)
    assert row == TrainingRow(
        "what", "document 1", ["document 3"], query_id="1", positive_id="d1", negative_ids=["d3"]
    )
    assert reject.reason == "there is no positive"
    assert reading.counts["mapped from an id"] == 2
    assert reading.counts["an id of no document"] == 2
    with pytest.raises(BadData, match="say where they are"):
        list(read_pairs(tmp_path / "train.jsonl"))


def test_difficulty_of_the_row_and_of_each_negative():
    assert one({**PAIR, "negatives": ["a", "b"], "difficulty": "hard"})[0].difficulty == ["hard", "hard"]
    [row] = one({**PAIR, "negatives": ["a", "this", "b"], "difficulty": ["easy", "hard", "medium"]})
    assert (row.negatives, row.difficulty) == (["a", "b"], ["easy", "medium"])
    [reject] = one({**PAIR, "negatives": ["a"], "difficulty": ["easy", "hard"]})
    assert "2 difficulties stand beside 1 negatives" in reject.reason


def test_ms_marco(tmp_path):
    (tmp_path / "collection.tsv").write_text('0\tfirst passage\n1\tsecond "passage" with a quote\n')
    (tmp_path / "queries.train.tsv").write_text("10\twhat is first\n11\twhat is second\n")
    (tmp_path / "queries.dev.small.tsv").write_text("12\twhat is left\n")
    (tmp_path / "qrels.train.tsv").write_text("10\t0\t0\t1\n11\t0\t1\t1\n")
    (tmp_path / "qrels.dev.small.tsv").write_text("12 0 1 1\n")
    found = [(row.query, row.positive) for row in read_pairs(tmp_path)]
    assert found == [("what is first", "first passage"), ("what is second", 'second "passage" with a quote')]
    assert read_judged(tmp_path, "dev.small").qrels == {"12": {"1": 1}}
    with pytest.raises(BadData, match=r"no split 'test'; it has dev\.small, train"):
        read_judged(tmp_path, "test")


def test_trec_with_tagged_documents_and_topics(tmp_path):
    (tmp_path / "docs.trec").write_text(
        "<DOC>\n<DOCNO> AP-1 </DOCNO>\n<TITLE>River</TITLE>\n<TEXT>\nWater\nflows.\n</TEXT>\n</DOC>\n"
        "<DOC>\n<DOCNO>AP-2</DOCNO>\n<TEXT>A hill &lt;stands&gt;.</TEXT>\n</DOC>\n"
    )
    (tmp_path / "topics.trec").write_text(
        "<top>\n<num> Number: 301\n<title> moving water\n<desc> Description:\nWhat moves?\n</top>\n"
    )
    (tmp_path / "qrels.txt").write_text("301 0 AP-1 2\n301 0 AP-2 0\n")
    found = read_judged(tmp_path, "test")
    assert found.queries == {"301": "moving water"}
    assert found.corpus["AP-1"] == "River\nWater flows."
    assert found.qrels == {"301": {"AP-1": 2, "AP-2": 0}}


def test_a_judged_set_keeps_ids_grades_and_splits(tmp_path):
    folder = tmp_path / "beir"
    (folder / "qrels").mkdir(parents=True)
    write(folder / "corpus.jsonl", [{"_id": f"d{n}", "title": "", "text": f"text {n}"} for n in range(3)])
    write(folder / "queries.jsonl", [{"_id": f"q{n}", "text": f"query {n}"} for n in range(3)])
    (folder / "qrels" / "train.tsv").write_text("query-id\tcorpus-id\tscore\nq0\td0\t1\n")
    (folder / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\nq1\td1\t2\nq1\td2\t0\n")
    result = prepare(tmp_path / "out", f"file:{folder}", task="retrieval")
    assert result.state == "succeeded", result.end_reason
    assert facts(tmp_path / "out")["splits"] == {"test": 2, "train": 1}
    dataset = tmp_path / "out" / "dataset"
    found = read_retrieval(dataset)
    assert (found.queries, found.qrels) == ({"q1": "query 1"}, {"q1": {"d1": 2, "d2": 0}})
    assert list(found.corpus) == ["d0", "d1", "d2"]
    [row] = read_pairs(dataset)
    assert (row.query, row.positive, row.positive_id) == ("query 0", "text 0", "d0")
    assert (
        prepare(tmp_path / "no", f"file:{folder}", task="retrieval", split={"test": 0.5}).end_reason.code
        == "bad_spec"
    )


def test_rows_as_a_retrieval_set(tmp_path):
    lines = [
        {"query": f"query {n // 2}", "positive": f"answer {n}", "negatives": ["no answer", f"answer {n}"]}
        for n in range(8)
    ]
    result = prepare(tmp_path / "out", f"file:{write(tmp_path / 'rows.jsonl', lines)}", task="retrieval")
    assert result.state == "succeeded", result.end_reason
    found = read_retrieval(tmp_path / "out" / "dataset")
    assert sorted(found.corpus.values()) == sorted([*(f"answer {n}" for n in range(8)), "no answer"])
    assert len(found.queries) == 4
    assert all(len(judged) == 2 for judged in found.qrels.values())


def test_what_datasets_saves(tmp_path):
    datasets = pytest.importorskip("datasets")
    lines = [{**PAIR, "query": f"query {n}"} for n in range(10)]
    both = datasets.DatasetDict(
        {"train": datasets.Dataset.from_list(lines), "test": datasets.Dataset.from_list(lines[:3])}
    )
    both.save_to_disk(str(tmp_path / "saved"), num_shards={"train": 2, "test": 1})
    assert len(list(read_pairs(tmp_path / "saved"))) == 10
    assert len(list(read_pairs(tmp_path / "saved", "test"))) == 3
    datasets.Dataset.from_list(lines[:4]).save_to_disk(str(tmp_path / "single"))
    assert [row.query for row in read_pairs(tmp_path / "single")] == [
        "query 0",
        "query 1",
        "query 2",
        "query 3",
    ]
    with pytest.raises(BadData, match="no split 'dev'; it has train, test"):
        list(read_pairs(tmp_path / "saved", "dev"))


def test_a_hubs_repository_of_parquet_shards(tmp_path):
    (tmp_path / "data").mkdir()
    for split, shards in (("train", 2), ("validation", 1)):
        for shard in range(shards):
            table = pa.Table.from_pylist([{**PAIR, "query": f"{split} {shard}"}])
            pa.parquet.write_table(table, tmp_path / "data" / f"{split}-{shard:05}-of-{shards:05}.parquet")
    (tmp_path / "README.md").write_text("# A dataset")
    assert list(split_files(tmp_path)) == ["train", "validation"]
    assert [path.name for path in files_of_split(tmp_path, None)] == [
        "train-00000-of-00002.parquet",
        "train-00001-of-00002.parquet",
    ]
    assert settle_format(tmp_path, "auto")[0] == "rows"
    assert [row.query for row in read_pairs(tmp_path, "validation")] == ["validation 0"]


def test_a_hub_dataset_is_kept_and_read(tmp_path, monkeypatch):
    datasets = pytest.importorskip("datasets")
    asked = []

    def load(name, config, **options):
        asked.append((name, config, options["split"], options["revision"]))
        return datasets.DatasetDict({"train": datasets.Dataset.from_list([PAIR])})

    monkeypatch.setattr(datasets, "load_dataset", load)
    ref = parse_ref("hf:some/where@v2:hq")
    folder = fetch_dataset(ref, tmp_path, offline=False)
    assert fetch_dataset(ref, tmp_path, offline=False) == folder
    assert asked == [("some/where", "hq", None, "v2")] * 2
    assert [row.query for row in read_pairs(folder)] == ["what"]


def test_a_hub_that_is_away_says_what_to_do(tmp_path):
    spec = {"kind": "prepare", "source": "hf:nobody/has-this-one:config"}
    result = run_local(spec, tmp_path / "out", RecordingReporter(), offline=True)
    assert "REASON_OFFLINE" in result.end_reason.message
    assert result.end_reason.code == "bad_data"
    assert "file:PATH" in result.end_reason.message


@pytest.mark.parametrize(
    "text",
    [
        json.dumps([PAIR, {**PAIR, "query": "second"}]),
        json.dumps([PAIR, {**PAIR, "query": "second"}], indent=2),
        json.dumps({"meta": {"n": 2}, "rows": [PAIR, {**PAIR, "query": "second"}]}, indent=1),
        json.dumps({"version": 1, "rows": [PAIR, {**PAIR, "query": "second"}]}),
        json.dumps(PAIR) + "\n" + json.dumps({**PAIR, "query": "second"}) + "\n",
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_json_of_every_layout_and_encoding(tmp_path, text, encoding):
    (tmp_path / "rows.json").write_bytes(text.encode(encoding))
    assert [row.query for row in read_pairs(tmp_path / "rows.json")] == ["what", "second"]


def test_a_json_list_that_breaks_off(tmp_path):
    (tmp_path / "rows.json").write_text(json.dumps([PAIR, PAIR])[:-20])
    with pytest.raises(BadData, match="after record 1"):
        list(read_pairs(tmp_path / "rows.json"))
    (tmp_path / "none.json").write_text('{\n"a": 1\n}')
    with pytest.raises(BadData, match="no list of objects"):
        list(read_pairs(tmp_path / "none.json"))
    (tmp_path / "numbers.json").write_text("[1, 2]")
    assert all(isinstance(row, Reject) for row in read_rows(tmp_path / "numbers.json"))


def test_an_encoding_that_was_said(tmp_path):
    (tmp_path / "rows.csv").write_bytes("query,positive\r\nWas heißt Größe?,Ausmaß\r\n".encode("cp1252"))
    result = prepare(tmp_path / "bad", f"file:{tmp_path / 'rows.csv'}")
    assert "`encoding: cp1252`" in result.end_reason.message
    source = {"ref": f"file:{tmp_path / 'rows.csv'}", "encoding": "cp1252"}
    assert prepare(tmp_path / "out", source).state == "succeeded"
    assert rows(tmp_path / "out")[0]["query"] == "Was heißt Größe?"


def tar_of(path: Path, entries: dict[str, bytes], change=lambda entry: None, mode="w:gz") -> Path:
    with tarfile.open(path, mode) as archive:
        for name, content in entries.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            change(entry)
            archive.addfile(entry, io.BytesIO(content))
    return path


def test_archives_are_sources(tmp_path):
    line = (json.dumps(PAIR) + "\n").encode()
    tar = tar_of(tmp_path / "a.tar.gz", {"top/in/rows.jsonl": line})
    assert prepare(tmp_path / "tar", f"file:{tar}").state == "succeeded"
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("rows.jsonl", line)
    assert prepare(tmp_path / "zip", f"file:{tmp_path / 'a.zip'}").state == "succeeded"


def link(entry: tarfile.TarInfo) -> None:
    entry.type, entry.linkname, entry.size = tarfile.SYMTYPE, "/etc/passwd", 0


@pytest.mark.parametrize(
    ("name", "change", "words"),
    [
        ("../out.txt", lambda entry: None, "leads out"),
        ("/etc/out.txt", lambda entry: None, "leads out"),
        ("a/../../out.txt", lambda entry: None, "leads out"),
        ("..\\out.txt", lambda entry: None, "leads out"),
        ("link", link, "no plain file"),
    ],
)
def test_an_archive_that_leads_out_is_refused(tmp_path, name, change, words):
    archive = tar_of(tmp_path / "a.tar", {name: b"x"}, change, "w")
    with pytest.raises(BadData, match=words):
        extract(archive, tmp_path / "in" / "folder")
    assert not (tmp_path / "out.txt").exists()
    assert not list((tmp_path / "in" / "folder").rglob("*out*"))


def test_a_bomb_is_stopped_before_it_is_large(tmp_path):
    tar = tar_of(tmp_path / "a.tar.gz", {"zeros": bytes(30_000_000)})
    assert tar.stat().st_size < 100_000
    with pytest.raises(BadData, match=r"more than 0\.0 GB"):
        extract(tar, tmp_path / "tar", most_bytes=1_000_000)
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("zeros", bytes(30_000_000))
    with pytest.raises(BadData, match=r"more than 0\.0 GB"):
        extract(tmp_path / "a.zip", tmp_path / "zip", most_bytes=1_000_000)
    assert sum(path.stat().st_size for path in tmp_path.rglob("zeros")) <= 2_000_000


def test_a_damaged_archive_says_so(tmp_path):
    tar = tar_of(tmp_path / "a.tar.gz", {"rows.jsonl": json.dumps(PAIR).encode() * 1000})
    tar.write_bytes(tar.read_bytes()[:100])
    for name, content in (("a.tar.gz", tar.read_bytes()), ("b.zip", b"no zip"), ("c.tar", b"")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(BadData, match=r"archive|empty"):
            extract(tmp_path / name, tmp_path / f"out-{name}")


def test_licences_of_prepared_sources_are_carried(tmp_path):
    source = write(tmp_path / "rows.jsonl", [PAIR, {**PAIR, "query": "other"}])
    assert prepare(tmp_path / "one", f"file:{source}", licence="CC BY 4.0").state == "succeeded"
    assert prepare(tmp_path / "two", f"file:{tmp_path / 'one' / 'dataset'}").state == "succeeded"
    assert facts(tmp_path / "two")["licence"] == "CC BY 4.0"


@given(
    values=st.lists(
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats(-1e9, 1e9) | st.text(),
            lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
            max_leaves=12,
        ),
        max_size=8,
    ),
    indent=st.sampled_from([None, 1]),
    within=st.booleans(),
    block=st.integers(1, 40),
)
@settings(max_examples=150)
def test_json_lists_are_what_json_reads(values, indent, within, block):
    held = {"a": {"b": [1]}, "n": -12.5e3, "rows": values, "z": 1} if within else values
    text = json.dumps(held, indent=indent)
    expected = [value for value in values if isinstance(value, dict)] if within else values
    before, json_lists._BLOCK = json_lists._BLOCK, block
    try:
        if within and not expected:
            with pytest.raises(ValueError, match="no list of objects"):
                list(json_lists.read_list(io.StringIO(text)))
        else:
            assert list(json_lists.read_list(io.StringIO(text))) == expected
    finally:
        json_lists._BLOCK = before


@pytest.mark.parametrize(
    "text", ["[1, 2", "[1 2]", "[1,]", '{"a": [1}', '{"a": 1', "[" * 100_000, '{"a": 1}', "[nope]", "[1] 2"]
)
def test_broken_json_lists(text):
    with pytest.raises(ValueError):
        list(json_lists.read_list(io.StringIO(text)))


def test_all_lists_of_an_object_are_read(tmp_path):
    held = {"one": [PAIR], "words": ["a", "b"], "two": [{**PAIR, "query": "second"}]}
    (tmp_path / "rows.json").write_text(json.dumps(held, indent=1))
    assert [row.query for row in read_pairs(tmp_path / "rows.json")] == ["what", "second"]


def test_columns_of_time_and_broken_text_lose_no_other_rows(tmp_path):
    text = pa.array([b"what", b"\xff\xfe", b"third"], pa.binary()).view(pa.string())
    when = pa.array([2**62] * 3, pa.timestamp("us"))
    table = pa.table({"query": text, "positive": ["a", "b", "c"], "when": when})
    pa.parquet.write_table(table, tmp_path / "rows.parquet")
    first, bad, third = read_pairs(tmp_path / "rows.parquet")
    assert (first.query, third.query) == ("what", "third")
    assert (bad.line, "utf-8" in bad.reason) == (2, True)


@pytest.mark.parametrize("encoding", ["base64", "punycode", "undefined", "rot13", "nothing"])
def test_what_is_no_encoding_of_text(encoding):
    with pytest.raises(InvalidRequest, match="encoding"):
        parse_spec({"kind": "prepare", "source": {"ref": "file:x", "encoding": encoding}})


def test_utf_16_without_a_mark(tmp_path):
    (tmp_path / "rows.csv").write_bytes("query,positive\nGröße,Maß\n".encode("utf-16-le"))
    source = {"ref": f"file:{tmp_path / 'rows.csv'}", "encoding": "utf-16"}
    assert prepare(tmp_path / "out", source).state == "succeeded"


def test_csv_of_half_of_the_world(tmp_path):
    (tmp_path / "rows.csv").write_text("\nquery;positive\na;b, c\n")
    assert [(row.query, row.positive) for row in read_pairs(tmp_path / "rows.csv")] == [("a", "b, c")]
    (tmp_path / "twice.csv").write_text("query,positive,positive\na,b,c\n")
    with pytest.raises(BadData, match="positive comes twice"):
        list(read_pairs(tmp_path / "twice.csv"))


def test_an_endless_line(tmp_path, monkeypatch):
    monkeypatch.setattr("core.data.io.readers._LONGEST_LINE", 1000)
    write(tmp_path / "rows.jsonl", [PAIR, {**PAIR, "query": "x" * 2000}])
    with pytest.raises(BadData, match="longer than"):
        list(read_pairs(tmp_path / "rows.jsonl"))


@pytest.mark.parametrize("first", ['{"no": "json"', json.dumps({"query": ["", "q"], "pos": []})])
def test_one_odd_record_does_not_decide_the_shape(tmp_path, first):
    good = {"query": ["", "what"], "pos": [["", "this is a text"], ["", "label"]], "neg": []}
    write(tmp_path / "vl.jsonl", [first, good])
    reading = Reading()
    found = list(read_pairs(tmp_path / "vl.jsonl", reading=reading))
    assert [row.positive for row in found if isinstance(row, TrainingRow)] == ["this is a text"]
    assert reading.counts["positive: a label of one word"] == 1


@pytest.mark.parametrize(
    ("line", "words"),
    [("q0\td0\tinf", "line 2"), ("q0\td0\t0.5", "line 2"), ("q0 d0", "line 2")],
)
def test_judgments_that_are_none(tmp_path, line, words):
    write(tmp_path / "corpus.jsonl", [{"_id": "d0", "text": "text"}])
    write(tmp_path / "queries.jsonl", [{"_id": "q0", "text": "query"}])
    (tmp_path / "qrels.test.tsv").write_text(f"query-id\tcorpus-id\tscore\n{line}\n")
    with pytest.raises(BadData, match=words):
        read_judged(tmp_path, "test")
    (tmp_path / "qrels.test.tsv").write_text(f"{line}\n")
    with pytest.raises(BadData, match="line 1"):
        read_judged(tmp_path, "test")


def test_a_format_that_it_is_not(tmp_path):
    source = {"ref": f"file:{write(tmp_path / 'rows.jsonl', [PAIR])}", "format": "beir"}
    assert "is not beir" in prepare(tmp_path / "out", source).end_reason.message


def test_a_judged_sets_bad_records_are_counted_and_its_encoding_heard(tmp_path):
    text = "\n".join(
        [
            json.dumps({"_id": "d0", "text": "Größe"}, ensure_ascii=False),
            "{broken",
            json.dumps({"_id": "d1", "text": "one"}),
            json.dumps({"_id": "d1", "text": "another one"}),
        ]
    )
    (tmp_path / "corpus.jsonl").write_bytes(text.encode("latin-1"))
    write(tmp_path / "queries.jsonl", [{"_id": "q0", "text": "query"}, {"_id": "q1", "text": "other"}])
    (tmp_path / "qrels.train.tsv").write_text("q0\td0\t1\nq1\td1\t1\nq1\tgone\t1\n")
    (tmp_path / "qrels.test.tsv").write_text("q0\td0\t1\n")
    source = {"ref": f"file:{tmp_path}", "encoding": "latin-1"}
    result = prepare(tmp_path / "out", source, max_reject_share=0.9)
    assert result.state == "succeeded", result.end_reason
    page = facts(tmp_path / "out")
    assert (page["kept"], page["unreadable"]) == (2, 2)
    assert page["pairs"] == {"ids with several texts": 1}
    assert {row["positive"] for row in rows(tmp_path / "out")} == {"Größe", "one"}
    assert "corpus.jsonl, line 2" in prepare(tmp_path / "no", source, task="retrieval").end_reason.message
