"""What a running job may do: report, ask whether to stop, find its inputs, publish its outputs."""

import shutil
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from core.artifacts import Library, Published, inspect_folder_and_place
from core.errors import JobFailure, StorageFailure
from core.jobs.events import (
    CheckpointSaved,
    Event,
    EventData,
    Memory,
    Metrics,
    Notice,
    OutputPublished,
    PhaseChange,
    Progress,
)
from core.jobs.protocol import ArtifactInput, Output, RunRequest
from core.native_errors import first_line
from core.runtime.devices import choose_device, mps_available, tell_cpu_fallbacks
from core.runtime.reporter import Reporter
from core.spec.parts.refs import Ref

_LEAST_CHECKSUM = 16

_PATIENCE_SECONDS = 1800.0
"""How long finished work waits for remote storage."""


class Stopped(BaseException):
    """The job was asked to stop and has saved what it had.

    Not an `Exception`: no library on the way may take it for a failure and carry on.
    """


class StopSignal:
    """A request to stop, from another thread. The first one counts.

    ``failure`` is set where a fault asks to stop and not a person: work is saved all the same.
    """

    def __init__(self) -> None:
        self._event = threading.Event()
        self.why: str = ""
        self.failure: JobFailure | None = None

    def request(self, why: str) -> None:
        if not self._event.is_set():
            self.why = why
            self._event.set()

    def fail(self, failure: JobFailure) -> None:
        """Ask the job to save what it can and to end by ``failure``."""
        if not self._event.is_set():
            self.failure = failure
            self.request("failure")

    def __bool__(self) -> bool:
        return self._event.is_set()


@dataclass(frozen=True)
class Seat:
    """A process's place among those of a job."""

    rank: int
    meeting: Path  # a file by which they find each other

    @property
    def out_of_memory(self) -> Path:
        """A file in which a helper leaves that it has run out of memory, where no other can know."""
        return self.meeting.with_name(f"out-of-memory-{self.rank}")


class Inputs(Protocol):
    """Find what references mean. `core.data.sources.inputs` has the one that jobs use."""

    def resolve(self, reference: str) -> Path | Ref: ...

    def model_path(self, reference: str) -> Path: ...

    def dataset_path(self, reference: str) -> Path: ...

    def release(self) -> None: ...


