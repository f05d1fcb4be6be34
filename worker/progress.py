"""The crossing: what a job's process says in files becomes rows in the database."""

import json
import logging
import time
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from core.jobs.events import Event, EventType
from core.store.leases import Claim, Requests
from core.store.progress import Batch, ProgressStore

_log = logging.getLogger(__name__)
_MAX_LOG_READ = 1 << 20
_AT_ONCE = frozenset({EventType.PHASE, EventType.OUTPUT, EventType.CHECKPOINT})


class Tail:
    """New whole lines of a growing file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0

    def read(self, limit: int = -1) -> bytes:
        """What was added since the last call, up to the last line's end (or ``limit`` bytes)."""
        try:
            with self._path.open("rb") as file:
                file.seek(self._offset)
                data = file.read(limit)
        except FileNotFoundError:
            return b""
        end = data.rfind(b"\n") + 1
        if end == 0 and limit >= 0 and len(data) == limit:
            end = len(data)  # one endless line, a progress bar's for example
        self._offset += end
        return data[:end]


class Crossing:
    """Tails a run's events and log, and writes them in batches, about one a second.

    A batch that could not be written (the database was away) stays and goes with the next.
    """

    def __init__(
        self, store: ProgressStore, claim: Claim, events: Path, log: Path, seconds: float = 1.0
    ) -> None:
        self._store, self._claim = store, claim
        self._events, self._log = Tail(events), Tail(log)
        self._seconds = seconds
        self._pending = Batch()
        self._latest: dict[str, Any] = dict(claim.latest)
        self._flushed = 0.0
        self._urgent = False

    def look(self) -> None:
        """Reads what is new. Costs two file reads; writes nothing."""
        for line in self._events.read().splitlines():
            try:
                event = Event.model_validate_json(line)
            except ValidationError as error:
                _log.warning("Job %s wrote an event that cannot be read: %s", self._claim.job_id, error)
                continue
            self._take(event)
        self._pending.log += self._log.read(_MAX_LOG_READ).decode("utf-8", errors="replace")

    def _take(self, event: Event) -> None:
        data, columns = event.data, self._pending.columns
        match event.type:
            case EventType.STATE:
                return  # the store's own word
            case EventType.PHASE:
                columns["phase"] = data.get("phase")
            case EventType.PROGRESS:
                columns["progress"] = data
            case EventType.MEMORY:
                columns["memory"] = data
            case EventType.METRIC:
                step = int(data["step"])
                for name, value in data["values"].items():
                    self._pending.metrics.append((name, step, value, event.at))
                self._latest |= data["values"]
                columns["latest"] = dict(self._latest)
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
        requests = self._store.record(self._claim, self._pending)
        self._pending, self._urgent = Batch(), False
        self._flushed = time.monotonic()
        return requests


def parse_json(path: Path) -> dict[str, Any] | None:
    """A JSON object from a file, or None when it is not there."""
    try:
        data = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    assert isinstance(data, dict)
    return data
