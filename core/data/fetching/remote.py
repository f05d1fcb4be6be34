"""Data and models of object storage, as local copies: fetched once, kept by what the storage says of them.

A URL is a file, or a folder of files. What tells one content from another is every file's path, size and
ETag (or checksum, or time of last change); a copy is kept under the hash of these, so that a file that
changes is another copy, and an interrupted fetch is none. No torch.
"""

import contextlib
import hashlib
import json
import shutil
import threading
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import fsspec
from fsspec.core import url_to_fs

from core.artifacts.cache import Cache
from core.errors import BadData, BadSpec, Forbidden, NotFound, ReasonError, StorageFailure
from core.native_errors import first_line

_MOST_FILES = 100_000
_BLOCK = 8 << 20
_KEPT_BYTES = 100 << 30
_AT_ONCE = 16
_LOOK_SECONDS = 0.5

_IDENTITIES = ("ETag", "etag", "md5Hash", "content_md5", "crc32c", "LastModified", "last_modified", "updated")
"""Where file systems keep what changes with a file's content: the first that is there counts."""


@dataclass(frozen=True)
class RemoteFile:
    path: str  # as the file system knows it
    inside: str  # below the URL; of a file its name
    bytes: int
    identity: str | None  # None where the storage says nothing that changes with the content


@dataclass(frozen=True)
class Remote:
    """What lies at a URL now."""

    url: str
    files: tuple[RemoteFile, ...]
    is_folder: bool

    @property
    def bytes(self) -> int:
        return sum(file.bytes for file in self.files)

    @property
    def sha256(self) -> str | None:
        """Of paths, sizes and identities; None where the storage does not tell contents apart."""
        if any(file.identity is None for file in self.files):
            return None
        listed = [[file.inside, file.bytes, file.identity] for file in self.files]
        return hashlib.sha256(json.dumps(sorted(listed, key=str)).encode()).hexdigest()


def check_allowed(url: str, prefixes: Sequence[str]) -> None:
    """Raises `Forbidden` for a URL that is under none of the prefixes. Whole parts of paths count."""
    parts = url.partition("://")[2].split("/")
    inside = any(
        url == prefix or url.startswith(f"{prefix}/") for prefix in (p.rstrip("/") for p in prefixes)
    )
    if not inside or ".." in parts or "?" in url or "#" in url:
        listed = ", ".join(prefixes) or "none"
        raise Forbidden(
            f"{url} is under none of the URLs that this service may read ({listed}). Set "
            "REASON_ALLOWED_URLS, for example s3://bucket/data"
        )


def look(url: str) -> Remote:
    """What lies there. Raises `NotFound`, `Forbidden`, `BadData` for what cannot be read as files,
    `StorageFailure` when nobody answers, and `BadSpec` when the library for it is not installed."""
    with _answering(url):
        files, path = _open(url)
        try:
            about = files.info(path)
        except FileNotFoundError as error:
            raise NotFound(f"Nothing lies at {url}") from error
        if about["type"] == "file":
            found = [_file(about, path, PurePosixPath(path).name)]
            return Remote(url, tuple(found), is_folder=False)
        listed = files.find(path, detail=True)
        if len(listed) > _MOST_FILES:
            raise BadData(f"{url} has {len(listed):,} files; at most {_MOST_FILES:,} are fetched")
        root = path.rstrip("/") + "/"
        found = [
            _file(entry, name, name.removeprefix(root))
            for name, entry in sorted(listed.items())
            if name != root
        ]
        if not found:
            raise NotFound(f"Nothing lies at {url}")
        return Remote(url, tuple(found), is_folder=True)


def _file(about: dict[str, Any], path: str, inside: str) -> RemoteFile:
    identity = next((str(about[name]) for name in _IDENTITIES if about.get(name)), None)
    if any(part in ("", ".", "..") for part in inside.split("/")):
        raise BadData(f"{path} has a name that cannot be a file's")
    return RemoteFile(path, inside, int(about.get("size") or 0), identity)


