"""The one task. Its message carries nothing: it says "look"."""

from celery import Celery

from core.queue.wakeups import WORK_TASK
from worker.runner import Runner


def register(app: Celery, runner: Runner) -> None:
    """Gives the application its task."""

    def work() -> None:
        runner.work()

    app.task(name=WORK_TASK, ignore_result=True)(work)
