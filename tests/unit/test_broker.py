"""The embedded broker with writers and readers at the same moment."""

import threading
from pathlib import Path

from celery import Celery

from core.queue.wakeups import celery_for
from core.settings import Settings


def channel(app: Celery):
    return app.connection().channel()


def test_messages_come_out_once_in_their_order(settings: Settings):
    app = celery_for(settings)
    sender, receiver = channel(app), channel(app)
    for number in range(3):
        sender._put("cpu", {"number": number})
    sender._put("gpu", {"number": 9})
    assert [receiver._get("cpu")["number"] for _ in range(3)] == [0, 1, 2]
    assert receiver._get("gpu") == {"number": 9}
    assert list((settings.data_dir / "broker" / "messages").iterdir()) == []


def test_a_torn_message_is_dropped(settings: Settings):
    receiver = channel(celery_for(settings))
    messages = settings.data_dir / "broker" / "messages"
    (messages / "1_a.cpu.msg").touch()
    (messages / "2_b.cpu.msg").write_text('{"cut')
    receiver._put("cpu", {"whole": True})
    assert receiver._get("cpu") == {"whole": True}


def test_many_writers_and_readers_lose_and_double_nothing(settings: Settings):
    app = celery_for(settings)
    taken: list[int] = []
    done = threading.Event()

    def write(base: int) -> None:
        sender = channel(app)
        for number in range(50):
            sender._put("cpu", {"number": base + number})

    def read() -> None:
        from queue import Empty

        receiver = channel(app)
        while True:
            finished = done.is_set()
            try:
                taken.append(receiver._get("cpu")["number"])
            except Empty:
                if finished:
                    return

    readers = [threading.Thread(target=read) for _ in range(3)]
    writers = [threading.Thread(target=write, args=(base,)) for base in (0, 50, 100)]
    for thread in readers + writers:
        thread.start()
    for thread in writers:
        thread.join()
    done.set()
    for thread in readers:
        thread.join()
    assert sorted(taken) == list(range(150))


def test_the_broker_s_files_stay_in_the_data_folder(settings: Settings):
    channel(celery_for(settings))
    assert {path.name for path in Path(settings.data_dir / "broker").iterdir()} == {"messages", "control"}


def test_flower_sees_workers_where_the_broker_can_broadcast(settings):
    embedded = celery_for(settings).conf
    assert not embedded.worker_enable_remote_control
    assert not embedded.worker_send_task_events
    fleet = celery_for(settings.model_copy(update={"broker_url": "redis://broker/0"})).conf
    assert fleet.worker_enable_remote_control
    assert fleet.worker_send_task_events
