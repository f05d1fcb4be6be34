"""Answers searches until its input ends: a request of JSON on each line, an answer of JSON on each line.

The API starts it on its own host to try models (`POST /search`): it must not load torch itself, and a model
that is loaded once answers in milliseconds. Requests: ``{"settings", "embeddings", "model", "inputs",
"query", "k"}``. ``settings`` are fields of a `RunRequest`, ``embeddings`` and ``model`` are references whose
meaning is in ``inputs``; without a model that of the embeddings' page counts. Answers: ``{"model", "hits"}``
or ``{"problem"}``.
"""

import json
import sys
import tempfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

from core.data.sources.inputs import make_context
from core.errors import JobFailure
from core.jobs.protocol import RunRequest
from core.process.attempt import quiet_libraries
from core.runtime.reporter import NullReporter

_OPEN = 4
"""Embeddings, each with its model, that stay open: the least used is closed first."""

_SHOWN = 1000


def main() -> int:
    """Exit status 0."""
    quiet_libraries()
    answers = sys.stdout
    sys.stdout = sys.stderr  # whatever libraries print is no answer
    with tempfile.TemporaryDirectory() as scratch:
        opened: OrderedDict[str, Any] = OrderedDict()
        for line in sys.stdin:
            print(json.dumps(_answer(json.loads(line), opened, Path(scratch))), file=answers, flush=True)
    return 0


def _answer(asked: dict[str, Any], opened: "OrderedDict[str, Any]", scratch: Path) -> dict[str, Any]:
    from core.retrieval.stored import StoredEmbeddings  # torch takes seconds to import

    key = json.dumps([asked["inputs"][asked["embeddings"]], asked["model"]], sort_keys=True)
    try:
        if key not in opened:
            while len(opened) >= _OPEN:
                opened.popitem(last=False)
            request = RunRequest.model_validate(
                {**asked["settings"], "job_id": "search", "attempt": 1, "spec": {}, "checkpoints": scratch}
                | {"inputs": asked["inputs"]}
            )
            context = make_context(request, scratch, NullReporter())
            folder = context.resolve(asked["embeddings"])
            assert isinstance(folder, Path)
            opened[key] = StoredEmbeddings(folder, context, asked["model"])
        opened.move_to_end(key)
        [hits] = opened[key].ask([asked["query"]], asked["k"])
    except JobFailure as error:
        return {"problem": str(error)}
    shown = [{"id": hit.id, "score": hit.score, "text": hit.text and hit.text[:_SHOWN]} for hit in hits]
    return {"model": opened[key].page.model, "hits": shown}


if __name__ == "__main__":
    sys.exit(main())
