"""Weights of checkpoints, of which models can be made: which are the best, and which are kept."""

from collections.abc import Sequence

from sqlalchemy import select
from sqlalchemy.orm import Session

from core.spec.parts.evaluation import rises
from core.store.retention.files import forget
from core.store.retention.needs import need_of
from core.store.schema.database import Database
from core.store.schema.tables import Artifact, Job, Metric

CHECKPOINT = "checkpoint"
"""Kind of their artifacts."""


def checkpoints_of(job_id: str) -> str:
    """The place of a job's checkpoints in the artifact storage, relative to its root."""
    return f"checkpoints/{job_id}"


def step_of(artifact: Artifact) -> int:
    """After which step of its training the weights were saved."""
    return int(artifact.manifest["metadata"]["step"])


def metrics_at(session: Session, job_id: str, steps: Sequence[int]) -> dict[int, dict[str, float | None]]:
    """step -> metric -> value, of steps that were measured."""
    found: dict[int, dict[str, float | None]] = {}
    query = select(Metric.step, Metric.name, Metric.value)
    rows = query.where(Metric.job_id == job_id, Metric.step.in_(steps)).order_by(Metric.name)
    for step, name, value in session.execute(rows):
        found.setdefault(step, {})[name] = value
    return found


def best_of(session: Session, job: Job, found: Sequence[Artifact]) -> Artifact | None:
    """The best of a training's checkpoints, by the rule of its early stopping: the mean of the metric over
    the datasets, and the first of equals. None where the training has no such rule, or has not evaluated
    one."""
    stopping = (job.spec.get("evaluation") or {}).get("early_stopping")
    if stopping is None:
        return None
    metric, only = str(stopping["metric"]), stopping.get("dataset")
    sign = 1 if rises(metric) else -1
    measured = metrics_at(session, job.id, [step_of(one) for one in found])
    best: tuple[float, Artifact] | None = None
    for one in sorted(found, key=step_of):
        there = measured.get(step_of(one), {})
        values = [value for name, value in there.items() if _is_of(name, metric, only)]
        known = [value for value in values if value is not None]
        if not values or len(known) < len(values):  # a mean with what is no number is none
            continue
        mean = sign * sum(known) / len(known)
        if best is None or mean > best[0]:
            best = mean, one
    return best[1] if best else None


def _is_of(name: str, metric: str, only: str | None) -> bool:
    """Whether a curve is the metric's, of the one dataset that counts or of any. Of one alone it has no
    name."""
    dataset, _, measured = name.rpartition("/")
    return measured == metric and (not dataset or only in (None, dataset))


def drop_superseded(database: Database, session: Session, job: Job) -> None:
    """Delete the weights of a job's checkpoints that are neither among its newest nor the best ones, unless
    something needs them; and those that an attempt which began anew has passed. The caller has locked the
    job's row."""
    query = select(Artifact).where(Artifact.job_id == job.id, Artifact.kind == CHECKPOINT)
    found = sorted(session.scalars(query).all(), key=age_of, reverse=True)
    newest = found[0]
    steps = list(dict.fromkeys(step_of(one) for one in found))[: _kept(job)]
    best = best_of(session, job, found)
    superseded = [one.id for one in found if (step_of(one) not in steps and one is not best)]
    superseded += [
        one.id
        for number, one in enumerate(found)
        if _attempt_of(one) < _attempt_of(newest)
        and (step_of(one) >= step_of(newest) or step_of(one) in {step_of(later) for later in found[:number]})
    ]
    if not superseded:
        return
    # One that is locked is just being used.
    locked = select(Artifact).where(Artifact.id.in_(superseded)).with_for_update(skip_locked=True)
    for artifact in session.scalars(locked).all():
        if need_of(session, artifact) is None:
            forget(database, session, artifact)


def _kept(job: Job) -> int:
    return int((job.spec.get("checkpoint") or {}).get("keep", 1))


def _attempt_of(artifact: Artifact) -> int:
    return int(artifact.manifest["metadata"].get("attempt", 0))


def age_of(artifact: Artifact) -> tuple[int, int, str]:
    """Sorts checkpoints: an attempt that could not go on from the ones before has passed their steps."""
    return _attempt_of(artifact), step_of(artifact), artifact.id
