"""Where what a spec refers to lies: files as they are, artifacts and remote data in this host's cache."""

import shutil
import uuid
from pathlib import Path

from core.data.fetching.hub import fetch_dataset
from core.data.fetching.model_hub import fetch_model
from core.data.fetching.remote import fetch, look
from core.data.io.packing import is_packed, packed_names, unpack
from core.data.retrieval_sets.nested import retrieval_json_in
from core.data.sources.formats import documents_by_name
from core.errors import BadData, BadModel, BadSpec, Forbidden, NotFound
from core.jobs.protocol import RESULT, ArtifactInput, RunRequest, UrlInput
from core.runtime.context import RunContext, Seat, StopSignal
from core.runtime.reporter import Reporter
from core.spec.parts.refs import Ref, parse_ref


def make_context(
    request: RunRequest,
    folder: Path,
    reporter: Reporter,
    stop: StopSignal | None = None,
    seat: Seat | None = None,
) -> RunContext:
    """A job's context that finds its inputs."""
    context = RunContext(request, folder, reporter, stop, seat)
    context.inputs = JobInputs(context)
    return context


class JobInputs:
    """What a job's references mean, fetched and unpacked at most once in an attempt."""

    def __init__(self, context: RunContext) -> None:
        self._context = context
        self._fetched: dict[str, Path] = {}  # from a hub or a URL
        self._unpacked_from: dict[Path, Path] = {}

    def resolve(self, reference: str) -> Path | Ref:
        """A local path for what lies in files or artifacts; the parsed reference for what a hub has."""
        ref = parse_ref(reference)
        match ref.scheme:
            case "file":
                return Path(ref.target)
            case "hf" | "beir" | "nanobeir" | "bright" | "mteb":
                return ref
            case "url":
                return self._from_url(reference)
        known = self._context.request.inputs.get(reference)
        if not isinstance(known, ArtifactInput) or self._context.library is None:
            raise BadSpec(f"{reference} means something inside the service only; here, give a path")
        return self._context.library.fetch(known.uri, self._context.request.cache)

    def _from_url(self, url: str) -> Path:
        """A local copy of what lies there now."""
        if url in self._fetched:
            return self._fetched[url]
        try:
            remote = look(url)
            before = self._context.request.inputs.get(url)
            if before is not None and before.sha256 not in ("", remote.sha256):
                self._context.notice(f"{url} has changed since the job was submitted.", "warning")
            self._context.phase("fetching")

            def tell(come: int) -> None:
                self._context.progress(come, remote.bytes)

            path, known = fetch(
                remote, self._context.request.cache, check_stop=self._context.check_stop, tell=tell
            )
        except (NotFound, Forbidden) as error:
            raise BadSpec(str(error)) from error
        count = f"{len(remote.files):,} file{'s' if len(remote.files) > 1 else ''}"
        how = "was fetched before and has not changed" if known else "was fetched"
        self._context.notice(f"{url} {how}: {count}, {remote.bytes / 1e6:,.1f} MB.")
        self._context.request.inputs[url] = UrlInput(url=url, sha256=remote.sha256 or "", bytes=remote.bytes)
        self._fetched[url] = path
        return path

    def model_path(self, reference: str) -> Path:
        """A model's folder; a hub's is fetched, once. Raises `BadModel` if it is not there."""
        path = self._fetched.get(reference) or self.resolve(reference)
        if not isinstance(path, Path):
            path = self._fetched[reference] = fetch_model(
                path, reference, offline=self._context.request.offline
            )
        if not path.is_dir():
            raise BadModel(f"{reference}: there is no such folder")
        return path

    def dataset_path(self, reference: str) -> Path:
        """Where a dataset lies; a hub's is fetched. Raises `BadData` if it is not there."""
        path = self._fetched.get(reference) or self.resolve(reference)
        if not isinstance(path, Path):
            self._context.notice(f"Fetching {reference}.")
            path = fetch_dataset(path, self._context.request.cache, offline=self._context.request.offline)
            self._fetched[reference] = path
        if not path.exists():
            raise BadData(f"{reference}: there is no such file or folder")
        made = path / "dataset"  # by `reason run`, whose folder may be named as a whole
        place = self._unpacked(made if (path / RESULT).is_file() and made.is_dir() else path)
        return retrieval_json_in(place) or place

    def _unpacked(self, path: Path) -> Path:
        """A packed dataset of rows as the folder that it was; extracted once in an attempt.

        Packed documents are read as they are.
        """
        if path in self._unpacked_from:
            return self._unpacked_from[path]
        if is_packed(path) and not documents_by_name(packed_names(path)):
            self._context.phase("unpacking")
            place = self._unpacking / uuid.uuid4().hex
            self._unpacked_from[path] = unpack(path, place, self._context.check_stop)
        return self._unpacked_from.get(path, path)

    @property
    def _unpacking(self) -> Path:
        return self._context.folder / "unpacked"

    def release(self) -> None:
        """Remove what was unpacked for this attempt."""
        shutil.rmtree(self._unpacking, ignore_errors=True)
