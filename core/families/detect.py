"""Which family a model is of, by the files that it comes with."""

from functools import partial
from pathlib import Path
from typing import Any

from core.errors import BadModel
from core.families.description import Description, read_json
from core.run.context import RunContext
from core.spec.models import Family


def family_in(context: RunContext, reference: str) -> Family:
    """Without loading it. Raises `BadModel` where there is no model, where its files leave the family open,
    for another kind of model, and where a hub cannot be asked."""
    return describe(context, reference).family(reference)


def describe(context: RunContext, reference: str) -> Description:
    """What a model's files say. Raises `BadModel`."""
    source = context.resolve(reference)
    if not isinstance(source, Path):
        return Description.read(partial(_from_hub, context, reference, source.target, source.revision))
    if not source.is_dir():
        raise BadModel(f"{reference}: there is no such folder")
    return Description.of(source)


def _from_hub(context: RunContext, reference: str, repository: str, revision: str | None, name: str) -> Any:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, LocalEntryNotFoundError

    try:
        found = hf_hub_download(repository, name, revision=revision, local_files_only=context.request.offline)
    except LocalEntryNotFoundError as error:
        # Without a hub it cannot be known whether a file is missing or was not fetched.
        if name == "config.json":
            why = (
                "is not in the local hub cache, and REASON_OFFLINE is set. Give file:PATH instead"
                if context.request.offline
                else "cannot be had from the model hub, nor from its local cache: give file:PATH"
            )
            raise BadModel(f"{reference} {why}") from error
        return None
    except EntryNotFoundError:
        return None
    except (HfHubHTTPError, OSError, ValueError) as error:
        first = str(error).strip().partition("\n")[0]
        raise BadModel(f"{reference} cannot be had from the model hub: {first}") from error
    return read_json(Path(found))
