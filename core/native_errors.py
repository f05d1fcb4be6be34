"""Translate errors of native libraries into the job failure that helps the user.

safetensors, torch, tokenizers, Arrow and NumPy report a full disk, a damaged file and missing memory by
exception types of their own, often without an ``errno``. This module knows the types by their names, so that
it imports no library. The texts are those of the versions in ``constraints.txt``; tests provoke each one.
"""

import contextlib
import errno
import os
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from core.errors import BadData, BadModel, JobFailure, OutOfMemory, ReasonError, StorageFailure

_STORAGE_ERRNOS = frozenset(
    {
        errno.ENOSPC,
        errno.EDQUOT,
        errno.EFBIG,
        errno.EIO,
        errno.EROFS,
        errno.ESTALE,
        errno.ENOTCONN,  # a FUSE file system whose server died
    }
)
_INACCESSIBLE_ERRNOS = frozenset({errno.ENOENT, errno.ENOTDIR, errno.EACCES, errno.EPERM})
_STORAGE_PHRASES = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS, errno.ESTALE)
_NUMBERS = "|".join(map(str, sorted(_STORAGE_ERRNOS - {errno.ENOTCONN})))
_STORAGE_TEXT = re.compile(
    "|".join(
        [
            rf"\bos error (?:{_NUMBERS})\b",  # Rust: safetensors, tokenizers, hf_xet
            rf"\b[Ee]rrno (?:{_NUMBERS})\b",  # Arrow; shutil.Error, which lists the errors of single files
            *(re.escape(os.strerror(number)) for number in _STORAGE_PHRASES),
            r"^\d+ requested and \d+ written$",  # numpy.ndarray.tofile
            r"PytorchStreamWriter failed writing",
            r"inline_container\.cc:\d+\] \. (?:unexpected pos|.*file write failed)",
            r"basic_ios::clear: iostream error|ios_base::failbit set: iostream error",
            r"faiss.*write error",
        ]
    )
)
_INACCESSIBLE_TEXT = re.compile(
    r"No such file or directory|does not exist|Permission denied|Not a directory|\bos error (?:2|13|20)\b"
)
_MEMORY_TEXT = re.compile(
    r"out of memory|can't allocate memory|STATUS_ALLOC_FAILED|failed to allocate|std::bad_alloc"
    r"|not enough memory:"
)
_DAMAGED: dict[tuple[str, str], type[JobFailure]] = {
    ("safetensors", "SafetensorError"): BadModel,
    ("safetensors_rust", "SafetensorError"): BadModel,
    ("pyarrow", "ArrowInvalid"): BadData,
    ("pyarrow", "ArrowSerializationError"): BadData,
    ("zlib", "error"): BadData,
    ("lzma", "LZMAError"): BadData,
    ("_lzma", "LZMAError"): BadData,
    ("gzip", "BadGzipFile"): BadData,
    ("zipfile", "BadZipFile"): BadData,
    ("tarfile", "ReadError"): BadData,
    ("zstandard", "ZstdError"): BadData,
}
"""(top-level module, type name) -> the failure: errors that mean a damaged file wherever they are raised."""


def causes(error: BaseException) -> Iterator[BaseException]:
    """Yield the error and what led to it, the outermost first."""
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        yield current
        hidden = current.__suppress_context__
        current = current.__cause__ or (None if hidden else current.__context__)


def first_line(error: BaseException) -> str:
    """Return the type's name where the message is empty, as an `EOFError`'s is."""
    return str(error).strip().partition("\n")[0] or type(error).__name__


def is_storage_error(error: BaseException) -> bool:
    """Tell whether a full disk, a quota or failing storage is behind an error."""
    return any(_is_storage(one) for one in causes(error))


def _is_storage(error: BaseException) -> bool:
    if isinstance(error, ReasonError):
        return isinstance(error, StorageFailure)
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno in _STORAGE_ERRNOS
    return bool(_STORAGE_TEXT.search(str(error)))


def is_memory_error(error: BaseException) -> bool:
    """Tell whether the machine or a GPU ran out of memory."""
    return any(
        isinstance(one, MemoryError)
        or (isinstance(one, RuntimeError) and bool(_MEMORY_TEXT.search(str(one))))
        for one in causes(error)
    )


