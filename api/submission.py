"""From a spec to job rows: everything that is checked before a job is added, alone or in a pipeline."""

from collections.abc import Container
from dataclasses import dataclass

from fastapi import BackgroundTasks

from api.estimates import check_memory
from api.reading_estimates import check_reading_memory
from api.references import resolve_references
from core.artifacts import Library
from core.errors import InvalidRequest, Problem
from core.ids import new_id
from core.jobs.state import JobState
from core.queue.wakeups import Queue
from core.settings import Settings
from core.spec import AnySpec, JobSpec, MineSpec, TrainSpec
from core.store import Store
from core.store.new_jobs import NewJob
from core.store.schema.access import Access
from core.store.schema.tables import Job


@dataclass(frozen=True)
class Checker:
    """What a caller's specs are checked against."""

    store: Store
    settings: Settings
    library: Library
    access: Access

    def check(
        self,
        spec: AnySpec,
        *,
        job_id: str | None = None,
        stage: str | None = None,
        planned: Container[str] = (),
        reuse: bool = False,
    ) -> list[NewJob]:
        """The job that a spec becomes, last, after the jobs of its parts.

        ``planned``: ids of jobs that will be added together with it. ``reuse`` as in `NewJob`. Raises
        `InvalidRequest`, `NotFound`, `Forbidden` or `Conflict`.
        """
        _check_fleet(spec, self.store)
        inputs, parents = resolve_references(spec, self.store, self.settings, self.access, planned)
        least = None
        if isinstance(spec, TrainSpec):
            least = check_memory(spec, inputs, self.store, self.library)
        else:
            check_reading_memory(spec, inputs, self.store, self.library)
        # Decided here and not by the workers, whose settings may differ.
        scope = (self.access.owner or "") if self.settings.private_jobs else None
        parts: list[NewJob] = []
        job_id = job_id or new_id("job")
        if isinstance(spec, MineSpec) and spec.parts > 1:
            spec, divided = spec.divided(job_id, [new_id("job") for _ in range(spec.parts)])
            parts = [
                NewJob(
                    spec=part,
                    id=part_id,
                    inputs=inputs,
                    depends_on=parents,
                    reuse=reuse,
                    result_scope=scope,
                )
                for part_id, part in divided.items()
            ]
        whole = NewJob(
            spec=spec,
            id=job_id,
            inputs=inputs,
            depends_on=[*parents, *(part.id for part in parts)],
            least_gpu_memory=least,
            stage=stage,
            reuse=reuse,
            result_scope=scope,
        )
        return [*parts, whole]


def wake_for(background: BackgroundTasks, queue: Queue, job: Job) -> None:
    """After the commit and after the answer: a slow broker holds nobody up."""
    # One that waits may wait for parts of its own, which are queued.
    if job.state == JobState.QUEUED or (job.state == JobState.WAITING and job.spec.get("candidates")):
        background.add_task(queue.wake, "gpu" if job.wants_gpu == "yes" else "cpu")


def _check_fleet(spec: JobSpec, store: Store) -> None:
    """Refuse a job that none of the present workers could run. Without workers nothing is checked."""
    if spec.resources.gpus == 0:
        return
    alive = [worker for worker, _ in store.workers.alive(60)]
    hosts = [sorted((gpu.memory_bytes for gpu in worker.gpus), reverse=True) for worker in alive]
    needed, wanted = spec.resources.gpu_memory_gb, spec.resources.gpus
    most = max((len(worker.gpus) for worker in alive), default=0)
    if alive and wanted != "auto" and wanted > most:
        message = f"resources.gpus is {wanted}, but no host has more than {most} GPUs"
        if not most:
            message = f"the job needs a GPU, but none of the {len(alive)} workers has one"
        raise InvalidRequest(message, [Problem("resources.gpus", message)])
    count = 1 if wanted == "auto" else wanted
    largest = max((sizes[count - 1] for sizes in hosts if len(sizes) >= count), default=0)
    if largest and needed != "auto" and needed * 1e9 > largest:
        message = f"the job needs a GPU with {needed:g} GB, but the largest GPU has {largest / 1e9:.1f} GB"
        if count > 1:
            message = f"the job needs {count} GPUs with {needed:g} GB each, but no host has them"
        raise InvalidRequest(message, [Problem("resources.gpu_memory_gb", message)])
