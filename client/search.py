"""What ``reason search`` needs of the service: embeddings and models that lie there, fetched once."""

import json
import re
from pathlib import Path

from client.client import Client
from core.settings import Settings

_KEPT_THERE = re.compile(r"job:[\w-]+/[\w.-]+|model:\S+|artifact:\S+")


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
        if page.exists() and "--model" not in arguments:
            told = json.loads(page.read_text(encoding="utf-8"))
            # By the id of what was used: a name, or a checkpoint, may mean something else by now.
            if used := told.get("inputs", {}).get(told["reference"], {}).get("artifact"):
                extra = ["--model", str(_fetch(f"artifact:{used}", client, settings))]
    return extra + found


def _fetch(reference: str, client: Client, settings: Settings) -> Path:
    sha256 = client.find(reference).sha256
    folder = settings.data_dir.absolute() / "cache" / "downloads" / sha256
    client.download(reference, folder)
    return folder
