"""What ``reason search`` needs of the service: embeddings and models that lie there, fetched once."""

import json
import os
import re
from pathlib import Path

from client.client import Client
from core.jobs.protocol import ArtifactInput
from core.settings import Settings

_KEPT_THERE = re.compile(r"job:[\w-]+/[\w.@-]+|model:\S+|artifact:\S+")


def localized(arguments: list[str], client: Client, settings: Settings) -> list[str]:
    """References of the service as folders here; embeddings bring the model that made them."""
    found, extra = [], list[str]()
    for argument in arguments:
        if not _KEPT_THERE.fullmatch(argument):
            found.append(argument)
            continue
        folder = _fetch(argument, client, settings)
        found.append(str(folder))
        page = folder / "embeddings.json"
        asked = page.exists() and "--model" not in arguments
        if asked and (used := _model_of(argument, page, client)):
            extra = ["--model", str(_fetch(f"artifact:{used}", client, settings))]
    return extra + found


def _model_of(embeddings: str, page: Path, client: Client) -> str | None:
    """The id of the artifact that made embeddings: what a name, or a checkpoint, means may have changed.

    The job of the embeddings is asked first: if it took them from an equal job, the page names the model of
    that one, which may be gone.
    """
    if (maker := client.find(embeddings).job_id) is not None:
        job = client.job(maker)
        known = job.inputs.get(str(job.spec.get("model")))
        if isinstance(known, ArtifactInput) and known.artifact:
            return known.artifact
    told = json.loads(page.read_text(encoding="utf-8"))
    used = told.get("inputs", {}).get(told["reference"], {}).get("artifact")
    return str(used) if used else None


def _fetch(reference: str, client: Client, settings: Settings) -> Path:
    sha256 = client.find(reference).sha256
    folder = settings.data_dir.absolute() / "cache" / "downloads" / sha256
    client.download(reference, folder)
    os.utime(folder)  # in use
    return folder
