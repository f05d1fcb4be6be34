"""``reason lineage`` and ``reason reproduce``: where an artifact comes from, and making it again."""

import sys
from typing import Annotated

import typer

from client.cli.shared import Json, app, console, exit_with, open_client, print_json
from client.watch import watch_pipeline
from core.errors import InvalidRequest
from core.jobs.lineage import LineageArtifact, LineageJob, LineageView
from core.jobs.state import JobState
from core.jobs.views import ArtifactView
from core.spec.parts.refs import artifact_reference

_OF_THE_RUN = ("README.md", "dataset.json", "embeddings.json", "report.json", "report.html", "report.md")

Reference = Annotated[
    str, typer.Argument(help="job:ID/OUTPUT, model:ID, model:NAME@VERSION, dataset:NAME or artifact:ID.")
]


@app.command(epilog="example: reason lineage model:my-search")
def lineage(reference: Reference, as_json: Json = False) -> None:
    """Show what an artifact was made from, and what was made of it."""
    with open_client() as client:
        found = client.lineage(reference)
    if as_json:
        print_json(found.model_dump(mode="json"))
        return
    artifacts = {one.id: one for one in found.artifacts}
    makers = {job.id: job for job in found.jobs}
    _print_up(artifacts[found.artifact], artifacts, makers, 0, set())
    made = [one for one in found.artifacts if one.direction == "down"]
    if made:
        print("\nmade of it:")
    for one in made:
        print(f"  {_line(one)}, by {makers[one.job or ''].kind} {one.job}")
    if not found.whole:
        told = "Something is left out: there is too much of it, it belongs to others, or it was deleted."
        console.print(told, style="yellow")
    if found.stages:
        print(f"\nreason reproduce {reference}   # makes it again, and compares")


def _print_up(
    artifact: LineageArtifact,
    artifacts: dict[str, LineageArtifact],
    makers: dict[str, LineageJob],
    depth: int,
    shown: set[str],
) -> None:
    indent = "  " * depth
    again = " (see above)" if artifact.id in shown else ""
    print(f"{indent}{_line(artifact)}{again}")
    job = makers.get(artifact.job or "")
    if job is None or again:
        return
    shown.add(artifact.id)
    seed = f", seed {job.spec['seed']}" if "seed" in job.spec else ""
    reused = f", reused from {job.reused_from}" if job.reused_from else ""
    print(f"{indent}  by {job.kind} {job.id}{seed}{reused}")
    if job.origin:
        libraries = ", ".join(
            f"{name} {job.origin.libraries[name]}"
            for name in ("torch", "transformers", "sentence-transformers")
            if name in job.origin.libraries
        )
        print(
            f"{indent}  code {job.origin.version} ({job.origin.code[:12]}), {job.origin.device}, {libraries}"
        )
    for reference, read in job.inputs.items():
        if read in artifacts:
            _print_up(artifacts[read], artifacts, makers, depth + 2, shown)
        else:
            content = job.origin.contents.get(reference) if job.origin else None
            print(f"{indent}    {reference}  {content or 'content unknown'}")


def _line(artifact: LineageArtifact) -> str:
    name = f"  {artifact.name}@{artifact.version}" if artifact.name else ""
    licence = f"  licence {artifact.licence}" if artifact.licence else ""
    return f"{artifact.kind} {artifact.id}{name}  sha256 {artifact.sha256[:12]}{licence}"


@app.command(epilog="example: reason reproduce model:my-search")
def reproduce(reference: Reference, as_json: Json = False) -> None:
    """Make an artifact again, with all that it was made from, and compare the files.

    Exits with 1 if a file differs. Pages that name the jobs of their own run are no difference.
    """
    with open_client() as client:
        found = client.lineage(reference)
        if not found.stages or found.stage is None:
            raise InvalidRequest(f"{reference} cannot be made again: " + _why_not(found))
        made = client.pipelines.submit({"stages": found.stages, "reuse": False})
        print(made.id, file=sys.stderr)
        ended = watch_pipeline(client, made.id, console)
        if ended.state is not JobState.SUCCEEDED:
            exit_with(ended.state)
        before = client.find(f"artifact:{found.artifact}")
        after = next(
            one for one in client.artifacts(ended.stages[found.stage].job) if one.output == before.output
        )
    same, different = _compare(before, after)
    pages = [path for path in different if path in _OF_THE_RUN]
    different = [path for path in different if path not in pages]
    if as_json:
        print_json(
            {"pipeline": ended.id, "artifact": after.id, "same": same, "different": different, "pages": pages}
        )
    else:
        print(artifact_reference(after.kind, after.id))
        print(f"{len(same)} files are the same, byte for byte.")
        if pages:
            print(f"Not compared, as they name the jobs of their own run: {', '.join(pages)}")
        for path in different:
            print(f"different: {path}")
    raise typer.Exit(1 if different else 0)


def _compare(before: ArtifactView, after: ArtifactView) -> tuple[list[str], list[str]]:
    """Paths of files that are the same, and of those that differ or are missing on one side."""
    one, other = ({entry["path"]: entry["sha256"] for entry in found.files} for found in (before, after))
    same = [path for path in one if one[path] == other.get(path)]
    return same, sorted((one.keys() | other.keys()) - set(same))


def _why_not(found: LineageView) -> str:
    """Why no pipeline makes an artifact again."""
    if any(job.kind == "export" and job.direction == "up" for job in found.jobs):
        return "it was made of a checkpoint of a training"
    return "no job has made it" if found.whole else "a part of its lineage was deleted, or is not visible"
