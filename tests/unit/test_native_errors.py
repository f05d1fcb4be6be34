"""Errors of real libraries, provoked with real files and real full disks."""

import errno
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer

from core.errors import BadData, BadModel, JobFailure, OutOfMemory, StorageFailure
from core.native_errors import (
    explain,
    inaccessible_path,
    is_storage_error,
    reading_cache,
    reading_data,
    reading_model,
    unreadable,
    writing,
)
from tests.disks import Disk, mounted

TENSOR = torch.arange(300_000, dtype=torch.float32)
TABLE = pa.table({"text": [f"row {number} of a table" for number in range(60_000)]})


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    with mounted(tmp_path / "disk", "256k") as made:
        yield made


def raised(run: Callable[[], object]) -> BaseException:
    try:
        run()
    except BaseException as error:  # noqa: BLE001 - whatever the library raises is what is looked at
        return error
    pytest.fail("nothing was raised")


def write_arrow(path: Path) -> None:
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, TABLE.schema) as writer:
        writer.write_table(TABLE)


def write_with_handle(path: Path) -> None:
    with path.open("wb") as file:
        torch.save({"a": TENSOR}, file)


def copy_tree(path: Path) -> None:
    source = path.parent.parent / "source"
    source.mkdir()
    (source / "file").write_bytes(b"x" * 600_000)
    shutil.copytree(source, path)


def write_text(path: Path) -> None:
    with path.open("w") as file:
        file.write("x" * 600_000)


WRITERS = {
    "safetensors": lambda path: save_file({"a": TENSOR}, path),
    "torch to a path": lambda path: torch.save({"a": TENSOR}, path),
    "torch to an open file": write_with_handle,
    "numpy save": lambda path: np.save(path.with_suffix(".npy"), TENSOR.numpy()),
    "numpy savez": lambda path: np.savez(path.with_suffix(".npz"), a=TENSOR.numpy()),
    "numpy tofile": lambda path: TENSOR.numpy().tofile(path),
    "Parquet": lambda path: pq.write_table(TABLE, path, compression="none", use_dictionary=False),
    "Arrow": write_arrow,
    "text": write_text,
    "copytree": copy_tree,
}


@pytest.mark.parametrize("name", WRITERS)
def test_a_full_disk_is_a_storage_failure_whichever_library_meets_it(name, disk):
    error = raised(lambda: WRITERS[name](disk.folder / "file"))
    failure = explain(error)
    assert isinstance(failure, StorageFailure), repr(error)
    assert "free space" in str(failure)
    with pytest.raises(StorageFailure, match=r"Saving it in .* failed"), writing("Saving it", disk.folder):
        raise error


@pytest.mark.parametrize("name", ["safetensors", "torch to a path", "Parquet", "Arrow", "text"])
def test_a_folder_that_is_gone_is_a_storage_failure_where_something_is_written(name, tmp_path):
    gone = tmp_path / "gone"
    with pytest.raises(StorageFailure, match=str(gone)), writing("Saving it", gone):
        WRITERS[name](gone / "file")
    error = raised(lambda: WRITERS[name](gone / "file"))
    assert inaccessible_path(error, [gone]) is not None
    assert inaccessible_path(error, [tmp_path / "elsewhere"]) is None


