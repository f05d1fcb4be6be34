"""Submits the pipelines of schedules when their moments come, in a thread of the server."""

import logging
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from pydantic import TypeAdapter, ValidationError

from api.pipeline_submission import PostedPipeline, submit_pipeline
from api.submission import Checker
from core.artifacts import Library
from core.errors import NotFound, ReasonError, StorageFailure, Unavailable
from core.jobs.state import JobState
from core.native_errors import first_line
from core.settings import Settings
from core.store import Store
from core.store.pipelines.schedules import Outcome
from core.store.schema.tables import Job, Schedule

_log = logging.getLogger(__name__)

_EVERY_SECONDS = 5.0

_PAUSE_SECONDS = 60.0
_PATIENCE = timedelta(hours=1)
"""How long after its moment a pipeline is still submitted whose data lie where nobody answers."""

_REQUESTS: TypeAdapter[PostedPipeline] = TypeAdapter(PostedPipeline)


class Scheduler:
    """Turns schedules whose moment has come into pipelines. ``wake`` is called with each job that is added.

    Several servers may look at the same moment: the pipeline is submitted under a key of schedule and moment,
    so that it is one, and a moment that was handled is not handled again.
    """

    def __init__(
        self, settings: Settings, store: Store, library: Library, wake: Callable[[Job], None]
    ) -> None:
        self._settings, self._store, self._library, self._wake = settings, store, library, wake
        self._again: dict[str, float] = {}  # schedule -> when it is tried again, where a storage was away
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="scheduler", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._done.set()
        self._thread.join(5)

    def _watch(self) -> None:
        away = False
        while not self._done.wait(_EVERY_SECONDS):
            try:
                self.run_due()
                away = False
            except Unavailable as error:
                if not away:
                    _log.warning("Schedules wait: %s", error)
                away = True
            except Exception:  # noqa: BLE001 - other schedules, and other moments, come
                _log.exception("Schedules could not be looked at; it is tried again")

    def run_due(self) -> None:
        """Submit what is due, each for itself: one that fails holds up no other.

        Raises `Unavailable`: then all are due still.
        """
        for schedule in self._store.schedules.due():
            if time.monotonic() < self._again.get(schedule.id, 0.0):
                continue
            try:
                self.run(schedule, schedule.next_at)
            except NotFound:  # deleted since the look
                continue

    def run(self, schedule: Schedule, moment: datetime | None = None) -> Outcome:
        """Submit its pipeline, now or for the moment that was due, and note what has become of it.

        Raises `Unavailable`, and `NotFound` for a schedule that was deleted.
        """
        schedule = self._store.schedules.get(schedule.id)
        if moment is not None and schedule.next_at != moment:
            return Outcome(schedule.last_pipeline, schedule.last_problem)  # by another server
        asked = moment is None
        try:
            outcome = self._submit(schedule, moment)
        except StorageFailure as error:
            outcome = Outcome(problem=f"The pipeline could not be submitted: {error}")
            if moment is not None and datetime.now(UTC) - moment < _PATIENCE:
                self._again[schedule.id] = time.monotonic() + _PAUSE_SECONDS
                moment = None  # it is tried again
        if asked and outcome.problem is not None:  # whoever asked is told
            return outcome
        first = self._store.schedules.note(schedule, outcome, moment=moment)
        if first and outcome.problem is not None and outcome.problem != schedule.last_problem:
            _log.warning("Schedule %s: %s", schedule.id, outcome.problem)
        return outcome

    def _submit(self, schedule: Schedule, moment: datetime | None) -> Outcome:
        access = self._store.schedules.access_of(schedule, private=self._settings.private_jobs)
        if access is None:
            return Outcome(problem=f"The API key {schedule.owner} that made the schedule was revoked")
        checker = Checker(self._store, self._settings, self._library, access)
        key = f"{schedule.id} {moment.isoformat()}" if moment is not None else None
        try:
            spec = _REQUESTS.validate_python(schedule.request)
            if unfinished := self._unfinished(schedule):
                return Outcome(problem=f"The pipeline before, {unfinished}, has not ended: left out")
            pipeline, _ = submit_pipeline(spec, checker, key)
        except (Unavailable, StorageFailure):
            raise
        except (ReasonError, ValidationError) as error:
            return Outcome(problem=f"The pipeline could not be submitted: {error}")
        except Exception as error:  # noqa: BLE001 - whatever it is, others come behind it
            _log.exception("Schedule %s", schedule.id)
            return Outcome(problem=f"The pipeline could not be submitted: {first_line(error)}")
        for job in self._store.pipelines.jobs_of([pipeline.id])[pipeline.id].values():
            self._wake(job)
        return Outcome(pipeline=pipeline.id)

    def _unfinished(self, schedule: Schedule) -> str | None:
        """The last pipeline, if it has not ended."""
        if schedule.last_pipeline is None:
            return None
        try:
            last = self._store.pipelines.get(schedule.last_pipeline)
        except NotFound:  # it was deleted
            return None
        return None if JobState(last.state).final else last.id
