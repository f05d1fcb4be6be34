"""Archives of many files: linear work, one stored form, and an end with the client's connection."""

import contextlib
import io
import json
import socket
import sys
import tarfile
import threading
import time
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import quote

import httpx
import pytest
import uvicorn
from fastapi.testclient import TestClient

from api import uploads
from api.app import create_app
from client.client import Client
from core.artifacts import Library
from core.data.io import packing
from core.data.io.packing import INDEX, PACKED
from core.data.uploads import inspected_documents, staging
from core.errors import ClientGone
from core.settings import Settings
from migrations import upgrade
from tests.faults.service import until

PAIR = {"query": "what is it", "positive": "the answer that is long enough"}
FEW = 20
MANY = 2 * FEW


def line(**values) -> bytes:
    return (json.dumps(values) + "\n").encode()


def page(number: int) -> bytes:
    return f"# Page {number}\n\nWords of page {number} that are long enough.\n".encode()


def tar(entries: dict[str, bytes] | list[tuple[str, bytes]]) -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as archive:
        for name, content in dict.items(entries) if isinstance(entries, dict) else entries:
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return made.getvalue()


def zipped(entries: dict[str, bytes]) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
    return made.getvalue()


def send(http: TestClient, body: bytes, name: str = "mine", **params):
    return http.post("/datasets", params={"name": name, **params}, content=body)


# -- linear ------------------------------------------------------------------------------------------

_recorded: Counter[str] | None = None


def _record(event: str, arguments: tuple) -> None:
    if _recorded is not None and event in ("open", "os.scandir", "os.listdir"):
        _recorded["opened" if event == "open" else "listed"] += 1


sys.addaudithook(_record)  # for good: hooks cannot be removed


@contextlib.contextmanager
def recorded() -> Iterator[Counter[str]]:
    """Counts the files opened and the folders listed by this process."""
    global _recorded
    _recorded = Counter()
    try:
        yield _recorded
    finally:
        _recorded = None


def beir(splits: int) -> dict[str, bytes]:
    return {
        "set/corpus.jsonl": b"".join(line(_id=f"d{n}", text=f"text {n}") for n in range(splits)),
        "set/queries.jsonl": b"".join(line(_id=f"q{n}", text=f"query {n}") for n in range(splits)),
        **{f"set/qrels/split{n}.tsv": f"q{n}\td{n}\t1\n".encode() for n in range(splits)},
    }


def bright(domains: int) -> dict[str, bytes]:
    return {
        f"set/{folder}/domain{n}.jsonl": content
        for n in range(domains)
        for folder, content in {
            "documents": line(id=f"d{n}", content=f"text {n}"),
            "examples": line(query=f"query {n}", id=f"q{n}", gold_ids=[f"d{n}"], excluded_ids=["N/A"]),
        }.items()
    }


