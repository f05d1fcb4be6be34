"""The Celery application: a slot a thread, messages as wake-ups."""

import importlib.util
import logging
import os
import sys
import tempfile
import warnings
from typing import Any

from celery import signals
from celery.exceptions import SecurityWarning

from core.artifacts import Library
from core.errors import Unavailable
from core.origin.code import remember_code
from core.queue.wakeups import Queue, celery_for
from core.settings import Settings
from core.spec.parse import KINDS
from core.store import open_store
from migrations import is_current
from worker.collector import Collector, CollectorThread
from worker.courier import Courier
from worker.inventory import read_inventory
from worker.launch import Launcher
from worker.runner import Runner
from worker.sweeper import Sweeper
from worker.tasks import register

_log = logging.getLogger(__name__)


def main(settings: Settings | None = None) -> int:
    """Runs a worker until SIGTERM or SIGINT: then jobs save a checkpoint and go back to the queue."""
    settings = settings or Settings()
    logging.basicConfig(level=settings.log_level, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    store = open_store(settings)
    try:
        current = is_current(store.database)
    except Unavailable as error:
        sys.exit(f"reason worker: {error}")
    if importlib.util.find_spec("torch") is None:
        told = "reason worker: the libraries of models are missing here: pip install 'reason-service[train]'"
        print(told, file=sys.stderr)
        sys.exit(2)  # a restart does not help
    if not current:
        sys.exit("reason worker: the database has an older schema: run `reason db upgrade` first")
    if problem := _unwritable(settings):
        sys.exit(f"reason worker: {problem}")
    launcher = Launcher()
    launcher.warm()
    remember_code(KINDS)
    inventory = read_inventory(settings)
    try:
        worker_id = store.workers.register(inventory)
    except Unavailable as error:
        sys.exit(f"reason worker: {error}")
    app = celery_for(settings)
    runner = Runner(settings, store, launcher, worker_id, inventory.gpus)
    courier = Courier(settings, store.webhooks)
    collector = CollectorThread(Collector(settings, store))
    sweeper = Sweeper(settings, store, Queue(settings, app), runner, worker_id, inventory.slots)
    register(app, runner)

    def shutting_down(**_: Any) -> None:
        runner.shutting_down = True

    def ready(**_: Any) -> None:
        sweeper.start()
        courier.start()
        collector.start()
        _log.info("Worker %s is ready: %d slots, %d GPUs", worker_id, inventory.slots, len(inventory.gpus))

    signals.worker_shutting_down.connect(shutting_down, weak=False)
    signals.worker_ready.connect(ready, weak=False)

    for chatty in ("celery.app.trace", "celery.worker.strategy"):
        logging.getLogger(chatty).setLevel(logging.WARNING)  # a line a wake-up says nothing
    # Celery warns root because of pickled messages; ours are empty, and pickle is not accepted.
    warnings.filterwarnings("ignore", category=SecurityWarning)
    app.worker_main(
        [
            "--quiet",
            "worker",
            "--pool=threads",
            f"--concurrency={inventory.slots}",
            f"--queues={','.join(settings.queues)}",
            f"--loglevel={settings.log_level}",
            "--without-gossip",
            "--without-mingle",
            *([] if app.conf.worker_send_task_events else ["--without-heartbeat"]),  # it is for Flower
        ]
    )
    sweeper.stop()
    courier.stop()
    collector.stop()
    try:
        store.workers.remove(worker_id)
    except Unavailable as error:
        _log.warning("The worker stays listed until its heartbeat is old: %s", error)
    return 0


def _unwritable(settings: Settings) -> str | None:
    """A sentence when jobs could not write their files: better now than in every job."""
    local = Library(settings.artifact_url).local
    for folder in filter(None, (settings.runs_dir, settings.data_dir / "cache", local)):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder):
                pass
        except OSError as error:
            return f"{folder} cannot be written by user {os.getuid()}: {error.strerror}"
    return None
