"""``reason mcp``: the service for agents, over the Model Context Protocol on standard input and output.

Tools read freely. Those that start, stop or change something say first what they would do, and do it only
with ``dry_run`` false. Answers are short: lists are cut, specs and logs come by tools of their own.
"""

import functools
from collections.abc import Callable
from itertools import islice
from typing import Any

from mcp.server.mcpserver import MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp.types import ToolAnnotations

from client.client import Client
from core import __version__
from core.errors import InvalidRequest, ReasonError
from core.jobs.views import JobView, PipelineView
from core.spec.parse import KINDS, SPEC_BY_KIND
from core.spec.pipelines.recipe_facts import RecipeInputs

_INSTRUCTIONS = (
    "Trains retrieval models (embedding models, ColBERT, rerankers) on a user's own documents. Usually: "
    "find the data (list_artifacts), expand_recipe to see the stages, their reasons and estimates, "
    "start_recipe, then look at the pipeline now and then; its verdicts say whether the trained model is "
    "better. Tools that change something only say what they would do unless dry_run is false: ask the user "
    "first, since jobs take minutes to hours."
)

_CHANGES = ("cancel", "pause", "resume", "retry")
_LOG_LINES = 60
_LISTED = 20

_READS = ToolAnnotations(read_only_hint=True, open_world_hint=False)
_STARTS = ToolAnnotations(read_only_hint=False, destructive_hint=False, open_world_hint=False)
_STOPS = ToolAnnotations(read_only_hint=False, destructive_hint=True, open_world_hint=False)


def make_server(client: Client) -> MCPServer:
    """The tools over one service."""
    made = MCPServer("reason", instructions=_INSTRUCTIONS, version=__version__, log_level="ERROR")
    tools = _Tools(client)
    reading = (
        tools.list_jobs,
        tools.get_job,
        tools.get_job_spec,
        tools.get_job_log,
        tools.list_pipelines,
        tools.get_pipeline,
        tools.list_artifacts,
        tools.list_recipes,
        tools.describe,
        tools.expand_recipe,
        tools.search,
    )
    starting = (tools.start_recipe, tools.submit_job)
    changing = (tools.change_job, tools.cancel_pipeline)
    for annotations, functions in ((_READS, reading), (_STARTS, starting), (_STOPS, changing)):
        for function in functions:
            made.tool(annotations=annotations)(_told(function))
    return made


_Tool = Callable[..., Any]


def _told(function: _Tool) -> _Tool:
    """A tool whose refusals reach the agent, each with the path of its field: others are hidden from it."""

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        try:
            return function(*args, **kwargs)
        except ReasonError as error:
            problems = [f"{found.path}: {found.message}" for found in error.problems[1:]]
            raise ToolError("; ".join([str(error), *problems])) from error

    return call


