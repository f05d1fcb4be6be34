"""From a spec to job rows: everything that is checked before a job is added, alone or in a pipeline."""

from collections.abc import Container
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Literal
from urllib.parse import urlsplit

from fastapi import BackgroundTasks

from api.estimates import check_memory
from api.reading_estimates import check_reading_memory
from api.references import pin_checkpoints, resolve_references
from core.artifacts import Library
from core.errors import BadSpec, Forbidden, InvalidRequest, Problem
from core.ids import new_id
from core.jobs.protocol import EndpointRules, Input
from core.jobs.state import JobState
from core.language_model.endpoints import settle_endpoint
from core.language_model.rules import rules_for
from core.queue.wakeups import Queue
from core.settings import Settings
from core.spec import AnySpec, ExportSpec, JobSpec, MineSpec, PrepareSpec, TrainSpec
from core.spec.job import PART_OF
from core.spec.parts.queries import LanguageModel
from core.spec.parts.refs import parse_ref
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
    pinned: dict[str, str] = field(default_factory=dict)  # checkpoints that were looked up: the same for all

    def check(
        self,
        spec: AnySpec,
        *,
        job_id: str | None = None,
        stage: str | None = None,
        planned: Container[str] = (),
        reuse: bool = False,
        not_before: datetime | None = None,
    ) -> list[NewJob]:
        """The job that a spec becomes, last, after the jobs of its parts.

        ``planned``: ids of jobs that will be added together with it. ``reuse`` and ``not_before`` as in
        `NewJob`. Raises `InvalidRequest`, `NotFound`, `Forbidden` or `Conflict`.
        """
        _check_fleet(spec, self.store)
        if isinstance(spec, PrepareSpec) and spec.queries.llm is not None:
            _check_endpoint(spec.queries.llm, rules_for(self.settings, self.access.owner))
        spec = pin_checkpoints(spec, self.store, self.access, self.pinned)
        inputs, parents = resolve_references(spec, self.store, self.settings, self.access, planned)
        least = None
        if isinstance(spec, TrainSpec):
            least = check_memory(spec, inputs, self.store, self.library)
        else:
            check_reading_memory(spec, inputs, self.store, self.library)
        # Decided here and not by the workers, whose settings may differ.
        scope = (self.access.owner or "") if self.settings.private_jobs else None
        job_id = job_id or new_id("job")
        parts = self._exports(spec, job_id, scope)
        exported = [part.id for part in parts]
        if isinstance(spec, MineSpec) and spec.parts > 1:
            spec, divided = spec.divided(job_id, [new_id("job") for _ in range(spec.parts)])
            parts += [
                NewJob(
                    spec=part,
                    id=part_id,
                    inputs=inputs,
                    depends_on=[*parents, *exported],
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
            reuse=reuse or isinstance(spec, ExportSpec),
            result_scope=scope,
        )
        return [replace(job, not_before=not_before) for job in (*parts, whole)]

    def _exports(self, spec: AnySpec, job_id: str, scope: str | None) -> list[NewJob]:
        """Jobs that make models of the checkpoints that a spec names, if it is no such job itself."""
        if isinstance(spec, ExportSpec):
            return []
        named = {text for text in spec.references().values() if parse_ref(text).is_checkpoint}
        return [
            NewJob(
                spec=ExportSpec(
                    kind="export",
                    model=text,
                    labels={PART_OF: job_id},
                    priority=spec.priority,
                    device=self._device(text),
                ),
                inputs=self._weights(text),
                reuse=True,
                result_scope=scope,
            )
            for text in sorted(named)
        ]

    def _device(self, text: str) -> Literal["auto", "cpu"]:
        """Only a base in few bits needs a GPU to be read."""
        training = self.store.jobs.get(parse_ref(text).target, self.access)
        return "auto" if training.spec.get("quantization") else "cpu"

    def _weights(self, text: str) -> dict[str, Input]:
        """Of a checkpoint, as the input of the job that makes a model of it."""
        known = self.store.artifacts.lineage(parse_ref(text), self.access)
        assert known is not None, "a checkpoint is there or refused"
        return {text: known}


def _check_endpoint(asked: LanguageModel, rules: EndpointRules) -> None:
    """Raises `Forbidden` for an endpoint or a key that the rules refuse. What a host's name leads to is
    checked when it is called."""
    try:
        endpoint = settle_endpoint(asked, rules)
    except BadSpec as error:
        raise Forbidden(str(error)) from error
    host = urlsplit(asked.endpoint).hostname or ""
    try:
        permitted = endpoint.permits(host)
    except ValueError:  # a name
        return
    if not permitted:
        raise Forbidden(endpoint.refusal(host))


def wake_for(background: BackgroundTasks, queue: Queue, job: Job) -> None:
    """After the commit and after the answer: a slow broker holds nobody up."""
    background.add_task(wake, queue, job)


def wake(queue: Queue, job: Job) -> None:
    """Tell a worker of a job that it may claim; one that waits may wait for parts of its own, which are
    queued."""
    divided = bool(job.spec.get("candidates")) or "/checkpoint@" in str(job.spec)
    if job.state == JobState.QUEUED or (job.state == JobState.WAITING and divided):
        queue.wake("gpu" if job.wants_gpu == "yes" else "cpu")


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
