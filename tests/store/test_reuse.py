"""Equal results are made once: who runs, who waits, who takes, on both databases."""

import threading

import pytest
from sqlalchemy import text

from core.errors import StaleLease
from core.jobs.events import CheckpointSaved, Event
from core.jobs.origin import Origin
from core.jobs.reasons import EndReason
from core.spec import parse_spec
from core.store import Store
from core.store.artifacts import NewArtifact
from core.store.attempts.leases import Capacity, Claim
from core.store.attempts.progress import ProgressUpdate
from core.store.new_jobs import NewJob
from tests.held import held_by

ORIGIN = Origin(code="c")
KEY = "k" * 64
OUTPUT = NewArtifact("model", "model", "file:///x", "a" * 64, 10, {"files": []})


def submit(store: Store, *, reuse: bool = True, scope: str | None = None, **changes):
    spec = parse_spec({"kind": "train", "base_model": "org/m", "dataset": "file:p.jsonl", **changes})
    return store.jobs.submit(NewJob(spec=spec, reuse=reuse, result_scope=scope))[0]


def claim(store: Store) -> Claim | None:
    return store.leases.claim(Capacity("w"), 60)


def begin(store: Store, held: Claim, key: str | None = KEY):
    return store.reuse.begin(held, ORIGIN, key)


def succeed(store: Store, held: Claim, **more):
    return store.leases.finish(held, EndReason.SUCCEEDED, outputs=[held_by(store, OUTPUT)], **more)


def test_the_second_waits_for_the_first_and_takes_its_outputs(store: Store):
    first, second = submit(store, name="search"), submit(store, name="search")
    one = claim(store)
    assert begin(store, one).equal is None
    two = claim(store)
    assert two.job_id == second.id
    assert begin(store, two).waits
    waiting = store.jobs.get(second.id)
    assert (waiting.state, waiting.failures, waiting.lease_token) == ("queued", 0, None)
    assert first.id in store.progress.events(second.id)[-2].data.message
    assert claim(store) is None, "nobody claims it before the other has ended"
    assert not store.leases.claimable(Capacity("w"))
    assert store.reuse.made_by(store.jobs.get(second.id)) == first.id
    with pytest.raises(StaleLease):
        store.leases.renew(two, 60)

    succeed(store, one)
    two = claim(store)
    found = begin(store, two)
    assert not found.waits
    assert (found.equal.job_id, found.equal.outputs) == (first.id, [OUTPUT])
    ended = succeed(store, two, equal=found.equal)
    assert (ended.reused_from, ended.progress.fraction) == (first.id, 1.0)
    assert store.progress.events(second.id)[-1].data.reused_from == first.id
    versions = [store.artifacts.find("model", "search", str(number)) for number in (1, 2)]
    assert [found.job_id for found in versions] == [first.id, second.id]
    assert len({found.sha256 for found in versions}) == 1


def test_a_chain_of_reuse_names_the_job_that_ran(store: Store):
    first = submit(store)
    held = claim(store)
    begin(store, held)
    succeed(store, held)
    for _ in range(2):
        submit(store)
        held = claim(store)
        equal = begin(store, held).equal
        assert succeed(store, held, equal=equal).reused_from == first.id


def test_without_reuse_a_job_runs_and_others_take_what_it_made(store: Store):
    submit(store, reuse=False)
    fresh = submit(store, reuse=False)
    for _ in range(2):
        held = claim(store)
        assert begin(store, held) == begin(store, held), "asked again, it is the same"
        assert begin(store, held).equal is None
        succeed(store, held)
    submit(store)
    assert begin(store, claim(store)).equal.job_id == fresh.id, "the newest"


@pytest.mark.parametrize(
    "end", [EndReason.BAD_DATA, EndReason.PAUSED, EndReason.CRASHED, EndReason.CANCELLED]
)
def test_when_the_first_does_not_succeed_the_second_runs(store: Store, end):
    submit(store, max_attempts=1)
    second = submit(store)
    one = claim(store)
    begin(store, one)
    assert begin(store, claim(store)).waits
    store.leases.finish(one, end)
    held = claim(store)
    assert held.job_id == second.id
    found = begin(store, held)
    assert not found.waits
    assert found.equal is None


