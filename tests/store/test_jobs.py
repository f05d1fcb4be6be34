"""A job's rows, on both databases: one suite, no fake."""

import threading

import pytest
from sqlalchemy import text, update

from core.errors import Conflict, NotFound, StaleLease
from core.ids import new_id
from core.jobs.events import Event, EventType
from core.jobs.reasons import EndReason
from core.spec import parse_spec
from core.store import Store
from core.store.artifacts import NewArtifact
from core.store.attempts.leases import Capacity, Claim
from core.store.attempts.progress import ProgressUpdate
from core.store.new_jobs import NewJob
from core.store.schema.access import Access
from core.store.schema.tables import Job
from tests.held import held_by

CPU = Capacity(worker="w1")
GPU = Capacity(worker="w2", gpus={"GPU-80": 80_000_000_000})


def spec(**changes):
    return parse_spec({"kind": "train", "base_model": "org/m", "dataset": "file:p.jsonl", **changes})


def submit(store: Store, **changes):
    return store.jobs.submit(NewJob(spec=spec(**changes)))[0]


def claim(store: Store, capacity: Capacity = CPU, seconds: float = 30) -> Claim:
    found = store.leases.claim(capacity, seconds)
    assert found is not None
    return found


def states(store: Store, job_id: str) -> list[str]:
    return [event.data.state for event in store.progress.events(job_id) if event.type == "state"]


def let_lease_run_out(store: Store, job_id: str) -> None:
    with store.database.write() as session:
        session.execute(text("UPDATE jobs SET lease_expires_at = created_at WHERE id = :id"), {"id": job_id})


def make_due(store: Store) -> None:
    with store.database.write() as session:
        session.execute(text("UPDATE jobs SET not_before = created_at"))


def test_from_submission_to_success(store: Store):
    job = submit(store, name="search", labels={"team": "a"})
    assert (job.state, job.attempt) == ("queued", 0)
    held = claim(store)
    assert (held.job_id, held.attempt) == (job.id, 1)
    assert store.leases.claim(CPU, 30) is None
    output = NewArtifact("model", "model", "file:///x", "a" * 64, 10, {"files": []})
    ended = store.leases.finish(held, EndReason.SUCCEEDED, outputs=[held_by(store, output)])
    assert (ended.state, ended.end_code) == ("succeeded", "succeeded")
    assert ended.finished_at >= ended.started_at >= ended.created_at
    assert states(store, job.id) == ["queued", "running", "succeeded"]
    assert store.artifacts.find("model", "search", "1").id == ended.outputs["model"].partition(":")[2]


def test_versions_of_one_name_count_up(store: Store):
    for expected in (1, 2):
        submit(store, name="search")
        held = claim(store)
        output = NewArtifact("model", "model", "file:///x", "a" * 64, 1, {})
        store.leases.finish(held, EndReason.SUCCEEDED, outputs=[held_by(store, output)])
        assert store.artifacts.find("model", "search").version == expected
    with pytest.raises(NotFound):
        store.artifacts.find("model", "search", "3")


def test_priority_then_age(store: Store):
    first, second, urgent = submit(store), submit(store), submit(store, priority=5)
    assert [store.jobs.queue_position(job) for job in (first, second, urgent)] == [1, 2, 0]
    assert [claim(store).job_id for _ in range(3)] == [urgent.id, first.id, second.id]


def test_a_gpu_job_waits_for_a_gpu_and_auto_prefers_one(store: Store):
    needs = submit(store, resources={"gpus": 1, "gpu_memory_gb": 40})
    assert store.leases.claim(CPU, 30) is None
    too_small = Capacity(worker="w3", gpus={"GPU-16": 16_000_000_000})
    assert store.leases.claim(too_small, 30) is None
    assert store.leases.claimable(GPU)
    assert claim(store, GPU).job_id == needs.id
    auto = submit(store)
    assert store.leases.claim(CPU, 30, any_gpu_worker=True) is None
    assert store.leases.claim(GPU, 30) is None  # its GPU is taken
    assert claim(store, CPU).job_id == auto.id


