"""Webhooks: who is told of which changes, and every delivery with its tries.

A delivery is a row, written in the transaction of the change itself: what happened is told, and nothing else
is. Workers send (`worker/courier.py`); for one job or pipeline in the order of its changes.
"""

import base64
import json
import secrets
from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import delete, exists, func, select, update
from sqlalchemy.orm import Session, aliased

from core.errors import Conflict, NotFound
from core.ids import new_id
from core.spec.parts.forms import DELIVERY_ID
from core.spec.requests import SECRET_PREFIX, NewWebhook
from core.store.schema.access import Access
from core.store.schema.cursors import checked_cursor
from core.store.schema.database import Database
from core.store.schema.tables import ApiKey, Delivery, Job, Pipeline, Webhook

RETRY_SECONDS = (5, 300, 1800, 7200, 18_000, 36_000, 50_400, 72_000, 86_400)
"""Before each further try, as Standard Webhooks suggests: about three days together."""

_MOST_HOOKS = 50
"""Of one owner."""

MOST_OF_ONE = 2
"""Deliveries of one webhook that a worker sends at once."""

_SENDING_SECONDS = 60.0
"""For so long nobody else takes a delivery that somebody sends."""

_DISABLED_AFTER_SECONDS = 5 * 86_400.0
_KEPT_SECONDS = 30 * 86_400.0


@dataclass(frozen=True)
class Outgoing:
    """A delivery that is to be sent now."""

    id: str
    webhook_id: str
    url: str
    secret: str
    body: str
    attempt: int


def note_change(
    database: Database, session: Session, subject: Job | Pipeline, number: int, data: dict[str, Any]
) -> None:
    """Write the deliveries of a change of state, for every webhook that wants them.

    ``number`` rises with the changes of one subject.
    """
    # Not locked: a webhook that is deleted meanwhile must not hold up a job, nor a job the deletion.
    hooks = session.scalars(select(Webhook).where(Webhook.disabled_at.is_(None))).all()
    kind = "job" if isinstance(subject, Job) else "pipeline"
    event = f"{kind}.{subject.state}"
    wanted = [hook for hook in hooks if {"*", f"{kind}.*", event} & set(hook.events)]
    if not wanted:
        return
    now = session.scalar(select(database.time()))
    body = {"type": event, "timestamp": datetime.now(UTC).isoformat(), "data": data}
    for hook in wanted:
        session.add(
            Delivery(
                id=new_id("msg"),
                webhook_id=hook.id,
                subject=subject.id,
                number=number,
                owner=subject.owner,
                type=event,
                body=json.dumps(body),
                state="waiting",
                attempts=0,
                not_before=now,
                created_at=now,
            )
        )


def job_data(job: Job) -> dict[str, Any]:
    """What a delivery says of a job."""
    return {
        "id": job.id,
        "kind": job.kind,
        "name": job.name,
        "labels": job.labels,
        "state": job.state,
        "attempt": job.attempt,
        "end_reason": {"code": job.end_code, "message": job.end_message} if job.end_code else None,
        "outputs": job.outputs,
        "pipeline": job.pipeline_id,
        "stage": job.stage,
    }


def pipeline_data(pipeline: Pipeline) -> dict[str, Any]:
    """What a delivery says of a pipeline."""
    return {
        "id": pipeline.id,
        "name": pipeline.name,
        "labels": pipeline.labels,
        "state": pipeline.state,
        "stages": pipeline.stages,
    }


