"""Datasets over HTTP: sent, refused, listed, looked into."""

import gzip
import io
import json
import tarfile
import threading
import zipfile
from urllib.parse import quote

import openpyxl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from fastapi.testclient import TestClient

from api.app import create_app
from core.process.local import run_local
from core.runtime.reporter import RecordingReporter
from core.settings import Settings
from migrations import upgrade

ROWS = [{"query": f"query {n}", "positive": f"answer {n}", "negatives": ["no"]} for n in range(30)]


def lines(rows) -> bytes:
    return "".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows).encode()


def send(http: TestClient, body: bytes, name: str = "mine", **params):
    return http.post("/datasets", params={"name": name, **params}, content=body)


def test_rows_are_sent_listed_and_looked_into(http):
    answer = send(http, lines(ROWS))
    assert answer.status_code == 201, answer.text
    made = answer.json()
    assert answer.headers["Location"] == f"/datasets/{made['id']}"
    assert (made["kind"], made["name"], made["version"], made["job_id"]) == ("dataset", "mine", 1, None)
    assert made["metadata"]["splits"] == {"train": 30}
    assert made["metadata"]["columns"] == ["query", "positive", "negatives"]
    assert made["metadata"]["statistics"]["characters"]["query"]["longest"] == len("query 29")
    assert [item["id"] for item in http.get("/datasets").json()["items"]] == [made["id"]]
    for name in (made["id"], "mine", "mine@1"):
        assert http.get(f"/datasets/{name}").json()["id"] == made["id"]
    shown = http.get("/datasets/mine/preview", params={"limit": 2}).json()
    assert shown == {"split": "train", "splits": ["train"], "items": ROWS[:2]}
    assert http.get("/datasets/mine/preview", params={"split": "dev"}).status_code == 404
    assert http.get("/datasets/other").status_code == 404
    body = http.get(f"/artifacts/{made['id']}/files/data.jsonl").content
    assert body == lines(ROWS)


def test_the_same_content_is_kept_once(http, settings):
    first = send(http, lines(ROWS)).json()
    again = send(http, lines(ROWS))
    assert (again.status_code, again.json()["id"]) == (200, first["id"])
    other = send(http, lines(ROWS), "other").json()
    assert (other["id"] != first["id"], other["sha256"]) == (True, first["sha256"])
    changed = send(http, lines(ROWS[:5])).json()
    assert (changed["version"], changed["sha256"] != first["sha256"]) == (2, True)
    assert http.get("/datasets/mine").json()["id"] == changed["id"]
    kept = list((settings.data_dir / "artifacts" / "dataset").rglob("data.jsonl"))
    assert len(kept) == 2


def test_bad_rows_are_answered_with_their_lines(http):
    body = lines([*ROWS, "{broken", {"query": "no positive"}, *ROWS])
    answer = send(http, body)
    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"
    errors = answer.json()["errors"]
    assert [item["path"] for item in errors] == ["data.jsonl, line 31", "data.jsonl, line 32"]
    assert "not JSON" in errors[0]["message"]
    assert http.get("/datasets").json()["items"] == []
    assert send(http, body, max_reject_share=0.1).json()["metadata"]["rejected"] == 2


