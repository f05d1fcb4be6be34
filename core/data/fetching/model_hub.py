"""Models of the hub, as folders of its cache."""

from pathlib import Path

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
                f"{reference} is not in the local hub cache, and REASON_OFFLINE is set. Give "
                "file:PATH instead."
            ) from error
        raise BadModel(
            f"{reference} cannot be had from the model hub (is its name right, is the hub reachable?): "
            f"{first_line(error)}"
        ) from error
    return Path(found)
