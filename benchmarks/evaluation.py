"""Evaluating and embedding for real: MiniLM on SciFact, two seeds and a broken model, a large corpus.

Run as ``python -m benchmarks.evaluation MODEL DATA [--passages 100000]``: MODEL is all-MiniLM-L6-v2 as a
folder, DATA has ``scifact/`` (BEIR) and ``docs_cpp/``. Writes evaluation.json and evaluation.md.

1. SciFact's test queries at 256 tokens, ours and sentence-transformers' InformationRetrievalEvaluator, each
   in a process of its own, start-up included; ours also in the precisions that vectors are stored in.
2. Two seeds of one recipe on the standard library's pairs against each other, and a model that training
   broke: the first should be no difference, the second worse.
3. An embed job over the C++ documentation that is killed in the middle, and goes on.
"""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.processes import measure
from benchmarks.report import write_report

_PUBLISHED = 0.6451
"""nDCG@10 of all-MiniLM-L6-v2 on SciFact, as MTEB's board has it."""

_METRICS = ["ndcg@10", "mrr@10", "recall@100"]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("model", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("--passages", type=int, default=100_000)
    parser.add_argument("--max-length", type=int, default=64, help="of the passages")
    parser.add_argument("--peer", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.peer:
        theirs(asked.model, asked.data, asked.peer)
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["REASON_DATA_DIR"] = name  # a cache of its own: nothing is encoded already
        results = {
            "scifact": scifact(asked, folder),
            "seeds": seeds(asked, folder),
            "embed": interrupted(asked, folder),
        }
    write_report("evaluation", results, lambda where: to_markdown(results, where))


def run_job(spec: dict[str, Any], out: Path) -> tuple[float, int]:
    """(seconds, peak bytes) of `reason run`."""
    return measure(command_of(spec, out))


def command_of(spec: dict[str, Any], out: Path) -> list[str]:
    path = out.with_suffix(".spec.json")
    path.write_text(json.dumps({"resources": {"gpus": 0}, **spec}))
    return [sys.executable, "-m", "core.cli.run", str(path), "--out", str(out)]


def report_of(out: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((out / "report" / "report.json").read_text())
    return found


# -- 1 -----------------------------------------------------------------------------------------------


def scifact(asked: argparse.Namespace, folder: Path) -> dict[str, Any]:
    spec = {
        "kind": "evaluate",
        "models": [{"ref": f"file:{asked.model.resolve()}", "name": "MiniLM", "max_length": 256}],
        "datasets": [{"ref": f"file:{(asked.data / 'scifact').resolve()}", "split": "test"}],
        "metrics": _METRICS,
    }
    seconds, peak = run_job(spec, folder / "scifact")
    found = report_of(folder / "scifact")
    ours = {
        "seconds": round(seconds, 1),
        "peak_rss_bytes": peak,
        **next(iter(found["scores"]["MiniLM"].values())),
    }
    print(ours, flush=True)
    command = [sys.executable, "-m", "benchmarks.evaluation", str(asked.model), str(asked.data)]
    seconds, peak = measure([*command, "--peer", str(folder / "theirs.json")])
    peer = json.loads((folder / "theirs.json").read_text())
    peer = {"seconds": round(seconds, 1), "peak_rss_bytes": peak, **peer}
    print(peer, flush=True)
    # The embeddings are in the cache by now: this measures what stores and searches cost.
    precisions = {
        **spec,
        "precisions": ["float16", "int8", "binary"],
        "dimensions": [192],
        "latency_queries": 100,
    }
    seconds, _ = run_job(precisions, folder / "precisions")
    again = report_of(folder / "precisions")
    return {
        "published_ndcg@10": _PUBLISHED,
        "ours": ours,
        "sentence-transformers": peer,
        "again_seconds": round(seconds, 1),
        "precisions": next(iter(again["precisions"]["MiniLM"].values())),
        "latency_ms": next(iter(again["latency_ms"]["MiniLM"].values())),
        "documents": next(iter(again["datasets"].values()))["documents"],
    }


def theirs(model: Path, data: Path, out: Path) -> None:
    """The peer, in a process of its own."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.evaluation import InformationRetrievalEvaluator

    from core.data.retrieval_sets.judged_folders import read_judged

    dataset = read_judged(data / "scifact", "test")
    bi_encoder = SentenceTransformer(str(model), device="cpu", model_kwargs={"torch_dtype": "float32"})
    bi_encoder.max_seq_length = 256
    relevant = {
        query: {name for name, grade in grades.items() if grade > 0}
        for query, grades in dataset.qrels.items()
    }
    evaluator = InformationRetrievalEvaluator(
        dataset.queries, dataset.corpus, relevant, ndcg_at_k=[10], mrr_at_k=[10], precision_recall_at_k=[100]
    )
    found = evaluator(bi_encoder)
    names = {"ndcg@10": "cosine_ndcg@10", "mrr@10": "cosine_mrr@10", "recall@100": "cosine_recall@100"}
    out.write_text(json.dumps({ours: float(found[name]) for ours, name in names.items()}))


# -- 2 -----------------------------------------------------------------------------------------------


def seeds(asked: argparse.Namespace, folder: Path) -> dict[str, Any]:
    made = [sys.executable, "-m", "core.data.documents.python_source", str(folder / "stdlib"), "all", "all"]
    subprocess.run(made, check=True, capture_output=True)
    recipe = {
        "kind": "train",
        "base_model": f"file:{asked.model.resolve()}",
        "dataset": f"file:{folder / 'stdlib' / 'train.jsonl'}",
        "lengths": {"query": 48, "document": 96},
        "learning_rate": 1e-4,
        "sample": 1600,
    }
    for name, change in (("one", {"seed": 1}), ("two", {"seed": 2}), ("broken", {"learning_rate": 3e-2})):
        run_job({**recipe, **change}, folder / name)
    spec = {
        "kind": "evaluate",
        "models": [
            *({"ref": f"file:{folder / name / 'model'}", "name": name} for name in ("two", "broken")),
            {"ref": f"file:{asked.model.resolve()}", "name": "base"},
            {"ref": f"file:{folder / 'one' / 'model'}", "name": "one"},
        ],
        "datasets": [{"ref": f"file:{folder / 'stdlib' / 'test.jsonl'}", "name": "stdlib"}],
        "metrics": ["ndcg@10"],
    }
    seconds, _ = run_job(spec, folder / "seeds")
    found = report_of(folder / "seeds")
    print(found["comparisons"], flush=True)
    return {"scores": found["scores"], "comparisons": found["comparisons"], "seconds": round(seconds, 1)}


# -- 3 -----------------------------------------------------------------------------------------------


def interrupted(asked: argparse.Namespace, folder: Path) -> dict[str, Any]:
    import pyarrow.parquet as pq

    spec = {
        "kind": "prepare",
        "source": f"file:{next((asked.data / 'docs_cpp').glob('*.tar.gz')).resolve()}",
        "task": "chunks",
        "chunking": {"min_characters": 100, "max_characters": 800},
    }
    run_job(spec, folder / "chunks")
    rows = pq.read_table(folder / "chunks" / "dataset" / "chunks.parquet", columns=["id", "text"]).to_pylist()
    rows = random.Random(0).sample(rows, min(asked.passages, len(rows)))
    corpus = folder / "corpus.jsonl"
    corpus.write_text("".join(json.dumps({"_id": row["id"], "text": row["text"]}) + "\n" for row in rows))
    embed = {
        "kind": "embed",
        "model": f"file:{asked.model.resolve()}",
        "corpus": f"file:{corpus}",
        "max_length": asked.max_length,
        "precision": "int8",
    }
    out, kept = folder / "vectors", folder / "cache" / "embeddings"
    before = set(kept.glob("*/[!.]*.npy"))
    half = len(rows) // 2048 // 2
    begun = time.monotonic()
    process = subprocess.Popen(command_of(embed, out), stderr=subprocess.DEVNULL)
    while len(set(kept.glob("*/[!.]*.npy")) - before) < half and process.poll() is None:
        time.sleep(0.1)
    process.send_signal(signal.SIGKILL)
    process.wait()
    killed_after = time.monotonic() - begun
    first = {path: path.stat().st_mtime_ns for path in set(kept.glob("*/[!.]*.npy")) - before}
    inodes = {path: path.stat().st_ino for path in first}
    seconds, peak = run_job(embed, out)
    untouched = all(path.stat().st_ino == inode for path, inode in inodes.items())
    page = json.loads((out / "embeddings" / "embeddings.json").read_text())
    binary, _ = run_job({**embed, "precision": "binary"}, folder / "binary")
    small = json.loads((folder / "binary" / "embeddings" / "embeddings.json").read_text())
    return {
        "passages": len(rows),
        "max_length": asked.max_length,
        "killed_after_seconds": round(killed_after, 1),
        "shards_before": len(first),
        "shards_untouched": untouched,
        "resumed_seconds": round(seconds, 1),
        "peak_rss_bytes": peak,
        "int8_bytes": page["bytes"],
        "binary_bytes": small["bytes"],
        "float32_bytes": 4 * page["dimension"] * len(rows),
        "binary_seconds": round(binary, 1),
    }


def to_markdown(results: dict[str, Any], where: str) -> list[str]:
    found, seeded, embedded = (results[name] for name in ("scifact", "seeds", "embed"))
    ours, peer = found["ours"], found["sentence-transformers"]
    latency = found["latency_ms"]["total"]
    lines = [
        "# Evaluation",
        "",
        where,
        "",
        "## SciFact, test, all-MiniLM-L6-v2 at 256 tokens",
        "",
        f"Published nDCG@10: {found['published_ndcg@10']}.",
        "",
        "| | seconds | peak GB | " + " | ".join(_METRICS) + " |",
        "|---|---:|---:|" + "---:|" * len(_METRICS),
    ]
    for name, arm in (("ours", ours), ("InformationRetrievalEvaluator", peer)):
        values = " | ".join(f"{arm[metric]:.4f}" for metric in _METRICS)
        lines.append(f"| {name} | {arm['seconds']:.1f} | {arm['peak_rss_bytes'] / 1e9:.2f} | {values} |")
    lines += [
        "",
        f"{peer['seconds'] / ours['seconds']:.2f}x, start-up included.",
        "",
        f"From the cache, with what follows, and 100 queries by the clock: {found['again_seconds']} s.",
        "",
        f"A query: {latency['median']:.1f} ms, 95 % {latency['p95']:.1f} ms.",
        "",
        "| stored as | dimensions | bytes a vector | " + " | ".join(_METRICS) + " |",
        "|---|---:|---:|" + "---:|" * len(_METRICS),
    ]
    for item in found["precisions"]:
        values = " | ".join(f"{item['scores'][metric]:.4f}" for metric in _METRICS)
        name = item["precision"] + (", rescored" if item["rescored"] else "")
        lines.append(f"| {name} | {item['dimension']} | {item['bytes_per_vector']} | {values} |")
    lines += ["", "## Two seeds, a broken model, and the base, against the first seed", ""]
    lines += [f"- {item['model']}: {item['verdict']}" for item in seeded["comparisons"]]
    megabytes = {name: embedded[f"{name}_bytes"] / 1e6 for name in ("float32", "int8", "binary")}
    lines += [
        "",
        "## An embed job that is killed",
        "",
        f"{embedded['passages']:,} passages of the C++ documentation at {embedded['max_length']} tokens.",
        "",
        "| | |",
        "|---|---:|",
        f"| SIGKILL after | {embedded['killed_after_seconds']} s |",
        f"| shards that were there | {embedded['shards_before']} |",
        f"| of them written again | {'none' if embedded['shards_untouched'] else 'SOME'} |",
        f"| second run | {embedded['resumed_seconds']} s |",
        f"| its peak | {embedded['peak_rss_bytes'] / 1e9:.2f} GB |",
        f"| as binary, from the cache | {embedded['binary_seconds']} s |",
        *(f"| {name} | {size:.1f} MB |" for name, size in megabytes.items()),
    ]
    return lines


if __name__ == "__main__":
    main()
