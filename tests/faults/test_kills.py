"""SIGKILL of each part, with real processes: the job succeeds exactly once, from its checkpoint."""

import contextlib
import os
import signal
import time

import psutil
import pytest

from tests.faults.checks import check_resumed, check_succeeded_once
from tests.faults.service import OUTLASTS_A_LEASE, until


def test_the_job_s_process_is_killed(running, long_spec):
    job = running.client.submit(long_spec)
    running.wait_for_step(job.id, 60)
    running.job_process(job.id).kill()
    ended = running.wait(job.id)
    check_succeeded_once(running, ended, attempts=2)
    check_resumed(running, job.id)
    assert "process_died" in running.reasons(job.id)


@pytest.mark.slow
def test_the_worker_is_killed(service, long_spec):
    running = service().start()
    job = running.client.submit(long_spec)
    running.wait_for_step(job.id, 60)
    orphan = running.job_process(job.id)
    running.kill("worker")
    until(lambda: not alive(orphan), what="the orphan ends itself when its supervisor is dead")
    running.start("worker")
    ended = running.wait(job.id)
    check_succeeded_once(running, ended, attempts=2)
    check_resumed(running, job.id)


def test_the_api_is_killed(running, long_spec):
    job = running.client.submit(long_spec)
    running.wait_for_step(job.id, 20)
    running.kill("api")
    time.sleep(0.5)
    running.start("api")
    ended = running.wait(job.id)
    check_succeeded_once(running, ended, attempts=1)


@pytest.mark.slow
def test_a_frozen_worker_loses_its_job_to_another_and_writes_nothing_more(service, long_spec):
    """The worst of all: it is not dead, and comes back when its job runs elsewhere."""
    running = service().start()
    job = running.client.submit(long_spec)
    running.wait_for_step(job.id, 60)
    worker = running.processes["worker"]
    first_run = running.job_process(job.id)
    running.freeze("worker", job.id)
    first_run.suspend()
    running.start("worker-2")
    until(lambda: running.client.job(job.id).attempt == 2, what="the other worker takes over")
    worker.send_signal(signal.SIGCONT)
    with contextlib.suppress(psutil.NoSuchProcess):  # the worker may have been quicker
        first_run.resume()
    until(lambda: not alive(first_run), what="the first worker ends the process that it has lost")
    check_succeeded_once(running, running.wait(job.id), attempts=2)


@pytest.mark.slow
def test_a_job_whose_worker_is_frozen_ends_itself(service, long_spec):
    """The worker alone is frozen: its job's process must not go on beside the one that takes over."""
    running = service().start()
    job = running.client.submit({**long_spec, **OUTLASTS_A_LEASE})
    running.wait_for_step(job.id, 60)
    worker, orphan = running.processes["worker"], running.job_process(job.id)
    log = running.run_folder(job.id) / "log.txt"
    running.freeze("worker", job.id)
    running.start("worker-2")
    until(lambda: not alive(orphan), what="the orphan ends itself when its lease is over")
    assert "no heartbeat from its worker" in log.read_text()
    ended = running.wait(job.id)
    worker.send_signal(signal.SIGCONT)
    check_succeeded_once(running, ended, attempts=2)
    check_resumed(running, job.id)
    assert running.reasons(job.id) == ["worker_lost", "succeeded"]


def test_a_frozen_worker_that_comes_back_in_time_goes_on_with_a_new_process(service, long_spec):
    """Nobody has taken the job over: it is the worker's own, and its process has ended."""
    running = service().start()
    job = running.client.submit({**long_spec, **OUTLASTS_A_LEASE})
    running.wait_for_step(job.id, 60)
    orphan = running.job_process(job.id)
    running.freeze("worker", job.id)
    until(lambda: not alive(orphan), what="the orphan ends itself when its lease is over")
    running.processes["worker"].send_signal(signal.SIGCONT)
    check_succeeded_once(running, running.wait(job.id), attempts=2)
    assert running.reasons(job.id) == ["worker_lost", "succeeded"]


