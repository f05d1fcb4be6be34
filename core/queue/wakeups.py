"""Wake-ups. SQL holds the queue; a message says only "there may be something to do"."""

import logging
from typing import Any

from celery import Celery
from kombu.exceptions import KombuError

from core.queue import filesystem_broker
from core.settings import Settings

WORK_TASK = "worker.work"
_log = logging.getLogger(__name__)


def celery_for(settings: Settings) -> Celery:
    """A Celery application on the settings' broker, with the options that hours-long jobs need.

    Early acknowledgement and no results: a lost or doubled message is harmless, because the claim in SQL
    decides. Nothing is ever scheduled in the broker.
    """
    filesystem_broker.install()
    app = Celery("reason", broker=settings.broker_url, set_as_current=False)
    app.conf.update(
        accept_content=["json"],
        task_acks_late=False,
        task_ignore_result=True,
        task_default_queue="cpu",
        worker_prefetch_multiplier=1,
        worker_cancel_long_running_tasks_on_connection_loss=False,
        # For Flower alone: nothing here depends on them, and the filesystem has no broadcasts.
        worker_enable_remote_control=not _is_embedded(settings),
        worker_send_task_events=not _is_embedded(settings),
        worker_hijack_root_logger=False,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        broker_transport_options=_transport_options(settings),
    )
    return app


def _is_embedded(settings: Settings) -> bool:
    return settings.broker_url.startswith("filesystem://")


def _transport_options(settings: Settings) -> dict[str, Any]:
    if _is_embedded(settings):
        folder = settings.data_dir / "broker"
        for name in ("messages", "control"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        return {
            "data_folder_in": str(folder / "messages"),
            "data_folder_out": str(folder / "messages"),
            "control_folder": str(folder / "control"),
            "polling_interval": settings.broker_polling_seconds,
        }
    # A broker that has gone away must not hold a request: the sweeper wakes the workers later.
    return (
        {"socket_connect_timeout": 2, "socket_timeout": 10} if settings.broker_url.startswith("redis") else {}
    )


class Queue:
    """Sends wake-ups."""

    def __init__(self, settings: Settings, app: Celery | None = None) -> None:
        self._app = app or celery_for(settings)

    def wake(self, queue: str = "cpu") -> bool:
        """Tells one listening worker to look. A failure is logged, not raised: the sweeper repeats it."""
        try:
            self._app.send_task(WORK_TASK, queue=queue, ignore_result=True, retry=False)
        except (KombuError, OSError) as error:
            _log.warning("No wake-up could be sent (%s); the workers' sweepers will find the job.", error)
            return False
        return True

    def ping(self) -> None:
        """Raises `OSError` or `KombuError` unless the broker answers."""
        with self._app.connection_for_write(connect_timeout=2) as connection:
            connection.ensure_connection(max_retries=1, timeout=2)
