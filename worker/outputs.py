"""Outputs of jobs on their way into rows: their files are held, then looked at."""

from dataclasses import replace

from core.artifacts import Library
from core.jobs.protocol import Output
from core.store.artifacts import NewArtifact
from core.store.retention.files import FolderStore


class Outputs:
    """Checks what a job's process says that it has published."""

    def __init__(self, library: Library, folders: FolderStore) -> None:
        self._library, self._folders = library, folders

    def check(self, name: str, output: Output) -> NewArtifact:
        """The output, whose files are all there and stay while a row is added.

        Raises `NotFound`, `StorageFailure` and `Unavailable`.
        """
        hold = self._folders.hold(output.uri)
        manifest = self._library.check(output.uri)
        return NewArtifact(
            output=name,
            kind=output.kind,
            uri=output.uri,
            sha256=manifest.sha256,
            bytes=manifest.bytes,
            manifest=manifest.model_dump(mode="json"),
            hold=hold,
        )

    def check_again(self, outputs: list[NewArtifact]) -> list[NewArtifact]:
        """The same of outputs that another job has made. Raises as `check` does."""
        held = [replace(output, hold=self._folders.hold(output.uri)) for output in outputs]
        for output in outputs:
            self._library.check(output.uri)
        return held
