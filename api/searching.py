"""Searches to try models, by a process beside the API: the API itself loads no model.

The process is started by the first search and ends after minutes without any. One search runs at a time.
"""

import contextlib
import importlib.util
import json
import os
import select
import subprocess
import sys
import threading
import time
from typing import Any

from core.errors import InvalidRequest, Unavailable
from core.jobs.protocol import Input, dump_inputs
from core.settings import Settings
from core.spec.parts.refs import parse_ref
from core.store import Store
from core.store.schema.access import Access

_IDLE_SECONDS = 300.0
_MOST_WAITING = 4
"""Searches at a time: one that runs, and those that wait for it."""

_SECONDS = 120.0
"""Of one search: the first one loads the model, and may fetch it."""


class Searcher:
    """Answers queries against the output of embed jobs."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._lock = threading.Lock()
        self._waiting = threading.BoundedSemaphore(_MOST_WAITING)
        self._process: subprocess.Popen[str] | None = None
        self._timer: threading.Timer | None = None

    @property
    def possible(self) -> bool:
        """Whether the libraries of models are installed on this host."""
        return all(importlib.util.find_spec(name) for name in ("torch", "sentence_transformers"))

    def search(self, store: Store, access: Access, reference: str, query: str, k: int) -> dict[str, Any]:
        """The best texts, as `core.cli.answer` says. Raises `NotFound`, `Conflict`, `InvalidRequest` for
        what are no embeddings, and `Unavailable` where nothing can be searched."""
        if not self.possible:
            raise Unavailable(
                "This host has no libraries for models: use reason search on one that has, or install the "
                "service with the extra train here"
            )
        inputs, model = self._inputs(store, access, reference)
        settings = self._settings
        asked = {
            "settings": {
                "artifact_url": settings.artifact_url,
                "cache": str(settings.data_dir.absolute() / "cache"),
                "offline": settings.offline,
                "trust_remote_code": settings.trust_remote_code,
            },
            "embeddings": reference,
            "model": model,
            "inputs": dump_inputs(inputs),
            "query": query,
            "k": k,
        }
        # Each waiting search holds a thread of the API, which has some tens for all calls.
        if not self._waiting.acquire(blocking=False):
            raise Unavailable("Other searches are running: try again in a moment")
        try:
            with self._lock:
                answer = self._ask(asked)
        finally:
            self._waiting.release()
        if "problem" in answer:
            raise InvalidRequest(answer["problem"])
        return answer

    def stop(self) -> None:
        """End the process."""
        with self._lock:
            self._end()

    def _inputs(self, store: Store, access: Access, reference: str) -> tuple[dict[str, Input], str | None]:
        """What the embeddings and their model are, and the reference of the model: that of the job which
        made the embeddings, since what a name means may have changed."""
        known = store.artifacts.lineage(parse_ref(reference), access)
        if known is None or known.artifact is None:
            raise InvalidRequest(f"{reference} is not there yet: its job has not ended")
        artifact = store.artifacts.get(known.artifact, access)
        if artifact.kind != "embeddings":
            raise InvalidRequest(f"{reference} is a {artifact.kind}, not the embeddings of an embed job")
        inputs: dict[str, Input] = {reference: known}
        if artifact.job_id is None:
            return inputs, None
        job = store.jobs.get(artifact.job_id, access)
        model = str(job.spec.get("model"))
        if (found := job.inputs.get(model)) is not None:
            inputs[model] = found
        return inputs, model

    def _ask(self, asked: dict[str, Any]) -> dict[str, Any]:
        if self._timer is not None:
            self._timer.cancel()
        try:
            if self._process is None or self._process.poll() is not None:
                self._process = self._start()
            assert self._process.stdin is not None
            self._process.stdin.write(json.dumps(asked) + "\n")
            self._process.stdin.flush()
            line = self._line(time.monotonic() + _SECONDS)
        except OSError as error:
            self._end()
            raise Unavailable(f"The search process cannot be used: {error.strerror or error}") from error
        if not line:
            code = self._process.poll()
            self._end()
            ended = (
                f"ended with exit code {code}" if code is not None else f"gave no answer in {_SECONDS:g} s"
            )
            raise Unavailable(f"The search process {ended}; the API's log says why")
        self._timer = threading.Timer(_IDLE_SECONDS, self.stop)
        self._timer.daemon = True
        self._timer.start()
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _start(self) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            [sys.executable, "-m", "core.cli.answer"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},  # the GPUs are the workers'
            start_new_session=True,
            text=True,
        )

    def _line(self, deadline: float) -> str:
        """A line of the process; empty if it has ended, or the time is over."""
        assert self._process is not None
        assert self._process.stdout is not None
        ready, _, _ = select.select([self._process.stdout], [], [], max(0.0, deadline - time.monotonic()))
        return self._process.stdout.readline() if ready else ""

    def _end(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._process is None:
            return
        with contextlib.suppress(OSError):
            for pipe in (self._process.stdin, self._process.stdout):
                if pipe is not None:
                    pipe.close()
        self._process.kill()
        self._process.wait()
        self._process = None
