"""The client for programs on an event loop: `client.client.Client`, awaited.

Calls run in threads of this client's own, over the same connections, retries and errors as those of the plain
client: a call is one request, and a second implementation of each would be a second behaviour. What lasts is
on the loop itself: streams of events hold no thread, and `wait` sleeps between its looks.
"""

import asyncio
import functools
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Any, Concatenate, ParamSpec, TypeVar

import httpx

from client.client import Client as PlainClient
from client.connection import ATTEMPTS, STREAM_TIMEOUT, Event, error_of, event_of, quoted
from client.pipelines import Pipelines as PlainPipelines
from core.jobs.state import JobState
from core.jobs.views import EventView, JobView, PipelineEventView, PipelineView

_THREADS = 16
_DONE = object()

P = ParamSpec("P")
R = TypeVar("R")
Ended = TypeVar("Ended", JobView, PipelineView)


class _Threads:
    """Runs calls of the plain client, which may come from several threads at once."""

    def __init__(self) -> None:
        self.pool = ThreadPoolExecutor(_THREADS, "reason-client")

    async def run(self, function: Callable[[], R]) -> R:
        return await asyncio.get_running_loop().run_in_executor(self.pool, function)

    async def each(self, items: Iterator[R]) -> AsyncIterator[R]:
        """The items of an iterator, each fetched in a thread."""
        while (item := await self.run(lambda: next(items, _DONE))) is not _DONE:
            yield item  # type: ignore[misc]


def _call(
    method: Callable[Concatenate[PlainClient, P], R],
) -> Callable[Concatenate["Client", P], Awaitable[R]]:
    """A method of the plain client, awaited."""

    @functools.wraps(method)
    async def call(self: "Client", /, *args: P.args, **kwargs: P.kwargs) -> R:
        return await self._threads.run(lambda: method(self._plain, *args, **kwargs))

    return call


def _listing(
    method: Callable[Concatenate[PlainClient, P], Iterator[R]],
) -> Callable[Concatenate["Client", P], AsyncIterator[R]]:
    """A method of the plain client that iterates over a list."""

    @functools.wraps(method)
    def call(self: "Client", /, *args: P.args, **kwargs: P.kwargs) -> AsyncIterator[R]:
        return self._threads.each(method(self._plain, *args, **kwargs))

    return call


def _pipeline_call(
    method: Callable[Concatenate[PlainPipelines, P], R],
) -> Callable[Concatenate["Pipelines", P], Awaitable[R]]:
    @functools.wraps(method)
    async def call(self: "Pipelines", /, *args: P.args, **kwargs: P.kwargs) -> R:
        return await self._owner._threads.run(lambda: method(self._owner._plain.pipelines, *args, **kwargs))

    return call


