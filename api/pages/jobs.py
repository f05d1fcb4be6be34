"""The list of jobs, one job, and several side by side."""

import json
import shlex
from collections.abc import Mapping
from pprint import pformat
from typing import Annotated, Any
from urllib.parse import urlencode

import yaml
from fastapi import APIRouter, Query, Request, Response

from api.deps import PlainText, Reader, StoreDep, VisibleJob
from api.pages.rendering import render
from api.pages.routing import PageRoute
from api.routes.jobs import labels_of
from api.views import artifact_views, checkpoint_views, job_view
from api.why import explain
from core.errors import BadRequest, InvalidRequest
from core.jobs.events import EventType
from core.jobs.state import JobState
from core.jobs.views import EventView, JobView
from core.spec.parse import KINDS
from core.spec.stored import read_stored_spec
from core.store.schema.tables import Job

router = APIRouter(route_class=PageRoute, include_in_schema=False)

_LISTED = 50
_TOLD = (EventType.STATE, EventType.PHASE, EventType.NOTICE)
_MOST_TOLD = 1000
_LOG_LINES = 400
_COMPARED = (2, 10)

Text = Annotated[str, Query(max_length=300)]


@router.get("/")
@router.get("/ui/jobs")
def jobs(
    request: Request,
    store: StoreDep,
    reader: Reader,
    state: Text = "",
    kind: Text = "",
    search: PlainText = "",
    label: Text = "",
    cursor: Text = "",
) -> Response:
    """A form without a choice sends empty texts: they mean any."""
    if state and state not in list(JobState):
        raise BadRequest(f"There is no state {state!r}: {', '.join(JobState)}")
    found, following = store.jobs.page(
        state=state or None,
        kind=kind or None,
        search=search.strip() or None,
        labels=labels_of([label] if label else None),
        access=reader.access,
        cursor=cursor or None,
        limit=_LISTED,
    )
    chosen = {"state": state, "kind": kind, "search": search, "label": label}
    kept = {name: value for name, value in chosen.items() if value}
    return render(
        request,
        "jobs.html.j2",
        jobs=[job_view(job) for job in found],
        depth=store.jobs.depth() if not cursor else {},
        chosen=chosen,
        states=list(JobState),
        kinds=KINDS,
        following=urlencode({**kept, "cursor": following}) if following else "",
        first=not cursor,
    )


@router.get("/ui/jobs/{job_id}")
def job(request: Request, job: VisibleJob, store: StoreDep, reader: Reader) -> Response:
    view = job_view(job)
    told = store.progress.events(job.id, limit=_MOST_TOLD, types=_TOLD)
    chunks = store.progress.log(job.id)
    lines = "".join(chunk.content for chunk in chunks).splitlines()
    return render(
        request,
        "job.html.j2",
        job=view,
        final=view.state.final,
        mine=reader.access.may_change(job),
        why=None if view.state in (JobState.RUNNING, JobState.SUCCEEDED) else explain(job, store),
        phases=phases_of(told),
        notices=[event for event in told if event.type is EventType.NOTICE],
        seen=job.event_seq,
        log="\n".join(lines[-_LOG_LINES:]),
        log_cut=max(0, len(lines) - _LOG_LINES),
        log_seen=chunks[-1].seq if chunks else 0,
        artifacts=artifact_views(store.artifacts.of_job(job.id), store),
        checkpoints=checkpoint_views(job.id, store.artifacts.checkpoints(job)),
        commands=commands_of(short_spec(job), str(request.base_url).rstrip("/")),
    )


@router.get("/ui/compare")
def compare(
    request: Request,
    store: StoreDep,
    reader: Reader,
    job: Annotated[list[str] | None, Query()] = None,
) -> Response:
    """Two to ten jobs: their curves on one chart, and what their specs do not share."""
    chosen = list(dict.fromkeys(job or []))
    if not _COMPARED[0] <= len(chosen) <= _COMPARED[1]:
        raise BadRequest(f"Choose {_COMPARED[0]} to {_COMPARED[1]} jobs to compare; these are {len(chosen)}.")
    views = [job_view(store.jobs.get(job_id, reader.access)) for job_id in chosen]
    names = sorted({name for view in views for name in view.latest}, key=lambda name: (name != "loss", name))
    metrics = {name: [view.id for view in views if name in view.latest] for name in names}
    return render(request, "compare.html.j2", jobs=views, differing=differing(views), metrics=metrics)


def differing(views: list[JobView]) -> list[tuple[str, list[Any]]]:
    """The fields in which the specs differ, each with every job's value."""
    flat = [dict(_flat(view.spec)) for view in views]
    paths = list(dict.fromkeys(path for fields in flat for path in fields))
    rows = [(path, [fields.get(path, "") for fields in flat]) for path in paths]
    return [(path, values) for path, values in rows if any(value != values[0] for value in values)]


def _flat(value: Any, path: str = "") -> list[tuple[str, Any]]:
    if isinstance(value, Mapping) and value:
        return [
            pair for name, below in value.items() for pair in _flat(below, f"{path}.{name}" if path else name)
        ]
    return [(path, value)]


def phases_of(told: list[EventView]) -> list[dict[str, Any]]:
    """What the job did, from when to when; the last one may last. ``seconds`` is None for it."""
    phases: list[dict[str, Any]] = []
    for event in told:
        name = getattr(event.data, "phase", None) or getattr(event.data, "state", None)
        if name is None:
            continue
        if phases and phases[-1]["seconds"] is None:
            phases[-1]["seconds"] = (event.at - phases[-1]["at"]).total_seconds()
        if name != JobState.RUNNING:  # its phases say more
            phases.append({"name": str(name), "at": event.at, "seconds": None})
    if phases and phases[-1]["name"] in [state.value for state in JobState if state.final]:
        phases.pop()
    return phases


def short_spec(job: Job) -> dict[str, Any]:
    """A spec without what is as by default; as it was stored, if this version does not understand it."""
    try:
        spec = read_stored_spec(job.spec, job.spec_version).spec
    except InvalidRequest:
        return dict(job.spec)
    return {"kind": job.kind, **spec.model_dump(mode="json", exclude_defaults=True)}


def commands_of(spec: dict[str, Any], url: str) -> dict[str, str]:
    """A spec as YAML, and the calls that submit it."""
    as_json = json.dumps(spec, ensure_ascii=False)
    return {
        "YAML": yaml.safe_dump(spec, sort_keys=False, allow_unicode=True),
        "curl": f"curl {url}/jobs -H 'Content-Type: application/json' \\\n  -d {shlex.quote(as_json)}",
        "Python": "from client.client import Client\n\n"
        f"job = Client({url!r}).submit({pformat(spec, sort_dicts=False, width=100)})\nprint(job.id)\n",
    }
