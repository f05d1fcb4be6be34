"""Object storage: fetched once, kept by what the storage says of it, and never outside of what is allowed."""

import json
import threading
from pathlib import Path

import boto3
import pytest

from core.data.fetching import remote
from core.data.fetching.remote import check_allowed, fetch, look
from core.errors import BadSpec, Forbidden, NotFound, StorageFailure
from core.process.local import run_local
from core.runtime.reporter import RecordingReporter
from tests.tiny import make_static


def put(url: str, content: bytes) -> None:
    bucket, _, key = url.removeprefix("s3://").partition("/")
    boto3.client("s3").put_object(Bucket=bucket, Key=key, Body=content)


def put_folder(url: str, folder: Path) -> None:
    for path in folder.rglob("*"):
        if path.is_file():
            put(f"{url}/{path.relative_to(folder).as_posix()}", path.read_bytes())


@pytest.mark.parametrize(
    ("url", "allowed"),
    [
        ("s3://bucket/data/rows.jsonl", True),
        ("s3://bucket/data", True),
        ("s3://bucket/data-of-others/rows.jsonl", False),
        ("s3://bucket/data/../secret", False),
        ("s3://bucket/other", False),
        ("https://host.example/data/rows.jsonl", False),
        ("s3://bucket/data/rows.jsonl?versionId=1", False),
    ],
)
def test_what_is_below_an_allowed_url_is_allowed(url, allowed):
    if allowed:
        check_allowed(url, ["s3://bucket/data/"])
    else:
        with pytest.raises(Forbidden, match="REASON_ALLOWED_URLS"):
            check_allowed(url, ["s3://bucket/data/"])
    with pytest.raises(Forbidden, match=r"\(none\)"):
        check_allowed(url, [])


def test_a_file_is_fetched_once_until_it_changes(s3_url, tmp_path):
    url = f"{s3_url}/rows.jsonl"
    put(url, b"one\n")
    path, known = fetch(look(url), tmp_path)
    assert (path.name, path.read_bytes(), known) == ("rows.jsonl", b"one\n", False)
    assert fetch(look(url), tmp_path) == (path, True)
    put(url, b"two\n")  # of the same size
    other, known = fetch(look(url), tmp_path)
    assert (other.read_bytes(), known) == (b"two\n", False)
    assert path.read_bytes() == b"one\n"  # a job may still read it
    assert not list((tmp_path / "staging").iterdir())


def test_a_folder_is_a_folder(s3_url, tmp_path):
    for name, content in (("corpus.jsonl", b"c"), ("qrels/test.tsv", b"q"), ("empty", b"")):
        put(f"{s3_url}/beir/{name}", content)
    put(f"{s3_url}/beir-of-others/corpus.jsonl", b"no")
    found = look(f"{s3_url}/beir")
    path, _ = fetch(found, tmp_path)
    files = {
        file.relative_to(path).as_posix(): file.read_bytes() for file in path.rglob("*") if file.is_file()
    }
    assert files == {"corpus.jsonl": b"c", "qrels/test.tsv": b"q", "empty": b""}
    assert (found.is_folder, found.bytes) == (True, 2)


def test_what_is_not_there_is_not_found(s3_url):
    with pytest.raises(NotFound, match="Nothing lies at"):
        look(f"{s3_url}/nothing")
    with pytest.raises((NotFound, Forbidden)):
        look("s3://no-such-bucket/rows.jsonl")


def test_a_storage_that_does_not_answer_is_said_to_be_away(monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "b")
    with pytest.raises(StorageFailure, match="cannot be read"):
        look("s3://bucket/rows.jsonl")


def test_a_library_that_is_missing_is_named():
    with pytest.raises(BadSpec, match="its library is not installed"):
        look("gs://bucket/rows.jsonl")


class Stop(BaseException):
    pass


def test_a_stop_leaves_nothing_behind(s3_url, tmp_path, monkeypatch):
    monkeypatch.setattr(remote, "_BLOCK", 1024)
    for number in range(40):
        put(f"{s3_url}/many/{number}", b"x" * 5000)
    asked = 0

    def check_stop():
        nonlocal asked
        asked += 1
        raise Stop

    with pytest.raises(Stop):
        fetch(look(f"{s3_url}/many"), tmp_path, check_stop=check_stop)
    assert asked == 1
    assert not list((tmp_path / "staging").iterdir())
    assert not (tmp_path / "remote").exists()
    assert threading.active_count() < 40


def test_a_file_cut_while_it_is_read_is_no_copy(s3_url, tmp_path):
    url = f"{s3_url}/rows.jsonl"
    put(url, b"0123456789")
    found = look(url)
    put(url, b"01234")
    with pytest.raises(StorageFailure):
        fetch(found, tmp_path)
    assert not (tmp_path / "remote").exists()


def test_two_that_fetch_the_same_share_one_copy(s3_url, tmp_path):
    put(f"{s3_url}/rows.jsonl", b"one\n" * 10)
    found = look(f"{s3_url}/rows.jsonl")
    paths = []
    threads = [threading.Thread(target=lambda: paths.append(fetch(found, tmp_path)[0])) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(paths)) == 1
    assert len(list((tmp_path / "remote").iterdir())) == 1


def test_a_training_reads_its_model_and_data_from_storage(s3_url, pairs_file, tmp_path):
    put_folder(f"{s3_url}/models/static", make_static(tmp_path / "static"))
    put(f"{s3_url}/data/pairs.jsonl", pairs_file.read_bytes())
    spec = {
        "kind": "train",
        "base_model": f"{s3_url}/models/static",
        "dataset": f"{s3_url}/data/pairs.jsonl",
        "evaluation": {"datasets": [{"ref": f"{s3_url}/data/pairs.jsonl"}], "metrics": ["ndcg@10"]},
        "batch_size": 16,
        "learning_rate": 0.05,
        "max_steps": 2,
    }
    reporter = RecordingReporter()
    result = run_local(spec, tmp_path / "out", reporter)
    assert result.state == "succeeded", result.end_reason
    told = [event.data.message for event in reporter.events if event.type == "notice"]
    assert sum("was fetched: " in line for line in told) == 2
    card = (tmp_path / "out" / "model" / "README.md").read_text()
    assert f"{s3_url}/data/pairs.jsonl: " in card
    assert "pairs" in json.dumps(result.metrics)
