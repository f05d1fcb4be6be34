"""Where finished artifacts are kept: a local folder or any fsspec URL, addressed by content.

``<root>/<kind>/<first two>/<sha256>/`` holds an artifact's files and its manifest. Two jobs that make
the same bytes share one folder.
"""

import contextlib
import shutil
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

import fsspec
from fsspec.core import url_to_fs

from core.artifacts.cache import touch
from core.artifacts.folders import (
    MANIFEST,
    Manifest,
    fresh_folder,
    inspect_folder,
    is_whole,
    publish_folder,
    write_manifest,
)
from core.errors import NotFound, ReasonError, StorageFailure


@dataclass(frozen=True)
class Published:
    """A finished artifact: where it is and what is in it."""

    uri: str
    manifest: Manifest


_REMOVED_AT_ONCE = 500


class Library:
    """Publishes, checks, reads and fetches artifacts under one root URL."""

    def __init__(self, root: str) -> None:
        self.root = root.rstrip("/")
        self._fs: fsspec.AbstractFileSystem
        self._fs, self._path = url_to_fs(self.root)

    @property
    def local(self) -> Path | None:
        """The root as a folder, when it is one."""
        protocol = self._fs.protocol
        return (
            Path(self._path) if "file" in (protocol if isinstance(protocol, tuple) else (protocol,)) else None
        )

    def publish(
        self,
        folder: Path,
        kind: str,
        metadata: dict[str, Any],
        check_stop: Callable[[], None] = lambda: None,
    ) -> Published:
        """Take over a finished folder, which is gone afterwards. Raises `StorageFailure`.

        Whatever ``check_stop`` raises ends the work before the artifact is visible.
        """
        with self._answering(f"publishing the {kind}"):
            return (
                self._publish_local(folder, kind, metadata, check_stop)
                if self.local
                else self._upload(folder, kind, metadata, check_stop)
            )

    def _publish_local(
        self, folder: Path, kind: str, metadata: dict[str, Any], check_stop: Callable[[], None]
    ) -> Published:
        assert self.local is not None
        staging = self.local / "staging" / uuid.uuid4().hex
        staging.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(folder, staging)
        try:
            manifest = inspect_folder(staging, kind, metadata, sync=True, check_stop=check_stop)
        except BaseException:
            with contextlib.suppress(OSError):
                staging.rename(folder)  # its owner has it back, and removes or rescues it
            raise
        place = self._place(manifest)
        publish_folder(staging, self.local / place, manifest)
        return Published(f"{self.root}/{place}", manifest)

    def _upload(
        self, folder: Path, kind: str, metadata: dict[str, Any], check_stop: Callable[[], None]
    ) -> Published:
        manifest = inspect_folder(folder, kind, metadata, check_stop=check_stop)
        write_manifest(folder, manifest)
        place = self._place(manifest)
        for entry in manifest.files:
            check_stop()
            self._fs.put_file(str(folder / entry.path), f"{self._path}/{place}/{entry.path}")
        self._fs.put_file(str(folder / MANIFEST), f"{self._path}/{place}/{MANIFEST}")
        shutil.rmtree(folder)
        return Published(f"{self.root}/{place}", manifest)

    @staticmethod
    def _place(manifest: Manifest) -> str:
        return f"{manifest.kind}/{manifest.sha256[:2]}/{manifest.sha256}"

    def manifest(self, uri: str) -> Manifest:
        """Raises `NotFound` when no whole artifact lies at ``uri``, `StorageFailure` when nobody can say."""
        place = f"{self._inside(uri)}/{MANIFEST}"
        with self._answering(f"reading {uri}"):
            try:
                return Manifest.model_validate_json(self._fs.cat_file(place))
            except (FileNotFoundError, NotADirectoryError) as error:
                raise NotFound(f"No complete artifact at {uri}") from error

    def check(self, uri: str) -> Manifest:
        """The manifest, after every file was seen with its size. Raises `NotFound`."""
        manifest = self.manifest(uri)
        for entry in manifest.files:
            path = f"{self._inside(uri)}/{entry.path}"
            with self._answering(f"checking {uri}"):
                try:
                    whole = self._fs.size(path) == entry.bytes
                except FileNotFoundError:
                    whole = False
            if not whole:
                raise NotFound(f"{entry.path} of the artifact at {uri} is missing or incomplete")
        return manifest

    def open(self, uri: str, path: str) -> IO[bytes]:
        """A seekable stream of one file that the manifest names. Raises `NotFound` or `StorageFailure`."""
        with self._answering(f"opening {path}"):
            try:
                return cast(IO[bytes], self._fs.open(f"{self._inside(uri)}/{path}", "rb"))
            except FileNotFoundError as error:
                raise NotFound(f"The artifact at {uri} has no file {path}") from error

    def fetch(self, uri: str, cache: Path) -> Path:
        """The artifact as a local folder: itself, or a whole copy under ``cache``."""
        if self.local:
            return Path(self._inside(uri))
        manifest = self.manifest(uri)
        final = cache / self._place(manifest)
        if is_whole(final):
            touch(final)
            return final
        staging = fresh_folder(cache / "staging" / uuid.uuid4().hex)
        try:
            for entry in manifest.files:
                (staging / entry.path).parent.mkdir(parents=True, exist_ok=True)
                with self._answering(f"fetching {entry.path}"):
                    self._fs.get_file(f"{self._inside(uri)}/{entry.path}", str(staging / entry.path))
            received = inspect_folder(staging, manifest.kind, sync=True)
            if received.sha256 != manifest.sha256:
                raise StorageFailure(f"The artifact at {uri} does not match its checksums")
            publish_folder(staging, final, manifest)
        finally:
            shutil.rmtree(staging, ignore_errors=True)
        return final

    # -- files of no artifact, by their path under the root -------------------------------------------

    def list_files(self, place: str) -> list[str]:
        """Every file below ``place``, relative to it. Raises `StorageFailure`."""
        top = f"{self._path}/{place}"
        with self._answering(f"listing {place}"):
            self._fs.invalidate_cache()  # another host may have written since we looked
            return [path[len(top) + 1 :] for path in self._fs.find(top)]

    def read(self, place: str) -> bytes:
        """A small file's bytes. Raises `StorageFailure`."""
        with self._answering(f"reading {place}"):
            return bytes(self._fs.cat_file(f"{self._path}/{place}"))

    def get(self, place: str, target: Path) -> None:
        """Raises `StorageFailure`."""
        target.parent.mkdir(parents=True, exist_ok=True)
        with self._answering(f"fetching {place}"):
            self._fs.get_file(f"{self._path}/{place}", str(target))

    def put(self, source: Path, place: str) -> None:
        """Raises `StorageFailure`."""
        with self._answering(f"writing {place}"):
            self._fs.put_file(str(source), f"{self._path}/{place}")

    def remove(self, place: str) -> None:
        """A folder and all in it; nothing when it is not there. Raises `StorageFailure`."""
        self.discard(place)(lambda: True)

    def discard(self, place: str) -> Callable[[Callable[[], bool]], None]:
        """Make a folder count for nothing, at once; returns what removes it, which may take long.

        It is given a function that it asks between some files whether it may go on. What others put at the
        same place afterwards stays. Both raise `StorageFailure`.
        """
        with self._answering(f"removing {place}"):
            if self.local is not None:
                aside = self.local / "staging" / uuid.uuid4().hex
                aside.parent.mkdir(parents=True, exist_ok=True)
                with contextlib.suppress(FileNotFoundError):
                    (self.local / place).rename(aside)
                return lambda _go_on: shutil.rmtree(aside, ignore_errors=True)
            self._fs.invalidate_cache()
            found = self._fs.find(f"{self._path}/{place}")
            if manifests := [path for path in found if path.endswith(f"/{MANIFEST}")]:
                self._fs.rm(manifests)

        def remove(go_on: Callable[[], bool]) -> None:
            others = [path for path in found if path not in manifests]
            for begin in range(0, len(others), _REMOVED_AT_ONCE):
                if not go_on():
                    return
                with self._answering(f"removing {place}"):
                    self._fs.rm(others[begin : begin + _REMOVED_AT_ONCE])

        return remove

    def place_of(self, uri: str) -> str:
        """The path of an artifact under the root. Raises `NotFound` for one of another storage."""
        return self._inside(uri).removeprefix(f"{self._path}/")

    def folders(self) -> Iterator[str]:
        """The URI of every artifact's folder. Raises `StorageFailure`."""
        with self._answering("listing artifacts"):
            self._fs.invalidate_cache()
            for kind in self._names(""):
                for start in self._names(kind):
                    if len(start) == 2:
                        for name in self._names(f"{kind}/{start}"):
                            yield f"{self.root}/{kind}/{start}/{name}"

    def names(self, place: str) -> list[str]:
        """What lies in a folder, by its names; nothing when it is not there. Raises `StorageFailure`."""
        with self._answering(f"listing {place}"):
            self._fs.invalidate_cache()
            return self._names(place)

    def _names(self, place: str) -> list[str]:
        top = f"{self._path}/{place}".rstrip("/")
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            return sorted(path.rstrip("/").rpartition("/")[2] for path in self._fs.ls(top, detail=False))
        return []

    def size(self, place: str) -> int:
        """Bytes of all files below a place. Raises `StorageFailure`."""
        with self._answering(f"measuring {place}"):
            return int(self._fs.du(f"{self._path}/{place}"))

    @contextlib.contextmanager
    def _answering(self, doing: str) -> Iterator[None]:
        """Every storage has errors of its own: botocore's, say, are no OSErrors."""
        try:
            yield
        except ReasonError:
            raise
        except Exception as error:
            raise StorageFailure(f"The storage {self.root} failed while {doing}: {error}") from error

    def _inside(self, uri: str) -> str:
        if not uri.startswith(f"{self.root}/"):
            raise NotFound(f"{uri} is outside the artifact storage {self.root}")
        return f"{self._path}/{uri.removeprefix(self.root + '/')}"