def test_a_worker_that_is_lost_releases_the_result(store: Store):
    submit(store, max_attempts=1)
    second = submit(store)
    begin(store, store.leases.claim(Capacity("w"), -1))
    assert begin(store, claim(store)).waits
    store.leases.expire_leases()
    held = claim(store)
    assert held.job_id == second.id
    assert begin(store, held).equal is None


def test_a_result_of_inputs_that_changed_is_not_offered(store: Store):
    submit(store)
    held = claim(store)
    begin(store, held)
    assert succeed(store, held, inputs_changed=True).result_key is None
    submit(store)
    assert begin(store, claim(store)).equal is None


def test_what_cannot_be_told_apart_runs(store: Store):
    for _ in range(2):
        submit(store)
        held = claim(store)
        assert begin(store, held, None).equal is None
        assert store.jobs.get(held.job_id).origin == ORIGIN
        succeed(store, held)


def test_owners_do_not_see_each_others_results_where_jobs_are_private(store: Store):
    submit(store, scope="a")
    held = claim(store)
    begin(store, held)
    succeed(store, held)
    for scope, found in (("b", False), (None, False), ("a", True)):
        submit(store, scope=scope)
        held = claim(store)
        assert bool(begin(store, held).equal) is found
        store.leases.finish(held, EndReason.CANCELLED)


@pytest.mark.parametrize("asked", ["cancel", "pause"])
def test_who_is_asked_to_stop_does_not_go_back_to_the_queue(store: Store, asked):
    """There the request would be forgotten: its supervisor answers it."""
    submit(store)
    second = submit(store)
    begin(store, claim(store))
    held = claim(store)
    getattr(store.jobs, asked)(second.id)
    assert not begin(store, held).waits
    assert getattr(store.leases.renew(held, 60), asked)


def test_a_result_of_two_attempts_counts_as_neither(store: Store):
    """It goes on from a checkpoint that other code, or another device, has made."""
    job = submit(store)
    held = claim(store)
    begin(store, held)
    saved = ProgressUpdate(events=[Event.of(CheckpointSaved(step=5))])
    store.progress.record(held, saved)
    store.leases.finish(held, EndReason.INTERRUPTED)
    held = claim(store)
    begin(store, held, "another" * 8)
    assert succeed(store, held).result_key is None
    submit(store)
    assert begin(store, claim(store), "another" * 8).equal is None
    assert job.id == held.job_id


def test_an_attempt_that_nobody_looked_at_has_no_key(store: Store):
    submit(store)
    held = claim(store)
    begin(store, held)
    store.leases.finish(held, EndReason.INTERRUPTED)
    held = claim(store)
    store.reuse.begin(held, None, None)
    assert succeed(store, held).result_key is None


def test_gpus_are_not_kept_for_a_job_that_waits_for_another(store: Store):
    host = Capacity("w", gpus={f"GPU-{number}": 80_000_000_000 for number in range(3)})
    for _ in range(2):
        submit(store, resources={"gpus": 2})
    held = store.leases.claim(host, 60)
    begin(store, held)
    assert len(held.gpus) == 2
    with store.database.write() as session:
        session.execute(
            text("UPDATE jobs SET not_before = '2020-01-01 00:00:00+00:00', result_key = :key"), {"key": KEY}
        )
    small = submit(store, resources={"gpus": 1}, seed=3)
    assert store.leases.claim(host, 60).job_id == small.id


def test_of_many_equal_jobs_at_once_one_runs(store: Store):
    for _ in range(6):
        submit(store)
    ran, taken, done = [], [], threading.Event()

    def work(name: str) -> None:
        while not done.is_set():
            held = store.leases.claim(Capacity(name), 60)
            if held is None:
                continue
            found = begin(store, held)
            if found.waits:
                continue
            (taken if found.equal else ran).append(held.job_id)
            succeed(store, held, equal=found.equal)
            if len(ran) + len(taken) == 6:
                done.set()

    threads = [threading.Thread(target=work, args=(f"w{number}",)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert (len(ran), len(taken)) == (1, 5)