def test_a_gpu_is_one_jobs_own_on_a_host_of_several_workers(store: Store):
    """`docker compose up --scale worker=3`: each sees the same GPUs."""
    host = {"GPU-big": 80_000_000_000, "GPU-small": 16_000_000_000}
    first, second, third = (Capacity(worker=f"w{index}", gpus=host) for index in range(3))
    for _ in range(4):
        submit(store, resources={"gpus": 1})
    one, two = claim(store, first), claim(store, second)
    assert (one.gpus, two.gpus) == (["GPU-small"], ["GPU-big"])  # the smallest that is large enough
    assert not store.leases.claimable(third)
    assert store.leases.claim(third, 30) is None
    cpu_job = submit(store, resources={"gpus": 0})
    on_cpu = claim(store, third)
    assert (on_cpu.job_id, on_cpu.gpus) == (cpu_job.id, [])
    store.leases.finish(one, EndReason.SUCCEEDED)
    assert claim(store, third).gpus == ["GPU-small"]
    let_lease_run_out(store, two.job_id)
    store.leases.expire_leases()
    assert claim(store, third).gpus == ["GPU-big"]


def claim_at_once(store: Store, gpus: dict[str, int]) -> list[list[str]]:
    """What six workers of one host get who all ask at once, three times each."""
    given: list[list[str]] = []

    def work(name: str) -> None:
        for _ in range(3):
            if found := store.leases.claim(Capacity(worker=name, gpus=gpus), 30):
                given.append(found.gpus)

    threads = [threading.Thread(target=work, args=(f"w{index}",)) for index in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return given


def test_a_gpu_is_never_given_twice_however_many_ask(store: Store):
    for _ in range(8):
        submit(store, resources={"gpus": 1})
    host = {"GPU-a": 10**10, "GPU-b": 10**10, "GPU-c": 10**10}
    given = claim_at_once(store, host)
    assert sorted(uuid for gpus in given for uuid in gpus) == sorted(host)


HOST = {"GPU-a": 16 * 10**9, "GPU-b": 80 * 10**9, "GPU-c": 80 * 10**9}


def test_several_gpus_are_held_together_or_not_at_all(store: Store):
    host = Capacity(worker="w1", gpus=HOST)
    pair = submit(store, resources={"gpus": 2, "gpu_memory_gb": 40})
    assert not store.leases.claimable(GPU)  # one GPU is not two
    held = claim(store, host)
    assert (held.job_id, held.gpus) == (pair.id, ["GPU-b", "GPU-c"])
    submit(store, resources={"gpus": 2})
    assert store.leases.claim(host, 30) is None
    single = submit(store, resources={"gpus": 1})
    assert (claim(store, host).job_id, store.leases.claimable(host)) == (single.id, False)
    store.leases.finish(held, EndReason.SUCCEEDED)
    assert claim(store, host).gpus == ["GPU-b", "GPU-c"]


def test_pairs_of_gpus_go_to_whoever_asks_first_without_deadlock(store: Store):
    for _ in range(6):
        submit(store, resources={"gpus": 2})
    host = {f"GPU-{index}": 10**10 for index in range(5)}
    given = claim_at_once(store, host)
    taken = [uuid for pair in given for uuid in pair]
    assert len(taken) == len(set(taken))
    # Who finds its second GPU taken lets go of its first, and comes again.
    assert {len(pair) for pair in given} == {2}
    while store.leases.claim(Capacity(worker="last", gpus=host), 30):
        pass
    assert not store.leases.claimable(Capacity(worker="last", gpus=host))


def test_smaller_jobs_pass_one_that_wants_several_gpus_only_for_a_while(store: Store, monkeypatch):
    host = Capacity(worker="w1", gpus=HOST)
    first = submit(store, resources={"gpus": 1})
    running = claim(store, host)
    all_of_them = submit(store, resources={"gpus": 3})
    submit(store, resources={"gpus": 1})
    on_cpu = submit(store, resources={"gpus": 0})
    passing = claim(store, host)
    assert running.job_id == first.id
    assert passing.job_id not in (all_of_them.id, on_cpu.id)
    monkeypatch.setattr("core.store.attempts.leases._PATIENCE_SECONDS", 0.0)
    small = submit(store, resources={"gpus": 1})
    urgent = submit(store, resources={"gpus": 1}, priority=1)
    assert claim(store, host).job_id == urgent.id  # priority stays what it is
    store.leases.finish(passing, EndReason.SUCCEEDED)
    assert claim(store, host).job_id == on_cpu.id
    assert store.leases.claim(host, 30) is None  # a GPU is free, and kept
    assert claim(store, GPU).job_id == small.id  # a host that could never run it owes it nothing


def test_gpus_that_a_waiting_job_cannot_use_are_not_kept_for_it(store: Store, monkeypatch):
    monkeypatch.setattr("core.store.attempts.leases._PATIENCE_SECONDS", 0.0)
    host = Capacity(worker="w1", gpus={**HOST, "GPU-d": 16 * 10**9})
    submit(store, resources={"gpus": 1, "gpu_memory_gb": 40})
    assert claim(store, host).gpus == ["GPU-b"]
    submit(store, resources={"gpus": 2, "gpu_memory_gb": 40})  # waits for b and c
    small = [submit(store, resources={"gpus": 1}).id for _ in range(3)]
    assert [claim(store, host).gpus for _ in range(2)] == [["GPU-a"], ["GPU-d"]]
    assert store.leases.claim(host, 30) is None
    assert store.jobs.get(small[2]).state == "queued"


def test_a_gpu_must_hold_what_the_job_needs_at_least(store: Store):
    job, _ = store.jobs.submit(NewJob(spec=spec(resources={"gpus": 1}), least_gpu_memory=20 * 10**9))
    assert not store.leases.claimable(Capacity(worker="w3", gpus={"GPU-16": 16 * 10**9}))
    assert claim(store, GPU).job_id == job.id


def test_each_job_is_claimed_once_however_many_ask(store: Store):
    jobs = {submit(store).id for _ in range(12)}
    claimed: list[str] = []

    def work(name: str) -> None:
        while found := store.leases.claim(Capacity(worker=name), 30):
            claimed.append(found.job_id)

    threads = [threading.Thread(target=work, args=(f"w{index}",)) for index in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(claimed) == 12
    assert set(claimed) == jobs


def test_whoever_lost_the_lease_writes_nothing_more(store: Store):
    job = submit(store)
    old = claim(store)
    let_lease_run_out(store, job.id)
    assert store.leases.expire_leases() == [job.id]
    make_due(store)
    new = claim(store)
    assert new.attempt == 2
    before = store.progress.events(job.id)
    for write in (
        lambda: store.leases.renew(old, 30),
        lambda: store.leases.finish(old, EndReason.SUCCEEDED),
        lambda: store.progress.record(old, ProgressUpdate(log="late words")),
    ):
        with pytest.raises(StaleLease):
            write()
    assert len(store.progress.events(job.id)) == len(before)
    assert store.progress.log(job.id) == []
    assert store.leases.finish(new, EndReason.SUCCEEDED).state == "succeeded"


def test_a_renewed_lease_is_not_taken_back(store: Store):
    job = submit(store)
    held = claim(store)
    let_lease_run_out(store, job.id)
    store.leases.renew(held, 30)
    assert store.leases.expire_leases() == []


def test_a_job_that_gets_on_outlives_any_number_of_lost_workers(store: Store):
    job = submit(store, max_attempts=2)

    def lose(checkpoint: int | None) -> str:
        with store.database.write() as session:
            session.execute(update(Job).values(not_before=store.database.time(-1)))
        held = claim(store)
        if checkpoint is not None:
            event = Event(type=EventType.CHECKPOINT, data={"step": checkpoint, "bytes": 1, "seconds": 0.1})
            store.progress.record(held, ProgressUpdate(events=[event]))
        let_lease_run_out(store, job.id)
        store.leases.expire_leases()
        return store.jobs.get(job.id).state

    assert [lose(step) for step in (20, 40, 60, 80)] == ["queued"] * 4
    # The same checkpoint again, or none, is no progress.
    assert lose(80) == "failed"
    assert "no more retries: 2 failed attempts in a row" in store.jobs.get(job.id).end_message


def test_failures_are_retried_later_and_not_for_ever(store: Store):
    job = submit(store, max_attempts=2)
    retried = store.leases.finish(claim(store), EndReason.PROCESS_DIED, "killed")
    assert (retried.state, retried.failures, retried.worker) == ("queued", 1, None)
    assert retried.not_before > retried.created_at
    make_due(store)
    ended = store.leases.finish(claim(store), EndReason.PROCESS_DIED, "killed")
    assert (ended.state, ended.end_code) == ("failed", "process_died")
    assert "no more retries: 2 failed attempts" in ended.end_message
    again = store.jobs.retry(job.id)
    assert (again.state, again.failures, again.end_code) == ("queued", 0, None)


def test_what_the_user_must_mend_is_not_retried(store: Store):
    submit(store)
    assert store.leases.finish(claim(store), EndReason.BAD_DATA, "line 3").state == "failed"


def test_an_interruption_does_not_count_as_a_failure(store: Store):
    job = submit(store, max_attempts=1)
    for _ in range(3):
        assert store.leases.finish(claim(store), EndReason.INTERRUPTED).state == "queued"
        make_due(store)
    assert store.jobs.get(job.id).failures == 0


def test_cancelling(store: Store):
    queued = submit(store)
    assert store.jobs.cancel(queued.id).state == "cancelled"
    running = submit(store)
    held = claim(store)
    assert store.jobs.cancel(running.id).state == "running"
    assert store.leases.renew(held, 30).cancel
    # The process died before it could say that it stopped: the user's wish stands all the same.
    assert store.leases.finish(held, EndReason.PROCESS_DIED).state == "cancelled"
    for job in (queued, running):
        with pytest.raises(Conflict):
            store.jobs.cancel(job.id)
    with pytest.raises(NotFound):
        store.jobs.cancel("job_none")


def test_pausing_and_resuming(store: Store):
    job = submit(store)
    held = claim(store)
    store.jobs.pause(job.id)
    assert store.progress.record(held, ProgressUpdate(log="x")).pause
    assert store.leases.finish(held, EndReason.PAUSED).state == "paused"
    with pytest.raises(Conflict):
        store.jobs.retry(job.id)
    assert store.jobs.resume(job.id).pause_requested is False
    assert claim(store).attempt == 2


def test_a_cancel_that_comes_while_a_pause_is_saving_stands(store: Store):
    job = submit(store)
    held = claim(store)
    store.jobs.pause(job.id)
    store.jobs.cancel(job.id)
    assert store.leases.finish(held, EndReason.PAUSED).state == "cancelled"


def test_gpu_memory_says_nothing_about_a_cpu(store: Store):
    auto = submit(store, resources={"gpu_memory_gb": 40})
    assert store.leases.claim(Capacity(worker="w", gpus={"GPU-1": 10**9}), 30) is None
    assert claim(store, CPU).job_id == auto.id


def test_a_worker_lost_while_pausing_leaves_the_job_paused(store: Store):
    job = submit(store)
    claim(store)
    store.jobs.pause(job.id)
    let_lease_run_out(store, job.id)
    store.leases.expire_leases()
    assert store.jobs.get(job.id).state == "paused"


def test_parts_end_with_the_whole(store: Store):
    """One of three runs, one fails, one is queued: nobody wants what is left."""

    def divided(whole_id: str, priority: int) -> list[str]:
        whole = parse_spec({"kind": "mine", "dataset": "file:x", "parts": 3, "priority": priority})
        spec, parts = whole.divided(whole_id, [new_id("job") for _ in range(3)])
        store.jobs.submit(
            NewJob(spec=spec, id=whole_id, depends_on=list(parts)),
            parts=[NewJob(spec=part, id=part_id) for part_id, part in parts.items()],
        )
        return list(parts)

    own_id = new_id("job")
    parts = divided(own_id, 1)
    other = divided(new_id("job"), 0)
    assert store.jobs.get(own_id).state == "waiting"
    running, failing = claim(store), claim(store)
    assert {running.job_id, failing.job_id} < set(parts)
    store.leases.finish(failing, EndReason.BAD_DATA)
    assert store.jobs.get(own_id).end_code == "dependency_failed"
    [queued] = set(parts) - {running.job_id, failing.job_id}
    assert store.jobs.get(queued).state == "cancelled"
    assert own_id in store.jobs.get(queued).end_message
    assert store.jobs.get(running.job_id).cancel_requested
    assert all(store.jobs.get(part).state == "queued" for part in other)


def test_dependencies(store: Store):
    first = submit(store)
    second = submit(store, depends_on=[first.id])
    third = submit(store, depends_on=[second.id])
    assert (second.state, third.state) == ("waiting", "waiting")
    store.leases.finish(claim(store), EndReason.SUCCEEDED)
    assert store.jobs.get(second.id).state == "queued"
    assert store.jobs.get(third.id).state == "waiting"
    store.leases.finish(claim(store), EndReason.BAD_DATA)
    ended = store.jobs.get(third.id)
    assert (ended.state, ended.end_code) == ("cancelled", "dependency_failed")
    with pytest.raises(Conflict):
        submit(store, depends_on=[second.id])
    with pytest.raises(Conflict, match="depends on"):
        store.jobs.retry(third.id)
    with pytest.raises(NotFound):
        submit(store, depends_on=["job_none"])


def test_the_same_idempotency_key_makes_one_job(store: Store):
    pair = ("key", "a" * 64)
    job, new = store.jobs.submit(NewJob(spec=spec()), idempotency=pair)
    again, repeated = store.jobs.submit(NewJob(spec=spec()), idempotency=pair)
    assert (new, repeated) == (True, False)
    assert again.id == job.id
    with pytest.raises(Conflict):
        store.jobs.submit(NewJob(spec=spec()), idempotency=("key", "b" * 64))
    other, new = store.jobs.submit(NewJob(spec=spec()), access=Access("someone else"), idempotency=pair)
    assert new
    assert other.id != job.id


def test_the_same_key_from_many_threads_at_once(store: Store):
    ids: list[str] = []

    def send() -> None:
        ids.append(store.jobs.submit(NewJob(spec=spec()), idempotency=("k", "c" * 64))[0].id)

    threads = [threading.Thread(target=send) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(ids) == 8
    assert len(set(ids)) == 1
    assert len(store.jobs.page()[0]) == 1


def test_pages(store: Store):
    made = [submit(store, labels={"n": str(index % 2)}).id for index in range(7)]
    seen, cursor = [], None
    while True:
        rows, cursor = store.jobs.page(cursor=cursor, limit=3)
        seen += [row.id for row in rows]
        if cursor is None:
            break
    assert seen == made[::-1]
    assert [row.id for row in store.jobs.page(labels={"n": "1"})[0]] == made[1::2][::-1]
    assert store.jobs.page(state="running")[0] == []
    assert store.jobs.depth() == {"queued": 7}


def test_progress_is_numbered_without_gaps_and_the_last_metric_wins(store: Store):
    job = submit(store)
    held = claim(store)
    event = Event(type=EventType.NOTICE, data={"message": "hi"})
    store.progress.record(
        held,
        ProgressUpdate(
            events=[event, event],
            metrics=[("loss", 1, 0.5, event.at), ("loss", 1, 0.4, event.at), ("loss", 2, None, event.at)],
            log="one\n",
            phase="training",
            latest={"loss": 0.4},
        ),
    )
    store.progress.record(
        held, ProgressUpdate(events=[event], metrics=[("loss", 1, 0.3, event.at)], log="two \x00\n")
    )
    assert [row.seq for row in store.progress.events(job.id)] == [1, 2, 3, 4, 5]
    assert [row.seq for row in store.progress.events(job.id, after=3)] == [4, 5]
    assert [(step, value) for step, value, _ in store.progress.metric(job.id, "loss")] == [
        (1, 0.3),
        (2, None),
    ]
    assert "".join(chunk.content for chunk in store.progress.log(job.id)) == "one\ntwo \ufffd\n"
    assert store.jobs.get(job.id).phase == "training"


def test_logs_keep_their_newest_part(store: Store):
    job = submit(store)
    held = claim(store)
    store.progress._max_log_bytes = 1000
    for index in range(96):
        store.progress.record(held, ProgressUpdate(log=f"{index:04} " + "x" * 95))
    kept = store.progress.log(job.id)
    assert sum(chunk.bytes for chunk in kept) <= 1000
    assert kept[-1].content.startswith("0095")


def test_keys(store: Store):
    assert not store.keys.any_active()
    row, secret = store.keys.create("ci", ["read"])
    assert secret not in row.sha256
    assert store.keys.check(secret).id == row.id
    assert store.keys.check(secret + "x") is None
    store.keys.revoke(row.id)
    assert store.keys.check(secret) is None
    assert not store.keys.any_active()
