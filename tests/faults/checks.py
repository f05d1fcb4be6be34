"""What is checked of a job that has survived a fault."""

from core.jobs.views import JobView
from tests.faults.service import Service


def check_succeeded_once(service: Service, job: JobView, *, attempts: int) -> None:
    assert job.state == "succeeded", (job.end_reason, service.logs())
    assert job.attempt == attempts
    events = service.client.events(job.id)
    assert [event.seq for event in events] == list(range(1, len(events) + 1))
    states = [event.data.state for event in events if event.type == "state"]
    assert states.count("succeeded") == 1
    assert states[-1] == "succeeded"
    assert states.count("running") == attempts
    [series] = service.client.metrics(job.id, ["loss"])
    steps = [point.step for point in series.points]
    assert steps == sorted(set(steps))
    assert steps[-1] == job.progress.total_steps
    outputs = service.client.artifacts(job.id)
    assert sorted(artifact.output for artifact in outputs) == ["model", "report"]
    assert len([model for model in service.client.models() if model.job_id == job.id]) == 1


def check_resumed(service: Service, job_id: str) -> None:
    notices = [event.data.message for event in service.client.events(job_id) if event.type == "notice"]
    assert any("Going on from checkpoint-" in message for message in notices), notices
