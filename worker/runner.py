"""One attempt on one page: claim, start, watch, finish."""

import contextlib
import logging
import shutil
import threading
import time
from dataclasses import replace
from pathlib import Path

from core.artifacts import Library
from core.errors import Conflict, InvalidRequest, NotFound, StaleLease, StorageFailure, Unavailable
from core.jobs.hosts import Gpu
from core.jobs.protocol import REQUEST, RESULT, RunRequest
from core.jobs.reasons import EndReason
from core.jobs.state import JobState
from core.language_model.rules import rules_for
from core.settings import Settings
from core.spec.parts.refs import parse_ref
from core.spec.stored import read_stored_spec
from core.store import Store
from core.store.artifacts import NewArtifact
from core.store.attempts.leases import Capacity, Claim, EqualJob
from core.store.attempts.progress import ProgressUpdate
from core.store.retention.files import BeingRemoved, NotHeld
from worker.launch import Launcher
from worker.outputs import Outputs
from worker.progress import Crossing, read_result
from worker.reuse import Begun, Reuse
from worker.supervisor import Ended, Lease, Supervisor

_log = logging.getLogger(__name__)


class Runner:
    """Takes jobs from the queue and sees them through, one a slot."""

    def __init__(
        self, settings: Settings, store: Store, launcher: Launcher, worker_id: str, gpus: list[Gpu]
    ) -> None:
        self._settings, self._store, self._launcher = settings, store, launcher
        self._worker = worker_id
        self._gpus = gpus
        self._library = Library(settings.artifact_url)
        self._outputs = Outputs(self._library, store.folders)
        self._reuse = Reuse(settings, store.reuse, gpus)
        self._busy = 0
        self._counting = threading.Lock()
        self.shutting_down = False

    @property
    def busy(self) -> int:
        """How many slots are at work."""
        return self._busy

    def work(self) -> int:
        """Runs jobs until none is left that fits. Returns how many."""
        count = 0
        with self._counting:
            self._busy += 1
        try:
            while not self.shutting_down and self.run_one():
                count += 1
        finally:
            with self._counting:
                self._busy -= 1
        return count

    def capacity(self) -> Capacity:
        """What this worker could take on; the store knows which GPUs are held."""
        return Capacity(worker=self._worker, gpus={gpu.uuid: gpu.memory_bytes for gpu in self._gpus})

    def any_gpu_worker(self) -> bool:
        """Whether anybody alive has a GPU: then a CPU worker leaves `auto` jobs alone."""
        return bool(self._gpus) or any(worker.gpus for worker, _ in self._store.workers.alive(60))

    def run_one(self) -> bool:
        """One attempt of the best job that fits. False when there is none."""
        try:
            claim = self._store.leases.claim(
                self.capacity(), self._settings.lease_seconds, any_gpu_worker=self.any_gpu_worker()
            )
        except Unavailable as error:
            _log.warning("No job can be claimed: %s", error)
            return False
        if claim is None:
            return False
        self._run(claim)
        return True

    def _run(self, claim: Claim) -> None:
        _log.info("Job %s: attempt %d begins", claim.job_id, claim.attempt)
        folder = self._settings.runs_dir / claim.job_id / f"attempt-{claim.attempt}"
        begun = Begun()
        try:
            with (
                Lease(self._store.leases, claim, self._settings.lease_seconds) as lease,
                contextlib.ExitStack() as stack,
            ):
                crossing = None
                try:
                    claim = self._with_inputs(claim)
                    begun = self._reuse.begin(claim, lease, lambda: self.shutting_down)
                    if begun.beginning.waits:
                        _log.info("Job %s: its result is being made by another job", claim.job_id)
                        return
                    if (equal := begun.beginning.equal) and self._is_whole(equal):
                        self._take(claim, equal, lease, folder)
                        return
                    self._make_folder(claim, folder)
                    crossing = stack.enter_context(
                        contextlib.closing(Crossing(self._store.progress, claim, folder, self._outputs.check))
                    )
                    ended = self._attempt(claim, folder, crossing, lease)
                except (NotFound, Conflict, InvalidRequest) as error:  # the last: an older version's spec
                    ended = Ended(EndReason.BAD_SPEC, str(error))
                except (OSError, Unavailable) as error:
                    ended = Ended(
                        EndReason.STORAGE_FAILED, f"The attempt could not start in {folder}: {error}"
                    )
                self._finish(claim, ended, lease, folder, crossing=crossing, begun=begun)
        except StaleLease as error:
            _log.warning("%s", error)

    def _with_inputs(self, claim: Claim) -> Claim:
        """Adds what the jobs that this one waited for have made since it was submitted."""
        inputs = dict(claim.inputs)
        for text in read_stored_spec(claim.spec, claim.spec_version).spec.references().values():
            ref = parse_ref(text)
            if ref.scheme == "job" and text not in inputs:
                if ref.is_checkpoint:
                    inputs[text] = self._store.artifacts.exported(claim.job_id, text)
                    continue
                lineage = self._store.artifacts.lineage(ref)
                if lineage is None:
                    raise Conflict(f"{text}: job {ref.target} has not ended yet")
                inputs[text] = lineage
        if inputs != claim.inputs:
            self._store.progress.record(claim, ProgressUpdate(inputs=inputs))
        return replace(claim, inputs=inputs)

    def _make_folder(self, claim: Claim, folder: Path) -> None:
        """The run folder, with what its process is asked to do."""
        if folder.exists():
            shutil.rmtree(folder)
        folder.mkdir(parents=True)
        checkpoints = self._checkpoints(claim.job_id)
        request = RunRequest(
            job_id=claim.job_id,
            attempt=claim.attempt,
            spec=claim.spec,
            spec_version=claim.spec_version,
            inputs=claim.inputs,
            artifact_url=self._settings.artifact_url,
            checkpoints=checkpoints,
            cache=self._settings.data_dir / "cache",
            gpus=claim.gpus,
            processes=max(1, len(claim.gpus)),
            offline=self._settings.offline,
            trust_remote_code=self._settings.trust_remote_code,
            lease_seconds=self._settings.lease_seconds,
            endpoints=rules_for(self._settings, claim.owner),
        )
        (folder / REQUEST).write_text(request.model_dump_json(), encoding="utf-8")

    def _attempt(self, claim: Claim, folder: Path, crossing: Crossing, lease: Lease) -> Ended:
        process, control = self._launcher.start(folder)
        supervisor = Supervisor(
            claim,
            process,
            control,
            crossing,
            lease,
            grace_seconds=self._settings.grace_seconds,
            shutting_down=lambda: self.shutting_down,
            read_result=lambda: read_result(folder / RESULT),
        )
        return supervisor.watch()

    def _is_whole(self, equal: EqualJob) -> bool:
        """Whether all files of its outputs are there."""
        try:
            self._outputs.check_again(equal.outputs)
        except (NotFound, StorageFailure, BeingRemoved) as error:
            _log.warning("The outputs of job %s cannot be used again: %s", equal.job_id, error)
            return False
        return True

    def _take(self, claim: Claim, equal: EqualJob, lease: Lease, folder: Path) -> None:
        """End the job with the outputs of an equal one."""
        message = f"Took the outputs of job {equal.job_id}, which made the same result."
        self._finish(claim, Ended(EndReason.SUCCEEDED, message), lease, folder, equal=equal)

    def _finish(
        self,
        claim: Claim,
        ended: Ended,
        lease: Lease,
        folder: Path,
        *,
        crossing: Crossing | None = None,
        begun: Begun | None = None,
        equal: EqualJob | None = None,
    ) -> None:
        """Writes the last lines and the end, however long the database takes, while the lease holds."""
        changed = ended.incomplete or (
            ended.reason is EndReason.SUCCEEDED and begun is not None and begun.inputs_changed()
        )
        while True:
            try:
                if crossing is not None:
                    crossing.flush()
                ended, outputs = self._with_outputs(ended, equal)
                job = self._store.leases.finish(
                    claim,
                    ended.reason,
                    ended.message,
                    outputs,
                    equal=equal if ended.reason is EndReason.SUCCEEDED else None,
                    inputs_changed=changed,
                )
                break
            except NotHeld:
                if lease.lost.is_set():
                    raise StaleLease(f"Job {claim.job_id}: the lease is lost") from None
                # The files are looked at again.
            except Unavailable as error:
                if lease.lost.is_set():
                    raise StaleLease(
                        f"Job {claim.job_id}: the database did not answer for too long"
                    ) from error
                time.sleep(0.5)
        _log.info("Job %s: attempt %d ended: %s -> %s", claim.job_id, claim.attempt, ended.reason, job.state)
        if job.state == JobState.SUCCEEDED:
            self._forget_checkpoints(claim.job_id)
            shutil.rmtree(folder.parent, ignore_errors=True)

    def _with_outputs(self, ended: Ended, equal: EqualJob | None) -> tuple[Ended, list[NewArtifact]]:
        """The end and the outputs, all of whose files are there: else it is a failure of the storage."""
        if ended.reason is not EndReason.SUCCEEDED:
            return ended, []
        try:
            if equal is not None:
                return ended, self._outputs.check_again(equal.outputs)
            return ended, [self._outputs.check(name, output) for name, output in ended.outputs.items()]
        except (NotFound, StorageFailure) as error:
            return Ended(EndReason.STORAGE_FAILED, f"An output is incomplete: {error}"), []

    def _forget_checkpoints(self, job_id: str) -> None:
        shutil.rmtree(self._checkpoints(job_id), ignore_errors=True)
        if self._library.local is None:
            try:
                self._library.remove(f"checkpoints/{job_id}")
            except StorageFailure as error:
                _log.warning("Job %s: its checkpoints stay: %s", job_id, error)

    def _checkpoints(self, job_id: str) -> Path:
        """Shared when artifacts are in files; else on this host, with copies in the storage."""
        root = self._library.local
        return (root / "checkpoints" if root else self._settings.runs_dir / "checkpoints") / job_id
