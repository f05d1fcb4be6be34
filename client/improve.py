"""``reason improve``: from documents or pairs to a better model, its proof, and an index, by one command."""

import contextlib
import hashlib
import json
import re
import shutil
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from client.client import Client
from client.serve import Service, ended_by_signals
from core.errors import InvalidRequest, NotFound, ReasonError, ServiceUnreachable
from core.jobs.state import JobState
from core.jobs.views import ArtifactView, PipelineView, RecipeView
from core.settings import Settings
from core.spec.parts.refs import has_scheme

_OUTPUTS = ".pipeline"
"""In a folder of outputs: the id of the pipeline that they are of."""

_LABEL = "improve"
"""Of pipelines that this command makes: a hash of what was asked for."""


@contextlib.contextmanager
def service_here(settings: Settings, console: Console, port: int = 0, **environment: str) -> Iterator[Client]:
    """A service on this machine for as long as the block lasts, ready to take jobs. Raises `ReasonError`."""
    folder = settings.data_dir
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / "service.log"
    service = Service("127.0.0.1", port or _free_port(), environment, log=log)
    if problem := service.prepare():
        raise InvalidRequest(problem)
    console.print(
        f"Starting a service on port {service.port} (its log: {log}) ...", highlight=False, soft_wrap=True
    )
    with ended_by_signals():
        yield from _running(service, settings)


def _running(service: Service, settings: Settings) -> Iterator[Client]:
    service.start()
    try:
        with Client(f"http://127.0.0.1:{service.port}", settings.client_key) as client:
            _await_worker(client, service)
            yield client
    finally:
        service.stop()


