"""From a posted pipeline to rows: at once, or each time that its schedule says."""

import hashlib
from functools import partial
from typing import Annotated, Any

from pydantic import Discriminator, Tag

from api.recipes import RecipeBook
from api.submission import Checker
from core.errors import Conflict, InvalidRequest, Problem, ReasonError
from core.ids import new_ids
from core.jobs.state import JobState
from core.spec.parts.refs import short_name
from core.spec.pipelines.flat import FlatSpec, expand_flat, is_flat
from core.spec.pipelines.plan import PipelineSpec, Stage, plan_stages, with_promotion
from core.spec.pipelines.schedule import CronSchedule
from core.store.new_jobs import NewJob
from core.store.schema.tables import Pipeline, Schedule

PostedPipeline = Annotated[
    Annotated[PipelineSpec, Tag("<stages>")] | Annotated[FlatSpec, Tag("<flat>")],
    Discriminator(lambda body: "<flat>" if is_flat(body) else "<stages>"),
]


def submit_pipeline(
    spec: PipelineSpec | FlatSpec, checker: Checker, idempotency_key: str | None = None
) -> tuple[Pipeline, bool]:
    """Add the pipeline with all its jobs, for the checker's caller. Returns (pipeline, whether it is new).

    Raises `InvalidRequest`, `NotFound`, `Forbidden` and `Conflict`.
    """
    store, access = checker.store, checker.access
    # Without defaults: a field that a later version adds changes no request of before.
    told = spec.model_dump_json(exclude_defaults=True)
    request = hashlib.sha256(f"pipeline {told}".encode()).hexdigest()
    idempotency = (idempotency_key, request) if idempotency_key else None
    # First of all: what has changed in the world since then does not change the answer.
    known = store.pipelines.replay(access.owner, *idempotency) if idempotency else None
    if known is not None:
        return known, False
    whole, recipe, jobs = _checked(spec, checker)
    return store.pipelines.create(
        whole.name,
        whole.labels,
        list(whole.stages),
        jobs,
        recipe=recipe,
        access=access,
        idempotency=idempotency,
    )


def add_schedule(spec: PipelineSpec, times: CronSchedule, checker: Checker) -> tuple[Schedule, bool]:
    """Add a schedule, if the pipeline could be submitted now. Returns (schedule, whether it is new).

    Raises as `submit_pipeline` does: better today than on Sunday night.
    """
    whole, _, jobs = _checked(spec, checker)
    own = {job.id for job in jobs}
    for named in {named for job in jobs for named in job.spec.depends_on} - own:
        job = checker.store.jobs.get(named, checker.access)
        if job.state in (JobState.FAILED, JobState.CANCELLED):
            raise Conflict(f"depends_on: job {named} is {job.state}")
    request = spec.model_dump(mode="json", exclude_unset=True, exclude={"schedule"})
    return checker.store.schedules.create(whole.name, times, request, checker.access)


def _checked(
    spec: PipelineSpec | FlatSpec, checker: Checker
) -> tuple[PipelineSpec, dict[str, Any] | None, list[NewJob]]:
    """The pipeline with its stages, what it keeps of its recipe, and its jobs."""
    whole, recipe = _expanded(spec, checker)
    return whole, recipe, _check(plan_stages(with_promotion(whole), partial(new_ids, "job")), checker, whole)


def _expanded(spec: PipelineSpec | FlatSpec, checker: Checker) -> tuple[PipelineSpec, dict[str, Any] | None]:
    """The pipeline with its stages, and what it keeps of the recipe that has made them."""
    if isinstance(spec, FlatSpec):
        made, name = expand_flat(spec), short_name(spec.dataset_name)
        recipe, whole = made.as_dict("flat", spec), PipelineSpec(labels=spec.labels, stages=made.stages)
    elif spec.recipe is not None and spec.inputs is not None:
        inputs = spec.inputs.promoting(spec.promote)
        made = RecipeBook(checker).expand(spec.recipe, inputs)
        name = spec.name or inputs.name or short_name(inputs.data)
        recipe = made.as_dict(spec.recipe, inputs)
        whole = PipelineSpec(
            labels=spec.labels, reuse=spec.reuse, not_before=spec.not_before, stages=made.stages
        )
    else:
        return spec, None
    return whole.model_copy(update={"name": name}), recipe  # a name of ours has not the form of a user's


def _check(stages: list[Stage], checker: Checker, whole: PipelineSpec) -> list[NewJob]:
    """The jobs of all stages, in their order. Raises the first stage's error, with the stage in its path."""
    planned = {stage.job_id for stage in stages}
    jobs: list[NewJob] = []
    for stage in stages:
        try:
            jobs += checker.check(
                stage.spec,
                job_id=stage.job_id,
                stage=stage.name,
                planned=planned,
                reuse=whole.reuse,
                not_before=whole.not_before,
            )
        except ReasonError as error:
            raise _within(error, stage.name) from error
    return jobs


def _within(error: ReasonError, stage: str) -> ReasonError:
    """The same error, about a stage."""
    found = type(error)(f"stages.{stage}: {error}")
    found.extra = error.extra
    found.problems = [Problem(f"stages.{stage}.{item.path}", item.message) for item in error.problems]
    if isinstance(error, InvalidRequest) and not found.problems:
        found.problems = [Problem(f"stages.{stage}", str(error))]
    return found
