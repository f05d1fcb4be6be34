"""Webhooks of a real service: a worker sends what another process has changed."""

from tests.faults.service import Service, until
from tests.receiver import Receiver


def test_a_service_tells_of_a_pipeline_and_its_jobs(service, pairs_file):
    running: Service = service(webhook_private_addresses="true")
    with Receiver() as receiver:
        running.start()
        made = running.client.create_webhook(receiver.url, ["job.*", "pipeline.*"])
        stages = {"prepare": {"kind": "prepare", "source": f"file:{pairs_file}", "task": "columns"}}
        pipeline = running.client.pipelines.submit({"stages": stages})
        running.client.pipelines.wait(pipeline.id, timeout=120)
        until(lambda: "pipeline.succeeded" in receiver.types, 60, "the pipeline's end is told")
        of_job = [event for event in receiver.types if event.startswith("job.")]
        assert of_job == ["job.queued", "job.running", "job.succeeded"]
        of_pipeline = [event for event in receiver.types if event.startswith("pipeline.")]
        assert of_pipeline == ["pipeline.queued", "pipeline.running", "pipeline.succeeded"]

        def all_delivered() -> bool:
            return {delivery.state for delivery in running.client.deliveries(made.id)} == {"delivered"}

        until(all_delivered, 30, "the answers are noted")
        running.client.delete_webhook(made.id)
        assert running.client.webhooks() == []
