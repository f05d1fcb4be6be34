"""Whether a change of the code changed a result: the sha256 of what each kind of job makes, small, on a CPU.

Run: ``python -m benchmarks.unchanged`` before and after a refactoring and compare (``--write FILE`` keeps the
lines, ``--against FILE`` compares with them and exits with 1 where one differs). Jobs run in this process
with one thread, so that the same machine and the same libraries give the same bits; another machine may not.
Models and texts are drawn here from a seed, so that the lines depend on the code of jobs alone.
"""

import argparse
import hashlib
import json
import random
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

Job = tuple[str, dict[str, Any], dict[str, Any]]
"""(name, spec, options of `run_local`). ``{NAME}`` in a spec is the output folder of the job NAME."""


def make_inputs(folder: Path) -> None:
    """A model of each family, rows, a retrieval set and documents."""
    from tests.tiny import WORDS, make_colbert, make_cross_encoder, make_model

    make_model(folder / "dense", dropout=0.1)
    make_colbert(folder / "colbert", folder / "dense")
    make_cross_encoder(folder / "reranker", folder / "dense")
    drawn = random.Random(0)

    def text(number: int, least: int, most: int) -> str:
        return f"{number} " + " ".join(drawn.choices(WORDS, k=drawn.randint(least, most)))

    rows = []
    for number in range(60):
        query = text(number, 2, 8)
        negatives = [text(1000 + number, 5, 30), text(2000 + number, 5, 30)]
        rows.append({"query": query, "positive": f"{query} {text(number, 5, 30)}", "negatives": negatives})
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    beir = folder / "beir"
    (beir / "qrels").mkdir(parents=True)
    corpus = [{"_id": f"d{number}", "title": "", "text": row["positive"]} for number, row in enumerate(rows)]
    queries = [{"_id": f"q{number}", "text": row["query"]} for number, row in enumerate(rows[:20])]
    (beir / "corpus.jsonl").write_text("".join(json.dumps(row) + "\n" for row in corpus))
    (beir / "queries.jsonl").write_text("".join(json.dumps(row) + "\n" for row in queries))
    judged = "".join(f"q{number}\td{number}\t1\n" for number in range(20))
    (beir / "qrels/test.tsv").write_text("query-id\tcorpus-id\tscore\n" + judged)
    (folder / "documents").mkdir()
    for number in range(12):
        sections = "\n\n".join(
            f"## {text(number, 2, 4)}\n\n"
            + ". ".join(text(part, 8, 20).capitalize() for part in range(12))
            + "."
            for _ in range(4)
        )
        (folder / f"documents/page{number}.md").write_text(f"# {text(number, 2, 5)}\n\n{sections}\n")


def jobs(folder: Path) -> Iterator[Job]:
    """In an order in which each finds what it needs."""
    train = {
        "kind": "train",
        "base_model": f"file:{folder / 'dense'}",
        "dataset": f"file:{folder / 'rows.jsonl'}",
        "batch_size": 8,
        "max_steps": 6,
        "learning_rate": 2e-3,
        "micro_batch_tokens": 256,
        "loss": {"cached": False},
        "resources": {"gpus": 0},
    }
    colbert = {**train, "family": "late_interaction", "base_model": f"file:{folder / 'colbert'}"}
    reranker = {**train, "family": "cross_encoder", "base_model": f"file:{folder / 'reranker'}"}
    data, model = f"file:{folder / 'beir'}", f"file:{folder / 'dense'}"
    yield "dense", {**train, "evaluation": {"datasets": [{"ref": data}], "every_steps": 3}}, {}
    yield "dense-cached", {**train, "loss": {"cached": True, "guide": {"model": model}}}, {}
    yield "dense-lora", {**train, "lora": {"r": 4}}, {}
    yield "dense-two-ranks", train, {"processes": 2}
    yield "dense-sharded", {**train, "sharding": "fsdp"}, {"processes": 2}
    yield "dense-stopped", {**train, "checkpoint": {"every_steps": 2}}, {"stop_at": 3}
    remine = {"num_negatives": 2, "filters": {"positive_aware": None}, "every_epochs": 0.5}
    yield "dense-remined", {**train, "remine": remine}, {}
    yield "colbert", colbert, {}
    yield "colbert-cached-pooled", {**colbert, "loss": {"cached": True}, "prune_embeddings": {}}, {}
    yield "reranker", reranker, {}
    yield "reranker-lora-cached", {**reranker, "loss": {"cached": True}, "lora": {"r": 4}}, {}
    resources = {"resources": {"gpus": 0}}
    mine = {"kind": "mine", "model": model, "dataset": f"file:{folder / 'rows.jsonl'}", **resources}
    yield "mined", {**mine, "num_negatives": 3, "filters": {"positive_aware": 0.99}}, {}
    yield "mined-bm25", {**mine, "model": "bm25", "num_negatives": 2, "sampling": "random"}, {}
    evaluate = {"kind": "evaluate", "datasets": [{"ref": data}], **resources}
    models = [f"file:{folder / 'out/dense/model'}", model, "bm25"]
    yield "evaluated", {**evaluate, "models": models}, {}
    yield "evaluated-reranker", {**evaluate, "models": [f"file:{folder / 'reranker'}", "bm25"]}, {}
    yield "evaluated-colbert", {**evaluate, "models": [f"file:{folder / 'colbert'}"]}, {}
    embed = {"kind": "embed", "model": model, "corpus": data, **resources}
    yield "embedded", embed, {}
    yield "embedded-int8", {**embed, "precision": "int8"}, {}
    documents = {"ref": f"file:{folder / 'documents'}", "format": "markdown"}
    split = {"dev": 0.2, "test": 0.2, "by": "group"}
    yield "prepared", {"kind": "prepare", "source": documents, "task": "triplets", "split": split}, {}


