"""The client for programs on an event loop: `client.client.Client`, awaited.

Calls run in threads of this client's own, over the same connections, retries and errors as those of the plain
client: a call is one request, and a second implementation of each would be a second behaviour. What lasts is
on the loop itself: streams of events hold no thread, and `wait` sleeps between its looks.
"""

import asyncio
import functools
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar

import httpx

from client.client import Client as PlainClient
from client.connection import (
    ATTEMPTS,
    STREAM_TIMEOUT,
    Event,
    error_of,
    event_of,
    is_at_rest,
    pause_before,
    quoted,
)
from client.pipelines import Pipelines as PlainPipelines
from core.jobs.views import EventView, JobView, PipelineEventView, PipelineView

_THREADS = 16
_DONE = object()

P = ParamSpec("P")
R = TypeVar("R")
Plain = TypeVar("Plain")
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


class _Awaited(Generic[Plain]):
    """What has an object of the plain client, and the threads to call it in."""

    def __init__(self, plain: Plain, threads: _Threads) -> None:
        self._plain, self._threads = plain, threads


def _call(
    method: Callable[Concatenate[Plain, P], R],
) -> Callable[Concatenate[_Awaited[Plain], P], Awaitable[R]]:
    """A method of the plain object, awaited."""

    @functools.wraps(method)
    async def call(self: _Awaited[Plain], /, *args: P.args, **kwargs: P.kwargs) -> R:
        return await self._threads.run(lambda: method(self._plain, *args, **kwargs))

    return call


def _listing(
    method: Callable[Concatenate[Plain, P], Iterator[R]],
) -> Callable[Concatenate[_Awaited[Plain], P], AsyncIterator[R]]:
    """A method of the plain object that iterates over a list."""

    @functools.wraps(method)
    def call(self: _Awaited[Plain], /, *args: P.args, **kwargs: P.kwargs) -> AsyncIterator[R]:
        return self._threads.each(method(self._plain, *args, **kwargs))

    return call


class Client(_Awaited[PlainClient]):
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
        super().__init__(PlainClient(url, key, timeout=timeout, retries=retries), _Threads())
        self._connection = self._plain._connection
        self._http = httpx.AsyncClient(base_url=self._connection.url, headers=self._connection.http.headers)
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
                if failures >= self._connection.retries:
                    raise self._connection.unreachable(error) from error
                await asyncio.sleep(pause_before(failures))


class Pipelines(_Awaited[PlainPipelines]):
    """Jobs that are submitted together and depend on each other: ``client.pipelines``."""

    def __init__(self, owner: Client) -> None:
        super().__init__(owner._plain.pipelines, owner._threads)
        self._listen = owner._listen

    submit = _call(PlainPipelines.submit)
    get = _call(PlainPipelines.get)
    cancel = _call(PlainPipelines.cancel)
    retry = _call(PlainPipelines.retry)
    delete = _call(PlainPipelines.delete)
    recipes = _call(PlainPipelines.recipes)
    expand = _call(PlainPipelines.expand)

    def list(self, limit: int = 50, **filters: Any) -> AsyncIterator[PipelineView]:
        """Iterate over all pipelines, newest first. Filters: state, label (``k:v``)."""
        return self._threads.each(self._plain.list(limit, **filters))

    def stream(self, pipeline_id: str, after: int = 0) -> AsyncIterator[PipelineEventView]:
        """Iterate over the events of all stages as they happen, until the pipeline ends."""
        return self._listen(f"/pipelines/{quoted(pipeline_id)}/stream", after, PipelineEventView)

    async def wait(
        self, pipeline_id: str, timeout: float | None = None, poll_seconds: float = 0.5
    ) -> PipelineView:
        """Wait until the pipeline has ended or is paused. Raises `TimeoutError`."""
        async with asyncio.timeout(timeout):
            return await _ended(lambda: self.get(pipeline_id), poll_seconds)


async def _ended(look: Callable[[], Awaitable[Ended]], poll_seconds: float) -> Ended:
    while True:
        found = await look()
        if is_at_rest(found):
            return found
        await asyncio.sleep(poll_seconds)