def _await_worker(client: Client, service: Service, seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if problem := service.keep_alive():
            raise ReasonError(f"The service cannot start: {problem}")
        with contextlib.suppress(ServiceUnreachable):
            if client.workers():
                return
        time.sleep(0.2)
    raise ReasonError(f"The service was not ready after {seconds:g} s")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def check_here(text: str) -> None:
    """Raises `InvalidRequest` for a path that does not lead to anything, before anything is started."""
    path = Path(text)
    if path.is_dir() and not any(path.iterdir()):
        raise InvalidRequest(f"The folder {text} is empty")
    looks_like_path = text.startswith(("/", "./", "../", "~")) or (":" not in text and "/" not in text)
    if looks_like_path and text != "bm25" and not path.exists():
        raise InvalidRequest(f"File or folder not found: {text}")


def find_data(client: Client, text: str, console: Console, **reading: Any) -> tuple[str, str]:
    """What is on this machine is uploaded. Returns the reference, and the recipe that fits it."""
    path = Path(text)
    if path.exists():
        console.print(f"Uploading {path} ...", highlight=False, soft_wrap=True)
        try:
            made = client.upload(path, _name_of(path), **reading)
        except OSError as error:
            raise InvalidRequest(f"{path} cannot be read: {error.strerror or error}") from error
        except InvalidRequest as error:
            if "max_reject_share" in str(error):
                hint = "--encoding names another encoding; --max-reject-share 0.1 leaves a tenth out."
                raise InvalidRequest(f"{error} {hint}", error.problems) from error
            raise
        splits = made.metadata.get("splits", {})
        listed = ", ".join(f"{count:,} {name}" for name, count in splits.items())
        console.print(f"  dataset:{made.name}@{made.version}: {listed}", highlight=False)
        return f"dataset:{made.name}@{made.version}", "documents" if "documents" in splits else "pairs"
    if not has_scheme(text):
        raise InvalidRequest(f"File or folder not found: {text}")
    with contextlib.suppress(NotFound, InvalidRequest):
        found = client.find(text)
        documents = "documents" in found.metadata.get("splits", {}) or found.metadata.get("type") == "chunks"
        return text, "documents" if documents else "pairs"
    return text, "documents" if text.startswith("file:") and Path(text[5:]).is_dir() else "pairs"


def find_queries(client: Client, text: str, console: Console) -> str:
    """The reference of queries that people have asked; a file of this machine is uploaded."""
    path = Path(text)
    if not path.exists():
        return text
    console.print(f"Uploading {path} ...", highlight=False, soft_wrap=True)
    try:
        made = client.upload(path, f"{_name_of(path)}-queries")
    except InvalidRequest as error:
        needed = "its columns are query and document (a path, a URL, or the id of a passage)"
        raise InvalidRequest(f"--queries {path}: {needed}. The service says: {error}") from error
    return f"dataset:{made.name}@{made.version}"


def find_model(client: Client, text: str, console: Console) -> str:
    """The reference of a model; a folder of this machine is uploaded."""
    path = Path(text)
    if not path.is_dir():
        return text
    console.print(f"Uploading {path} ...", highlight=False, soft_wrap=True)
    made = client.upload_model(path, _name_of(path))
    return f"model:{made.name}@{made.version}"


def _name_of(path: Path) -> str:
    """A valid name for an upload."""
    name = re.sub(r"[^A-Za-z0-9_.-]+", "-", path.resolve().name.partition(".")[0]).strip("_-.")
    return name or "data"


def submit_once(client: Client, body: dict[str, Any]) -> tuple[PipelineView, bool]:
    """The pipeline; one that was asked for in the same way and has not ended is taken up again.

    Returns (pipeline, whether it is new).
    """
    asked = hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()[:16]
    for known in client.pipelines.list(label=[f"{_LABEL}:{asked}"]):
        if not known.state.final:
            return known, False
    labels = body.get("labels") or {}
    if isinstance(labels, dict):  # else the service says what is wrong with them
        body = {**body, "labels": {**labels, _LABEL: asked}}
    return client.pipelines.submit(body), True


def show_plan(plan: RecipeView, console: Console) -> None:
    """What will be done, what was chosen and why, and about how long it takes."""
    console.print(f"Recipe {plan.recipe}: {' -> '.join(plan.stages)}", style="bold", highlight=False)
    for choice in plan.choices:
        value = json.dumps(choice.value) if not isinstance(choice.value, str) else choice.value
        console.print(f"  {choice.stage}.{choice.field} = {value}", highlight=False, soft_wrap=True)
        console.print(f"      {choice.why}", style="dim", highlight=False, soft_wrap=True)
    memory = [found.memory["total"] for found in plan.estimates.values() if found.memory]
    told = [f"about {max(memory) / 1e9:.1f} GB of memory"] if memory else []
    if plan.seconds is not None:
        minutes = round(plan.seconds / 60)
        told.append(f"about {minutes} minutes" if minutes > 1 else "a few minutes at most")
        told[-1] += " (less if an earlier run has done a part of it)"
    else:
        told.append("the time is unknown until a training has finished here")
    console.print(f"Estimate: {', '.join(told)}.", highlight=False)


def check_out(folder: Path) -> None:
    """Raises `InvalidRequest` for a folder that holds something else than the outputs of a pipeline."""
    if folder.exists() and not folder.is_dir():
        raise InvalidRequest(f"--out: {folder} is a file, not a folder")
    if folder.is_dir() and any(folder.iterdir()) and not (folder / _OUTPUTS).is_file():
        raise InvalidRequest(
            f"--out: {folder} holds files that no pipeline has put there. Name a new or empty folder: "
            "outputs of an earlier run are replaced"
        )


def fetch_outputs(client: Client, ended: PipelineView, folder: Path, console: Console) -> None:
    """Download every output to ``folder/STAGE/OUTPUT``, in place of what an earlier run has left there.

    Raises `InvalidRequest` where the folder cannot be written.
    """
    check_out(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / _OUTPUTS).write_text(f"{ended.id}\n", encoding="utf-8")
        for name, reference in ended.outputs.items():
            final = folder / name
            # By the artifact's id: what an interrupted run has left of another one is not gone on with.
            fresh = final.with_name(f".{final.name}.{reference.rpartition(':')[2]}")
            client.download(reference, fresh)
            if final.exists():
                shutil.rmtree(final)
            fresh.replace(final)
            console.print(f"{final}", highlight=False, soft_wrap=True)
    except OSError as error:
        raise InvalidRequest(f"--out: {folder} cannot be written: {error.strerror or error}") from error


def chosen_models(client: Client, ended: PipelineView) -> list[str]:
    """A sentence for each output that was chosen of several models."""
    return [
        f"{output} is {told}."
        for output, reference in ended.outputs.items()
        if output.endswith("/model") and (told := _chosen(client, reference))
    ]


def _chosen(client: Client, reference: str) -> str | None:
    try:
        return _say_chosen(client.find(reference))
    except NotFound:  # deleted since
        return None


def _say_chosen(model: ArtifactView) -> str | None:
    """Which of the compared models it is, and whether it was promoted; None for one that nothing compared."""
    facts = model.metadata
    names = facts.get("chosen_from")
    if not names:
        return None
    kept = f"the {facts['name']} model"
    if facts["name"] == names[-1]:
        kept += ": no other one passes the comparison" if "promoted" in facts else _NOT_BETTER
    if model.current:
        kept += f", which is {model.name}@current (version {model.version})"
    return kept


_NOT_BETTER = ": the trained one is not significantly better"


def show_interrupted(made: PipelineView, console: Console, *, later: bool) -> None:
    """After Ctrl-C. ``later``: the service ends with this command."""
    ending = f"reason pipeline cancel {made.id} ends it"
    if later:
        ending = f"its running stage saves a checkpoint, and with a service (reason serve) {ending}"
    told = f"\nStopped watching {made.id}. The same command continues it; {ending}."
    console.print(told, highlight=False, soft_wrap=True)


def show_others(client: Client, made: PipelineView, console: Console) -> None:
    """Pipelines of earlier commands that have not ended: their stages run first."""
    going = [state.value for state in JobState if not state.final]  # not the whole history
    found = (known for state in going for known in client.pipelines.list(state=state))
    others = sorted((known for known in found if known.id != made.id), key=lambda it: it.id, reverse=True)
    if others:
        names = ", ".join(f"{one.id} ({one.name or one.recipe or 'pipeline'})" for one in others[:5])
        console.print(
            f"Begun before and not ended: {names}. Its stages run first; with a service (reason serve) "
            f"reason pipeline cancel {others[0].id} ends it.",
            style="yellow",
            highlight=False,
            soft_wrap=True,
        )


def show_end(
    client: Client, ended: PipelineView, console: Console, *, later: bool, out: Path | None = None
) -> None:
    """The verdict, and where everything is. ``later``: the service ends with this command. ``out``: where the
    outputs are downloaded to."""
    reused = [name for name, stage in ended.stages.items() if stage.reused_from]
    if reused:
        console.print(f"Reused: {', '.join(reused)}.", highlight=False)
    if ended.end_reason:
        console.print(
            f"The pipeline is {ended.state}: {ended.end_reason.message}", style="red", highlight=False
        )
    for found in ended.verdicts:
        about = f"{found.model} on {found.dataset}: {found.verdict}"
        console.print(about, style="bold green" if found.outcome == "better" else "bold")
    for told in chosen_models(client, ended):
        console.print(told, highlight=False)
    table = Table(box=None, show_header=False)
    for output, reference in ended.outputs.items():
        table.add_row(output, reference)
    console.print(table)
    if out is not None:
        _show_downloaded(ended, out, console)
        return
    commands = []
    if "compare/model" in ended.outputs:
        commands.append(f"reason download {ended.outputs['compare/model']} FOLDER")
    if "index/embeddings" in ended.outputs:
        commands.append(f'reason search job:{ended.stages["index"].job}/embeddings "your question"')
    if commands and later:
        commands.insert(0, "reason serve   # in another terminal; then:")
    for command in commands:
        console.print(command, style="bold", highlight=False, soft_wrap=True)


def _show_downloaded(ended: PipelineView, out: Path, console: Console) -> None:
    """How to search in what was downloaded."""
    if "index/embeddings" in ended.outputs and "compare/model" in ended.outputs:
        told = f'reason search {out}/index/embeddings --model {out}/compare/model "your question"'
        console.print(told, style="bold", highlight=False, soft_wrap=True)
