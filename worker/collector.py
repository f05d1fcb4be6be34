"""What is old and needed by nothing is removed: artifacts, checkpoints, run folders, entries of caches."""

import logging
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from core.artifacts import Library
from core.errors import NotFound, ReasonError, StorageFailure, Unavailable
from core.settings import Settings
from core.store import Store
from core.store.retention.checkpoints import checkpoints_of
from core.store.retention.files import Removal

_log = logging.getLogger(__name__)

_DAY = 86_400.0

_PAUSE_SECONDS = 60.0
"""Between two looks at folders that are to be removed."""

_EVERY_SECONDS = 3600.0
"""Between two looks at everything that may be too old."""

_UNKNOWN_DAYS = 1.0
"""How long folders that no row knows are kept: longer than a job takes from its output to its end."""

_CACHED = ("tokens/*", "embeddings/*", "remote/*", "downloads/*", "staging/*", f"*/??/{'?' * 64}")
"""Entries of the host's caches: those of training, of data from elsewhere, and copies of artifacts."""


@dataclass(frozen=True)
class Item:
    """Something that was removed, or would be. ``bytes`` may be shared with others that stay."""

    what: str
    name: str
    bytes: int
    why: str


class Collector:
    """Looks for what can go, and removes it unless ``dry_run``.

    Rows go first and files later: `core.store.retention` says what is needed, and when files may go.
    """

    def __init__(self, settings: Settings, store: Store, *, dry_run: bool = False) -> None:
        self._settings, self._store, self._dry_run = settings, store, dry_run
        self._library = Library(settings.artifact_url)

    def collect(self, *, unknown: bool = False) -> Iterator[Item]:
        """Everything once. ``unknown``: also folders of the storage, and of this host, that no row of this
        database knows.

        What one part cannot do holds up no other. Raises `Unavailable`, and `StorageFailure` at the end.
        """
        failed: StorageFailure | None = None
        for part in (
            self._artifacts(),
            self._unknown() if unknown else iter(()),
            self._checkpoints(),
            self.remove_folders(),
            self._staging(),
            self._run_folders(unknown=unknown),
            self._caches(),
        ):
            try:
                yield from part
            except StorageFailure as error:
                failed = error
        if failed is not None:
            raise failed

    def remove_folders(self) -> Iterator[Item]:
        """Folders of the storage whose rows were deleted."""
        if self._dry_run:
            for uri in self._store.folders.removable():
                yield self._folder(uri)
            return
        while (removal := self._store.folders.next_removal()) is not None:
            item = self._folder(removal.uri)
            if self._remove(removal):
                yield item

    def _folder(self, uri: str) -> Item:
        return Item("folder", uri, _quietly(lambda: self._library.size(self._place(uri))), "was deleted")

    def _remove(self, removal: Removal) -> bool:
        """Looks before each step whether it may: who was frozen has perhaps been taken for dead."""
        mine: Removal | None = removal

        def go_on() -> bool:
            nonlocal mine
            mine = self._store.folders.go_on(mine) if mine is not None else None
            return mine is not None

        try:
            if go_on():
                self._library.discard(self._place(removal.uri))(go_on)
        except (NotFound, StorageFailure) as error:  # the first: of a storage that was in use before
            _log.warning("%s stays: %s", removal.uri, error)
            if mine is not None:
                self._store.folders.not_removed(mine, _EVERY_SECONDS)
            return False
        if mine is not None:
            self._store.folders.removed(mine)
        return mine is not None

    def _place(self, uri: str) -> str:
        return self._library.place_of(uri) if "://" in uri else uri

    def _artifacts(self) -> Iterator[Item]:
        days, checkpoints = self._settings.artifact_days, self._settings.checkpoint_days
        last = ""
        while page := self._store.retention.expired(
            artifact_days=days, checkpoint_days=checkpoints, after=last
        ):
            last = page[-1].id
            for artifact in page:
                if self._dry_run:
                    gone = self._store.retention.need(artifact) is None
                else:
                    gone = self._store.retention.delete_unless_needed(artifact.id)
                if gone:
                    name = f"{artifact.id} ({artifact.output} of {artifact.job_id})"
                    yield Item(artifact.kind, name, artifact.bytes, f"from {artifact.created_at:%Y-%m-%d}")

    def _unknown(self) -> Iterator[Item]:
        """What attempts that died have left: noted now, removed by a later look."""
        found = list(self._library.folders())
        known = self._store.folders.unknown(found)
        if not self._dry_run:
            self._store.folders.note_unknown(known, _UNKNOWN_DAYS * _DAY)
        for uri in known:
            size = _quietly(lambda uri=uri: self._library.size(self._place(uri)))  # type: ignore[misc]
            yield Item("folder", uri, size, f"no row knows it: goes after {_UNKNOWN_DAYS:g} day")

    def _checkpoints(self) -> Iterator[Item]:
        """Those that a retry would go on from: they are removed as any folder that nothing refers to."""
        if (days := self._settings.checkpoint_days) is None:
            return
        for job_id in self._ended(self._library.names("checkpoints"), days):
            if self._dry_run:
                yield self._folder(checkpoints_of(job_id))
            else:
                self._store.retention.leave_checkpoints(job_id, days)

    def _staging(self) -> Iterator[Item]:
        """What processes that were killed were about to publish, or to remove."""
        if self._library.local is not None:
            for folder in _children(self._library.local / "staging"):
                yield from self._folder_of_host("staging", folder, "left over")

    def _run_folders(self, *, unknown: bool) -> Iterator[Item]:
        """Of this host; and its checkpoints, where those of the storage are only copies."""
        root = self._settings.runs_dir
        for what, place, days in (
            ("run folder", root, self._settings.run_folder_days),
            ("checkpoints", root / "checkpoints", self._settings.checkpoint_days),
        ):
            names = [path.name for path in _children(place)]
            old = list(self._ended(names, days)) if days is not None else []
            for job_id in [*old, *self._gone(names, unknown=unknown)]:
                yield from self._folder_of_host(what, place / job_id, f"of {job_id}")

    def _ended(self, names: list[str], days: float) -> Iterator[str]:
        """Jobs that ended so long ago."""
        for some in _some_jobs(names):
            for job_id, since in self._store.retention.ended_for(some).items():
                if since is not None and since > days:
                    yield job_id

    def _gone(self, names: list[str], *, unknown: bool) -> Iterator[str]:
        """Jobs that were deleted. With ``unknown``, also those that this database has never had."""
        for some in _some_jobs(names):
            missing = sorted(set(some) - set(self._store.retention.ended_for(some)))
            yield from missing if unknown else sorted(self._store.retention.were_deleted(missing))

    def _folder_of_host(self, what: str, folder: Path, name: str) -> Iterator[Item]:
        """A folder of this host, unless it was changed within a day: its job may just be deleted."""
        size, changed = _look(folder)
        if time.time() - changed < _DAY:
            return
        if not self._dry_run:
            shutil.rmtree(folder, ignore_errors=True)
        yield Item(what, f"{folder} ({name})", size, f"not used since {_date(changed)}")

    def _caches(self) -> Iterator[Item]:
        if (days := self._settings.cache_days) is None:
            return
        root = self._settings.data_dir / "cache"
        for pattern in _CACHED:
            for entry in sorted(root.glob(pattern)):
                size, used = _look(entry)
                if time.time() - used < days * _DAY:
                    continue
                if not self._dry_run:
                    shutil.rmtree(entry, ignore_errors=True) if entry.is_dir() else entry.unlink(
                        missing_ok=True
                    )
                yield Item("cache", str(entry), size, f"not used since {_date(used)}")