class WebhookStore:
    def __init__(self, database: Database) -> None:
        self._database = database

    def create(self, asked: NewWebhook, access: Access) -> Webhook:
        """Raises `Conflict` when there are too many."""
        own = Webhook.owner.is_(None) if access.owner is None else Webhook.owner == access.owner
        with self._database.write() as session:
            if len(session.scalars(select(Webhook.id).where(own)).all()) >= _MOST_HOOKS:
                raise Conflict(f"There are {_MOST_HOOKS} webhooks of this key: delete one first")
            hook = Webhook(
                id=new_id("hook"),
                owner=access.owner,
                sees_all=access.changes_all,
                url=asked.url,
                events=list(asked.events),
                secret=asked.secret or SECRET_PREFIX + base64.b64encode(secrets.token_bytes(32)).decode(),
                created_at=session.scalar(select(self._database.time())),
                failing_since=None,
                disabled_at=None,
                disabled_reason=None,
            )
            session.add(hook)
        return hook

    def all(self, access: Access) -> list[Webhook]:
        """The caller's own; of an administrator all."""
        query = select(Webhook).order_by(Webhook.id)
        if not access.changes_all:
            query = query.where(Webhook.owner == access.owner)
        with self._database.read() as session:
            return list(session.scalars(query))

    def get(self, hook_id: str, access: Access) -> Webhook:
        """Raises `NotFound`, also for another's."""
        with self._database.read() as session:
            return self._get(session, hook_id, access)

    @staticmethod
    def _get(session: Session, hook_id: str, access: Access) -> Webhook:
        hook = session.get(Webhook, hook_id)
        if hook is None or not (access.changes_all or hook.owner == access.owner):
            raise NotFound(f"Webhook not found: {hook_id!r}")
        return hook

    def remove(self, hook_id: str, access: Access) -> None:
        """With its deliveries, sent or not. Raises `NotFound`."""
        with self._database.write() as session:
            hook = self._get(session, hook_id, access)
            session.execute(delete(Delivery).where(Delivery.webhook_id == hook.id))
            session.delete(hook)

    def deliveries(
        self, hook_id: str, access: Access, cursor: str | None = None, limit: int = 50
    ) -> tuple[list[Delivery], str | None]:
        """Newest first."""
        query = select(Delivery).where(Delivery.webhook_id == hook_id).order_by(Delivery.id.desc())
        if not access.sees_all:
            query = query.where(Delivery.owner == access.owner)
        if cursor is not None:
            query = query.where(Delivery.id < checked_cursor(cursor, DELIVERY_ID))
        with self._database.read() as session:
            self._get(session, hook_id, access)
            rows = list(session.scalars(query.limit(limit + 1)))
        return rows[:limit], rows[limit - 1].id if len(rows) > limit else None

    # -- sending ---------------------------------------------------------------------------------

    def take(self, limit: int, *, private: bool, busy: Collection[str] = ()) -> list[Outgoing]:
        """Deliveries that are due, each with a try more. Nobody else takes them for a minute.

        ``private``: a webhook is told of its owner's jobs alone, unless an administrator made it. ``busy``:
        ids of webhooks of which nothing is taken, so that a slow receiver does not hold up the others.
        """
        earlier = aliased(Delivery)
        waits = (
            (Delivery.state == "waiting")
            & (Delivery.not_before <= self._database.time())
            & Delivery.webhook_id.not_in(list(busy))
            & ~exists().where(
                earlier.webhook_id == Delivery.webhook_id,
                earlier.subject == Delivery.subject,
                earlier.state == "waiting",
                earlier.number < Delivery.number,
            )
        )
        turn = func.row_number().over(partition_by=Delivery.webhook_id, order_by=Delivery.not_before)
        ranked = select(Delivery.id, turn.label("turn")).where(waits).subquery()
        in_turn = select(ranked.c.id).where(ranked.c.turn <= MOST_OF_ONE).limit(limit)
        while True:
            with self._database.read() as session:  # the common case costs no write lock
                ids = list(session.scalars(in_turn))
            if not ids:
                return []
            with self._database.write() as session:
                query = select(Delivery).where(Delivery.id.in_(ids), waits).order_by(Delivery.id)
                rows = session.scalars(query.with_for_update(skip_locked=True)).all()
                found = [self._begin(session, row) for row in rows if not self._refuse(session, row, private)]
            if found or not rows:  # what was refused makes way for what follows it
                return found

    def _begin(self, session: Session, row: Delivery) -> Outgoing:
        hook = session.get_one(Webhook, row.webhook_id)
        row.attempts += 1
        row.not_before = self._database.time(_SENDING_SECONDS)
        return Outgoing(row.id, hook.id, hook.url, hook.secret, row.body, row.attempts)

    def _refuse(self, session: Session, row: Delivery, private: bool) -> bool:
        """End a delivery that must not be sent. Returns whether it is one."""
        problem = self._refused(session, session.get(Webhook, row.webhook_id), row, private)
        if problem is not None:
            self._end(session, row, "failed", problem)
        return problem is not None

    @staticmethod
    def _refused(session: Session, hook: Webhook | None, row: Delivery, private: bool) -> str | None:
        if hook is None:
            return "The webhook was deleted."
        if hook.disabled_at is not None:
            return "The webhook is disabled."
        key = session.get(ApiKey, hook.owner) if hook.owner else None
        if key is not None and key.revoked_at is not None:
            return "The key that made the webhook is revoked."
        if private and not hook.sees_all and row.owner != hook.owner:
            return "It belongs to another key."
        return None

    def record(self, sent: Outgoing, *, status: int | None, error: str | None) -> None:
        """How a try went: ``status`` of the answer, or the ``error`` where there was none."""
        delivered = status is not None and 200 <= status < 300
        with self._database.write() as session:
            row = session.scalar(select(Delivery).where(Delivery.id == sent.id).with_for_update())
            if row is None or row.state != "waiting":
                return
            if row.attempts != sent.attempt and not delivered:
                return  # too late: another worker tries it now
            hook = session.scalar(select(Webhook).where(Webhook.id == row.webhook_id).with_for_update())
            if hook is None:
                self._end(session, row, "failed", "The webhook was deleted.")
                return
            row.status, row.error = status, error
            now = session.scalar(select(self._database.time()))
            assert now is not None
            if delivered:
                hook.failing_since = None
                self._end(session, row, "delivered", None)
                return
            hook.failing_since = hook.failing_since or now
            given_up = row.attempts > len(RETRY_SECONDS)
            if status == 410:
                self._disable(session, hook, now, "The receiver answered 410 Gone.")
            elif given_up and (now - hook.failing_since).total_seconds() > _DISABLED_AFTER_SECONDS:
                self._disable(session, hook, now, "No delivery has succeeded for five days.")
            if given_up or hook.disabled_at is not None:
                self._end(session, row, "failed", error or f"The receiver answered {status}.")
                return
            pause = float(RETRY_SECONDS[row.attempts - 1])
            row.not_before = self._database.time(pause * _jitter())

    def _disable(self, session: Session, hook: Webhook, now: datetime, reason: str) -> None:
        hook.disabled_at, hook.disabled_reason = now, reason
        session.execute(
            update(Delivery)
            .where(Delivery.webhook_id == hook.id, Delivery.state == "waiting")
            .values(state="failed", error="The webhook is disabled.", ended_at=now)
            .execution_options(synchronize_session=False)
        )

    def _end(self, session: Session, row: Delivery, state: str, error: str | None) -> None:
        row.state, row.error = state, error
        row.ended_at = session.scalar(select(self._database.time()))

    def forget_old(self) -> None:
        """Drop deliveries that ended a month ago."""
        old = (Delivery.state != "waiting") & (Delivery.ended_at < self._database.time(-_KEPT_SECONDS))
        with self._database.read() as session:
            if not session.scalar(select(exists().where(old))):
                return
        with self._database.write() as session:
            session.execute(delete(Delivery).where(old))


def _jitter() -> float:
    return 0.9 + 0.2 * secrets.randbelow(1000) / 1000
