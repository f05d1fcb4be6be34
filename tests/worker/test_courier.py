"""Webhooks from the change of a state to the receiver, on both databases."""

import base64
import hashlib
import hmac
import json
import socket
import threading
from collections.abc import Iterator

import httpcore
import pytest
from sqlalchemy import select, text

from core.errors import NotFound
from core.jobs.reasons import EndReason
from core.spec import parse_spec
from core.spec.requests import NewWebhook, is_public_address
from core.store import Store
from core.store.attempts.leases import Capacity
from core.store.new_jobs import NewJob
from core.store.schema.access import EVERYTHING, Access
from core.store.schema.tables import Delivery
from core.store.webhooks import MOST_OF_ONE, RETRY_SECONDS, Outgoing
from tests.receiver import Receiver
from worker.courier import Courier, post, sign

SECRET = "whsec_" + "A" * 32


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as made:
        yield made


@pytest.fixture
def courier(settings, store) -> Courier:
    return Courier(settings.model_copy(update={"webhook_private_addresses": True}), store.webhooks)


def hook(store: Store, receiver: Receiver, *events: str, access: Access = EVERYTHING):
    return store.webhooks.create(NewWebhook(url=receiver.url, events=list(events) or ["job.*"]), access)


def run_job(store: Store, reason: EndReason = EndReason.SUCCEEDED, access: Access = EVERYTHING) -> str:
    spec = parse_spec({"kind": "train", "base_model": "o/m", "dataset": "file:p.jsonl", "max_attempts": 1})
    job = store.jobs.submit(NewJob(spec=spec), access=access)[0]
    store.leases.finish(store.leases.claim(Capacity("w"), 60), reason)
    return job.id


def send_all(courier: Courier, store: Store) -> None:
    while threads := courier.begin():
        for thread in threads:
            thread.join(30)


def make_due(store: Store) -> None:
    with store.database.write() as session:
        session.execute(text("UPDATE webhook_deliveries SET not_before = created_at"))


def rows(store: Store) -> list[Delivery]:
    with store.database.read() as session:
        return list(session.scalars(select(Delivery).order_by(Delivery.number)))


def test_changes_arrive_signed_and_in_order(store, courier, receiver):
    made = hook(store, receiver)
    job_id = run_job(store)
    send_all(courier, store)
    assert receiver.types == ["job.queued", "job.running", "job.succeeded"]
    for headers, body in receiver.seen:
        key = base64.b64decode(made.secret.removeprefix("whsec_"))
        signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.{body}".encode()
        wanted = base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
        assert headers["webhook-signature"] == f"v1,{wanted}"
        assert headers["content-type"] == "application/json"
        assert json.loads(body)["data"]["id"] == job_id
    assert json.loads(receiver.seen[-1][1])["data"]["end_reason"]["code"] == "succeeded"
    assert {row.state for row in rows(store)} == {"delivered"}
    assert len({headers["webhook-id"] for headers, _ in receiver.seen}) == 3


def test_the_example_of_the_standard():
    """https://github.com/standard-webhooks/standard-webhooks, the libraries' own test."""
    secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
    found = sign(secret, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, '{"test": 2432232314}')
    assert found == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_only_what_was_asked_for(store, courier, receiver):
    hook(store, receiver, "job.failed", "pipeline.*")
    run_job(store)
    run_job(store, EndReason.BAD_DATA)
    send_all(courier, store)
    assert receiver.types == ["job.failed"]


def test_pipelines_tell_their_changes(store, courier, receiver):
    hook(store, receiver, "pipeline.*")
    spec = parse_spec({"kind": "train", "base_model": "o/m", "dataset": "file:p.jsonl"})
    store.pipelines.create("search", {}, ["train"], [NewJob(spec=spec, stage="train")])
    store.leases.finish(store.leases.claim(Capacity("w"), 60), EndReason.SUCCEEDED)
    send_all(courier, store)
    assert receiver.types == ["pipeline.queued", "pipeline.running", "pipeline.succeeded"]
    assert json.loads(receiver.seen[-1][1])["data"]["name"] == "search"


