"""An archive on its way to a dataset: a few files lie in a folder, many in one file.

A file system takes a millisecond to create a file, and another to remove it. A hundred thousand pages are
written one behind the other instead, and packed from there in path order.
"""

from array import array
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import IO

from core.data.io.archives import MOST_BYTES, Extraction, is_clutter, only_folder, read_archive, same_name
from core.data.io.packing import MOST_FILES, PACKED, Packer, is_packed
from core.data.io.stopping import checked, no_stop
from core.data.io.trees import common_folder
from core.data.sources.formats import documents_by_name

_BLOCK = 1 << 20


def stage(
    archive: Path,
    folder: Path,
    name: str = "",
    *,
    most_bytes: int = MOST_BYTES,
    check_stop: Callable[[], None] = no_stop,
) -> Path:
    """Take an archive apart below ``folder``, which must not exist.

    Returns a packed dataset for more than `MOST_FILES` files that are documents, else the folder that holds
    all files. A packed dataset inside the archive is taken apart, too. Raises `BadData`.
    """
    staging = _Staging(name or archive.name, folder / "files", folder / "spool", most_bytes, check_stop)
    with staging.spool:
        read_archive(archive, name or archive.name, staging)
    if staging.spooled and documents_by_name(staging.visible_names()):
        staging.pack(folder / "packed")
        return folder / "packed"
    staging.spill()
    top = only_folder(folder / "files")
    if is_packed(top):
        return stage(top / PACKED, folder / "inner", PACKED, most_bytes=most_bytes, check_stop=check_stop)
    return top


class _Staging(Extraction):
    """Writes the first files to a folder and the others to the spool.

    Memory: the names, in which "\\0" stands for "/", so that they sort as paths do, and two numbers each.
    """

    def __init__(
        self, name: str, folder: Path, spool: Path, most_bytes: int, check_stop: Callable[[], None]
    ) -> None:
        super().__init__(name, folder, most_bytes, check_stop)
        self._place = spool
        self.spool = spool.open("wb")
        self._names: list[str] = []
        self._offsets, self._sizes = array("q"), array("q")

    @property
    def spooled(self) -> bool:
        return len(self._names) > MOST_FILES

    def write(self, source: IO[bytes], inside: str) -> None:
        spools = len(self._names) >= MOST_FILES
        self._names.append(inside.replace("/", "\0"))
        self._offsets.append(self.spool.tell() if spools else -1)
        if spools:
            self._sizes.append(self.copy(source, self.spool))
        else:
            super().write(source, inside)
            self._sizes.append((self.folder / inside).stat().st_size)

    def visible_names(self) -> Iterator[str]:
        """The names below the folder that all files are in, without hidden files."""
        top = len(self._top())
        for name in checked(self._names, self.check_stop):
            parts = name.split("\0")
            if not any(map(is_clutter, parts)):
                yield "/".join(parts[top:])

    def _top(self) -> list[str]:
        """The folder that all files are in."""
        visible = (
            name.replace("\0", "/")
            for name in checked(self._names, self.check_stop)
            if not any(map(is_clutter, name.split("\0")))
        )
        return common_folder(visible) or []

    def pack(self, target: Path) -> None:
        """Pack the files below the folder that all are in, in path order. Raises `BadData` if two are one."""
        top = "".join(f"{part}\0" for part in self._top())
        before: str | None = None
        with Packer(target, self.check_stop) as packer, self._place.open("rb") as spool:
            for number in sorted(range(len(self._names)), key=self._names.__getitem__):
                name = self._names[number]
                if before is not None and (name == before or name.startswith(f"{before}\0")):
                    raise same_name(self.name, before.replace("\0", "/"), folder=name != before)
                before = name
                if not name.startswith(top):
                    continue  # what macOS adds beside the folder
                with self._opened(number, spool) as source:
                    packer.add(name[len(top) :].replace("\0", "/"), self._sizes[number], source)

    def _opened(self, number: int, spool: IO[bytes]) -> AbstractContextManager[IO[bytes]]:
        if self._offsets[number] < 0:
            return (self.folder / self._names[number].replace("\0", "/")).open("rb")
        spool.seek(self._offsets[number])
        return nullcontext(spool)

    def spill(self) -> None:
        """Write the spooled files to the folder, too, and remove the spool."""
        with self._place.open("rb") as spool:
            for number in range(MOST_FILES, len(self._names)):
                self.check_stop()
                spool.seek(self._offsets[number])
                inside = self._names[number].replace("\0", "/")
                with self.create(inside) as file:
                    _copy(spool, file, self._sizes[number])
        self._place.unlink()


def _copy(source: IO[bytes], target: IO[bytes], size: int) -> None:
    while size:
        block = source.read(min(_BLOCK, size))
        target.write(block)
        size -= len(block)
