"""What Prometheus reads: the queue and the fleet, asked from the database at each look, and our own calls."""

import time
from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from core.errors import Unavailable
from core.jobs.hosts import Gpu
from core.jobs.state import JobState
from core.store import Store

_METHODS = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}


class ServiceCollector:
    """Every number of the service that is the same whichever API process is asked."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def describe(self) -> list[Metric]:
        """Nothing: registering must not ask the database."""
        return []

    def collect(self) -> Iterator[Metric]:
        up = GaugeMetricFamily(
            "reason_database_up",
            "1 if the database answers; 0 if not, and then the other service metrics are missing.",
        )
        try:
            seen = self._store.statistics.take()
        except Unavailable:
            up.add_metric([], 0)
            yield up
            return
        up.add_metric([], 1)
        yield up
        jobs = GaugeMetricFamily("reason_jobs", "Jobs by state.", labels=["state"])
        for state in JobState:
            jobs.add_metric([state.value], seen.jobs.get(state.value, 0))
        yield jobs
        # A gauge: retrying takes a job out again, and a counter that sinks looks like a restart.
        ended = GaugeMetricFamily(
            "reason_jobs_ended", "Jobs that have ended, by end reason.", labels=["kind", "reason"]
        )
        for labels, count in seen.ended.items():
            ended.add_metric(labels, count)
        yield ended
        yield CounterMetricFamily("reason_attempts", "Attempts started.", value=seen.attempts)
        yield GaugeMetricFamily(
            "reason_queue_oldest_seconds",
            "Waiting time of the oldest job that could start.",
            value=seen.oldest_queued_seconds,
        )
        artifacts = GaugeMetricFamily("reason_artifacts", "Stored artifacts.", labels=["kind"])
        size = GaugeMetricFamily("reason_artifacts_bytes", "Size of the stored artifacts.", labels=["kind"])
        for kind, (count, amount) in seen.artifacts.items():
            artifacts.add_metric([kind], count)
            size.add_metric([kind], amount)
        yield from (artifacts, size)
        slots = GaugeMetricFamily(
            "reason_worker_slots", "Jobs that a worker can run at once.", labels=["worker"]
        )
        busy = GaugeMetricFamily("reason_worker_jobs", "Jobs that a worker is running.", labels=["worker"])
        memory = GaugeMetricFamily(
            "reason_gpu_memory_bytes", "Total memory of a GPU.", labels=["gpu", "name"]
        )
        free = GaugeMetricFamily(
            "reason_gpu_memory_free_bytes", "Free memory of a GPU.", labels=["gpu", "name"]
        )
        held = GaugeMetricFamily("reason_gpu_held", "1 if a job has the GPU, else 0.", labels=["gpu", "name"])
        gpus: dict[str, Gpu] = {}  # workers of one host see the same ones
        for worker, running in seen.workers:
            slots.add_metric([worker.id], worker.slots)
            busy.add_metric([worker.id], running)
            gpus |= {gpu.uuid: gpu for gpu in worker.gpus}
        for uuid, gpu in gpus.items():
            memory.add_metric([uuid, gpu.name], gpu.memory_bytes)
            free.add_metric([uuid, gpu.name], gpu.free_bytes)
            held.add_metric([uuid, gpu.name], uuid in seen.held_gpus)
        yield from (slots, busy, memory, free, held)


class CallTimes:
    """Times every call to the start of its answer: a stream that is open for hours has answered at once."""

    def __init__(self, app: ASGIApp, registry: CollectorRegistry) -> None:
        self._app = app
        self._seconds = Histogram(
            "reason_http_seconds",
            "Duration of calls, from arrival to the start of the response.",
            ["method", "route", "status"],
            registry=registry,
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun, answered = time.perf_counter(), False

        async def timed(message: Message) -> None:
            if message["type"] == "http.response.start":
                observe(message["status"])
            await send(message)

        def observe(status: int) -> None:
            nonlocal answered
            answered = True
            # The route's template, never the path: each job's own series would be one too many. So would each
            # method that somebody makes up.
            route = getattr(scope.get("route"), "path", "none")
            method = scope["method"] if scope["method"] in _METHODS else "other"
            self._seconds.labels(method, route, status).observe(time.perf_counter() - begun)

        try:
            await self._app(scope, receive, timed)
        except Exception:
            if not answered:
                observe(500)  # further out the framework answers so
            raise
