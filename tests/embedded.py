"""Embeddings in a service, as an embed job leaves them there."""

import json
from pathlib import Path

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


def embedded(
    store: Store, settings: Settings, model: Path, texts: dict[str, str], access: Access = EVERYTHING
) -> str:
    """Embed the texts, and return the id of the job that has them as its output."""
    work = settings.data_dir / f"embedding-{len(list(settings.data_dir.glob('embedding-*')))}"
    work.mkdir(parents=True)
    corpus = work / "corpus.jsonl"
    corpus.write_text("".join(json.dumps({"_id": name, "text": text}) + "\n" for name, text in texts.items()))
    spec = {"kind": "embed", "model": f"file:{model}", "corpus": f"file:{corpus}", "resources": {"gpus": 0}}
    result = run_local(spec, work / "out", RecordingReporter(), cache=work / "cache")
    assert result.state == "succeeded", result.end_reason
    store.jobs.submit(NewJob(spec=parse_spec(spec)), access=access)
    claim = store.leases.claim(Capacity(worker="w"), 60)
    assert claim is not None
    published = Library(settings.artifact_url).publish(
        work / "out" / "embeddings", "embeddings", {"name": "embeddings", "model": model.name}
    )
    manifest = published.manifest
    made = NewArtifact(
        "embeddings",
        "embeddings",
        published.uri,
        manifest.sha256,
        manifest.bytes,
        manifest.model_dump(mode="json"),
    )
    return str(store.leases.finish(claim, EndReason.SUCCEEDED, outputs=[held_by(store, made)]).id)
