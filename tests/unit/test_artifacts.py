"""Folders that are whole or not there."""

import pytest

from core.artifacts import MANIFEST, Library, is_whole, read_manifest, seal
from core.errors import NotFound


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