def tar_of(entries: dict[str, bytes], kind: bytes = tarfile.REGTYPE) -> bytes:
    """Without the time in it, which would be in the ids of tests."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as archive:
        for name, content in entries.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.type = len(content), kind
            entry.linkname = "/etc/passwd" if kind != tarfile.REGTYPE else ""
            archive.addfile(entry, io.BytesIO(content))
    return gzip.compress(made.getvalue(), mtime=0)


def parquet(column: str) -> bytes:
    made = io.BytesIO()
    table = pa.table({"query": ["q"], "positive": ["p"], column: [1]})
    pq.write_table(table, made)
    return made.getvalue()


def beir(qrels: str = "q0\td0\t1\n") -> dict[str, bytes]:
    return {
        "set/corpus.jsonl": lines([{"_id": f"d{n}", "title": "", "text": f"text {n}"} for n in range(3)]),
        "set/queries.jsonl": lines([{"_id": "q0", "text": "query"}]),
        "set/qrels/test.tsv": f"query-id\tcorpus-id\tscore\n{qrels}".encode(),
    }


def test_a_beir_folder_in_an_archive(http):
    made = send(http, tar_of(beir())).json()
    assert (made["metadata"]["format"], made["metadata"]["splits"]) == ("judged", {"test": 1})
    assert {file["path"] for file in made["files"]} >= {"corpus.jsonl", "queries.jsonl", "qrels/test.tsv"}
    answer = send(http, tar_of(beir("q0\td0\t1\nq0\tgone\t1\n")))
    assert answer.status_code == 422
    assert answer.json()["errors"][0] == {
        "path": "test.tsv, line 3",
        "message": "document 'gone' is not there, or empty",
    }


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (tar_of({"../../out.jsonl": b"{}"}), "leads out"),
        (tar_of({"/etc/out.jsonl": b"{}"}), "leads out"),
        (tar_of({"link": b""}, tarfile.SYMTYPE), "no plain file"),
        (tar_of({"rows.jsonl": lines(ROWS)})[:200], "archive"),
        (b"PK\x03\x04 no zip", "archive"),
        (b"PAR1 no parquet", "Parquet"),
        (gzip.compress(lines(ROWS), mtime=0)[:60], "damaged"),
        (lines([{**ROWS[0], "category": "\ud800"}]), "not valid Unicode"),
        (lines([{**ROWS[0], "scores": [10**400, 1]}]), "a score is a number"),
        (lines([{"text": "a chunk of text", "queries": 5}]), "queries are a list"),
        ((json.dumps(ROWS[0]) + "\n").encode("utf-16") + b"\x00", "not the text"),
        (tar_of({"dataset.json": b'{"format": 1, "type": "triplets", "splits": [1]}'}), "not the page"),
        (tar_of({"x" * 400 + ".jsonl": lines(ROWS)}), "too long"),
        (tar_of({"a\udcff.jsonl": lines(ROWS)}), "Unicode"),
        (tar_of({"a\n.jsonl": lines(ROWS)}), "control character"),
        (lines([{**ROWS[0], "\ud800": 1}]), "the name of column"),
        (lines([{**ROWS[0], "a\0": 1}]), "NUL"),
        (json.dumps([{**ROWS[0], "\udfff": 1}]).encode(), "the name of column"),
        (lines([{"text": "a chunk", "\ud800": 1}]), "the name of column"),
        (b"query,positive,\xff\na,b,c\n", "is not UTF-8"),
        (parquet("NAME").replace(b"NAME", b"N\xff\xfeE"), "Parquet"),
        (parquet("a\0"), "the name of column"),
        (("---\ntitle: " + "[" * 200_000 + "\n---\n# T\n\n").encode(), "none of JSONL"),
        (b"just some words", "none of JSONL"),
        (b"\x00\x01\x02\x03", "none of JSONL"),
        (b"{}\n" * 3, "no query column"),
        (b"[" * 100_000, "JSON"),
    ],
)
def test_what_cannot_be_used_is_refused_whole(http, settings, body, words):
    answer = send(http, body)
    assert answer.status_code == 422, answer.text
    assert words in answer.json()["detail"] + json.dumps(answer.json()["errors"])
    assert http.get("/datasets").json()["items"] == []
    assert list((settings.data_dir / "uploads").iterdir()) == []


def test_limits(settings: Settings):
    upgrade(settings.database_url)
    small = settings.model_copy(update={"max_upload_bytes": 20_000})
    with TestClient(create_app(small), raise_server_exceptions=False) as http:
        assert send(http, lines(ROWS * 100)).status_code == 413
        # A body whose size nobody tells is counted as it comes.
        stream = http.post("/datasets?name=x", content=iter([lines(ROWS)] * 50))
        assert stream.status_code == 413
        bomb = send(http, tar_of({"rows.jsonl": b" " * 5_000_000}))
        assert (bomb.status_code, "unpacks to more" in bomb.text) == (413, True)
        assert send(http, b"").status_code == 400
        packed = gzip.compress(lines([{**ROWS[0], "more": " " * 5_000_000}]))
        assert len(packed) < 20_000
        assert send(http, packed).status_code == 413
        assert list((settings.data_dir / "uploads").iterdir()) == []
        assert send(http, lines(ROWS)).status_code == 201


@pytest.mark.parametrize(
    ("name", "header"),
    [
        ("plain name.md", 'attachment; filename="plain name.md"'),
        ("日本.md", "attachment; filename=\"__.md\"; filename*=UTF-8''%E6%97%A5%E6%9C%AC.md"),
        ('a"; x.md', "attachment; filename=\"a__ x.md\"; filename*=UTF-8''a%22%3B%20x.md"),
    ],
)
def test_files_of_any_name_come_back(http, name, header):
    page = b"# Title\n\nWords that stand in the page.\n"
    made = send(http, tar_of({name: page, "other.md": page})).json()
    answer = http.get(f"/artifacts/{made['id']}/files/{quote(name)}")
    assert (answer.content, answer.headers["content-disposition"]) == (page, header)


def test_a_form_is_told_how_to_send(http):
    answer = http.post("/datasets?name=x", files={"file": ("rows.jsonl", lines(ROWS))})
    assert answer.status_code == 400
    assert "--data-binary" in answer.json()["detail"]


def test_a_zip_and_a_zst(http, tmp_path):
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        archive.writestr("top/train.jsonl", lines(ROWS))
    assert send(http, made.getvalue()).json()["metadata"]["splits"] == {"train": 30}
    tar = gzip.decompress(tar_of({"train.jsonl": lines(ROWS)}))
    assert send(http, zstandard.compress(tar), "zst").status_code == 201
    with zipfile.ZipFile(made, "a") as archive:
        archive.writestr("../out.jsonl", lines(ROWS))
    assert "leads out" in send(http, made.getvalue()).text


def test_a_page_that_would_nest_without_end_does_no_harm(http):
    body = ("---\ntitle: " + "[" * 200_000 + "\n---\n# Title\n\nWords that stand in the page.\n").encode()
    assert send(http, body, filename="deep.md").status_code == 201


@pytest.mark.parametrize(
    "params", [{}, {"name": ""}, {"name": "../x"}, {"name": "a/b"}, {"name": "x" * 300}, {"name": "art_1"}]
)
def test_a_name_is_needed(http, params):
    assert http.post("/datasets", params=params, content=lines(ROWS)).status_code == 422


def test_many_at_once_make_one(http):
    answers = []
    threads = [threading.Thread(target=lambda: answers.append(send(http, lines(ROWS)))) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answer.status_code for answer in answers) == [200] * 5 + [201]
    assert len({answer.json()["id"] for answer in answers}) == 1


@pytest.mark.parametrize(
    ("body", "filename", "form"),
    [
        (b"query,positive\na,b\n", None, "data.csv"),
        (b"query\tpositive\na\tb\n", None, "data.tsv"),
        (json.dumps(ROWS).encode(), None, "data.json"),
        (gzip.compress(lines(ROWS), mtime=0), None, "data.jsonl.gz"),
        (lines(ROWS), "My Rows.v2.JSONL", "data.jsonl"),
        (b"# Title\n\nWords of a document that is long enough.\n", "page.md", "data.md"),
        (lines([{"text": "a chunk", "title": "T"}]), None, "data.jsonl"),
    ],
)
def test_what_it_is_is_seen(http, body, filename, form):
    answer = send(http, body, **({"filename": filename} if filename else {}))
    assert answer.status_code == 201, answer.text
    assert form in {file["path"] for file in answer.json()["files"]}


def test_rows_that_name_documents_are_taken_for_what_they_are(http):
    from tests.data.reasonir_mini import HQ

    answer = send(http, lines(HQ))
    assert answer.status_code == 201, answer.text
    assert answer.json()["metadata"]["splits"] == {"train": len(HQ)}
    tevatron = {
        "query_id": "1",
        "query_text": "q",
        "positive_document_ids": ["d"],
        "negative_document_ids": [],
    }
    assert send(http, lines([tevatron] * 3)).json()["metadata"]["splits"] == {"train": 3}


def test_a_sent_dataset_can_be_named_in_a_job(http):
    made = send(http, lines(ROWS)).json()
    for reference in (f"dataset:{made['id']}", "dataset:mine", "dataset:mine@1"):
        job = http.post("/jobs", json={"kind": "prepare", "source": reference})
        assert job.status_code == 201, job.text
        assert job.json()["inputs"][reference]["artifact"] == made["id"]
    assert http.post("/jobs", json={"kind": "prepare", "source": "dataset:mine@2"}).status_code == 404
    job = http.post("/jobs", json={"kind": "mine", "dataset": "dataset:mine", "model": "bm25"})
    assert job.status_code == 201, job.text
    assert job.json()["inputs"]["dataset:mine"]["artifact"] == made["id"]
    answer = http.post("/jobs", json={"kind": "mine", "dataset": "dataset:mine", "model": "no model"})
    assert [item["path"] for item in answer.json()["errors"]] == ["model"]


NO_HEADER = "".join(f"où est le café {n}\tà gauche {n}\tpas là\tplus loin\n" for n in range(30)).encode(
    "cp1252"
)
NUMBERED = ["query:1", "positive:2", "negatives:3", "negatives:4"]


def kept_folder(settings: Settings):
    [reading] = settings.data_dir.rglob(".reading.json")
    return reading.parent


def test_a_file_of_another_form_is_read_as_its_sender_says(http, settings, tmp_path):
    refused = send(http, NO_HEADER, filename="rows.tsv")
    assert refused.status_code == 422
    assert "(for an upload: encoding=NAME)" in refused.json()["detail"]
    assert "looks like cp125" in refused.json()["detail"]
    refused = send(http, NO_HEADER, filename="rows.tsv", encoding="cp1252")
    assert "columns: {query: 1, positive: 2" in refused.json()["detail"]
    assert "(for an upload: columns=query:NAME&columns=positive:NAME)" in refused.json()["detail"]
    answer = send(http, NO_HEADER, filename="rows.tsv", encoding="cp1252", columns=NUMBERED)
    assert answer.status_code == 201, answer.text
    assert answer.json()["metadata"]["splits"] == {"train": 30}
    assert answer.json()["metadata"]["reading"] == {
        "columns": {"query": 1, "positive": 2, "negatives": [3, 4]},
        "encoding": "cp1252",
    }
    shown = http.get("/datasets/mine/preview", params={"limit": 1}).json()["items"]
    assert shown == [{"1": "où est le café 0", "2": "à gauche 0", "3": "pas là", "4": "plus loin"}]

    told = RecordingReporter()
    source = f"file:{kept_folder(settings)}"
    result = run_local({"kind": "prepare", "source": source, "dedup": {"near": None}}, tmp_path / "out", told)
    assert result.state == "succeeded", result.end_reason
    made = pq.read_table(tmp_path / "out" / "dataset" / "train.parquet").to_pylist()
    assert (len(made), made[0]["query"], made[0]["negatives"]) == (
        30,
        "où est le café 0",
        ["pas là", "plus loin"],
    )
    said = [event.data.message for event in told.events if event.type == "notice"]
    assert any("read as it was sent, with columns {query: 1, positive: 2" in line for line in said), said


def test_what_a_job_says_of_a_sent_file_counts(http, settings, tmp_path):
    table = "title,body,summary\n" + "".join(f"t {n},b {n},s {n}\n" for n in range(5))
    sent = send(http, table.encode(), filename="a.csv", columns=["query:title", "positive:body"])
    assert sent.status_code == 201, sent.text
    source = {"ref": f"file:{kept_folder(settings)}", "columns": {"query": "title", "positive": "summary"}}
    run_local({"kind": "prepare", "source": source}, tmp_path / "out", RecordingReporter())
    made = pq.read_table(tmp_path / "out" / "dataset" / "train.parquet").to_pylist()
    assert {row["positive"] for row in made} == {f"s {n}" for n in range(5)}


def test_other_columns_are_another_version(http):
    table = b"title,body,summary\nt,b,s\nu,c,x\n"
    first = send(http, table, filename="a.csv", columns=["query:title", "positive:body"])
    again = send(http, table, filename="a.csv", columns=["query:title", "positive:body"])
    other = send(http, table, filename="a.csv", columns=["query:title", "positive:summary"])
    assert [answer.status_code for answer in (first, again, other)] == [201, 200, 201]
    assert [answer.json()["version"] for answer in (first, again, other)] == [1, 1, 2]


def test_a_downloaded_dataset_is_sent_again_with_its_reading(http, settings):
    table = b"title,body\nt,b\nu,c\n"
    first = send(http, table, filename="a.csv", columns=["query:title", "positive:body"]).json()
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for name in ("a.csv", ".reading.json"):
            source = next(kept_folder(settings).glob(name.replace("a.csv", "data.csv")))
            archive.add(source, arcname=name.replace("a.csv", "data.csv"))
    again = send(http, packed.getvalue(), "again", filename="a.tar")
    assert again.status_code == 201, again.text
    assert again.json()["metadata"]["reading"] == first["metadata"]["reading"]
    assert again.json()["sha256"] == first["sha256"]


@pytest.mark.parametrize(
    ("params", "words"),
    [
        ({"columns": ["question:title"]}, "question"),
        ({"columns": ["query"]}, "role:NAME"),
        ({"columns": ["query:a", "query:b"]}, "only negatives"),
        ({"columns": ["query:1", "positive:b"]}, "all by number"),
        ({"columns": ["query:nowhere", "positive:positive"]}, "nowhere"),
        ({"encoding": "latin-99"}, "latin-99"),
    ],
)
def test_options_that_cannot_be_are_refused(http, params, words):
    answer = send(http, lines(ROWS), **params)
    assert answer.status_code == 422, answer.text
    assert words in answer.text


def test_columns_of_what_has_none_are_refused(http):
    answer = send(http, b"# A\n\ntext\n", filename="a.md", columns=["query:title"])
    assert answer.status_code == 422
    assert "columns would have no effect: this is a tree of documents" in answer.json()["detail"]


SET = {
    "queries": {"q1": "what is a river", "q2": "what is a hill"},
    "corpus": {f"d{n}": f"text number {n} of a river or a hill" for n in range(9)},
    "relevant_docs": {"q1": {"d1": 2, "d2": 1, "d3": 0}, "q2": ["d4"]},
}


def evaluated(reference: str, out) -> dict:
    spec = {"kind": "evaluate", "models": ["bm25"], "datasets": [reference], "metrics": ["ndcg@10"]}
    result = run_local(spec, out, RecordingReporter())
    assert result.state == "succeeded", result.end_reason
    return result.metrics


@pytest.mark.parametrize("indent", [None, 2])
def test_a_set_in_one_json_is_the_same_as_file_dataset_and_prepared(http, settings, tmp_path, indent):
    """All of its documents are ranked, with its grades, wherever it lies."""
    file = tmp_path / "set.json"
    file.write_text(json.dumps(SET, indent=indent))
    sent = send(http, file.read_bytes())  # without a name of a file
    assert sent.status_code == 201, sent.text
    assert sent.json()["metadata"]["splits"] == {"train": 3}
    [kept] = [path for path in settings.data_dir.rglob("data.json") if path.is_file()]
    prepared = run_local(
        {"kind": "prepare", "source": f"file:{file}", "task": "retrieval"},
        tmp_path / "prepared",
        RecordingReporter(),
    )
    assert prepared.state == "succeeded", prepared.end_reason
    corpus = pq.read_table(tmp_path / "prepared" / "dataset" / "corpus.parquet").to_pylist()
    assert {row["id"]: row["text"] for row in corpus} == SET["corpus"]
    places = {"file": file, "dataset": kept.parent, "prepared": tmp_path / "prepared" / "dataset"}
    found = {name: evaluated(f"file:{path}", tmp_path / f"run-{name}") for name, path in places.items()}
    scores = [{value for key, value in metrics.items() if "ndcg" in key} for metrics in found.values()]
    assert scores[0] == scores[1] == scores[2], found
    assert scores[0] != {1.0}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"relevant_docs": {"q1": "d1"}}, "must be a list of ids, or grades by id"),
        ({"relevant_docs": {"q1": {"d1": 0.5}}}, "grades are whole numbers"),
        ({"queries": {"q1": None}}, "a text is needed, not 'None'"),
        ({"relevant_docs": None}, "has no relevant_docs"),
    ],
)
def test_a_faulty_set_in_one_json_is_named(http, change, words):
    content = {name: value for name, value in {**SET, **change}.items() if value is not None}
    answer = send(http, json.dumps(content).encode(), filename="set.json")
    assert answer.status_code == 422, answer.text
    assert words in answer.json()["detail"]


def test_an_id_twice_in_one_json_is_refused(http):
    body = b'{"queries": {"q1": "a", "q1": "b"}, "corpus": {"d": "a"}, "relevant_docs": {"q1": ["d"]}}'
    answer = send(http, body, filename="set.json")
    assert answer.status_code == 422
    assert "'q1' comes twice" in answer.json()["detail"]


def test_judgments_of_what_is_missing_count_as_rejects(http):
    body = json.dumps({**SET, "relevant_docs": {"q1": ["d1", "nowhere"], "q2": ["d4"]}}).encode()
    refused = send(http, body, filename="set.json")
    assert refused.status_code == 422
    assert "judges document 'nowhere', which is not in the file" in refused.json()["detail"]
    assert send(http, body, filename="set.json", max_reject_share=0.5).status_code == 201


def test_a_corpus_is_read_as_it_was_sent(http, settings, tmp_path):
    table = "title,other\n" + "".join(f"t {n},document {n} où\n" for n in range(5))
    params = {"columns": ["query:title", "positive:other"], "encoding": "cp1252"}
    sent = send(http, table.encode("cp1252"), filename="a.csv", **params)
    assert sent.status_code == 201, sent.text
    reference = f"file:{kept_folder(settings)}"
    spec = {"kind": "mine", "model": "bm25", "dataset": reference, "corpus": reference}
    told = RecordingReporter()
    result = run_local(spec, tmp_path / "mined", told)
    assert result.state == "succeeded", result.end_reason
    rows = [
        row for path in (tmp_path / "mined").rglob("train.parquet") for row in pq.read_table(path).to_pylist()
    ]
    assert rows
    assert all(
        text.startswith("document") and text.endswith("où") for row in rows for text in row["negatives"]
    )


@pytest.mark.parametrize(
    ("body", "splits"),
    [
        (b"query;positive\nx y;z w\n", {"train": 1}),
        (b"query|positive\nx y|z w\n", {"train": 1}),
    ],
)
def test_a_body_without_a_name_is_known_by_its_content(http, body, splits):
    answer = send(http, body)
    assert answer.status_code == 201, answer.text
    assert answer.json()["metadata"]["splits"] == splits


def test_a_workbook_without_a_name_is_known_by_its_content(http):
    book = openpyxl.Workbook()
    book.active.append(["query", "positive"])
    book.active.append(["x y", "z w"])
    body = io.BytesIO()
    book.save(body)
    answer = send(http, body.getvalue())
    assert answer.status_code == 201, answer.text
    assert answer.json()["metadata"]["splits"] == {"train": 1}


def test_what_was_sent_last_is_what_the_name_means(http):
    first, second = lines(ROWS), lines(ROWS[:5])
    versions = [send(http, body).json()["version"] for body in (first, second, first, first)]
    assert versions == [1, 2, 3, 3]
    assert http.get("/datasets/mine").json()["metadata"]["splits"] == {"train": 30}


def test_a_parameter_twice_is_refused(http):
    answer = http.post("/datasets?name=a&name=b", content=lines(ROWS))
    assert answer.status_code == 400
    assert answer.json()["errors"] == [{"path": "name", "message": "is given more than once"}]
