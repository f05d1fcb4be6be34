"""Folders of many files, walked once."""

import os
from collections.abc import Callable, Iterator
from itertools import takewhile
from pathlib import Path

from core.data.io.stopping import no_stop


def walk(
    folder: Path,
    *,
    enter: Callable[[str], bool] = lambda name: True,
    check_stop: Callable[[], None] = no_stop,
) -> Iterator[str]:
    """Yield the relative path of every file below ``folder``, with forward slashes, in path order.

    Each folder is listed once. Memory: the names of the folders on the way down. ``enter`` decides by name
    which folders are walked; links to folders are not. Links to files are yielded only if their target lies
    in ``folder``.
    """
    root = folder.resolve()
    waiting = [("", iter(_listing(str(folder))))]
    while waiting:
        prefix, names = waiting[-1]
        for name, is_folder, is_link in names:
            check_stop()
            inside = f"{prefix}{name}"
            if is_folder:
                if enter(name):
                    waiting.append((f"{inside}/", iter(_listing(f"{folder}/{inside}"))))
                    break
            elif not is_link or _leads_to_file(folder / inside, root):
                yield inside
        else:
            waiting.pop()


def _are_equal(pair: tuple[str, str]) -> bool:
    return pair[0] == pair[1]


def common_folder(names: Iterator[str]) -> list[str] | None:
    """The folders that all files are in, from the top down; None when there is no file."""
    found: list[str] | None = None
    for name in names:
        folders = name.split("/")[:-1]
        if found is None:
            found = folders
        elif found != folders[: len(found)]:
            found = [one for one, _ in takewhile(_are_equal, zip(found, folders, strict=False))]
    return found


def ending(name: str) -> str:
    """The ending of a file's name in lower case, with its dot; "" for none."""
    stem, dot, last = name.rpartition("/")[2].rpartition(".")
    return f".{last.lower()}" if dot and stem.strip(".") and last else ""


def _listing(folder: str) -> list[tuple[str, bool, bool]]:
    """(name, is a folder, is a link) of every file and folder, sorted by name."""
    with os.scandir(folder) as entries:
        return sorted(
            (entry.name, entry.is_dir(follow_symlinks=False), entry.is_symlink())
            for entry in entries
            if entry.is_dir(follow_symlinks=False) or entry.is_file()
        )


def _leads_to_file(link: Path, root: Path) -> bool:
    return link.is_file() and link.resolve().is_relative_to(root)
