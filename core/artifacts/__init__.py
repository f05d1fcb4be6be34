"""Datasets and models as content-addressed folders. A manifest, written last, says that one is whole."""

from core.artifacts.folders import (
    MANIFEST,
    FileEntry,
    Manifest,
    fresh_folder,
    inspect_folder_and_place,
    is_whole,
    read_manifest,
    seal,
    sha256_of,
    staged,
)
from core.artifacts.library import Library, Published

__all__ = [
    "MANIFEST",
    "FileEntry",
    "Library",
    "Manifest",
    "Published",
    "fresh_folder",
    "inspect_folder_and_place",
    "is_whole",
    "read_manifest",
    "seal",
    "sha256_of",
    "staged",
]
