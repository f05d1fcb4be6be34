"""What a worker does before it adds a row for an output."""

from dataclasses import replace

from core.store import Store
from core.store.artifacts import NewArtifact


def held_by(store: Store, output: NewArtifact) -> NewArtifact:
    """The output, whose folder is held."""
    return replace(output, hold=store.folders.hold(output.uri))
