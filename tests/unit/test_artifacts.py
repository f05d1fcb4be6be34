"""Folders that are whole or not there."""

import uuid

import pytest

from core.artifacts import MANIFEST, Library, is_whole, read_manifest, seal
from core.data.sources.inputs import make_context
from core.errors import NotFound, StorageFailure
from core.jobs.protocol import RunRequest
from core.runtime.reporter import RecordingReporter


def make(folder, text="hello"):
    (folder / "sub").mkdir(parents=True)
    (folder / "a.txt").write_text(text)
    (folder / "sub" / "b.bin").write_bytes(bytes(1000))
    return folder


@pytest.fixture
def library(tmp_path):
    return Library((tmp_path / "artifacts").as_uri())


def test_published_files_are_listed_hashed_and_found_again(library, tmp_path):
    published = library.publish(make(tmp_path / "out"), "model", {"job": "j"})
    assert not (tmp_path / "out").exists()
    manifest = library.check(published.uri)
    assert [entry.path for entry in manifest.files] == ["a.txt", "sub/b.bin"]
    assert manifest.metadata == {"job": "j"}
    with library.open(published.uri, "a.txt") as file:
        assert file.read() == b"hello"


def test_the_same_content_is_stored_once(library, tmp_path):
    first = library.publish(make(tmp_path / "one"), "model", {})
    second = library.publish(make(tmp_path / "two"), "model", {})
    other = library.publish(make(tmp_path / "three", "other"), "model", {})
    assert first.uri == second.uri != other.uri


def test_a_publisher_that_died_before_the_manifest_leaves_nothing_that_counts(library, tmp_path):
    published = library.publish(make(tmp_path / "one"), "model", {})
    folder = library.fetch(published.uri, tmp_path / "cache")
    (folder / MANIFEST).unlink()
    with pytest.raises(NotFound):
        library.check(published.uri)
    again = library.publish(make(tmp_path / "two"), "model", {})
    assert again.uri == published.uri
    library.check(again.uri)


def test_a_file_cut_short_is_noticed(library, tmp_path):
    published = library.publish(make(tmp_path / "one"), "model", {})
    (library.fetch(published.uri, tmp_path) / "sub" / "b.bin").write_bytes(b"x")
    with pytest.raises(NotFound, match=r"sub/b\.bin"):
        library.check(published.uri)


def test_nothing_outside_the_root_is_read(library, tmp_path):
    with pytest.raises(NotFound, match="outside"):
        library.manifest(tmp_path.as_uri())


def test_a_remote_library_is_fetched_whole(tmp_path):
    library = Library("memory://artifacts")
    published = library.publish(make(tmp_path / "one"), "model", {})
    assert library.local is None
    folder = library.fetch(published.uri, tmp_path / "cache")
    assert (folder / "a.txt").read_text() == "hello"
    assert is_whole(folder)
    assert library.fetch(published.uri, tmp_path / "cache") == folder


def test_sealing(tmp_path):
    folder = make(tmp_path / "checkpoint")
    assert not is_whole(folder)
    seal(folder, "checkpoint", {"step": 3}, hashes=False)
    assert is_whole(folder)
    assert read_manifest(folder).metadata == {"step": 3}
    (folder / "a.txt").unlink()
    assert not is_whole(folder)


class Away:
    """A storage whose client raises errors of its own, as botocore does."""

    protocol = "s3"

    def __getattr__(self, name):
        def fail(*_, **__):
            raise RuntimeError("Could not connect to the endpoint")

        return fail


def test_a_client_librarys_own_errors_are_storage_failures(tmp_path, monkeypatch):
    remote = Library(f"memory://{uuid.uuid4().hex}")
    published = remote.publish(make(tmp_path / "one"), "model", {})
    monkeypatch.setattr(remote, "_fs", Away())
    for call in (
        lambda: remote.publish(make(tmp_path / "two"), "model", {}),
        lambda: remote.manifest(published.uri),
        lambda: remote.check(published.uri),
        lambda: remote.open(published.uri, "a.txt"),
        lambda: remote.fetch(published.uri, tmp_path / "cache"),
    ):
        with pytest.raises(StorageFailure, match="Could not connect"):
            call()


def test_finished_work_waits_for_remote_storage(tmp_path, monkeypatch):
    url = f"memory://{uuid.uuid4().hex}"
    request = RunRequest(
        job_id="j", attempt=1, spec={}, artifact_url=url, checkpoints=tmp_path, cache=tmp_path / "cache"
    )
    reporter = RecordingReporter()
    context = make_context(request, tmp_path, reporter)
    monkeypatch.setattr(context, "wait", lambda seconds: waited.append(seconds))
    waited: list[float] = []
    publish = Library.publish

    def away_twice(self, *arguments):
        if len(waited) < 2:
            raise StorageFailure("away")
        return publish(self, *arguments)

    monkeypatch.setattr(Library, "publish", away_twice)
    context.publish("model", "model", make(tmp_path / "out"), {})
    assert waited == [1.0, 2.0]
    assert "model" in context.outputs
    told = [event.data.message for event in reporter.events if event.type.value == "notice"]
    assert told == ["Trying again in 1 s: away", "Trying again in 2 s: away"]


def test_messages_call_artifacts_what_the_spec_calls_them(tmp_path):
    place = "e6b4a37b81cb" * 5
    inputs = {"dataset:support": {"uri": f"file:///data/artifacts/{place}", "sha256": place}}
    request = RunRequest(
        job_id="job", attempt=1, spec={}, inputs=inputs, checkpoints=tmp_path / "c", cache=tmp_path / "cache"
    )
    reporter = RecordingReporter()
    context = make_context(request, tmp_path, reporter)
    context.notice(f"{place} has no split 'train'")
    [told] = [event.data.message for event in reporter.events]
    assert told == "dataset:support has no split 'train'"