def inaccessible_path(error: BaseException, folders: Iterable[Path]) -> Path | None:
    """Return the file below one of ``folders`` that an error says is missing or may not be accessed."""
    wanted = [folder.absolute() for folder in folders]
    for one in causes(error):
        if isinstance(one, ReasonError):
            continue
        if isinstance(one, OSError) and one.errno in _INACCESSIBLE_ERRNOS and isinstance(one.filename, str):
            found = Path(one.filename).absolute()
            if any(found.is_relative_to(folder) for folder in wanted):
                return found
        elif _INACCESSIBLE_TEXT.search(str(one)):
            named = next((folder for folder in wanted if str(folder) in str(one)), None)
            if named is not None:
                return named
    return None


def explain(error: BaseException) -> JobFailure | None:
    """Return the failure that an error stands for, wherever it was raised; None when nobody knows one.

    A `JobFailure` that a library has wrapped in an error of its own (``raise ... from``) counts as itself.
    """
    wrapped: BaseException | None = error
    while wrapped is not None:
        if isinstance(wrapped, JobFailure):
            return wrapped
        wrapped = wrapped.__cause__
    if is_memory_error(error):
        return OutOfMemory(f"The machine or the GPU ran out of memory: {first_line(error)}")
    if is_storage_error(error):
        return StorageFailure(_storage_sentence(error))
    for one in causes(error):
        for ancestor in type(one).__mro__:
            failure = _DAMAGED.get((ancestor.__module__.partition(".")[0], ancestor.__name__))
            if failure is not None:
                return failure(f"A file is damaged or incomplete: {first_line(one)}")
    return None


def _storage_sentence(error: BaseException) -> str:
    root = next(one for one in causes(error) if _is_storage(one))
    return (
        f"A file could not be read or written: {first_line(root)}. Check the free space and the health of "
        "the disks of REASON_DATA_DIR, the artifacts and the temporary folder."
    )


@contextlib.contextmanager
def translated(make: Callable[[Exception], JobFailure], what: str) -> Iterator[None]:
    """Turn whatever a library raises in the block into the failure that ``make`` gives.

    Failed storage is a `StorageFailure` whose message begins with ``what``. Our own errors and errors of
    memory pass.
    """
    try:
        yield
    except ReasonError:
        raise
    except Exception as error:
        if is_memory_error(error):
            raise
        if is_storage_error(error):
            raise StorageFailure(f"{what}: {first_line(error)}") from error
        raise make(error) from error


def reading_model(what: str) -> contextlib.AbstractContextManager[None]:
    """Turn whatever a library raises in the block into `BadModel`, or `StorageFailure` where storage failed.

    For blocks that only read model files: errors of memory pass. ``what`` begins the message.
    """
    return translated(lambda error: BadModel(f"{what}: {first_line(error)}"), what)


def reading_data(what: str) -> contextlib.AbstractContextManager[None]:
    """Turn what a library raises in the block into `BadData`, or `StorageFailure` where storage failed."""
    return translated(lambda error: BadData(f"{what}: {first_line(error)}"), what)


@contextlib.contextmanager
def writing(what: str, folder: Path) -> Iterator[None]:
    """Turn errors of writing below ``folder`` into `StorageFailure`. Other errors pass."""
    try:
        yield
    except ReasonError:
        raise
    except Exception as error:
        if isinstance(error, OSError) or is_storage_error(error) or inaccessible_path(error, [folder]):
            raise StorageFailure(
                f"{what} in {folder} failed: {first_line(error)}. Free space there, or make the folder "
                "writable."
            ) from error
        raise


def unreadable(message: str, error: BaseException) -> JobFailure:
    """Return `BadData` with the error's text, or `StorageFailure` where the storage failed, not the file."""
    failure = StorageFailure if is_storage_error(error) else BadData
    return failure(f"{message}: {first_line(error)}")


def reading_cache(path: Path) -> contextlib.AbstractContextManager[None]:
    """Read a file that can be made again. A damaged one is removed and raises `StorageFailure`."""

    def remove(error: Exception) -> StorageFailure:
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)
        return StorageFailure(
            f"Cache file {path} is damaged or missing: {first_line(error)}. The next attempt makes it again."
        )

    return translated(remove, f"{path} cannot be read")
