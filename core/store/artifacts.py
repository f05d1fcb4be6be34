"""Rows of finished outputs. Their files are the business of `core.artifacts`."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, delete, func, insert, select
from sqlalchemy.orm import Session

from core.errors import Conflict, NotFound
from core.ids import new_id
from core.jobs.protocol import PROMOTED, ArtifactInput
from core.jobs.state import JobState
from core.spec.parts.forms import ARTIFACT_ID, NUMBER, matches
from core.spec.parts.refs import Ref, artifact_reference
from core.store.moves import get_job
from core.store.retention.checkpoints import (
    CHECKPOINT,
    age_of,
    best_of,
    drop_superseded,
    metrics_at,
    step_of,
)
from core.store.retention.files import refer_to
from core.store.schema.access import EVERYTHING, Access
from core.store.schema.cursors import checked_cursor
from core.store.schema.database import Database, hold_text
from core.store.schema.tables import Artifact, CurrentVersion, Dependency, Job, LastVersion

CURRENT = "current"
"""Instead of a number: the version of a name that was promoted last."""


@dataclass(frozen=True)
class NewArtifact:
    """An output as the job's process reported it and the worker has checked it, while its folder was held.

    ``hold`` is the token of `FolderStore.hold`.
    """

    output: str
    kind: str
    uri: str
    sha256: str
    bytes: int
    manifest: dict[str, Any] = field(default_factory=dict)
    hold: str = ""


def add_artifact(session: Session, job: Job, new: NewArtifact, now: ColumnElement[datetime]) -> str:
    """Inserts the row, with the next version of its name, and returns its reference (``model:art_...``).

    Raises `NotHeld` for files that are not held (`FolderStore.hold`).
    """
    promoted = new.manifest.get("metadata", {}).get(PROMOTED) if job.kind == "evaluate" else None
    # The same content is no new version: else a comparison that is repeated would undo what came after it.
    if promoted is True and _is_version(session, job, new):
        promoted = False
    artifact = _add(session, new, None if promoted is False else job.name, job.id, job.owner, now)
    if promoted is True and artifact.name is not None and _beats_current(session, job, artifact):
        make_current(session, artifact, now)
    return artifact_reference(new.kind, artifact.id)


def _is_version(session: Session, job: Job, new: NewArtifact) -> bool:
    known = select(Artifact.id).where(
        Artifact.kind == new.kind, Artifact.name == job.name, Artifact.sha256 == new.sha256, _same_owner(job)
    )
    return session.scalar(known.limit(1)) is not None


def _beats_current(session: Session, job: Job, artifact: Artifact) -> bool:
    """Whether what was compared with is still what ``NAME@current`` means, if that was compared with: it is
    not if another was promoted meanwhile, by another job or by hand."""
    baseline = str(job.spec["models"][-1]["ref"])
    known = job.inputs.get(baseline)
    if not baseline.endswith(f"@{CURRENT}") or not isinstance(known, ArtifactInput):
        return True
    now = session.scalar(
        select(CurrentVersion.artifact_id).where(
            CurrentVersion.kind == artifact.kind,
            CurrentVersion.name == artifact.name,
            CurrentVersion.owner == (artifact.owner or ""),
        )
    )
    return now in (None, known.artifact)


def _same_owner(row: Job | Artifact) -> ColumnElement[bool]:
    return Artifact.owner.is_(None) if row.owner is None else Artifact.owner == row.owner


def make_current(session: Session, artifact: Artifact, now: ColumnElement[datetime]) -> None:
    """Let ``NAME@current`` mean this version from now on. Raises `Conflict` for one without a name."""
    if artifact.name is None:
        raise Conflict(f"Artifact {artifact.id} has no name: only a version of a name can be its current one")
    hold_text(session, f"{artifact.kind}/{artifact.name}")
    session.execute(
        delete(CurrentVersion).where(
            CurrentVersion.kind == artifact.kind,
            CurrentVersion.name == artifact.name,
            CurrentVersion.owner == (artifact.owner or ""),
        )
    )
    session.execute(
        insert(CurrentVersion).values(
            kind=artifact.kind,
            name=artifact.name,
            owner=artifact.owner or "",
            artifact_id=artifact.id,
            promoted_at=now,
        )
    )


def add_checkpoints(
    database: Database, session: Session, job_id: str, checkpoints: Sequence[NewArtifact]
) -> None:
    """Inserts the rows of checkpoints' weights, and deletes those that they supersede. The caller has locked
    the job's row. Raises as `add_artifact`."""
    job = session.get_one(Job, job_id)
    for new in checkpoints:
        known = select(Artifact.id).where(
            Artifact.job_id == job.id, Artifact.output == new.output, Artifact.sha256 == new.sha256
        )
        if session.scalar(known.limit(1)) is None:  # else an earlier attempt has come to the same
            _add(session, new, None, job.id, job.owner, database.time())
    drop_superseded(database, session, job)