def test_a_failed_delivery_holds_back_what_follows_it_and_is_tried_again(store, courier, receiver):
    hook(store, receiver)
    receiver.status = 500
    run_job(store)
    send_all(courier, store)
    assert receiver.types == ["job.queued"], "the next one of this job waits"
    other = run_job(store)
    send_all(courier, store)
    assert [json.loads(body)["data"]["id"] for _, body in receiver.seen][1:] == [other], (
        "another job does not"
    )
    receiver.status = 200
    make_due(store)
    send_all(courier, store)
    first = receiver.types[2:]
    assert sorted(first) == sorted(["job.queued", "job.running", "job.succeeded"] * 2)
    ids = [headers["webhook-id"] for headers, _ in receiver.seen]
    assert len(ids) == 8
    assert len(set(ids)) == 6, "a second try has the same id"
    assert [row.attempts for row in rows(store)] == [2, 2, 1, 1, 1, 1]


def test_after_the_last_try_the_next_one_is_sent(store, courier, receiver):
    hook(store, receiver)
    receiver.status = 503
    run_job(store)
    for _ in range(len(RETRY_SECONDS) + 1):
        send_all(courier, store)
        make_due(store)
    [first, *others] = rows(store)
    assert (first.state, first.attempts, first.status) == ("failed", len(RETRY_SECONDS) + 1, 503)
    assert {row.state for row in others} == {"waiting"}
    receiver.status = 200
    send_all(courier, store)
    assert [row.state for row in rows(store)] == ["failed", "delivered", "delivered"]


def test_a_receiver_that_is_gone_is_called_no_more(store, courier, receiver):
    made = hook(store, receiver)
    receiver.status = 410
    run_job(store)
    send_all(courier, store)
    found = store.webhooks.get(made.id, EVERYTHING)
    assert found.disabled_reason == "The receiver answered 410 Gone."
    assert len(receiver.seen) == 1
    assert {row.state for row in rows(store)} == {"failed"}
    run_job(store)
    assert len(rows(store)) == 3, "nothing more is written for it"


def test_after_five_days_without_success_it_is_disabled(store, courier, receiver):
    made = hook(store, receiver)
    receiver.status = 500
    run_job(store)
    send_all(courier, store)
    with store.database.write() as session:
        session.execute(text("UPDATE webhooks SET failing_since = '2020-01-01 00:00:00+00:00'"))
    make_due(store)
    send_all(courier, store)
    assert store.webhooks.get(made.id, EVERYTHING).disabled_at is None, "a single try says little"
    for _ in range(len(RETRY_SECONDS)):
        make_due(store)
        send_all(courier, store)
    assert "five days" in store.webhooks.get(made.id, EVERYTHING).disabled_reason
    assert {row.state for row in rows(store)} == {"failed"}


def test_a_worker_that_dies_while_it_sends_loses_nothing(store, courier, receiver):
    hook(store, receiver, "job.succeeded")
    run_job(store)
    [taken] = store.webhooks.take(8, private=False)
    assert store.webhooks.take(8, private=False) == [], "nobody else sends it meanwhile"
    make_due(store)
    send_all(courier, store)
    assert receiver.seen[0][0]["webhook-id"] == taken.id


def test_private_jobs_are_told_to_their_owner_alone(store, settings, receiver):
    private = settings.model_copy(update={"webhook_private_addresses": True, "private_jobs": True})
    owner = {name: store.keys.create(name, ["submit"])[0].id for name in ("a", "b")}
    access = {name: Access(key, sees_all=False, changes_all=False) for name, key in owner.items()}
    mine = hook(store, receiver, "job.succeeded", access=access["a"])
    run_job(store, access=access["b"])
    run_job(store, access=access["a"])
    send_all(Courier(private, store.webhooks), store)
    assert len(receiver.seen) == 1
    with pytest.raises(NotFound):
        store.webhooks.get(mine.id, access["b"])
    store.keys.revoke(owner["a"])
    run_job(store, access=access["a"])
    send_all(Courier(private, store.webhooks), store)
    assert len(receiver.seen) == 1, "a revoked key's webhook is silent"