class RunContext:
    """One attempt of a job, as the rooms of `core` see it. ``seat`` is a helper's; the job's own has none."""

    def __init__(
        self,
        request: RunRequest,
        folder: Path,
        reporter: Reporter,
        stop: StopSignal | None = None,
        seat: Seat | None = None,
    ) -> None:
        self.request = request
        self.folder = folder
        self.reporter = reporter
        self.stop = StopSignal() if stop is None else stop  # it is falsy until asked
        self.seat = seat
        self.outputs: dict[str, Output] = {}
        self.metrics: dict[str, Any] = {}
        self.incomplete = False  # whether the same job, run again, may make more
        self._inputs: Inputs | None = None
        self._library = Library(request.artifact_url) if request.artifact_url else None
        self._device: str | None = None  # as chosen

    # -- telling ---------------------------------------------------------------------------------

    def phase(self, name: str) -> None:
        """The job now does something else: loading, evaluating, training, publishing."""
        self._emit(PhaseChange(phase=name))

    def progress(
        self, step: int, total_steps: int, *, epoch: float | None = None, eta_seconds: float | None = None
    ) -> None:
        """How far the job is: ``step`` of ``total_steps``, whatever a step is in this phase."""
        self._emit(
            Progress(
                fraction=round(step / max(1, total_steps), 4),
                step=step,
                total_steps=total_steps,
                epoch=epoch,
                eta_seconds=eta_seconds,
            )
        )

    def metric(self, step: int, values: Mapping[str, float]) -> None:
        self._emit(Metrics(step=step, values=dict(values)))

    def memory(self, used: Memory) -> None:
        self._emit(used)

    def notice(self, message: str, level: str = "info") -> None:
        """A sentence for the user."""
        self._emit(Notice(level=level, message=self.by_reference(message)))

    def by_reference(self, message: str) -> str:
        """A message in which artifacts are called what the spec calls them, and not by their checksum."""
        for reference, known in self.request.inputs.items():
            place = known.uri.rstrip("/").rpartition("/")[2] if isinstance(known, ArtifactInput) else ""
            if len(place) >= _LEAST_CHECKSUM:
                message = message.replace(place, reference)
        return message

    def notices(self, sentences: Iterable[tuple[str, str]]) -> None:
        """Sentences, each with its level."""
        for message, level in sentences:
            self.notice(message, level)

    def tell_unused(self, settings: Sequence[str]) -> None:
        """Name the settings of the spec that have no effect."""
        if settings:
            self.notice(f"Settings without effect: {'; '.join(settings)}.")

    def checkpointed(self, step: int, size: int, seconds: float) -> None:
        self._emit(CheckpointSaved(step=step, bytes=size, seconds=round(seconds, 3)))

    def _emit(self, data: EventData) -> None:
        """Report an event. Where that fails the job is asked to stop: nobody would see how it goes on."""
        try:
            self.reporter.emit(Event.of(data))
        except StorageFailure as error:
            self.stop.fail(error)
        except OSError as error:
            self.stop.fail(
                StorageFailure(f"The job's events cannot be written to {self.folder}: {first_line(error)}")
            )

    # -- stopping --------------------------------------------------------------------------------

    def should_stop(self) -> bool:
        """Asked between small steps by everything that takes long."""
        return bool(self.stop)

    def check_stop(self) -> None:
        """Raises `Stopped` when asked to stop. For places that have nothing to save."""
        if self.stop:
            raise Stopped

    @property
    def remote(self) -> Library | None:
        """The artifact storage, when it is no folder: what lies in it is seen by every host."""
        return self._library if self._library is not None and self._library.local is None else None

    @property
    def device(self) -> str:
        """What the job computes on, as torch calls it. Raises `BadSpec`."""
        if self._device is None:
            spec = self.request.spec
            self._device = choose_device(
                spec.get("device", "auto"),
                gpus=len(self.request.gpus),
                gpus_asked=spec.get("resources", {}).get("gpus", "auto"),
                mps=mps_available(),
            )
            if self._device == "mps":
                tell_cpu_fallbacks(lambda message: self.notice(message, "warning"))
        return self._device

    def on(self, device: str) -> "RunContext":
        """The same attempt, whose models are loaded onto another device."""
        other = copy(self)
        other._device = device
        return other

    # -- inputs and outputs ----------------------------------------------------------------------

    @property
    def inputs(self) -> "Inputs":
        """Where what the spec refers to lies."""
        if self._inputs is None:
            raise RuntimeError("this context has no inputs: make it by core.data.sources.inputs.make_context")
        return self._inputs

    @inputs.setter
    def inputs(self, inputs: "Inputs") -> None:
        self._inputs = inputs

    @property
    def library(self) -> Library | None:
        """Where artifacts are; None outside the service."""
        return self._library

    def model_path(self, reference: str) -> Path:
        """A model's folder; a hub's is fetched, once. Raises `BadModel` if it is not there."""
        return self.inputs.model_path(reference)

    def dataset_path(self, reference: str) -> Path:
        """Where a dataset lies; a hub's is fetched. Raises `BadData` if it is not there."""
        return self.inputs.dataset_path(reference)

    def resolve(self, reference: str) -> Path | Ref:
        """A local path for what lies in files or artifacts; the parsed reference for what a hub has."""
        return self.inputs.resolve(reference)

    def place_of(self, reference: str) -> Path | None:
        """Where a reference of files or artifacts lies; None for what a hub has."""
        path = self.resolve(reference)
        return path if isinstance(path, Path) else None

    def release(self) -> None:
        """Remove what was unpacked for this attempt."""
        self.inputs.release()

    def publish(self, name: str, kind: str, folder: Path, metadata: dict[str, Any]) -> None:
        """Hands over a finished folder as the output ``name``. The folder is gone afterwards.

        Remote storage that is away is waited for: a training of hours must not fail for minutes without it.
        Raises `StorageFailure` after `_PATIENCE_SECONDS`, and at once when a local disk fails.
        """
        metadata = {"job": self.request.job_id, **metadata}
        if self._library is not None:
            published = self._publish(self._library, folder, kind, metadata)
            uri, manifest = published.uri, published.manifest
        else:
            final = self.folder / name
            if final.exists():
                shutil.rmtree(final)
            manifest = inspect_folder_and_place(folder, final, kind, metadata)
            uri = str(final)
        output = Output(kind=kind, uri=uri, sha256=manifest.sha256, bytes=manifest.bytes)
        self.outputs[name] = output
        self._emit(OutputPublished(name=name, **output.model_dump()))

    def publish_checkpoint(self, step: int, folder: Path, metadata: dict[str, Any]) -> None:
        """Hand over the weights of a checkpoint, from any thread. The folder is gone afterwards.

        Within the service only. Raises `StorageFailure`.
        """
        assert self._library is not None, "outside the service nobody can refer to a checkpoint"
        published = self._library.publish(folder, "checkpoint", {"job": self.request.job_id, **metadata})
        self._emit(
            OutputPublished(
                name=f"checkpoint@{step}",
                kind=published.manifest.kind,
                uri=published.uri,
                sha256=published.manifest.sha256,
                bytes=published.manifest.bytes,
            )
        )

    def _publish(self, library: Library, folder: Path, kind: str, metadata: dict[str, Any]) -> Published:
        end = time.monotonic() + _PATIENCE_SECONDS
        pause = 1.0
        while True:
            try:
                return library.publish(folder, kind, metadata)
            except StorageFailure as error:
                if self.remote is None or time.monotonic() + pause > end:
                    raise
                self.notice(f"Trying again in {pause:.0f} s: {error}", "warning")
            self.wait(pause)
            pause = min(2 * pause, 60.0)

    def wait(self, seconds: float) -> None:
        """Sleeps. Raises `Stopped` as soon as the job is asked to stop."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            self.check_stop()
            time.sleep(min(left, 0.2))