def damage(path: Path, how: str) -> None:
    data = path.read_bytes()
    path.write_bytes(
        {
            "cut short": data[: len(data) // 3],
            "empty": b"",
            "garbage": b"garbage" * 100,
        }[how]
    )


def read_parquet(path: Path) -> None:
    pq.read_table(path)


def read_arrow(path: Path) -> None:
    with pa.OSFile(str(path), "rb") as source:
        pa.ipc.open_file(source).read_all()


@pytest.mark.parametrize("how", ["cut short", "empty", "garbage"])
@pytest.mark.parametrize(
    ("write", "read", "expected"),
    [
        (WRITERS["safetensors"], load_file, BadModel),
        (WRITERS["Parquet"], read_parquet, BadData),
        (WRITERS["Arrow"], read_arrow, BadData),
    ],
    ids=["safetensors", "Parquet", "Arrow"],
)
def test_a_damaged_file_is_known_wherever_it_is_read(tmp_path, how, write, read, expected):
    path = tmp_path / "file"
    write(path)
    damage(path, how)
    error = raised(lambda: read(path))
    assert isinstance(explain(error), expected), repr(error)


@pytest.mark.parametrize("how", ["cut short", "empty", "garbage"])
@pytest.mark.parametrize(
    ("write", "read"),
    [
        (WRITERS["torch to a path"], lambda path: torch.load(path, weights_only=True)),
        (lambda path: path.write_text('{"version": "1.0"}'), lambda path: Tokenizer.from_file(str(path))),
        (lambda path: np.save(path.open("wb"), TENSOR.numpy()), np.load),
        (WRITERS["safetensors"], load_file),
    ],
    ids=["torch", "tokenizers", "numpy", "safetensors"],
)
def test_the_place_decides_what_a_damaged_file_means(tmp_path, how, write, read):
    path = tmp_path / "file"
    write(path)
    damage(path, how)
    with pytest.raises(BadModel, match=r"^base_model: ."), reading_model("base_model"):
        read(path)
    with pytest.raises(BadData, match=r"^candidates: ."), reading_data("candidates"):
        read(path)
    with pytest.raises(StorageFailure, match="makes it again"), reading_cache(path):
        read(path)
    assert not path.exists()


@pytest.mark.parametrize(
    "run",
    [
        lambda: torch.empty(1 << 50),
        lambda: np.empty(1 << 50),
        lambda: pa.allocate_buffer(1 << 55),
        lambda: bytearray(1 << 55),
    ],
    ids=["torch", "numpy", "Arrow", "Python"],
)
def test_missing_memory_is_no_bad_model_and_no_crash(run):
    error = raised(run)
    assert isinstance(explain(error), OutOfMemory), repr(error)
    with pytest.raises(type(error)), reading_model("base_model"):
        raise error


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("The size of tensor a (28) must match the size of tensor b (30)"),
        ValueError("28 is not a valid number"),
        KeyError("text"),
        ConnectionResetError(errno.ECONNRESET, "Connection reset by peer"),
        FileNotFoundError(errno.ENOENT, "No such file or directory", "/elsewhere/file"),
        OSError(errno.EMFILE, "Too many open files"),
        RuntimeError("os error 111: connection refused"),
        AssertionError(),
    ],
    ids=lambda error: f"{type(error).__name__} {str(error)[:20]}",
)
def test_what_is_nobody_s_known_fault_stays_a_crash(error):
    assert explain(error) is None


@pytest.mark.parametrize(
    "text",
    [
        "Data processing error: I/O error: No space left on device (os error 28)",  # hf_xet
        "[enforce fail at inline_container.cc:672] . unexpected pos 576 vs 534",
        "PytorchStreamWriter failed writing file data/0: file write failed",
        "basic_ios::clear: iostream error",
        "write failed: Disk quota exceeded",
        "cannot open: Read-only file system",
        "Error while deserializing: I/O error: Input/output error (os error 5)",
    ],
)
def test_storage_is_known_by_what_libraries_say(text):
    assert is_storage_error(RuntimeError(text))


def test_a_failure_inside_of_a_library_s_error_counts_as_itself():
    def run() -> None:
        try:
            raise BadData("rows.jsonl, line 3: no query")
        except BadData as error:
            raise RuntimeError("An error occurred while generating the dataset") from error

    failure = explain(raised(run))
    assert isinstance(failure, BadData)
    assert str(failure) == "rows.jsonl, line 3: no query"


def test_a_failure_that_was_dealt_with_before_is_not_the_reason():
    def run() -> None:
        try:
            raise BadData("rows.jsonl, line 3: no query")
        except BadData:
            raise KeyError("a fault of ours")  # noqa: B904 - without "from": the first one was being handled

    assert explain(raised(run)) is None


def test_a_message_that_quotes_data_is_no_storage_failure():
    quoted = BadData("rows.jsonl, line 3: bad text 'No space left on device (os error 28)'")
    assert not is_storage_error(quoted)


def test_storage_that_fails_while_data_or_models_are_read_is_not_their_fault():
    error = OSError(errno.EIO, "Input/output error")
    assert isinstance(unreadable("rows.jsonl is damaged", error), StorageFailure)
    assert isinstance(unreadable("rows.jsonl is damaged", EOFError()), BadData)
    for reading in (reading_model, reading_data):
        with pytest.raises(StorageFailure, match="Input/output error"), reading("it cannot be read"):
            raise error


def test_other_errors_pass_where_something_is_written(tmp_path):
    with pytest.raises(KeyError), writing("Saving it", tmp_path):
        raise KeyError("a fault of ours")
    with pytest.raises(JobFailure, match="known"), writing("Saving it", tmp_path):
        raise BadModel("known")


def test_a_full_sqlite_file_is_a_storage_failure(disk):
    connection = sqlite3.connect(disk.folder / "x.db")

    def run() -> None:
        connection.execute("create table rows (text)")
        for _ in range(1000):
            connection.execute("insert into rows values (?)", ("x" * 10_000,))
        connection.commit()

    assert "database or disk is full" in str(raised(run))
    connection.close()
