"""The crossing: what a job's process says in files becomes rows in the database."""

import contextlib
import logging
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO

from pydantic import ValidationError

from core.errors import NotFound, StorageFailure
from core.jobs.events import (
    Event,
    EventType,
    Memory,
    Metrics,
    OutputPublished,
    PhaseChange,
    Progress,
    StateChange,
)
from core.jobs.protocol import EVENTS, LOG, Output, RunResult
from core.jobs.reasons import lost_run_folder
from core.store.artifacts import NewArtifact
from core.store.attempts.leases import Claim, Requests
from core.store.attempts.progress import ProgressStore, ProgressUpdate
from core.store.retention.checkpoints import CHECKPOINT
from core.store.retention.files import BeingRemoved, NotHeld

_log = logging.getLogger(__name__)
_MAX_LOG_READ = 1 << 20
_LATER = 4
"""Weights of checkpoints that are looked at again, the newest ones."""
_AT_ONCE = frozenset({EventType.PHASE, EventType.OUTPUT, EventType.CHECKPOINT})


class Tail:
    """New whole lines of a growing file.

    ``lost`` is set when the file is no longer the one that was read so far: deleted, replaced or cut short.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0
        self._file: IO[bytes] | None = None
        self.lost = False

    def read(self, limit: int = -1) -> bytes:
        """Return what was added since the last call, up to the last line's end (or ``limit`` bytes)."""
        if self._file is None:
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                self._file = self._path.open("rb")
                self._offset = 0
        if self._file is None:
            return b""
        self._file.seek(self._offset)
        data = self._file.read(limit)
        end = data.rfind(b"\n") + 1
        if end == 0 and limit >= 0 and len(data) == limit:
            end = len(data)  # one endless line, a progress bar's for example
        self._offset += end
        if not end and self._changed():
            self.lost = True
        return data[:end]

    def reopen(self) -> None:
        """Go on with the file that has the path now, from its beginning."""
        self.close()
        self.lost = False

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def _changed(self) -> bool:
        """Whether the path leads to another file than the open one, or to fewer bytes than were read."""
        assert self._file is not None
        try:
            there = self._path.stat()
        except OSError:
            return True
        ours = os.fstat(self._file.fileno())
        return not os.path.samestat(ours, there) or there.st_size < self._offset


class Crossing:
    """Tails a run's events and log, and writes them in batches, about one a second.

    A batch that could not be written (the database was away) stays and goes with the next. ``check`` looks at
    the files of a checkpoint's weights. ``lost`` is a sentence once the events can no longer be read: the run
    folder was deleted or replaced.
    """

    def __init__(
        self,
        store: ProgressStore,
        claim: Claim,
        folder: Path,
        check: Callable[[str, Output], NewArtifact],
        seconds: float = 1.0,
    ) -> None:
        self._store, self._claim, self._folder, self._check = store, claim, folder, check
        self._events, self._log = Tail(folder / EVENTS), Tail(folder / LOG)
        for path in (folder / EVENTS, folder / LOG):
            path.touch()  # from here on a file that is missing was deleted
        self.lost: str | None = None
        self._seconds = seconds
        self._pending = ProgressUpdate()
        self._weights: list[OutputPublished] = []  # of checkpoints, whose rows are not yet written
        self._latest: dict[str, float | None] = dict(claim.latest)
        self._flushed = 0.0
        self._urgent = False

    def look(self) -> None:
        """Read what is new. Costs two file reads; writes nothing."""
        for line in self._events.read().splitlines():
            try:
                event = Event.model_validate_json(line)
            except ValidationError as error:
                _log.warning("Job %s wrote an event that cannot be read: %s", self._claim.job_id, error)
                continue
            self._take(event)
        if self._events.lost and self.lost is None:
            self.lost = lost_run_folder(self._folder)
            _log.error("Job %s: %s", self._claim.job_id, self.lost)
        self._pending.log += self._log.read(_MAX_LOG_READ).decode("utf-8", errors="replace")
        if self._log.lost:
            self._log.reopen()  # its process creates it again and tells

    def _take(self, event: Event) -> None:
        match event.data:
            case StateChange():
                return  # the store's own word
            case PhaseChange(phase=phase):
                self._pending.phase = phase
            case Progress():
                self._pending.progress = event.data
            case Memory():
                self._pending.memory = event.data
            case Metrics(step=step, values=values):
                for name, value in values.items():
                    self._pending.metrics.append((name, step, value, event.at))
                self._latest |= values
                self._pending.latest = dict(self._latest)
            case OutputPublished(kind=kind) if kind == CHECKPOINT:
                self._weights.append(event.data)
        if event.type in (EventType.PROGRESS, EventType.MEMORY) and self._replaces_last(event):
            self._pending.events[-1] = event
        else:
            self._pending.events.append(event)
        self._urgent = self._urgent or event.type in _AT_ONCE

    def _replaces_last(self, event: Event) -> bool:
        """Of a run of progress or memory events within one batch only the last says anything."""
        return bool(self._pending.events) and self._pending.events[-1].type == event.type

    def due(self) -> bool:
        """Whether something waits that should be written now."""
        return bool(self._pending) and (self._urgent or time.monotonic() - self._flushed >= self._seconds)

    def flush(self) -> Requests | None:
        """Writes what waits. Raises `StaleLease` or `Unavailable`; then it still waits."""
        if not self._pending:
            return None
        while True:
            later = self._look_at_weights()
            try:
                requests = self._store.record(self._claim, self._pending)
                break
            except NotHeld:  # a row for the same files has just been added: they are looked at again
                continue
        self._pending, self._weights, self._urgent = ProgressUpdate(), later, False
        self._flushed = time.monotonic()
        return requests

    def _look_at_weights(self) -> list[OutputPublished]:
        """Take those whose files are all there into the batch. Returns those to look at again with the next.

        Missing files end no training: such a checkpoint is no model.
        """
        self._pending.checkpoints, later = [], []
        for weights in self._weights:
            try:
                found = self._check(weights.name, Output.model_validate(weights.model_dump()))
            except (StorageFailure, BeingRemoved) as error:
                _log.warning("Job %s: %s is looked at later: %s", self._claim.job_id, weights.name, error)
                later.append(weights)
            except NotFound as error:
                _log.warning("Job %s: %s cannot be used: %s", self._claim.job_id, weights.name, error)
            else:
                self._pending.checkpoints.append(found)
        return later[-_LATER:]

    def close(self) -> None:
        self._events.close()
        self._log.close()


def read_result(path: Path) -> RunResult | None:
    """What a job's process left there; None where it left nothing."""
    try:
        return RunResult.model_validate_json(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return None