class Client:
    """A client of one service, on an event loop. Raises the errors of `core.errors`.

    >>> async with Client() as client:
    ...     job = await client.submit({"kind": "train", "base_model": "o/m", "dataset": "file:pairs.jsonl"})
    ...     async for event in client.stream(job.id):
    ...         print(event.type)
    """

    def __init__(
        self,
        url: str = "http://127.0.0.1:8000",
        key: str | None = None,
        *,
        timeout: float = 30.0,
        retries: int = ATTEMPTS,
    ) -> None:
        self._plain = PlainClient(url, key, timeout=timeout, retries=retries)
        self._threads = _Threads()
        self._retries = max(1, retries)
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._http = httpx.AsyncClient(base_url=self._plain.url, headers=headers)
        self.url = self._plain.url
        self.pipelines = Pipelines(self)

    async def __aenter__(self) -> "Client":
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        await self._http.aclose()
        await self._threads.run(self._plain.close)
        self._threads.pool.shutdown(wait=False)

    submit = _call(PlainClient.submit)
    estimate = _call(PlainClient.estimate)
    job = _call(PlainClient.job)
    why = _call(PlainClient.why)
    cancel = _call(PlainClient.cancel)
    pause = _call(PlainClient.pause)
    resume = _call(PlainClient.resume)
    retry = _call(PlainClient.retry)
    delete_job = _call(PlainClient.delete_job)
    checkpoints = _call(PlainClient.checkpoints)
    events = _call(PlainClient.events)
    metrics = _call(PlainClient.metrics)
    metrics_frame = _call(PlainClient.metrics_frame)
    logs = _call(PlainClient.logs)
    artifacts = _call(PlainClient.artifacts)
    find = _call(PlainClient.find)
    lineage = _call(PlainClient.lineage)
    search = _call(PlainClient.search)
    upload = _call(PlainClient.upload)
    upload_model = _call(PlainClient.upload_model)
    download = _call(PlainClient.download)
    datasets = _listing(PlainClient.datasets)
    models = _listing(PlainClient.models)
    workers = _call(PlainClient.workers)

    def jobs(self, limit: int = 50, **filters: Any) -> AsyncIterator[JobView]:
        """Iterate over all jobs, newest first. Filters: state, kind, label (``k:v``), search."""
        return self._threads.each(self._plain.jobs(limit, **filters))

    async def change(self, job_id: str, **changes: Any) -> JobView:
        """Change ``name``, ``labels`` or ``priority`` of a job."""
        return await self._threads.run(lambda: self._plain.change(job_id, **changes))

    def stream(self, job_id: str, after: int = 0) -> AsyncIterator[EventView]:
        """Iterate over events as they happen, until the job ends. A broken connection is resumed."""
        return self._listen(f"/jobs/{quoted(job_id)}/stream", after, EventView)

    async def wait(self, job_id: str, timeout: float | None = None, poll_seconds: float = 0.5) -> JobView:
        """Wait until the job has ended or is paused. Raises `TimeoutError`."""
        async with asyncio.timeout(timeout):
            return await _ended(lambda: self.job(job_id), poll_seconds)

    async def _listen(self, path: str, after: int, model: type[Event]) -> AsyncIterator[Event]:
        failures = 0
        while True:
            try:
                headers = {"Last-Event-ID": str(after)} if after else {}
                async with self._http.stream(
                    "GET", path, headers=headers, timeout=STREAM_TIMEOUT
                ) as response:
                    if response.is_error:
                        await response.aread()
                        raise error_of(response)
                    async for line in response.aiter_lines():
                        if (event := event_of(line, model)) is not None:
                            after, failures = event.seq, 0
                            yield event
                return
            except httpx.TransportError as error:
                failures += 1
                if failures >= self._retries:
                    raise self._plain.unreachable(error) from error
                await asyncio.sleep(min(2.0**failures / 4, 5) * random.uniform(0.5, 1.0))  # noqa: S311


class Pipelines:
    """Jobs that are submitted together and depend on each other: ``client.pipelines``."""

    def __init__(self, owner: Client) -> None:
        self._owner = owner

    submit = _pipeline_call(PlainPipelines.submit)
    get = _pipeline_call(PlainPipelines.get)
    cancel = _pipeline_call(PlainPipelines.cancel)
    retry = _pipeline_call(PlainPipelines.retry)
    delete = _pipeline_call(PlainPipelines.delete)
    recipes = _pipeline_call(PlainPipelines.recipes)
    expand = _pipeline_call(PlainPipelines.expand)

    def list(self, limit: int = 50, **filters: Any) -> AsyncIterator[PipelineView]:
        """Iterate over all pipelines, newest first. Filters: state, label (``k:v``)."""
        return self._owner._threads.each(self._owner._plain.pipelines.list(limit, **filters))

    def stream(self, pipeline_id: str, after: int = 0) -> AsyncIterator[PipelineEventView]:
        """Iterate over the events of all stages as they happen, until the pipeline ends."""
        return self._owner._listen(f"/pipelines/{quoted(pipeline_id)}/stream", after, PipelineEventView)

    async def wait(
        self, pipeline_id: str, timeout: float | None = None, poll_seconds: float = 0.5
    ) -> PipelineView:
        """Wait until the pipeline has ended or is paused. Raises `TimeoutError`."""
        async with asyncio.timeout(timeout):
            return await _ended(lambda: self.get(pipeline_id), poll_seconds)


async def _ended(look: Callable[[], Awaitable[Ended]], poll_seconds: float) -> Ended:
    while True:
        found = await look()
        if found.state.final or found.state is JobState.PAUSED:
            return found
        await asyncio.sleep(poll_seconds)