_TIMES = ("manifest.json", "report.json", "report.md", "report.html", "README.md", "result.json")
"""Files that say when and where they were made."""


def hashes(folder: Path) -> Iterator[tuple[str, str]]:
    """(file, sha256) of a job's outputs: of weights the tensors' bytes, of others the file's."""
    from safetensors import safe_open

    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if not path.is_file() or path.name in _TIMES or path.suffix in (".png", ".lock"):
            continue
        if any(part in name for part in ("checkpoints", "cache", "tensorboard", "request.json")):
            continue
        digest = hashlib.sha256()
        if path.suffix == ".safetensors":
            with safe_open(str(path), "numpy") as tensors:
                for key in sorted(tensors.keys()):
                    digest.update(key.encode() + tensors.get_tensor(key).tobytes())
        else:
            digest.update(path.read_bytes())
        yield name, digest.hexdigest()


def run(job: Job, folder: Path) -> None:
    """Into ``folder / "out" / NAME``; one that is to stop is stopped and goes on."""
    from core.jobs.events import Event
    from core.process.local import run_local
    from core.runtime.context import StopSignal
    from core.runtime.reporter import RecordingReporter

    name, spec, options = job
    stop = StopSignal()
    stop_at = options.get("stop_at")

    class Watching(RecordingReporter):
        def emit(self, event: Event) -> None:
            super().emit(event)
            if stop_at is not None and getattr(event.data, "step", 0) >= stop_at:
                stop.request("cancel")

    out = folder / "out" / name
    reporter = Watching()
    result = run_local(spec, out, reporter, stop=stop, processes=options.get("processes"))
    if stop_at is not None:
        if result.state != "cancelled":
            raise RuntimeError(f"{name} did not stop")
        result = run_local(spec, out, RecordingReporter())
    if result.state != "succeeded":
        raise RuntimeError(f"{name}: {result.end_reason}")
    (out / "metrics.json").write_text(json.dumps(result.metrics, sort_keys=True, indent=1))


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--write", type=Path)
    parser.add_argument("--against", type=Path)
    parser.add_argument("--only", default="", help="jobs whose names hold it")
    asked = parser.parse_args(arguments)
    import torch

    torch.set_num_threads(1)
    # The same folder each time: paths stand in configurations.
    folder = Path(tempfile.gettempdir()) / "unchanged"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    lines = []
    try:
        make_inputs(folder)
        for job in jobs(folder):
            if asked.only not in job[0]:
                continue
            run(job, folder)
            for file, digest in hashes(folder / "out" / job[0]):
                lines.append(f"{digest[:16]}  {job[0]}/{file}")
                print(lines[-1], flush=True)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    if asked.write:
        asked.write.write_text("\n".join(lines) + "\n")
    if asked.against:
        return _compare(asked.against.read_text().splitlines(), lines)
    return 0


def _compare(before: list[str], after: list[str]) -> int:
    different = sorted(set(before) ^ set(after), key=lambda line: line.partition("  ")[2])
    for line in different:
        print("before" if line in before else "after ", line, file=sys.stderr)
    print(f"{len(set(before) & set(after))} of {len(before)} are the same", file=sys.stderr)
    return 1 if different else 0


if __name__ == "__main__":
    sys.exit(main())