class _Tools:
    """The tools over one service. Their docstrings are what an agent reads."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def list_jobs(
        self, state: str | None = None, kind: str | None = None, search: str | None = None
    ) -> list[dict[str, Any]]:
        """The newest jobs, at most 20. state: waiting, queued, running, paused, succeeded, failed, cancelled.
        search: a part of the name or id."""
        found = self._client.jobs(limit=_LISTED, state=state, kind=kind, search=search)
        return [_short(job) for job in islice(found, _LISTED)]

    def get_job(self, job_id: str) -> dict[str, Any]:
        """A job: state, progress, latest values, why it waits or how it ended, and its outputs."""
        job = self._client.job(job_id)
        told = {**_short(job), "latest": job.latest, "phase": job.phase, "outputs": self._outputs(job.id)}
        if not job.state.final:
            told["why"] = [reason.message for reason in self._client.why(job_id).reasons]
        return told

    def _outputs(self, job_id: str) -> dict[str, str]:
        return {one.output: f"artifact:{one.id}" for one in self._client.artifacts(job_id)}

    def get_job_spec(self, job_id: str) -> dict[str, Any]:
        """The whole spec of a job, with all defaults."""
        return self._client.job(job_id).spec

    def get_job_log(self, job_id: str, lines: int = _LOG_LINES) -> str:
        """The last lines of a job's log."""
        return self._client.logs(job_id, tail=max(1, min(lines, 1000)))[0]

    def list_pipelines(self) -> list[dict[str, Any]]:
        """The newest pipelines, at most 20."""
        found = self._client.pipelines.list(_LISTED)
        return [_short_pipeline(pipeline) for pipeline in islice(found, _LISTED)]

    def get_pipeline(self, pipeline_id: str) -> dict[str, Any]:
        """A pipeline: its stages, outputs, and the verdicts on the trained model."""
        return _short_pipeline(self._client.pipelines.get(pipeline_id))

    def list_artifacts(self, kind: str = "dataset") -> list[dict[str, Any]]:
        """The newest datasets or models (kind: dataset or model), with the references that specs take."""
        if kind not in ("dataset", "model"):
            raise InvalidRequest("kind is dataset or model")
        list_all = self._client.datasets if kind == "dataset" else self._client.models
        return [
            {
                "reference": f"{kind}:{one.name}@{one.version}" if one.name else f"artifact:{one.id}",
                "created_at": one.created_at.isoformat(),
                "splits": one.metadata.get("splits"),
                "job": one.job_id,
            }
            for one in islice(list_all(_LISTED), _LISTED)
        ]

    def list_recipes(self) -> list[dict[str, str]]:
        """The recipes: what each makes of which data, and its default base model."""
        return [one.model_dump() for one in self._client.pipelines.recipes()]

    def describe(self, what: str) -> dict[str, Any]:
        """The JSON schema of the inputs of recipes (what: recipe), or of a kind of job: prepare, mine, train,
        evaluate, embed, export."""
        if what == "recipe":
            return RecipeInputs.model_json_schema()
        if what not in SPEC_BY_KIND:
            raise InvalidRequest(f"what is recipe, or one of {', '.join(KINDS)}")
        return SPEC_BY_KIND[what].model_json_schema()

    def expand_recipe(self, recipe: str, inputs: dict[str, Any]) -> dict[str, Any]:
        """What a recipe would do: stages, choices with reasons, memory and time. Starts nothing."""
        found = self._client.pipelines.expand(recipe, inputs)
        return {
            "stages": found.stages,
            "choices": [f"{one.stage}.{one.field} = {one.value}: {one.why}" for one in found.choices],
            "seconds": found.seconds,
            "notes": {name: one.notes for name, one in found.estimates.items() if one.notes},
        }

    def search(self, embeddings: str, query: str, k: int = 5) -> list[dict[str, Any]]:
        """The best texts for a query in the output of an embed job (job:ID/embeddings)."""
        return [hit.model_dump() for hit in self._client.search(embeddings, query, k).hits]

    def start_recipe(
        self, recipe: str, inputs: dict[str, Any], name: str | None = None, dry_run: bool = True
    ) -> dict[str, Any]:
        """Start a recipe as a pipeline. By default only says what would be done and how long it takes; with
        dry_run false it starts."""
        if dry_run:
            found = self._client.pipelines.expand(recipe, inputs)
            return {"dry_run": True, "stages": list(found.stages), "seconds": found.seconds}
        body = {"recipe": recipe, "inputs": inputs, **({"name": name} if name else {})}
        return _short_pipeline(self._client.pipelines.submit(body))

    def submit_job(self, spec: dict[str, Any], dry_run: bool = True) -> dict[str, Any]:
        """Queue a job. By default only checks the spec and estimates memory and time; with dry_run false it
        is queued."""
        if dry_run:
            return {"dry_run": True, **self._client.estimate(spec).model_dump(mode="json", exclude_none=True)}
        return _short(self._client.submit(spec))

    def change_job(self, job_id: str, action: str, dry_run: bool = True) -> dict[str, Any]:
        """Cancel, pause, resume or retry a job. A running job saves a checkpoint first. By default only shows
        the job; with dry_run false it is done."""
        if action not in _CHANGES:
            raise InvalidRequest(f"action is one of {', '.join(_CHANGES)}")
        if dry_run:
            return {"dry_run": True, "would": action, **_short(self._client.job(job_id))}
        changed: JobView = getattr(self._client, action)(job_id)
        return _short(changed)

    def cancel_pipeline(self, pipeline_id: str, dry_run: bool = True) -> dict[str, Any]:
        """Cancel a pipeline. By default only shows it; with dry_run false it is cancelled."""
        if dry_run:
            return {
                "dry_run": True,
                "would": "cancel",
                **_short_pipeline(self._client.pipelines.get(pipeline_id)),
            }
        return _short_pipeline(self._client.pipelines.cancel(pipeline_id))


def _short(job: JobView) -> dict[str, Any]:
    told: dict[str, Any] = {
        "id": job.id,
        "kind": job.kind,
        "name": job.name,
        "state": job.state.value,
        "created_at": job.created_at.isoformat(),
        "progress": round(job.progress.fraction, 3),
        "eta_seconds": job.progress.eta_seconds,
        "ended": job.end_reason.message if job.end_reason else None,
        "pipeline": job.pipeline,
    }
    return {name: value for name, value in told.items() if value is not None}


def _short_pipeline(pipeline: PipelineView) -> dict[str, Any]:
    told: dict[str, Any] = {
        "id": pipeline.id,
        "name": pipeline.name,
        "state": pipeline.state.value,
        "progress": round(pipeline.progress.fraction, 3),
        "eta_seconds": pipeline.progress.eta_seconds,
        "stages": {name: f"{stage.state.value} ({stage.job})" for name, stage in pipeline.stages.items()},
        "outputs": pipeline.outputs,
        "verdicts": [f"{one.model} on {one.dataset}: {one.verdict}" for one in pipeline.verdicts],
        "ended": pipeline.end_reason.message if pipeline.end_reason else None,
    }
    return {name: value for name, value in told.items() if value is not None}


def serve(url: str, key: str | None) -> None:
    """Answer on standard input and output until it ends. Raises `ServiceUnreachable`."""
    with Client(url, key) as client:
        make_server(client).run("stdio")