SHAPES: dict[str, Callable[[int], dict[str, bytes]]] = {
    "one flat folder of pages": lambda n: {f"docs/{i}.md": page(i) for i in range(n)},
    "pages and images": lambda n: {
        **{f"docs/{i}.md": page(i) for i in range(n)},
        **{f"docs/images/{i}.png": b"\x89PNG" for i in range(n // 2)},
    },
    "pages in three folders": lambda n: {f"docs/part{i % 3}/{i}.rst": page(i) for i in range(n)},
    "rows, a split a file": lambda n: {f"rows/split{i}.jsonl": line(**PAIR) for i in range(n)},
    "rows, shards of two splits": lambda n: {
        f"rows/{'train' if i % 2 else 'dev'}-{i:05}.jsonl": line(**PAIR) for i in range(n)
    },
    "rows, each with a column of its own": lambda n: {
        f"rows/split{i}.jsonl": line(**PAIR, **{f"column{i}": i}) for i in range(n)
    },
    "chunks, a file each": lambda n: {
        f"chunks/{i}.json": line(text=f"a chunk {i}", title="T") for i in range(n)
    },
    "a BEIR folder of many splits": beir,
    "a BRIGHT folder of many domains": bright,
}


@pytest.mark.parametrize("packed", [False, True], ids=["few files", "more than MOST_FILES"])
@pytest.mark.parametrize("pack", [tar, zipped], ids=["tar", "zip"])
@pytest.mark.parametrize("shape", SHAPES)
def test_no_folder_is_listed_and_no_file_opened_for_every_other(http, monkeypatch, shape, pack, packed):
    most = FEW // 2 if packed else 10 * MANY
    monkeypatch.setattr(packing, "MOST_FILES", most)
    monkeypatch.setattr(staging, "MOST_FILES", most)
    counts = {}
    for size in (FEW, MANY):
        with recorded() as count:
            answer = send(http, pack(SHAPES[shape](size)), f"size-{size}")
        assert answer.status_code == 201, answer.text
        counts[size] = count
    # Folders do not become more: neither do listings. A file is extracted, looked into, read, hashed, synced.
    assert counts[MANY]["listed"] == counts[FEW]["listed"]
    more_files = len(SHAPES[shape](MANY)) - len(SHAPES[shape](FEW))
    assert counts[MANY]["opened"] - counts[FEW]["opened"] <= 10 * more_files


def test_a_corpus_is_read_once_for_all_splits(http):
    opened = []

    def hook(event: str, arguments: tuple) -> None:
        if event == "open" and str(arguments[0]).endswith("corpus.jsonl"):
            opened.append(arguments[0])

    sys.addaudithook(hook)
    send(http, tar(beir(5)), "five")
    few = len(opened)
    answer = send(http, tar(beir(30)), "thirty")
    assert len(answer.json()["metadata"]["splits"]) == 30
    assert len(opened) - few == few


# -- the stored form ---------------------------------------------------------------------------------


@pytest.fixture
def many(monkeypatch) -> int:
    """Eleven files are many."""
    monkeypatch.setattr(packing, "MOST_FILES", 10)
    monkeypatch.setattr(staging, "MOST_FILES", 10)
    return 10


@pytest.mark.parametrize("shape", ["one flat folder of pages", "rows, a split a file", "chunks, a file each"])
def test_many_files_are_stored_as_one_tar_that_names_them_all(http, many, shape):
    entries = SHAPES[shape](FEW)
    made = send(http, tar(entries)).json()
    assert {file["path"] for file in made["files"]} == {".preview.json", PACKED, INDEX}
    stored = http.get(f"/artifacts/{made['id']}/files/{PACKED}").content
    with tarfile.open(fileobj=io.BytesIO(stored)) as archive:
        found = {entry.name: archive.extractfile(entry).read() for entry in archive}
    assert found == {name.partition("/")[2]: content for name, content in entries.items()}
    single = http.get(f"/artifacts/{made['id']}/files/1.md")
    assert (single.status_code, PACKED in single.json()["detail"]) == (404, True)


def test_as_many_files_as_are_few_stay_files(http, many):
    made = send(http, tar({f"docs/{n}.md": page(n) for n in range(many)})).json()
    assert made["file_count"] == many + 1  # and the preview
    assert http.get(f"/artifacts/{made['id']}/files/3.md").content == page(3)


def test_the_same_files_are_one_dataset_however_they_are_packed(http, many):
    entries = SHAPES["pages in three folders"](FEW)
    first = send(http, tar(entries))
    for body in (tar(entries), tar(dict(reversed(entries.items()))), zipped(entries)):
        again = send(http, body)
        assert (again.status_code, again.json()["id"]) == (200, first.json()["id"])


def test_what_was_downloaded_can_be_sent_again(http, many):
    entries = SHAPES["one flat folder of pages"](FEW)
    made = send(http, tar(entries)).json()
    files = {
        f"download/{file['path']}": http.get(f"/artifacts/{made['id']}/files/{file['path']}").content
        for file in made["files"]
    }
    for body in (tar(files), files[f"download/{PACKED}"]):
        again = send(http, body, filename="files.tar")
        assert (again.status_code, again.json()["id"]) == (200, made["id"])


def test_a_list_has_neither_the_files_nor_hundreds_of_splits(http):
    made = send(http, tar({f"rows/split{n}.jsonl": line(**PAIR) for n in range(120)})).json()
    assert (len(made["files"]), len(made["metadata"]["splits"])) == (121, 120)
    [listed] = http.get("/datasets").json()["items"]
    assert (listed["files"], listed["file_count"], len(listed["metadata"]["splits"])) == ([], 121, 100)
    whole = http.get("/datasets/mine").json()
    assert (len(whole["files"]), len(whole["metadata"]["splits"])) == (121, 120)
    assert len(http.get("/datasets/mine/preview").json()["splits"]) == 100
    later = http.get("/datasets/mine/preview", params={"split": "split99"})  # by name, the last one
    assert (later.status_code, "only the first 100" in later.json()["detail"]) == (404, True)
    assert "has no split" in http.get("/datasets/mine/preview", params={"split": "other"}).json()["detail"]


def test_files_that_are_not_read_and_empty_documents_are_told(http):
    entries = {
        "docs/a.md": page(1),
        "docs/b.md": b" \n",
        "docs/c.png": b"x",
        "docs/d.rst": b"T\n=\n",
        "docs/LICENSE": b"x",
    }
    metadata = send(http, tar(entries)).json()["metadata"]
    assert metadata["splits"] == {"documents": 1}
    assert (metadata["empty"], metadata["ignored"]) == (1, {".png": 1, ".rst": 1, "": 1})


def test_passage_lengths_of_very_many_documents_are_a_sample_that_is_said(http, monkeypatch):
    entries = {f"docs/{n}.md": page(n) for n in range(FEW)}
    whole = send(http, tar(entries), "whole").json()["metadata"]["statistics"]
    assert "sampled" not in whole
    monkeypatch.setattr(inspected_documents, "MOST_CUT", 6)
    part = send(http, tar(entries), "part").json()["metadata"]["statistics"]
    assert part["sampled"] == {"documents": 5, "of": FEW}
    assert part["characters"]["document"] == whole["characters"]["document"]
    assert len(http.get("/datasets/part/preview").json()["items"]) == FEW


# -- odd archives ------------------------------------------------------------------------------------


@pytest.mark.parametrize("filler", [0, FEW], ids=["few files", "many files"])
@pytest.mark.parametrize(
    ("entries", "words"),
    [
        ([("d/a.md", page(1)), ("d/a.md", page(2))], "two entries with the name 'd/a.md'"),
        ([("d/a.md", page(1)), ("d/./a.md", page(2))], "two entries with the name 'd/a.md'"),
        ([("d/a.md", page(1)), ("d/a.md/b.md", page(2))], "a file and a folder"),
        ([("d/a.md/b.md", page(1)), ("d/a.md", page(2))], "a file and a folder"),
        ([("d/a\nb.md", page(1))], "control character"),
        ([("d/a\x7f.md", page(1))], "control character"),
        ([("d/" + "e" * 300 + ".md", page(1))], "too long"),
        ([("/".join(["deep"] * 400) + "/a.md", page(1))], "too long"),
        ([("d/b/../../../a.md", page(1))], "leads out"),
        ([("d\\..\\..\\a.md", page(1))], "leads out"),
        ([("C:/a.md", page(1))], "leads out"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_odd_names_are_refused(http, settings, many, entries, words, filler):
    body = tar([(f"d/page{n}.md", page(n)) for n in range(filler)] + entries)
    answer = send(http, body)
    assert (answer.status_code, words in answer.json()["detail"]) == (422, True), answer.text
    assert list((settings.data_dir / "uploads").iterdir()) == []


@pytest.mark.parametrize("filler", [0, FEW], ids=["few files", "many files"])
@pytest.mark.parametrize(
    "name",
    ["日本 語.md", 'a "quoted" name.md', "100%.md", "semi;colon.md", "é'è.md", "a#b?c.md", "_draft.md"],
)
def test_odd_names_that_are_good_are_kept(http, many, name, filler):
    made = send(http, tar({f"d/{name}": page(1), **{f"d/page{n}.md": page(n) for n in range(filler)}})).json()
    if filler:
        index = http.get(f"/artifacts/{made['id']}/files/{INDEX}").text
        assert name in {json.loads(entry)[0] for entry in index.splitlines()}
        return
    assert [item["document"] for item in http.get("/datasets/mine/preview").json()["items"]] == [name]
    answer = http.get(f"/artifacts/{made['id']}/files/{quote(name)}")
    assert (answer.status_code, answer.content) == (200, page(1)), answer.text


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        ({"d/a.png": b"x", "d/b.pdf": b"x"}, "1 .pdf"),
        ({"d/.hidden.md": page(1)}, "no file that is not hidden"),
        ({".git/a.md": page(1), "__MACOSX/b": b"x"}, "neither rows"),
        ({"d/a.md": b"", "d/b.md": b"\n \n"}, "2 documents contain no text"),
        ({"d/train.jsonl": b""}, "no rows and no documents"),
        ({f"d/{n}.md": b"" for n in range(FEW)}, f"{FEW} documents contain no text"),
        ({f"d/{n}.png": b"x" for n in range(FEW)}, f"{FEW} .png"),
        ({"d/manifest.json/a.md": page(1), "d/b.md": page(2)}, "rename it"),
        ({"d/.preview.json/a.md": page(1), "d/b.md": page(2)}, "rename it"),
    ],
)
def test_an_archive_of_nothing_useful_says_what_it_has(http, many, entries, words):
    answer = send(http, tar(entries))
    assert (answer.status_code, words in answer.json()["detail"]) == (422, True), answer.text
    assert "/uploads/" not in answer.text  # no path of the server's


def test_an_archive_without_files_is_empty(http):
    answer = send(http, tar({}), filename="a.tar")
    assert (answer.status_code, "empty" in answer.json()["detail"]) == (422, True)


@pytest.mark.parametrize("filler", [0, FEW], ids=["few files", "many files"])
def test_a_document_that_is_too_large_is_named(http, many, monkeypatch, filler):
    monkeypatch.setattr("core.data.documents.passages._MOST_BYTES", 1 << 20)
    entries = {"d/part/large.md": b"word " * 300_000, **{f"d/{n}.md": page(n) for n in range(filler)}}
    answer = send(http, tar(entries))
    assert answer.status_code == 422
    [problem] = answer.json()["errors"]
    assert problem["path"].endswith("large.md, line 1")
    assert "at most 1 MiB are read: split it" in problem["message"]
    if filler:
        assert send(http, tar(entries), max_reject_share=0.5).json()["metadata"]["rejected"] == 1


# -- texts that cannot be written --------------------------------------------------------------------


@pytest.mark.parametrize(
    "body",
    [
        json.dumps({**PAIR, "\ud800x": 1}).encode(),
        json.dumps({**PAIR, "a\0b": "c\0d"}).encode(),
        b"query,positive,caf\xe9\nwhat,this,that\n",
        json.dumps([{**PAIR, "\udead": 1}]).encode(),
    ],
    ids=["surrogate", "nul", "csv", "list"],
)
def test_a_column_name_that_cannot_be_stored_is_refused(http, body):
    answer = send(http, body)
    assert answer.status_code == 422, answer.text
    assert answer.json()["errors"]


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (json.dumps({**PAIR, "category": "\ud800"}).encode(), "not valid Unicode"),
        (json.dumps({**PAIR, "query": "\ud800"}).encode(), "not valid Unicode"),
    ],
)
def test_an_error_that_quotes_no_unicode_can_be_read(http, body, words):
    answer = send(http, body)
    assert (answer.status_code, words in answer.text.replace("\\\\", "\\")) == (422, True), answer.text


# -- the client goes ---------------------------------------------------------------------------------


@pytest.fixture
def server(settings: Settings) -> Iterator[tuple[str, int]]:
    """The API behind a real socket, in this process."""
    upgrade(settings.database_url)
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    running = uvicorn.Server(uvicorn.Config(create_app(settings), log_level="warning"))
    thread = threading.Thread(target=running.run, args=([listener],))
    thread.start()
    until(lambda: running.started, what="the server's start")
    yield listener.getsockname()
    running.should_exit = True
    thread.join()
    listener.close()


def post(address: tuple[str, int], body: bytes, name: str = "mine") -> socket.socket:
    """A connection on which a whole upload was sent."""
    connection = socket.create_connection(address)
    head = f"POST /datasets?name={name} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {len(body)}\r\n\r\n"
    connection.sendall(head.encode() + body)
    return connection


class Endless:
    """Long work: it goes on until ``check_stop`` raises or it is released."""

    def __init__(self) -> None:
        self.begun = self.stopped = 0
        self.released = threading.Event()

    def run(self, check_stop: Callable[[], None]) -> None:
        self.begun += 1
        while not self.released.is_set():
            try:
                check_stop()
            except ClientGone:
                self.stopped += 1
                raise
            time.sleep(0.01)


@pytest.mark.parametrize("stage", ["unpack", "inspect", "pack", "publish"])
def test_the_work_ends_with_the_connection(server, settings, many, monkeypatch, stage):
    endless = Endless()
    owner = Library if stage == "publish" else uploads
    original = getattr(owner, stage)

    def slow(*arguments):
        endless.run(arguments[-1])
        return original(*arguments)

    monkeypatch.setattr(owner, stage, slow)
    body = tar(SHAPES["rows, a split a file"](FEW))
    connection = post(server, body)
    until(lambda: endless.begun, what="the work")
    connection.close()
    until(lambda: endless.stopped, what="the end of the work")
    folder = settings.data_dir / "uploads"
    until(lambda: not list(folder.iterdir()), what="an empty folder of uploads")
    artifacts = settings.data_dir / "artifacts"
    assert [path for path in artifacts.rglob("*") if path.is_file()] == []
    with TestClient(create_app(settings)) as http:
        assert http.get("/datasets").json()["items"] == []


def test_a_broken_publication_leaves_nothing(http, settings, monkeypatch):
    calls = []

    def after_a_few() -> None:
        calls.append(1)
        if len(calls) > 3:
            raise ClientGone

    folder = settings.data_dir / "made"
    folder.mkdir(parents=True)
    for number in range(5):
        (folder / f"{number}.md").write_bytes(page(number))
    with pytest.raises(ClientGone):
        Library(settings.artifact_url).publish(folder, "dataset", {}, after_a_few)
    assert len(list(folder.iterdir())) == 5
    assert [path for path in (settings.data_dir / "artifacts").rglob("*") if path.is_file()] == []


def test_uploads_do_not_take_the_threads_of_other_calls(server, settings, monkeypatch):
    endless = Endless()
    original = uploads.inspect
    monkeypatch.setattr(uploads, "inspect", lambda *given: (endless.run(given[-1]), original(*given))[1])
    body = tar({"rows/train.jsonl": line(**PAIR)})
    connections = [post(server, body, f"name{number}") for number in range(60)]
    until(lambda: endless.begun == 2, what="two uploads at work")
    with httpx.Client(base_url=f"http://{server[0]}:{server[1]}", timeout=30) as client:
        assert client.get("/datasets").status_code == 200  # a call that needs a thread
        assert endless.begun == 2
        waiting = settings.data_dir / "uploads"
        until(lambda: len(list(waiting.iterdir())) == 60, what="the others wait")
        for connection in connections[10:]:
            connection.close()
        until(lambda: len(list(waiting.iterdir())) <= 10, what="nothing of those that went")
        endless.released.set()
        until(lambda: not list(waiting.iterdir()), what="the end of the others")
        names = {item["name"] for item in client.get("/datasets", params={"limit": 100}).json()["items"]}
    assert names <= {f"name{number}" for number in range(60)}
    assert names >= {f"name{number}" for number in range(10)}
    for connection in connections[:10]:
        connection.close()


def test_a_folder_is_sent_and_downloaded_by_its_name(server, tmp_path, many):
    for number in range(FEW):
        (tmp_path / "docs").mkdir(exist_ok=True)
        (tmp_path / "docs" / f"{number}.md").write_bytes(page(number))
    with Client(f"http://{server[0]}:{server[1]}") as client:
        made = client.upload(tmp_path / "docs", "manual")
        assert client.download("dataset:manual", tmp_path / "down").id == made.id
        assert packing.is_packed(tmp_path / "down")
        assert client.upload(tmp_path / "down", "manual").id == made.id
    inside = packing.unpack(tmp_path / "down", tmp_path / "unpacked")
    assert {path.name: path.read_bytes() for path in inside.iterdir()} == {
        f"{number}.md": page(number) for number in range(FEW)
    }


def test_files_of_the_tree_are_where_the_index_says(tmp_path: Path):
    source = tmp_path / "source"
    source.mkdir()
    for number in range(5):
        (source / f"{number}.md").write_bytes(page(number) * number)
    packing.pack(source, tmp_path / "packed")
    found = {}
    for file in packing.tree_files(tmp_path / "packed"):
        with file.open() as opened:
            found[file.name] = opened.read()
        assert file.bytes == len(found[file.name])
    assert found == {f"{number}.md": page(number) * number for number in range(5)}
