"""What a worker does beside its jobs."""

import os
from types import SimpleNamespace

import pytest

from core.errors import Unavailable
from core.queue.wakeups import Queue
from core.store.fleet import Inventory
from worker.sweeper import Sweeper


def test_the_heartbeat_file_is_touched_when_the_database_has_taken_the_heartbeat(
    store, settings, tmp_path, monkeypatch
):
    file = tmp_path / "heartbeat"
    settings = settings.model_copy(update={"heartbeat_file": file})
    worker = store.workers.register(Inventory("host", 1, [], 10**9, ["cpu"]))
    runner = SimpleNamespace(shutting_down=False, busy=1)
    sweeper = Sweeper(settings, store, Queue(settings), runner, worker, 1)
    sweeper.sweep()
    assert file.exists()
    os.utime(file, (0, 0))
    sweeper._beaten = -100.0

    def away(*_: object, **__: object) -> None:
        raise Unavailable("gone")

    monkeypatch.setattr(store.workers, "heartbeat", away)
    with pytest.raises(Unavailable):
        sweeper.sweep()
    assert file.stat().st_mtime == 0
