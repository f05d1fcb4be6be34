"""Why a job does not run, in sentences: what it waits for, who is before it, what the workers lack."""

from collections.abc import Sequence

from core.jobs.state import JobState
from core.jobs.views import WhyReason, WhyView
from core.store import Store
from core.store.schema.tables import Job, Worker

_ALIVE_SECONDS = 60.0
_NAMED = 5
"""Of many jobs that one waits for, so many are named."""


def explain(job: Job, store: Store) -> WhyView:
    """The reasons, the job's place in the queue, and when it may start. A running job has no reasons."""
    state = JobState(job.state)
    if state is JobState.WAITING:
        return WhyView(reasons=_dependencies(store.jobs.unmet(job.id)))
    if state is JobState.PAUSED:
        text = "The job is paused: POST /jobs/{id}/resume, or reason resume, queues it again."
        return WhyView(reasons=[WhyReason(code="paused", message=text)])
    if state.final:
        message = job.end_message or f"The job is {state}."
        return WhyView(reasons=[WhyReason(code=job.end_code or state.value, message=message)])
    if state is JobState.RUNNING:
        return WhyView()
    position = store.jobs.queue_position(job)
    if maker := store.reuse.made_by(job):
        text = f"Job {maker} is making the same result now: this job will take its outputs."
        return WhyView(reasons=[WhyReason(code="same_result", message=text)], position=position)
    alive = store.workers.alive(_ALIVE_SECONDS)
    line = {waiting.job.id: waiting.starts_in_seconds for waiting in store.line.look()}
    return WhyView(
        reasons=_of_queued(job, position or 0, alive, store.jobs.delay(job)),
        position=position,
        eta_seconds=line.get(job.id),
    )


def _dependencies(missing: Sequence[Job]) -> list[WhyReason]:
    found = [
        WhyReason(
            code="waits_for_job",
            message=f"Waits for job {parent.id}"
            + (f" (stage {parent.stage})" if parent.stage else "")
            + f", which is {parent.state}.",
        )
        for parent in missing[:_NAMED]
    ]
    if len(missing) > _NAMED:
        more = f"Waits for {len(missing) - _NAMED} more jobs."
        found.append(WhyReason(code="waits_for_job", message=more))
    return found


def _duration(seconds: float) -> str:
    """For people."""
    for unit, length in (("days", 86_400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"


def _of_queued(job: Job, position: int, alive: Sequence[tuple[Worker, int]], delay: float) -> list[WhyReason]:
    """What keeps a queued job from starting. ``delay``: seconds in which nobody may claim it."""
    found: list[WhyReason] = []

    def add(code: str, message: str) -> None:
        found.append(WhyReason(code=code, message=message))

    if delay > 0 and not job.attempt:
        add(
            "not_before",
            f"Does not start before {job.not_before:%Y-%m-%d %H:%M:%S} UTC (in {_duration(delay)}).",
        )
    elif delay > 0:
        add("delayed", f"Will be tried again in {delay:.0f} s after attempt {job.attempt}.")
    if not alive:
        add("no_worker", "No worker has sent a heartbeat in the last minute: start one (reason worker).")
        return found
    workers = [worker for worker, _ in alive]
    if job.wants_gpu == "yes":
        memory = job.gpu_memory_bytes or 0
        fitting = [sum(gpu.memory_bytes >= memory for gpu in worker.gpus) for worker in workers]
        if max(fitting) < job.gpu_count:
            asked = f"{job.gpu_count} {'GPUs' if job.gpu_count > 1 else 'GPU'} of one host"
            large = f" with {memory / 1e9:.1f} GB" if memory else ""
            add("no_gpu", f"Needs {asked}{large}; no worker has that.")
            return found
    if all(worker.stopping for worker in workers):
        add("workers_stopping", "All workers are shutting down.")
    elif all(running >= worker.slots for worker, running in alive):
        add("workers_busy", f"All slots of the {len(alive)} workers are taken.")
    elif job.wants_gpu != "no" and any(worker.gpus for worker in workers):
        add("gpus_busy", "Waits for a GPU that no other job holds.")
    if position:
        add("behind_others", f"{position} queued {'jobs are' if position > 1 else 'job is'} before it.")
    if not found:
        add("starting", "A worker will claim it within seconds.")
    return found