def test_a_suspended_machine_does_not_end_its_job(service, long_spec):
    """Worker and job are stopped for longer than the lease, and nobody else takes the job meanwhile."""
    running = service(lease_seconds=4).start()
    job = running.client.submit(long_spec)
    running.wait_for_step(job.id, 40)
    process = running.job_process(job.id)
    running.freeze("worker", job.id)
    process.suspend()
    time.sleep(6)
    process.resume()
    time.sleep(0.5)
    running.processes["worker"].send_signal(signal.SIGCONT)
    ended = running.wait(job.id)
    assert ended.state == "succeeded", (ended.end_reason, running.logs())
    log, _ = running.client.logs(job.id)
    assert "no heartbeat from its worker" not in log


@pytest.mark.slow
def test_a_worker_that_is_asked_to_stop_hands_its_job_on(service, long_spec):
    running = service().start()
    job = running.client.submit({**long_spec, "max_attempts": 1})
    running.wait_for_step(job.id, 30)
    running.kill("worker", signal.SIGTERM)
    waiting = running.client.job(job.id)
    assert (waiting.state, waiting.end_reason.code) == ("queued", "interrupted")
    running.start("worker")
    check_succeeded_once(running, running.wait(job.id), attempts=2)
    check_resumed(running, job.id)


def test_cancel_pause_and_resume_of_a_running_job(running, long_spec):
    paused = running.client.submit(long_spec)
    running.wait_for_step(paused.id, 30)
    running.client.pause(paused.id)
    assert running.wait(paused.id).state == "paused"
    cancelled = running.client.submit(long_spec)
    running.wait_for_step(cancelled.id, 5)
    process = running.job_process(cancelled.id)
    running.client.cancel(cancelled.id)
    ended = running.wait(cancelled.id)
    assert (ended.state, ended.end_reason.code) == ("cancelled", "cancelled")
    assert not alive(process)
    running.client.resume(paused.id)
    check_succeeded_once(running, running.wait(paused.id), attempts=2)
    check_resumed(running, paused.id)


def test_a_job_on_the_output_of_one_that_still_runs(running, long_spec):
    first = running.client.submit({**long_spec, "max_steps": 30})
    second = running.client.submit({**long_spec, "max_steps": 2, "base_model": f"job:{first.id}/model"})
    typo = running.client.submit({**long_spec, "max_steps": 2, "base_model": f"job:{first.id}/modle"})
    assert (second.state, typo.state) == ("waiting", "waiting")
    ended = running.wait(second.id)
    assert ended.state == "succeeded", ended.end_reason
    [made] = [artifact for artifact in running.client.artifacts(first.id) if artifact.output == "model"]
    assert ended.inputs[f"job:{first.id}/model"].sha256 == made.sha256
    assert "has no output 'modle'" in running.wait(typo.id).end_reason.message


def test_a_job_that_fails_again_and_again_is_given_up(running, long_spec):
    job = running.client.submit({**long_spec, "max_attempts": 2})
    for attempt in (1, 2):
        until(
            lambda attempt=attempt: running.client.job(job.id).attempt == attempt, what=f"attempt {attempt}"
        )
        running.job_process(job.id).kill()
    ended = running.wait(job.id)
    assert (ended.state, ended.end_reason.code) == ("failed", "process_died")
    assert "SIGKILL" in ended.end_reason.message


def test_a_timeout_ends_the_attempt(running, long_spec):
    job = running.client.submit({**long_spec, "epochs": 1000, "timeout_seconds": 3})
    ended = running.wait(job.id)
    assert (ended.state, ended.end_reason.code) == ("failed", "timed_out")


def alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs processes")
def test_wake_ups_that_are_lost_are_sent_again(service, long_spec):
    """The broker forgets everything between the submission and the worker's start."""
    running = service().start("api")
    job = running.client.submit({**long_spec, "max_steps": 2})
    for message in (running.folder / "data" / "broker" / "messages").iterdir():
        message.unlink()
    torn = running.folder / "data" / "broker" / "messages" / "1_x.cpu.msg"
    torn.touch()
    running.start("worker")
    assert running.wait(job.id).state == "succeeded"
    assert not torn.exists()
    assert "CRITICAL" not in running.logs()