def _children(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if folder.is_dir() else []


def _some_jobs(names: list[str]) -> Iterator[list[str]]:
    """Those that are ids of jobs, some at once."""
    jobs = [name for name in names if name.startswith("job_")]
    for begin in range(0, len(jobs), 500):
        yield jobs[begin : begin + 500]


def _date(moment: float) -> str:
    return time.strftime("%Y-%m-%d", time.gmtime(moment))


def _look(path: Path) -> tuple[int, float]:
    """(bytes, when anything in it was last changed)"""
    size, changed = 0, 0.0
    for found in (path, *path.rglob("*")):
        try:
            state = found.lstat()
        except FileNotFoundError:  # somebody else removes it as well
            continue
        size += state.st_size if found.is_file() else 0
        changed = max(changed, state.st_mtime)
    return size, changed


def _quietly(measure: Callable[[], int]) -> int:
    """A size, for people; 0 where the storage does not say."""
    try:
        return measure()
    except ReasonError:
        return 0


class CollectorThread:
    """Collects beside a worker's jobs: folders of deleted rows each minute, everything each hour."""

    def __init__(self, collector: Collector) -> None:
        self._collector = collector
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run, name="collector", daemon=True)
        self._collected = 0.0

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._done.set()
        self._thread.join(5)

    def _run(self) -> None:
        while not self._done.wait(_PAUSE_SECONDS):
            try:
                for item in self._look():
                    _log.info("Removed %s %s: %s", item.what, item.name, item.why)
            except (Unavailable, StorageFailure) as error:
                _log.warning("Old files stay for now: %s", error)
            except Exception:  # noqa: BLE001 - whatever it is, jobs go on
                _log.exception("Old files could not be removed")

    def _look(self) -> Iterator[Item]:
        if time.monotonic() - self._collected < _EVERY_SECONDS and self._collected:
            yield from self._collector.remove_folders()
            return
        yield from self._collector.collect()
        self._collected = time.monotonic()