def _add(
    session: Session,
    new: NewArtifact,
    name: str | None,
    job_id: str | None,
    owner: str | None,
    now: ColumnElement[datetime],
) -> Artifact:
    version = None
    if name is not None:
        hold_text(session, f"{new.kind}/{name}")
        last = session.scalar(
            select(func.max(Artifact.version)).where(Artifact.kind == new.kind, Artifact.name == name)
        )
        # Numbers of versions that were deleted are not used again: somebody may have noted one.
        deleted = session.get(LastVersion, (new.kind, name))
        version = max(last or 0, deleted.version if deleted else 0) + 1
    artifact = Artifact(
        id=new_id("art"),
        job_id=job_id,
        owner=owner,
        output=new.output,
        kind=new.kind,
        name=name,
        version=version,
        uri=new.uri,
        sha256=new.sha256,
        bytes=new.bytes,
        manifest=new.manifest,
        created_at=session.scalar(select(now)),
    )
    session.add(artifact)
    session.flush()
    refer_to(session, new.uri, new.hold)
    return artifact


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that can be used as a model. ``metrics`` are those that were measured after its step."""

    step: int
    artifact: Artifact
    metrics: dict[str, float | None]
    best: bool


def _input(found: Artifact) -> ArtifactInput:
    return ArtifactInput(
        artifact=found.id,
        uri=found.uri,
        sha256=found.sha256,
        name=found.name,
        version=found.version,
    )


class ArtifactStore:
    def __init__(self, database: Database) -> None:
        self._database = database

    def add_upload(self, new: NewArtifact, name: str, access: Access = EVERYTHING) -> tuple[Artifact, bool]:
        """Add a row for what no job has made. Returns (row, whether it is new).

        Content that is the newest of this name, among rows that the caller may see, stays the one row. Older
        content sent again is a new version: what was sent last is what the name means. Raises `NotHeld`.
        """
        with self._database.write() as session:
            hold_text(session, f"{new.kind}/{name}")
            query = select(Artifact).where(
                Artifact.kind == new.kind,
                Artifact.name == name,
                access.visible(Artifact),
            )
            known = session.scalar(query.order_by(Artifact.version.desc()).limit(1))
            if known is not None and known.sha256 == new.sha256:
                return known, False
            return _add(session, new, name, None, access.owner, self._database.time()), True

    def get(self, artifact_id: str, access: Access = EVERYTHING) -> Artifact:
        """Raises `NotFound`, also for an artifact that the caller may not see."""
        with self._database.read() as session:
            artifact = session.get(Artifact, artifact_id)
        if artifact is None or not access.sees(artifact):
            raise NotFound(f"Artifact not found: {artifact_id!r}")
        return artifact

    def find(
        self, kind: str | None, target: str, version: str | None = None, access: Access = EVERYTHING
    ) -> Artifact:
        """By id, or by name and version (the newest without one, the promoted one with ``current``).

        Raises `NotFound`.
        """
        query = select(Artifact).where(access.visible(Artifact))
        if kind:
            query = query.where(Artifact.kind == kind)
        if target.startswith("art_") and version is None:
            query = query.where(Artifact.id == target)
        else:
            query = query.where(Artifact.name == target).limit(1)
            if version == CURRENT:
                query = query.join(CurrentVersion, CurrentVersion.artifact_id == Artifact.id)
                query = query.order_by(CurrentVersion.promoted_at.desc())
            else:
                query = query.order_by(Artifact.version.desc())
            if version not in (None, CURRENT):
                if not matches(NUMBER, str(version)):
                    raise NotFound(
                        f"{target}@{version}: a version must be a number of at most 9 digits, or current"
                    )
                query = query.where(Artifact.version == int(str(version)))
        with self._database.read() as session:
            artifact = session.scalar(query)
        if artifact is None:
            told = (
                f"{(kind or 'artifact').capitalize()} not found: {target}{'@' + version if version else ''}"
            )
            raise NotFound(f"{told} (no version was promoted)" if version == CURRENT else told)
        return artifact

    def promote(self, artifact_id: str, access: Access = EVERYTHING, *, current: bool = True) -> Artifact:
        """Let ``NAME@current`` mean this version, or no longer.

        Raises `NotFound`, `Forbidden`, and `Conflict` for an artifact without a name.
        """
        with self._database.write() as session:
            query = select(Artifact).where(Artifact.id == artifact_id, access.visible(Artifact))
            artifact = session.scalar(query.with_for_update())
            if artifact is None:
                raise NotFound(f"Artifact not found: {artifact_id!r}")
            access.check_change(artifact)
            if current:
                make_current(session, artifact, self._database.time())
            else:
                session.execute(delete(CurrentVersion).where(CurrentVersion.artifact_id == artifact_id))
            return artifact

    def current(self, artifacts: Sequence[Artifact]) -> set[str]:
        """Ids of those that are the current version of their name, for their owners."""
        ids = [artifact.id for artifact in artifacts]
        query = select(CurrentVersion.artifact_id).where(CurrentVersion.artifact_id.in_(ids))
        with self._database.read() as session:
            return set(session.scalars(query))

    def lineage(self, ref: Ref, access: Access = EVERYTHING) -> ArtifactInput | None:
        """What a job keeps about an artifact that it reads; None while the job that makes it may still do so.

        Of a checkpoint, its weights. Raises `NotFound` when there is no such artifact, or none that the
        caller may see, and `Conflict` when there will never be one.
        """
        if ref.is_checkpoint:
            found = self.checkpoint(ref, access)
        elif ref.scheme == "job":
            output = self._output(ref, access)
            if output is None:
                return None
            found = output
        else:
            kind = None if ref.scheme == "artifact" else ref.scheme
            found = self.find(kind, ref.target, ref.revision, access)
        return _input(found)

    def _output(self, ref: Ref, access: Access) -> Artifact | None:
        with self._database.read() as session:
            job = get_job(session, ref.target, access)
            made = list(session.scalars(select(Artifact).where(Artifact.job_id == job.id)))
        for artifact in made:
            if artifact.output == ref.output:
                return artifact
        if job.state in (JobState.FAILED, JobState.CANCELLED):
            raise Conflict(f"{ref}: job {job.id} is {job.state} and does not have this output")
        if job.state == JobState.SUCCEEDED and ref.output in job.outputs:
            raise NotFound(f"{ref}: this output of job {job.id} was deleted")
        if job.state == JobState.SUCCEEDED:
            has = ", ".join(job.outputs) or "none"
            raise NotFound(f"{ref}: job {job.id} has no output {ref.output!r}; it has {has}")
        return None

    def of_job(self, job_id: str) -> list[Artifact]:
        """What a job has put out, without its checkpoints."""
        query = select(Artifact).where(Artifact.job_id == job_id, Artifact.kind != CHECKPOINT)
        with self._database.read() as session:
            return list(session.scalars(query.order_by(Artifact.id)))

    def checkpoints(self, job: Job) -> list[Checkpoint]:
        """The checkpoints of a job that can be used as models: those of later attempts last, by step."""
        query = select(Artifact).where(Artifact.job_id == job.id, Artifact.kind == CHECKPOINT)
        with self._database.read() as session:
            by_step = {step_of(found): found for found in session.scalars(query.order_by(Artifact.id))}
            best = best_of(session, job, list(by_step.values()))
            measured = metrics_at(session, job.id, list(by_step))
        return [
            Checkpoint(step_of(one), one, measured.get(step_of(one), {}), one is best)
            for one in sorted(by_step.values(), key=age_of)
        ]

    def checkpoint(self, ref: Ref, access: Access = EVERYTHING) -> Artifact:
        """The weights of the checkpoint that a reference names. Raises `NotFound`, and `Conflict` for a
        training that has saved none yet."""
        with self._database.read() as session:
            job = get_job(session, ref.target, access)
        found = self.checkpoints(job)
        if ref.revision == "best":
            chosen = [one for one in found if one.best]
        elif ref.revision == "last":
            chosen = found[-1:]
        else:
            chosen = [one for one in found if one.step == int(ref.revision or 0)]
        if chosen:
            return chosen[0].artifact
        if job.kind != "train":
            raise NotFound(f"{ref}: job {job.id} is no training and has no checkpoints")
        has = ", ".join(f"@{one.step}" for one in found) or "none"
        if ref.revision == "best" and found:
            raise NotFound(
                f"{ref}: this training does not say which checkpoint is the best "
                f"(evaluation.early_stopping does); it has {has}"
            )
        passed = ref.revision not in ("best", "last") and found and int(str(ref.revision)) <= found[-1].step
        if not JobState(job.state).final and not passed:
            raise Conflict(f"{ref}: the training has not saved this checkpoint yet; it has {has}")
        raise NotFound(f"{ref}: there is no such checkpoint, or it was deleted; there is {has}")

    def exported(self, job_id: str, reference: str) -> ArtifactInput:
        """The model that was made of a checkpoint for a job. Raises `NotFound`."""
        made = (
            select(Artifact, Job.spec)
            .join(Job, Job.id == Artifact.job_id)
            .join(Dependency, Dependency.depends_on == Job.id)
            .where(Dependency.job_id == job_id, Job.kind == "export", Artifact.output == "model")
        )
        with self._database.read() as session:
            for artifact, spec in session.execute(made):
                if spec["model"] == reference:
                    return _input(artifact)
        raise NotFound(f"{reference}: no model was made of the checkpoint")

    def page(
        self, kind: str, *, access: Access = EVERYTHING, cursor: str | None = None, limit: int = 50
    ) -> tuple[list[Artifact], str | None]:
        """Newest first."""
        shown = (Artifact.kind == kind, access.visible(Artifact))
        query = select(Artifact).where(*shown).order_by(Artifact.id.desc()).limit(limit + 1)
        if cursor is not None:
            query = query.where(Artifact.id < checked_cursor(cursor, ARTIFACT_ID))
        with self._database.read() as session:
            rows = list(session.scalars(query))
        return rows[:limit], rows[limit - 1].id if len(rows) > limit else None