def fetch(
    remote: Remote,
    cache: Path,
    *,
    check_stop: Callable[[], None] = lambda: None,
    tell: Callable[[int], None] = lambda _bytes: None,
) -> tuple[Path, bool]:
    """(the local copy, a file or a folder as the URL is; whether it was there already).

    ``tell`` hears now and then how many bytes have come. Raises as `look` does, `StorageFailure` for a full
    disk and for files that change while they are read, and whatever ``check_stop`` raises.
    """
    copies = Cache(cache, "remote", _KEPT_BYTES)
    if remote.sha256 is not None and (known := copies.find(remote.sha256)) is not None:
        return _entry(remote, known), True

    def fill(folder: Path) -> None:
        free = shutil.disk_usage(folder).free
        if remote.bytes > free:
            raise StorageFailure(
                f"{remote.url} has {remote.bytes / 1e9:.1f} GB, and {free / 1e9:.1f} GB are free in the cache"
            )
        _copy_all(remote, folder / "content", check_stop, tell)

    # What its server does not identify is never found again.
    return _entry(remote, copies.make(remote.sha256 or uuid.uuid4().hex, fill)), False


def _entry(remote: Remote, final: Path) -> Path:
    return final / "content" if remote.is_folder else final / "content" / remote.files[0].inside


def _copy_all(
    remote: Remote, folder: Path, check_stop: Callable[[], None], tell: Callable[[int], None]
) -> None:
    """Several files at once: small ones wait for answers more than for bytes."""
    files, _ = _open(remote.url)
    stopped, lock, come = threading.Event(), threading.Lock(), 0

    def hear(count: int) -> None:
        nonlocal come
        with lock:
            come += count

    with ThreadPoolExecutor(_AT_ONCE) as pool:
        waiting = {
            pool.submit(_copy, files, file, folder / file.inside, remote.url, stopped, hear)
            for file in remote.files
        }
        try:
            while waiting:
                check_stop()
                done, waiting = wait(waiting, timeout=_LOOK_SECONDS, return_when=FIRST_EXCEPTION)
                for copied in done:
                    copied.result()
                tell(come)
        finally:
            stopped.set()
            for copying in waiting:
                copying.cancel()


def _copy(
    files: fsspec.AbstractFileSystem,
    file: RemoteFile,
    to: Path,
    url: str,
    stopped: threading.Event,
    hear: Callable[[int], None],
) -> None:
    to.parent.mkdir(parents=True, exist_ok=True)
    written = 0
    with _answering(url), files.open(file.path, "rb", block_size=_BLOCK) as source, to.open("wb") as target:
        while not stopped.is_set() and (block := source.read(_BLOCK)):
            target.write(block)
            written += len(block)
            hear(len(block))
    if stopped.is_set():
        return
    if file.identity is not None and written != file.bytes:
        raise StorageFailure(f"{file.inside} of {url} has {written} bytes, and {file.bytes} were listed")


def _open(url: str) -> tuple[fsspec.AbstractFileSystem, str]:
    # What was listed before may have changed: lists are not to come from fsspec's own memory.
    options: dict[str, Any] = {"use_listings_cache": False, "skip_instance_cache": True}
    if url.startswith("s3://"):
        options["config_kwargs"] = {"connect_timeout": 10, "retries": {"max_attempts": 3}}
    files, path = url_to_fs(url, **options)
    return files, str(path)


@contextlib.contextmanager
def _answering(url: str) -> Iterator[None]:
    """Errors of a file system's library as ours: they have types of their own, and say little."""
    try:
        yield
    except (ReasonError, MemoryError):
        raise
    except ImportError as error:
        raise BadSpec(f"{url}: its library is not installed ({first_line(error)})") from error
    except FileNotFoundError as error:
        raise NotFound(f"{url} is not there, or not any more: {first_line(error)}") from error
    except PermissionError as error:
        raise Forbidden(f"{url}: the service may not read it ({first_line(error)})") from error
    except Exception as error:  # botocore, aiohttp and others share no type
        if type(error).__module__.startswith(("core.", "builtins")) and not isinstance(
            error, OSError | ValueError
        ):
            raise
        raise StorageFailure(f"{url} cannot be read: {first_line(error)}") from error
