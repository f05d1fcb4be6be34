"""``reason search``: search a corpus from the command line, to see what a model finds."""

import argparse
import json
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from core.data.sources.formats import is_documents, settle_format
from core.data.sources.inputs import make_context
from core.errors import BadData, InvalidRequest, JobFailure
from core.jobs.protocol import RunRequest
from core.process.attempt import quiet_libraries
from core.process.local import run_local
from core.runtime.reporter import ConsoleReporter, NullReporter
from core.settings import Settings
from core.spec.files import local_reference, localize

_SHOWN = 300


def main(arguments: list[str] | None = None) -> int:
    """Exit status: 0 success, 1 the search failed, 2 invalid usage."""
    parser = argparse.ArgumentParser(
        prog="reason search",
        description="Search a corpus. EMBEDDINGS is the output of an embed job: a folder or job:ID/"
        "embeddings. With --corpus it is a model instead, and the corpus is embedded first; later calls use "
        "the cached embeddings.",
        epilog='example: reason search data/my-model --corpus docs/ "how do I install it"',
    )
    parser.add_argument(
        "embeddings", metavar="EMBEDDINGS", help="a folder or job:ID/embeddings; with --corpus a model"
    )
    parser.add_argument("query", nargs="+", help="one or several queries, each in quotes")
    parser.add_argument("-k", type=int, default=5, help="number of documents for each query (default 5)")
    parser.add_argument(
        "--corpus",
        help="a file or folder of documents, which are cut into passages, or a reference to a dataset",
    )
    parser.add_argument("--model", help="the model, if it has moved since the embeddings were made")
    parser.add_argument("--json", action="store_true", help="print one line of JSON for each query")
    asked = parser.parse_args(arguments)
    if asked.k < 1:
        parser.error("-k must be 1 or more")
    quiet_libraries()
    try:
        return _search(asked)
    except InvalidRequest as error:
        print(f"reason: {error}", file=sys.stderr)
        return 2
    except JobFailure as error:
        inside = "inside the service" in str(error) and not asked.model
        hint = " (--model FOLDER names the folder of the model that made the embeddings)" if inside else ""
        print(f"reason: {error}{hint}", file=sys.stderr)
        return 1


def _search(asked: argparse.Namespace) -> int:
    from core.retrieval.embeddings_page import is_embeddings
    from core.retrieval.stored import StoredEmbeddings  # torch takes seconds to import

    settings = Settings()
    cache = settings.data_dir.absolute() / "cache"
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(asked.embeddings)
        if asked.corpus:
            folder = _embed(asked, Path(scratch) / "out", cache, settings)
        elif not is_embeddings(folder) and is_embeddings(folder / "embeddings"):
            folder /= "embeddings"
        if not folder.is_dir():
            raise BadData(f"{asked.embeddings}: no folder with embeddings found (a model needs --corpus)")
        request = RunRequest(
            job_id="search",
            attempt=1,
            spec={},
            checkpoints=Path(scratch),
            cache=cache,
            offline=settings.offline,
            trust_remote_code=settings.trust_remote_code,
        )
        context = make_context(request, Path(scratch), NullReporter())
        model = local_reference(asked.model) if asked.model else None
        stored = StoredEmbeddings(folder, context, model)
        for query, hits in zip(asked.query, stored.ask(asked.query, asked.k), strict=True):
            if asked.json:
                print(json.dumps({"query": query, "hits": [vars(hit) for hit in hits]}, ensure_ascii=False))
                continue
            print(query)
            for place, hit in enumerate(hits, 1):
                text = " ".join(hit.text.split())[:_SHOWN] if hit.text else ""
                print(f"{place:3}. {hit.score:.4f}  {hit.id}\n     {text}")
    return 0


_CHUNKING = {"min_characters": 300, "max_characters": 1000}
"""Of documents: about 250 tokens, which small models read."""


def _embed(asked: argparse.Namespace, out: Path, cache: Path, settings: Settings) -> Path:
    """The corpus's embeddings, of which those that were made before are in the cache. Documents are cut into
    passages."""
    corpus = asked.corpus
    if _holds_documents(Path(corpus)):
        spec = {"kind": "prepare", "source": corpus, "task": "chunks", "chunking": _CHUNKING}
        corpus = str(_run(localize(spec), out, asked.json, cache, settings, "dataset"))
    spec = localize({"kind": "embed", "model": asked.embeddings, "corpus": corpus})
    return _run(spec, out, asked.json, cache, settings, "embeddings")


def _holds_documents(path: Path) -> bool:
    """Whether a path has Markdown and the like, not rows and not chunks."""
    if not path.exists():
        return False
    form, _ = settle_format(path, "auto")
    return is_documents(form) and form != "chunks"


def _run(spec: dict[str, Any], out: Path, quiet: bool, cache: Path, settings: Settings, output: str) -> Path:
    """An output of a job that runs here. Raises `BadData` for one that fails."""
    reporter = NullReporter() if quiet else ConsoleReporter()
    try:
        result = run_local(
            spec,
            out,
            reporter,
            offline=settings.offline,
            trust_remote_code=settings.trust_remote_code,
            cache=cache,
        )
    finally:
        if isinstance(reporter, ConsoleReporter):
            reporter.close()
    if result.state != "succeeded":
        raise BadData(result.end_reason.message)
    kept = out.with_name(output)
    shutil.move(out / output, kept)
    shutil.rmtree(out, ignore_errors=True)
    return kept


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
