"""The lineage of an artifact as the wire shows it, and the pipeline that makes the artifact again."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from core.jobs.lineage import LineageArtifact, LineageJob, LineageView
from core.jobs.protocol import ArtifactInput
from core.spec.parse import SPEC_BY_KIND
from core.spec.parts.reference_places import replace_references
from core.spec.parts.refs import artifact_reference, free_name, parse_ref
from core.spec.stored import read_stored_spec
from core.store.lineage import Lineage
from core.store.schema.tables import Artifact, Job

_OF_THE_RUN = ("name", "labels", "priority", "depends_on")
"""Fields of a spec that belong to the job that ran, and not to what it made."""


def lineage_view(artifact: Artifact, found: Lineage) -> LineageView:
    """``found``: the lineage of the artifact."""
    above = {job_id: job for job_id, (job, direction) in found.jobs.items() if direction == "up"}
    # No stage has a checkpoint as an output: what was made of one cannot be made again by a pipeline.
    exported = any(job.kind == "export" for job in above.values())
    names = _names(above) if found.whole_above and not exported else {}
    return LineageView(
        artifact=artifact.id,
        artifacts=[
            LineageArtifact(
                id=one.id,
                direction=direction,
                kind=one.kind,
                output=one.output,
                name=one.name,
                version=one.version,
                sha256=one.sha256,
                bytes=one.bytes,
                licence=one.manifest.get("metadata", {}).get("licence"),
                created_at=one.created_at,
                job=one.job_id,
            )
            for one, direction in found.artifacts.values()
        ],
        jobs=[
            LineageJob(
                id=job.id,
                direction=direction,
                kind=job.kind,
                name=job.name,
                state=job.state,
                created_at=job.created_at,
                spec=job.spec,
                origin=job.origin,
                reused_from=job.reused_from,
                inputs=_inputs(job),
            )
            for job, direction in found.jobs.values()
        ],
        whole=found.whole_above and found.whole_below,
        stages={name: _stage(above[job_id], names, found) for job_id, name in reversed(names.items())},
        stage=names.get(artifact.job_id or ""),
    )


def _inputs(job: Job) -> dict[str, str | None]:
    references = read_stored_spec(job.spec, job.spec_version).spec.references().values()
    known = {text: found.artifact for text, found in job.inputs.items() if isinstance(found, ArtifactInput)}
    return {text: known.get(text) for text in references}


def _names(jobs: Mapping[str, Job]) -> dict[str, str]:
    """job -> the name of its stage. Parts of a divided job have none: the whole one is divided again."""
    names: dict[str, str] = {}
    for job in jobs.values():
        if job.spec.get("part") is not None:
            continue
        names[job.id] = free_name(job.stage or job.kind, set(names.values()))
    return names


def _stage(job: Job, names: Mapping[str, str], found: Lineage) -> dict[str, Any]:
    """The spec of a job, in which stages stand for what earlier jobs have made, and commits for branches."""
    spec = {name: value for name, value in job.spec.items() if name not in _OF_THE_RUN}
    if spec.get("candidates"):
        spec = {**spec, "parts": len(spec["candidates"]), "candidates": []}
    contents = job.origin.contents if job.origin else {}

    def again(text: str) -> str:
        known = job.inputs.get(text)
        if isinstance(known, ArtifactInput) and known.artifact in found.artifacts:
            artifact, _ = found.artifacts[known.artifact]
            if (maker := names.get(artifact.job_id or "")) is not None:
                return f"stage:{maker}/{artifact.output}"
            return artifact_reference(artifact.kind, artifact.id)
        content = contents.get(text) or ""
        if content.startswith("commit:"):
            commit = content.removeprefix("commit:").partition(" ")[0]
            return str(replace(parse_ref(text), revision=commit))
        return text

    return replace_references(spec, SPEC_BY_KIND[job.kind].REFERENCES, again)
