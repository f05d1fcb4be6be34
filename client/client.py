"""The service from Python: submit, watch, download."""

import hashlib
import tarfile
import tempfile
import time
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar
from urllib.parse import quote

import httpx
from rich.console import Console

from client.connection import ATTEMPTS, Connection, error_of, is_known, quoted, wait_for
from client.pipelines import Pipelines
from core.errors import NotFound, ReasonError
from core.jobs.lineage import LineageView
from core.jobs.state import JobState
from core.jobs.views import (
    ArtifactView,
    CheckpointView,
    DeliveryView,
    EstimateView,
    EventView,
    JobView,
    MetricSeries,
    NewWebhookView,
    Page,
    PreviewView,
    SearchView,
    WebhookView,
    WhyView,
    WorkerView,
)
from core.spec import JobSpec
from core.spec.parts.base import Lenient
from core.spec.parts.rows import READING

View = TypeVar("View", bound=Lenient)


class Client:
    """A client of one service. Raises the errors of `core.errors`.

    While the service restarts, read calls and submissions (with their Idempotency-Key) are retried.

    >>> with Client() as client:
    ...     job = client.submit({"kind": "train", "base_model": "...", "dataset": "file:data/pairs.jsonl"})
    ...     client.wait(job.id)
    """

    def __init__(
        self,
        url: str = "http://127.0.0.1:8000",
        key: str | None = None,
        *,
        timeout: float = 30.0,
        retries: int = ATTEMPTS,
    ) -> None:
        self._connection = Connection(url, key, timeout, retries)
        self.url = self._connection.url
        self.pipelines = Pipelines(self._connection)

    def __enter__(self) -> "Client":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._connection.http.close()

    # -- jobs ------------------------------------------------------------------------------------

    def submit(self, spec: JobSpec | dict[str, Any], *, idempotency_key: str | None = None) -> JobView:
        """Queue a job. Retries create no second job: without ``idempotency_key`` a random key is used."""
        body = spec.model_dump(mode="json") if isinstance(spec, JobSpec) else spec
        headers = {"Idempotency-Key": idempotency_key or uuid.uuid4().hex}
        return JobView.model_validate(self._connection.json("POST", "/jobs", json=body, headers=headers))

    def estimate(self, spec: JobSpec | dict[str, Any]) -> EstimateView:
        """Estimate the memory and time of a job. Queues nothing."""
        body = spec.model_dump(mode="json") if isinstance(spec, JobSpec) else spec
        return EstimateView.model_validate(self._connection.json("POST", "/jobs/estimate", json=body))

    def job(self, job_id: str) -> JobView:
        return JobView.model_validate(self._connection.json("GET", f"/jobs/{quoted(job_id)}"))

    def jobs(self, limit: int = 50, **filters: Any) -> Iterator[JobView]:
        """Iterate over all jobs, newest first. Filters: state, kind, label (``k:v``)."""
        for page in self._connection.pages("/jobs", limit=limit, **filters):
            yield from Page[JobView].model_validate(page).items

    def why(self, job_id: str) -> WhyView:
        """Why a job is not running, its position in the queue, and when it may start."""
        return WhyView.model_validate(self._connection.json("GET", f"/jobs/{quoted(job_id)}/why"))

    def change(self, job_id: str, **changes: Any) -> JobView:
        """Change ``name``, ``labels`` or ``priority`` of a job."""
        return JobView.model_validate(self._connection.json("PATCH", f"/jobs/{quoted(job_id)}", json=changes))

    def cancel(self, job_id: str) -> JobView:
        return self._act(job_id, "cancel")

    def pause(self, job_id: str) -> JobView:
        return self._act(job_id, "pause")

    def resume(self, job_id: str) -> JobView:
        return self._act(job_id, "resume")

    def retry(self, job_id: str) -> JobView:
        return self._act(job_id, "retry")

    def delete_job(self, job_id: str) -> None:
        """Delete an ended job and its outputs. Raises `Conflict` while one of them is needed."""
        self._connection.request("DELETE", f"/jobs/{quoted(job_id)}")

    def checkpoints(self, job_id: str) -> list[CheckpointView]:
        """Return the checkpoints of a training that can be used as models, by step."""
        found = self._connection.json("GET", f"/jobs/{quoted(job_id)}/checkpoints")
        return Page[CheckpointView].model_validate(found).items

    def _act(self, job_id: str, verb: str) -> JobView:
        return JobView.model_validate(self._connection.json("POST", f"/jobs/{quoted(job_id)}/{verb}"))

    def wait(
        self,
        job_id: str,
        timeout: float | None = None,
        poll_seconds: float = 0.5,
        *,
        progress: bool = False,
    ) -> JobView:
        """Wait until the job has ended or is paused. Raises `TimeoutError`.

        ``progress``: show it meanwhile, live in a terminal, a line every tenth in a notebook or a log. This
        follows the events of the job, and takes no timeout.
        """
        if progress:
            if timeout is not None:
                raise ValueError("wait shows the progress of a job to its end: leave timeout out")
            from client.watch import watch  # it knows this class

            return watch(self, job_id, Console(stderr=True))
        return wait_for(lambda: self.job(job_id), f"Job {job_id}", timeout, poll_seconds)

    def events(self, job_id: str, after: int = 0) -> list[EventView]:
        """Return all events so far whose ``seq`` is above ``after``."""
        found: list[EventView] = []
        while True:
            page = self._connection.json(
                "GET", f"/jobs/{quoted(job_id)}/events", params={"cursor": after, "limit": 500}
            )
            if not page["items"]:
                return found
            found += [EventView.model_validate(event) for event in page["items"] if is_known(event)]
            after = page["items"][-1]["seq"]

    def stream(self, job_id: str, after: int = 0) -> Iterator[EventView]:
        """Iterate over events as they happen, until the job ends. A broken connection is resumed."""
        return self._connection.listen(f"/jobs/{quoted(job_id)}/stream", after, EventView)

    def metrics(
        self, job_id: str, names: list[str] | None = None, max_points: int = 1000
    ) -> list[MetricSeries]:
        params: dict[str, Any] = {"max_points": max_points}
        if names:
            params["name"] = names
        return (
            Page[MetricSeries]
            .model_validate(self._connection.json("GET", f"/jobs/{quoted(job_id)}/metrics", params=params))
            .items
        )

    def metrics_frame(self, job_id: str, names: list[str] | None = None, max_points: int = 10_000) -> Any:
        """The metrics of a job as a pandas frame: a row for each step, a column for each metric.

        Raises `ImportError` without pandas.
        """
        import pandas as pd

        columns = {
            series.name: pd.Series({point.step: point.value for point in series.points}, dtype="float64")
            for series in self.metrics(job_id, names, max_points)
        }
        frame = pd.DataFrame(columns).sort_index()
        frame.index.name = "step"
        return frame

    def logs(self, job_id: str, tail: int | None = None, after: int = 0) -> tuple[str, int]:
        """Return the text of the log, and the value for ``after`` of the next call."""
        params = {"after": after, **({"tail": tail} if tail else {})}
        response = self._connection.request("GET", f"/jobs/{quoted(job_id)}/logs", params=params)
        return response.text, int(response.headers["X-Log-Cursor"])

    # -- artifacts -------------------------------------------------------------------------------

    def artifacts(self, job_id: str) -> list[ArtifactView]:
        return (
            Page[ArtifactView]
            .model_validate(self._connection.json("GET", f"/jobs/{quoted(job_id)}/artifacts"))
            .items
        )

    def upload(
        self,
        path: Path,
        name: str,
        *,
        max_reject_share: float = 0.0,
        encoding: str | None = None,
        columns: Sequence[str] = (),
    ) -> ArtifactView:
        """Upload a file, or a folder as a tar. The same content under the same name is one dataset.

        ``columns`` are ``role:NAME`` or ``role:NUMBER``; they and ``encoding`` are stored with the dataset.
        Raises `InvalidRequest` with one problem for each line that cannot be used.
        """
        params = {
            "max_reject_share": max_reject_share,
            "columns": list(columns),
            **({} if encoding is None else {"encoding": encoding}),
        }
        return self._send(path, "/datasets", {"name": name, **params})

    def search(self, embeddings: str, query: str, k: int = 10) -> SearchView:
        """Search in the output of an embed job (``job:ID/embeddings``), on the API's host: to try models.

        Raises `ReasonError` (503) where that host has no libraries for models.
        """
        body = {"embeddings": embeddings, "query": query, "k": k}
        return SearchView.model_validate(self._connection.json("POST", "/search", json=body))

    def upload_model(self, path: Path, name: str) -> ArtifactView:
        """Upload a model's folder as a tar, or an archive. Raises `InvalidRequest` if it cannot be loaded."""
        return self._send(path, "/models", {"name": name})

    def _send(self, path: Path, to: str, params: dict[str, Any]) -> ArtifactView:
        """Upload a file, or a folder as a tar."""
        with tempfile.TemporaryDirectory() as folder:
            if path.is_dir():
                packed = Path(folder) / f"{path.resolve().name}.tar"
                with tarfile.open(packed, "w", dereference=True) as archive:
                    archive.add(path, arcname=path.resolve().name, filter=_visible)
                path = packed
            with path.open("rb") as file:
                # What is sent is hashed and read to its end before the answer comes: no limit for that.
                timeout = httpx.Timeout(self._connection.http.timeout.connect, read=None, write=None)
                headers = {"Content-Length": str(path.stat().st_size)}
                given = {**params, "filename": path.name}
                found = self._connection.json(
                    "POST", to, params=given, content=file, timeout=timeout, headers=headers
                )
        return ArtifactView.model_validate(found)

    def datasets(self, limit: int = 50) -> Iterator[ArtifactView]:
        for page in self._connection.pages("/datasets", limit=limit):
            yield from (ArtifactView.model_validate(item) for item in page["items"])

    def preview(self, dataset: str, split: str | None = None, limit: int | None = None) -> PreviewView:
        """Return the first rows of a dataset, by id or NAME[@VERSION]."""
        params = {"split": split, "limit": limit}
        given = {name: value for name, value in params.items() if value is not None}
        return PreviewView.model_validate(
            self._connection.json("GET", f"/datasets/{quoted(dataset)}/preview", params=given)
        )

    def models(self, limit: int = 50) -> Iterator[ArtifactView]:
        for page in self._connection.pages("/models", limit=limit):
            yield from Page[ArtifactView].model_validate(page).items

    def create_webhook(
        self, url: str, events: Sequence[str] | None = None, secret: str | None = None
    ) -> NewWebhookView:
        """Have changes of jobs and pipelines sent to a URL. The answer alone has the secret."""
        body = {"url": url, **({"events": list(events)} if events else {}), "secret": secret}
        return NewWebhookView.model_validate(self._connection.json("POST", "/webhooks", json=body))

    def webhooks(self) -> list[WebhookView]:
        return Page[WebhookView].model_validate(self._connection.json("GET", "/webhooks")).items

    def delete_webhook(self, webhook_id: str) -> None:
        self._connection.request("DELETE", f"/webhooks/{quoted(webhook_id)}")

    def deliveries(self, webhook_id: str, limit: int = 50) -> Iterator[DeliveryView]:
        """Iterate over the deliveries of a webhook, newest first."""
        for page in self._connection.pages(f"/webhooks/{quoted(webhook_id)}/deliveries", limit=limit):
            yield from Page[DeliveryView].model_validate(page).items

    def delete_artifact(self, artifact_id: str) -> None:
        """Raises `Conflict` while something needs it."""
        self._connection.request("DELETE", f"/artifacts/{quoted(artifact_id)}")

    def pin(self, artifact_id: str) -> ArtifactView:
        """Keep an artifact until it is unpinned."""
        return ArtifactView.model_validate(
            self._connection.json("PUT", f"/artifacts/{quoted(artifact_id)}/pin")
        )

    def promote(self, artifact_id: str) -> ArtifactView:
        """Let ``NAME@current`` mean this version of its name."""
        return ArtifactView.model_validate(
            self._connection.json("PUT", f"/artifacts/{quoted(artifact_id)}/current")
        )

    def unpin(self, artifact_id: str) -> None:
        self._connection.request("DELETE", f"/artifacts/{quoted(artifact_id)}/pin")

    def export(self, reference: str) -> JobView:
        """Queue a job that makes a model of a checkpoint, or return the one that was queued before."""
        weights = self.find(reference)  # what @best and @last mean now
        job_id = reference.removeprefix("job:").partition("/")[0]
        named = f"job:{job_id}/{weights.output}"
        return self.submit({"kind": "export", "model": named}, idempotency_key=f"export {weights.id}")

    def workers(self) -> list[WorkerView]:
        return Page[WorkerView].model_validate(self._connection.json("GET", "/workers")).items

    def find(self, reference: str) -> ArtifactView:
        """``job:ID/OUTPUT``, ``model:ID``, ``dataset:ID``, their ``NAME[@VERSION]``, or ``artifact:ID``.

        Of a checkpoint (``job:ID/checkpoint@STEP``), its weights.
        """
        scheme, _, target = reference.rpartition(":")
        if scheme == "job":
            job_id, _, output = target.partition("/")
            if output.startswith("checkpoint@"):
                return self._weights(job_id, output.removeprefix("checkpoint@"))
            for artifact in self.artifacts(job_id):
                if artifact.output == output:
                    return artifact
            raise NotFound(f"Job {job_id} has no output {output!r}")
        if not target.startswith("art_"):
            if scheme == "dataset":
                return ArtifactView.model_validate(
                    self._connection.json("GET", f"/datasets/{quoted(target)}")
                )
            return ArtifactView.model_validate(self._connection.json("GET", f"/models/{quoted(target)}"))
        return ArtifactView.model_validate(self._connection.json("GET", f"/artifacts/{quoted(target)}"))

    def _weights(self, job_id: str, which: str) -> ArtifactView:
        for one in self.checkpoints(job_id):
            if which == str(one.step) or (which == "best" and one.best) or (which == "last" and one.last):
                return ArtifactView.model_validate(
                    self._connection.json("GET", f"/artifacts/{quoted(one.artifact)}")
                )
        raise NotFound(f"Job {job_id} has no checkpoint @{which}: see reason checkpoints {job_id}")

    def lineage(self, reference: str) -> LineageView:
        """Return what an artifact was made from, and what was made of it."""
        artifact = self.find(reference)
        return LineageView.model_validate(
            self._connection.json("GET", f"/artifacts/{quoted(artifact.id)}/lineage")
        )

    def download(self, reference: str, folder: Path) -> ArtifactView:
        """Download all files of an artifact and verify their sha256. Resumes an earlier, interrupted call.

        Of a checkpoint a job makes a model first (`export`), which is waited for. Raises `ReasonError` if it
        fails.
        """
        if is_checkpoint(reference):
            made = self.wait(self.export(reference).id)
            if made.state != JobState.SUCCEEDED:
                why = made.end_reason.message if made.end_reason else made.state
                raise ReasonError(f"No model could be made of {reference} (job {made.id}): {why}")
            reference = f"job:{made.id}/model"
        artifact = self.find(reference)
        for entry in artifact.files:
            self._download_file(artifact.id, entry, folder / entry["path"])
        return artifact

    def _download_file(self, artifact_id: str, entry: dict[str, Any], path: Path) -> None:
        if path.exists() and path.stat().st_size == entry["bytes"] and _sha256(path) == entry["sha256"]:
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f"{path.name}.part")
        for attempt in range(self._connection.retries):
            try:
                self._fetch(artifact_id, entry, partial)
                break
            except httpx.TransportError as error:
                if attempt == self._connection.retries - 1:
                    raise self._connection.unreachable(error) from error
                time.sleep(2.0**attempt / 4)
        if _sha256(partial) != entry["sha256"]:
            partial.unlink()
            raise ReasonError(f"{entry['path']} was received with a wrong checksum; download it again")
        partial.replace(path)

    def _fetch(self, artifact_id: str, entry: dict[str, Any], partial: Path) -> None:
        have = partial.stat().st_size if partial.exists() else 0
        if have > entry["bytes"]:
            partial.unlink()
            have = 0
        if have == entry["bytes"]:
            partial.touch()
            return
        headers = {"Range": f"bytes={have}-", "If-Range": f'"{entry["sha256"]}"'} if have else {}
        url = f"/artifacts/{artifact_id}/files/{quote(entry['path'])}"
        with self._connection.http.stream("GET", url, headers=headers) as response:
            if response.is_error:
                response.read()
                raise error_of(response)
            with partial.open("ab" if response.status_code == 206 else "wb") as file:
                for block in response.iter_bytes(1 << 20):
                    file.write(block)


def is_checkpoint(reference: str) -> bool:
    """Whether a reference names a checkpoint of a training."""
    return reference.startswith("job:") and "/checkpoint@" in reference


def _visible(entry: tarfile.TarInfo) -> tarfile.TarInfo | None:
    """Leave out hidden files, except the reading options of a downloaded dataset.

    Owner and times are cleared, so that the same folder always gives the same tar.
    """
    name = Path(entry.name).name
    if name.startswith(".") and name != READING:
        return None
    entry.uid = entry.gid = entry.mtime = 0
    entry.uname = entry.gname = ""
    return entry


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