def test_a_deleted_webhook_takes_its_deliveries_with_it(store, courier, receiver):
    made = hook(store, receiver)
    run_job(store)
    store.webhooks.remove(made.id, EVERYTHING)
    send_all(courier, store)
    assert (receiver.seen, rows(store)) == ([], [])


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("8.8.8.8", True),
        ("127.0.0.1", False),
        ("10.1.2.3", False),
        ("169.254.169.254", False),
        ("100.64.0.1", False),
        ("0.0.0.0", False),
        ("::1", False),
        ("::ffff:127.0.0.1", False),
        ("fd00::1", False),
        ("64:ff9b::a9fe:a9fe", False),
        ("64:ff9b:1::1", False),
        ("2002:7f00:1::", False),
        ("::a9fe:a9fe", False),
        ("fec0::1", False),
        ("2001:db8::1", False),
        ("2606:4700::1111", True),
        ("224.0.0.1", False),
    ],
)
def test_public_addresses(address, public):
    assert is_public_address(address) is public


def test_a_name_that_leads_to_a_private_address_is_not_called(receiver):
    port = receiver.server.server_port
    for host in ("localhost", "127.0.0.1"):
        outgoing = Outgoing("msg_1", "hook_1", f"http://{host}:{port}/", SECRET, "{}", 1)
        with pytest.raises(httpcore.ConnectError, match="private address"):
            post(outgoing, private_addresses=False)
    assert receiver.seen == []


def test_a_receiver_that_is_not_there_is_told_in_the_log_of_deliveries(store, courier, receiver):
    store.webhooks.create(NewWebhook(url="http://127.0.0.1:1/x", events=["job.succeeded"]), EVERYTHING)
    run_job(store)
    send_all(courier, store)
    [row] = rows(store)
    assert row.state == "waiting"
    assert "ConnectError" in row.error


def test_a_receiver_that_drips_does_not_gain_time():
    """Each byte would begin the time anew, if it were that of an operation."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        done = threading.Event()

        def drip() -> None:
            connection, _ = server.accept()
            with connection:
                connection.sendall(b"HTTP/1.1 200 OK\r\n")
                while not done.wait(0.2):
                    try:
                        connection.sendall(b"x: y\r\n")
                    except OSError:
                        return

        thread = threading.Thread(target=drip, daemon=True)
        thread.start()
        url = f"http://127.0.0.1:{server.getsockname()[1]}/"
        with pytest.raises(httpcore.TimeoutException):
            post(Outgoing("msg_1", "hook_1", url, SECRET, "{}", 1), private_addresses=True, seconds=1)
        done.set()
        thread.join(10)


def test_a_slow_receiver_holds_up_nobody_else(store, courier, receiver):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/"
        store.webhooks.create(NewWebhook(url=url, events=["job.succeeded"]), EVERYTHING)
        for _ in range(20):
            run_job(store)
        first = courier.begin()
        assert len(first) == MOST_OF_ONE
        hook(store, receiver, "job.failed")
        run_job(store, EndReason.BAD_DATA)
        for thread in courier.begin():
            thread.join(30)
        assert receiver.types == ["job.failed"]
        assert all(thread.is_alive() for thread in first)
        silent.close()


def test_a_try_that_was_overtaken_is_not_recorded(store, receiver):
    hook(store, receiver, "job.succeeded")
    run_job(store)
    [late] = store.webhooks.take(8, private=False)
    make_due(store)
    [newer] = store.webhooks.take(8, private=False)
    store.webhooks.record(late, status=500, error=None)
    [row] = rows(store)
    assert (row.status, row.attempts) == (None, 2)
    store.webhooks.record(newer, status=204, error=None)
    assert rows(store)[0].state == "delivered"


def test_a_webhook_that_is_deleted_holds_up_no_job(store, receiver, courier):
    """Its deliveries may be written while it goes."""
    made = hook(store, receiver)
    job_id = run_job(store)
    with store.database.write() as session:
        session.execute(text("DELETE FROM webhooks"))
    send_all(courier, store)
    assert {row.error for row in rows(store)} == {"The webhook was deleted."}
    assert store.jobs.get(job_id).state == "succeeded"
    with pytest.raises(NotFound):
        store.webhooks.get(made.id, EVERYTHING)


def test_what_cannot_be_sent_at_all_is_recorded(store, courier, receiver, monkeypatch):
    hook(store, receiver, "job.succeeded")
    run_job(store)

    def broken(*_: object, **__: object) -> int:
        raise TypeError("of some library")

    monkeypatch.setattr("worker.courier.post", broken)
    send_all(courier, store)
    [row] = rows(store)
    assert (row.state, row.error) == ("waiting", "It cannot be sent: TypeError")
