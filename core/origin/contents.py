"""What the references of a spec hold when a job starts: the content itself, by its hash."""

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from core.artifacts.folders import sha256_of
from core.data.fetching.model_hub import find_commit
from core.data.fetching.remote import look
from core.data.io.stopping import no_stop
from core.errors import ReasonError
from core.jobs.protocol import ArtifactInput, Input
from core.spec.parts.reference_places import FoundReference
from core.spec.parts.refs import parse_ref
from core.spec.parts.rows import READING


class Contents:
    """The content of each reference: ``sha256:...``, ``commit:...``, ``listing:...`` of a URL, or None where
    it cannot be told from another.

    ``inputs``: what references to artifacts mean. Files are hashed; ``check_stop`` is called meanwhile, and
    what it raises ends the work.
    """

    def __init__(
        self,
        references: Sequence[FoundReference],
        inputs: Mapping[str, Input],
        *,
        offline: bool,
        check_stop: Callable[[], None] = no_stop,
    ) -> None:
        self._references = {found.text: found for found in references}
        roles = {(found.text, found.role) for found in references}
        # A hub's model and its dataset of the same name are two things: neither stands for both.
        self._ambiguous = {text for text in self._references if sum(text == one for one, _ in roles) > 1}
        self._inputs, self._offline = inputs, offline
        self._signs = self._look()  # before files are hashed: a change meanwhile is seen afterwards
        self.found = {
            text: _hash_files(Path(ref.target), check_stop) if ref.scheme == "file" else self._signs[text]
            for text in self._references
            for ref in [parse_ref(text)]
        }

    def unchanged(self) -> bool:
        """Whether everything is still as it was."""
        return self._signs == self._look()

    def _look(self) -> dict[str, str | None]:
        """Of each reference something that changes with its content, and is found without reading it."""
        return {text: self._sign(found) for text, found in self._references.items()}

    def _sign(self, reference: FoundReference) -> str | None:
        ref = parse_ref(reference.text)
        match ref.scheme:
            case "hf" if reference.text in self._ambiguous:
                return None
            case "file":
                return _sign_files(Path(ref.target))
            case "hf":
                commit = find_commit(ref, reference.role, offline=self._offline)
                part = f" {ref.config or ''}/{ref.split or ''}" if ref.config or ref.split else ""
                return commit and f"commit:{commit}{part}"
            case "url":
                return _sign_url(reference.text)
            case "job" | "model" | "dataset" | "artifact":
                known = self._inputs.get(reference.text)
                return f"sha256:{known.sha256}" if isinstance(known, ArtifactInput) and known.sha256 else None
        return None  # a public benchmark, by its name alone


def _sign_url(url: str) -> str | None:
    try:
        listing = look(url).sha256
    except ReasonError:  # the job will say what is wrong with it
        return None
    return listing and f"listing:{listing}"


def _sign_files(path: Path) -> str | None:
    try:
        states = [
            (name, (file := found.stat()).st_size, file.st_mtime_ns, file.st_ino)
            for name, found in _files(path)
        ]
    except OSError:
        return None
    return hashlib.sha256(repr(states).encode()).hexdigest()


def _hash_files(path: Path, check_stop: Callable[[], None]) -> str | None:
    """Of the names and contents of all files. The path counts with its last part, which may tell a format."""
    digest = hashlib.sha256(f"{path.name}\n".encode())
    try:
        for name, found in _files(path):
            digest.update(f"{sha256_of(found, check_stop)} {name}\n".encode())
    except OSError:  # the job will say what is wrong with it
        return None
    return f"sha256:{digest.hexdigest()}"


def _files(path: Path) -> Iterator[tuple[str, Path]]:
    """Relative name and path of each file, in the order of their names. Raises `OSError`.

    Names with a dot before them are skipped, as all readers do; but not the file that says how to read.
    """
    if not path.is_dir():
        yield "", path
        return
    entered = set[str]()
    for folder, folders, names in os.walk(path, followlinks=True, onerror=_raise):
        if (real := os.path.realpath(folder)) in entered:  # a link to a folder above it
            folders.clear()
            continue
        entered.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(name for name in names if name == READING or not name.startswith(".")):
            found = Path(folder, name)
            yield found.relative_to(path).as_posix(), found


def _raise(error: OSError) -> None:
    raise error
