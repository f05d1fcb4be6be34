"""Copies of checkpoints in the artifact storage, so that any host can go on where another was lost."""

import logging
import shutil
import threading
from collections.abc import Callable, Set
from pathlib import Path, PurePosixPath

from core.artifacts import MANIFEST, Library, Manifest, is_whole

_log = logging.getLogger(__name__)


class Copies:
    """The newest checkpoint of one job under ``checkpoints/<job>/`` of the storage.

    Uploads run beside training, one at a time; a checkpoint's manifest is uploaded last, so that a copy
    is whole or does not count. An upload that fails costs nothing but the copy: ``tell`` says so.
    """

    def __init__(self, library: Library, job_id: str, tell: Callable[[str], None]) -> None:
        self._library, self._tell = library, tell
        self._place = f"checkpoints/{job_id}"
        self._upload: threading.Thread | None = None

    def fetch_newer(self, folder: Path, target: Path, step: int, rejected: Set[int] = frozenset()) -> bool:
        """Bring the newest copy of a later step than ``step`` into ``target``, the curves into ``folder``.

        Copies of ``rejected`` steps are passed over. Returns whether there was one. Raises `StorageFailure`
        when the storage does not answer: to begin anew would lose more than a retry.
        """
        for place in self._copied():
            if _key(place)[0] <= step:
                return False
            if _key(place)[0] in rejected:
                continue
            if self._fetch(place, target / place.name):
                for path in self._library.list_files(f"{self._place}/beside"):
                    if not (folder / path).exists():  # another attempt on this host may be writing it
                        self._library.get(f"{self._place}/beside/{path}", folder / path)
                return True
            self._tell(f"The copy of {place.name} is not whole; it is passed over.")
        return False

    def _copied(self) -> list[PurePosixPath]:
        """Checkpoints whose upload came to its end, the newest first."""
        paths = map(PurePosixPath, self._library.list_files(self._place))
        return sorted((path.parent for path in paths if path.name == MANIFEST), key=_key, reverse=True)

    def _fetch(self, place: PurePosixPath, target: Path) -> bool:
        if target.exists():
            shutil.rmtree(target)
        manifest = Manifest.model_validate_json(self._library.read(f"{self._place}/{place}/{MANIFEST}"))
        there = set(self._library.list_files(f"{self._place}/{place}"))
        if not there.issuperset(entry.path for entry in manifest.files):
            return False
        for entry in manifest.files:
            self._library.get(f"{self._place}/{place}/{entry.path}", target / entry.path)
        # Written last here as well: a fetch that is cut short does not count.
        self._library.get(f"{self._place}/{place}/{MANIFEST}", target / MANIFEST)
        if is_whole(target):
            return True
        shutil.rmtree(target)
        return False

    def push(self, folder: Path, checkpoint: Path) -> None:
        """Starts to upload a whole checkpoint, and the curves beside it. Waits for the one before."""
        self.wait()
        self._upload = threading.Thread(
            target=self._push, args=(folder, checkpoint), name="checkpoint-copy", daemon=True
        )
        self._upload.start()

    def wait(self) -> None:
        """Until nothing is being uploaded."""
        if self._upload is not None:
            self._upload.join()
            self._upload = None

    def _push(self, folder: Path, checkpoint: Path) -> None:
        name = checkpoint.relative_to(folder).as_posix()
        try:
            for path in (folder / "tensorboard").glob("*"):
                self._library.put(path, f"{self._place}/beside/tensorboard/{path.name}")
            for path in checkpoint.rglob("*"):
                if path.is_file() and path != checkpoint / MANIFEST:
                    inside = path.relative_to(checkpoint).as_posix()
                    self._library.put(path, f"{self._place}/{name}/{inside}")
            self._library.put(checkpoint / MANIFEST, f"{self._place}/{name}/{MANIFEST}")
            paths = map(PurePosixPath, self._library.list_files(self._place))
            there = {PurePosixPath(*path.parts[:2]) for path in paths if path.parts[0] != "beside"}
            # Whole or not, what is older goes, but nothing of a newer attempt: that has taken over.
            step, attempt = _key(PurePosixPath(name))
            for old in there:
                if _key(old) < (step, attempt) and _key(old)[1] <= attempt:
                    self._library.remove(f"{self._place}/{old}")
        except Exception as error:  # noqa: BLE001 - a client library's own errors are no OSErrors, and training goes on
            _log.warning("The copy of %s failed", name, exc_info=True)
            self._tell(f"{checkpoint.name} lies on this host only, its copy failed: {error}")


def _key(place: PurePosixPath) -> tuple[int, int]:
    """(step, attempt) of ``attempt-A/checkpoint-S``."""
    return number_of(place.name), number_of(place.parent.name)


def number_of(name: str) -> int:
    """Of ``checkpoint-40`` or ``attempt-2``; -1 of anything else."""
    tail = name.rpartition("-")[2]
    return int(tail) if tail.isdecimal() else -1
