"""Which training libraries are installed here: read from their metadata, without importing any of them."""

from collections.abc import Iterable
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Literal

LIBRARIES = ("torch", "transformers", "tokenizers", "sentence-transformers", "pylate", "numpy")

RESULT_LIBRARIES = (
    *LIBRARIES,
    "accelerate",
    "bitsandbytes",
    "bm25s",
    "charset-normalizer",
    "datasets",
    "faiss-cpu",
    "faiss-gpu-cu12",
    "fast-plaid",
    "late-interaction-kernels",
    "markdown-it-py",
    "mteb",
    "openpyxl",
    "peft",
    "pyarrow",
    "pytrec-eval-terrier",
    "pyyaml",
    "regex",
    "rensa",
    "safetensors",
    "scipy",
)
"""Libraries of which another version may change the result of a job."""


@cache
def library_versions() -> dict[str, str]:
    """Of the libraries that compute vectors; "" for one that is not installed."""
    return {name: _version(name) for name in LIBRARIES}


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""


def installed(names: Iterable[str] = LIBRARIES) -> dict[str, str]:
    """The versions of those that are there."""
    return {name: release for name in names if (release := _version(name))}


def stack_name() -> Literal["default", "st6", "none"]:
    """``default`` (sentence-transformers 5 and PyLate), ``st6`` (6 and later), or ``none``: a host that only
    serves."""
    release = library_versions()["sentence-transformers"]
    if not release:
        return "none"
    return "default" if int(release.partition(".")[0]) < 6 else "st6"


def has_pylate() -> bool:
    """Whether PLAID indexes can be made."""
    return bool(library_versions()["pylate"])
