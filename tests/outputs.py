"""Outputs of jobs in a service, as workers leave them there."""

import json
from pathlib import Path
from typing import Any

from core.artifacts import Library
from core.jobs.reasons import EndReason
from core.process.local import run_local
from core.runtime.reporter import RecordingReporter
from core.settings import Settings
from core.spec import parse_spec
from core.store import Store
from core.store.artifacts import NewArtifact
from core.store.attempts.leases import Capacity
from core.store.new_jobs import NewJob
from core.store.schema.access import EVERYTHING, Access
from tests.held import held_by


def with_output(
    store: Store,
    settings: Settings,
    spec: dict[str, Any],
    folder: Path,
    kind: str,
    metadata: dict[str, Any],
    access: Access = EVERYTHING,
) -> str:
    """A job of this spec that has ended, with the folder as its output. Returns its id."""
    store.jobs.submit(NewJob(spec=parse_spec(spec)), access=access)
    claim = store.leases.claim(Capacity(worker="w"), 60)
    assert claim is not None
    published = Library(settings.artifact_url).publish(folder, kind, metadata)
    manifest = published.manifest
    made = NewArtifact(
        kind, kind, published.uri, manifest.sha256, manifest.bytes, manifest.model_dump(mode="json")
    )
    return str(store.leases.finish(claim, EndReason.SUCCEEDED, outputs=[held_by(store, made)]).id)


def embedded(
    store: Store, settings: Settings, model: Path, texts: dict[str, str], access: Access = EVERYTHING
) -> str:
    """Embed the texts, and return the id of the job that has them as its output."""
    work = settings.data_dir / f"embedding-{len(list(settings.data_dir.glob('embedding-*')))}"
    work.mkdir(parents=True)
    corpus = work / "corpus.jsonl"
    lines = [json.dumps({"_id": name, "text": text}) + "\n" for name, text in texts.items()]
    corpus.write_text("".join(lines))
    spec = {"kind": "embed", "model": f"file:{model}", "corpus": f"file:{corpus}", "resources": {"gpus": 0}}
    result = run_local(spec, work / "out", RecordingReporter(), cache=work / "cache")
    assert result.state == "succeeded", result.end_reason
    metadata = {"name": "embeddings", "model": model.name}
    return with_output(store, settings, spec, work / "out" / "embeddings", "embeddings", metadata, access)
