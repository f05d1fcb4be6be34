"""Which training libraries are installed here: read from their metadata, without importing any of them."""

from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Literal

LIBRARIES = ("torch", "transformers", "tokenizers", "sentence-transformers", "pylate", "numpy")


@cache
def library_versions() -> dict[str, str]:
    """Of the libraries that compute vectors; "" for one that is not installed."""
    found = {}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = ""
    return found


def installed() -> dict[str, str]:
    """The versions of those that are there."""
    return {name: release for name, release in library_versions().items() if release}


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
