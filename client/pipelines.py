"""Pipelines of a service, from Python."""

import uuid
from collections.abc import Iterator, Sequence
from typing import Any

from client.connection import Connection, quoted, wait_for
from core.errors import InvalidRequest, Problem
from core.jobs.views import Page, PipelineEventView, PipelineView, RecipeListView, RecipeView, ScheduleView
from core.spec.pipelines.plan import PipelineSpec


class Pipelines:
    """Jobs that are submitted together and depend on each other: ``client.pipelines``."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def submit(
        self, spec: PipelineSpec | dict[str, Any], *, idempotency_key: str | None = None
    ) -> PipelineView:
        """Queue a pipeline. Retries create no second one: by default the key is random.

        One with a ``schedule`` belongs to `schedule`.
        """
        body = _body(spec)
        if body.get("schedule") is not None:
            told = "a pipeline with schedule is not submitted now: use schedule()"
            raise InvalidRequest(told, [Problem("schedule", told)])
        headers = {"Idempotency-Key": idempotency_key or uuid.uuid4().hex}
        return PipelineView.model_validate(
            self._connection.json("POST", "/pipelines", json=body, headers=headers)
        )

    def schedule(self, spec: PipelineSpec | dict[str, Any]) -> ScheduleView:
        """Have a pipeline with a ``schedule`` submitted again and again. Equal schedules are one."""
        return ScheduleView.model_validate(self._connection.json("POST", "/pipelines", json=_body(spec)))

    def schedules(self) -> Sequence[ScheduleView]:
        return Page[ScheduleView].model_validate(self._connection.json("GET", "/schedules")).items

    def get_schedule(self, schedule_id: str) -> ScheduleView:
        return ScheduleView.model_validate(self._connection.json("GET", f"/schedules/{quoted(schedule_id)}"))

    def run_schedule(self, schedule_id: str) -> ScheduleView:
        """Submit the pipeline of a schedule now."""
        return ScheduleView.model_validate(
            self._connection.json("POST", f"/schedules/{quoted(schedule_id)}/run")
        )

    def delete_schedule(self, schedule_id: str) -> None:
        """Pipelines that it has submitted stay."""
        self._connection.request("DELETE", f"/schedules/{quoted(schedule_id)}")

    def recipes(self) -> Sequence[RecipeListView]:
        return [
            RecipeListView.model_validate(item) for item in self._connection.request("GET", "/recipes").json()
        ]

    def expand(self, recipe: str, inputs: dict[str, Any]) -> RecipeView:
        """The stages that a recipe makes from inputs, to read, change and submit."""
        return RecipeView.model_validate(
            self._connection.json("POST", f"/recipes/{quoted(recipe)}/expand", json={"inputs": inputs})
        )

    def get(self, pipeline_id: str) -> PipelineView:
        return PipelineView.model_validate(self._connection.json("GET", f"/pipelines/{quoted(pipeline_id)}"))

    def list(self, limit: int = 50, **filters: Any) -> Iterator[PipelineView]:
        """Iterate over all pipelines, newest first. Filters: state, label (``k:v``)."""
        for page in self._connection.pages("/pipelines", limit=limit, **filters):
            yield from Page[PipelineView].model_validate(page).items

    def cancel(self, pipeline_id: str) -> PipelineView:
        return self._act(pipeline_id, "cancel")

    def retry(self, pipeline_id: str) -> PipelineView:
        """Queue the failed and cancelled stages again. What has succeeded is not run again."""
        return self._act(pipeline_id, "retry")

    def delete(self, pipeline_id: str) -> None:
        """Delete an ended pipeline, its jobs and their outputs. Raises `Conflict` while one is needed."""
        self._connection.request("DELETE", f"/pipelines/{quoted(pipeline_id)}")

    def _act(self, pipeline_id: str, verb: str) -> PipelineView:
        return PipelineView.model_validate(
            self._connection.json("POST", f"/pipelines/{quoted(pipeline_id)}/{verb}")
        )

    def stream(self, pipeline_id: str, after: int = 0) -> Iterator[PipelineEventView]:
        """Iterate over the events of all stages as they happen, until the pipeline ends. A broken connection
        is resumed."""
        path = f"/pipelines/{quoted(pipeline_id)}/stream"
        return self._connection.listen(path, after, PipelineEventView)

    def wait(self, pipeline_id: str, timeout: float | None = None, poll_seconds: float = 0.5) -> PipelineView:
        """Wait until the pipeline has ended or is paused. Raises `TimeoutError`."""
        return wait_for(lambda: self.get(pipeline_id), f"Pipeline {pipeline_id}", timeout, poll_seconds)


def _body(spec: PipelineSpec | dict[str, Any]) -> dict[str, Any]:
    return spec.model_dump(mode="json", exclude_unset=True) if isinstance(spec, PipelineSpec) else spec
