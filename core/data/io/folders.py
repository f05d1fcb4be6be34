"""Folders of data files: which files are which split, however the folder came to be.

`datasets` saves ``dataset_dict.json`` and a folder of Arrow files a split; a hub repository has
``train-00000-of-00002.parquet``, or one file or folder a split.
"""

import json
import os
import re
from pathlib import Path

from core.data.io.readers import format_of
from core.errors import BadData

_SHARD = re.compile(r"[-_.]\d{3,}(-of-\d{3,})?$")
_INSIDE = "data"
_OF_THE_FOLDER = {"manifest.json", "dataset_info.json", "dataset_infos.json", "state.json", "result.json"}
"""What says something of a folder, and is no data: our manifest, and what the hub's tools write."""


def split_files(folder: Path) -> dict[str, list[Path]]:
    """The data files of a folder by split, in the order of their names. Empty when there are none."""
    saved = _saved(folder)
    if saved is not None:
        return saved
    found: dict[str, list[Path]] = {}
    for name, is_folder in _data_entries(folder, folders=True):
        path = folder / name
        if is_folder:
            # The shards of a split in a folder of its name, or what `datasets` saved; never deeper.
            if files := [path / inside for inside, _ in _data_entries(path, folders=False)]:
                found.setdefault(name, []).extend(files)
        elif not name.startswith("_") and name not in _OF_THE_FOLDER:
            found.setdefault(_split_of(path), []).append(path)
    if list(found) == [_INSIDE] and (folder / _INSIDE).is_dir():
        return split_files(folder / _INSIDE)
    return found


def _data_entries(folder: Path, *, folders: bool) -> list[tuple[str, bool]]:
    """(name, is a folder) of the data files and, if asked for, of the folders, sorted. None is hidden.

    Only these are kept in memory: a folder may have a million other files.
    """
    found = []
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if format_of(Path(entry.name)) and entry.is_file():
                found.append((entry.name, False))
            elif folders and not entry.name.startswith("_") and entry.is_dir():
                found.append((entry.name, True))
    return sorted(found)


def files_of_split(folder: Path, split: str | None) -> list[Path]:
    """The files of one split: ``train`` or the only one when none is named. Raises `BadData`."""
    found = split_files(folder)
    if not found:
        raise BadData(f"the folder {folder} has no data files that are known here")
    if split is None:
        split = next(iter(found)) if len(found) == 1 else "train"
    if split not in found:
        raise BadData(
            f"{folder.name} has no split {split!r}; it has {', '.join(found)} (split names the one to read)"
        )
    return found[split]


def _saved(folder: Path) -> dict[str, list[Path]] | None:
    listing = folder / "dataset_dict.json"
    if listing.is_file():
        try:
            splits = json.loads(listing.read_text(encoding="utf-8"))["splits"]
            return {split: _arrow_files(folder / split) for split in splits}
        except (ValueError, KeyError, TypeError, OSError) as error:
            raise BadData(f"{listing} is not what `save_to_disk` writes: {error}") from error
    if (folder / "state.json").is_file() and (folder / "dataset_info.json").is_file():
        return {"train": _arrow_files(folder)}
    return None


def _arrow_files(folder: Path) -> list[Path]:
    """As ``state.json`` lists them."""
    state = folder / "state.json"
    try:
        names = [item["filename"] for item in json.loads(state.read_text(encoding="utf-8"))["_data_files"]]
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise BadData(f"{state} is not what `save_to_disk` writes: {error}") from error
    return [folder / Path(name).name for name in names]


def _split_of(path: Path) -> str:
    """``train`` of train-00000-of-00002.parquet and of train.jsonl.gz."""
    stem = path.name
    while format_of(Path(stem)) or Path(stem).suffix.lower() in (".gz", ".zst"):
        stem = Path(stem).stem
    return _SHARD.sub("", stem)
