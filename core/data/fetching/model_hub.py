"""Models of the hub, as folders of its cache."""

import re
from pathlib import Path
from typing import Literal

from core.errors import BadModel
from core.native_errors import first_line
from core.spec.parts.refs import Ref

_NOT_READ = [
    "*.bin",
    "*.pt",
    "*.pth",
    "*.pkl",
    "*.h5",
    "*.msgpack",
    "*.onnx",
    "*.gguf",
    "onnx/*",
    "openvino/*",
]

_COMMIT = re.compile(r"[0-9a-f]{40}")
_HUB_SECONDS = 10.0


def fetch_model(source: Ref, reference: str, *, offline: bool) -> Path:
    """A model's folder, without files that are never read. Raises `BadModel`."""
    import httpx
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        found = snapshot_download(
            source.target, revision=source.revision, local_files_only=offline, ignore_patterns=_NOT_READ
        )
    except (LocalEntryNotFoundError, HfHubHTTPError, httpx.HTTPError, OSError, ValueError) as error:
        if offline and isinstance(error, LocalEntryNotFoundError):
            raise BadModel(
                f"{reference} is not in the local hub cache, and REASON_OFFLINE is set. A folder "
                "works: base_model: file:FOLDER, or reason improve --base-model FOLDER."
            ) from error
        raise BadModel(
            f"{reference} cannot be had from the model hub (is its name right, is the hub reachable?). A "
            f"folder with a model works without the hub: base_model: file:FOLDER, or reason improve "
            f"--base-model FOLDER. {first_line(error)}"
        ) from error
    return Path(found)


def find_commit(source: Ref, kind: Literal["model", "dataset"], *, offline: bool) -> str | None:
    """The commit that a job which starts now would get from the hub; None where that is not known.

    Where the hub cannot be asked, a model is the one that is in the local cache.
    """
    import httpx
    from huggingface_hub import HfApi
    from huggingface_hub.constants import HF_HUB_CACHE
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, OfflineModeIsEnabled
    from huggingface_hub.file_download import repo_folder_name

    if source.revision and _COMMIT.fullmatch(source.revision):
        return source.revision
    if not offline:
        try:
            found = HfApi().repo_info(
                source.target, revision=source.revision, repo_type=kind, timeout=_HUB_SECONDS
            )
        except HFValidationError:
            return None
        except (HfHubHTTPError, OfflineModeIsEnabled, httpx.HTTPError, OSError):
            pass
        else:
            return found.sha
    if kind == "dataset":  # its cache is another library's
        return None
    place = Path(HF_HUB_CACHE) / repo_folder_name(repo_id=source.target, repo_type=kind)
    try:
        return (place / "refs" / (source.revision or "main")).read_text(encoding="utf-8").strip() or None
    except OSError:
        return None
