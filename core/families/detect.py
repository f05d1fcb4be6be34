"""Which family a model is of, by the files that it comes with."""

import json
from pathlib import Path
from typing import Any

from core.errors import BadModel
from core.run.context import RunContext
from core.spec.models import Family

_OF_LIBRARIES = "config_sentence_transformers.json"


def family_in(context: RunContext, reference: str) -> Family:
    """Without loading it. Raises `BadModel` where there is no model, or a hub cannot be asked."""
    source = context.resolve(reference)
    if isinstance(source, Path):
        if not source.is_dir():
            raise BadModel(f"{reference}: there is no such folder")
        config = _read(source / "config.json")
        settings = _read(source / _OF_LIBRARIES)
        modules = _read(source / "modules.json")
    else:
        config, settings, modules = (
            _from_hub(context, reference, source.target, source.revision, name)
            for name in ("config.json", _OF_LIBRARIES, "modules.json")
        )
    architectures = config.get("architectures") or [] if isinstance(config, dict) else []
    if "query_prefix" in settings or "HF_ColBERT" in architectures:
        return "late_interaction"
    # A bi-encoder made of a classifier's checkpoint keeps the word, and says by its modules what it is.
    if not modules and any(name.endswith("ForSequenceClassification") for name in architectures):
        return "cross_encoder"
    return "dense"


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise BadModel(f"{path.name} of the model cannot be read: {error}") from error


def _from_hub(context: RunContext, reference: str, repository: str, revision: str | None, name: str) -> Any:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, LocalEntryNotFoundError

    try:
        found = hf_hub_download(repository, name, revision=revision, local_files_only=context.request.offline)
    except LocalEntryNotFoundError as error:
        # Without a hub it cannot be known whether a file is missing or was not fetched.
        if name == "config.json":
            raise BadModel(
                f"{reference} cannot be had from the model hub, nor from its local cache: give file:PATH, "
                "or name the family"
            ) from error
        return {}
    except EntryNotFoundError:
        return {}
    except (HfHubHTTPError, OSError, ValueError) as error:
        first = str(error).strip().partition("\n")[0]
        raise BadModel(f"{reference} cannot be had from the model hub: {first}") from error
    return _read(Path(found))
