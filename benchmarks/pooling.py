"""What fewer vectors a document cost: nDCG@10 and stored vectors of a late-interaction model on SciFact.

Run as ``python -m benchmarks.pooling FOLDER MODEL``. FOLDER is SciFact as BEIR has it, MODEL an encoder's
folder. A ColBERT is trained from it on SciFact's train split, once as usual and once with vectors pooled
while it trains; the corpus is encoded once by each, and what comes out is pruned in every way. Writes
benchmarks/reports/pooling.*.
"""

import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.report import write_report
from core.data.sources.retrieval import read_retrieval
from core.engine.batching import Packing
from core.families.late_interaction import Ragged, make_encode, score_all
from core.families.late_interaction.pooling import prune
from core.process.local import run_local
from core.ranking.metrics import evaluate_run, mean
from core.ranking.rank_set import rank_set
from core.ranking.search import Nearest
from core.runtime.reporter import RecordingReporter
from core.spec.train import PruneEmbeddings

WAYS: dict[str, PruneEmbeddings | None] = {
    "all vectors": None,
    "hierarchical, factor 2": PruneEmbeddings(pool_factor=2),
    "hierarchical, factor 3": PruneEmbeddings(pool_factor=3),
    "hierarchical, factor 4": PruneEmbeddings(pool_factor=4),
    "attention, half": PruneEmbeddings(strategy="attention", keep_ratio=0.5),
}
_DEPTH = 10
_DOCUMENTS = 512


def train(model: Path, data: Path, out: Path, asked: PruneEmbeddings | None) -> Path:
    """The folder of the trained model."""
    spec = {
        "kind": "train",
        "family": "late_interaction",
        "base_model": f"file:{model.resolve()}",
        "dataset": {"ref": f"file:{data.resolve()}", "split": "train"},
        "epochs": 2,
        "batch_size": 32,
        "learning_rate": 1e-4,
        "lengths": {"query": 48, "document": 180},
        "prune_embeddings": asked.model_dump() if asked else None,
        "resources": {"gpus": 0},
        "seed": 1,
    }
    result = run_local(spec, out, RecordingReporter())
    if result.state != "succeeded":
        sys.exit(f"{result.end_reason.message}")
    return out / "model"


def measure(model: Path, data: Path) -> dict[str, dict[str, float]]:
    """For every way the vectors that are stored and nDCG@10 on the test split."""
    from pylate.models import ColBERT

    dataset = read_retrieval(data, "test")
    encode = make_encode(ColBERT(str(model), device="cpu").eval(), Packing(2048, overhead=64), lambda: None)
    queries = encode(list(dataset.queries.values()), "query")
    texts = list(dataset.corpus.values())
    scores: dict[str, list[np.ndarray]] = {way: [] for way in WAYS}
    stored = dict.fromkeys(WAYS, 0)
    for start in range(0, len(texts), _DOCUMENTS):
        documents = encode(texts[start : start + _DOCUMENTS], "document")
        for way, asked in WAYS.items():
            left = documents if asked is None else pruned(documents, asked)
            stored[way] += len(left.vectors)
            scores[way].append(score_all(queries, left).numpy())
    found = {}
    for way in WAYS:
        every = np.concatenate(scores[way], axis=1)  # [queries, documents]
        best = np.argsort(-every, axis=1, kind="stable")[:, :_DEPTH]
        values = np.take_along_axis(every, best, axis=1)
        nearest = Nearest(best, values)
        run = rank_set(dataset, _DEPTH, lambda _, nearest=nearest: nearest)
        ndcg = mean(evaluate_run(dataset.qrels, run, ["ndcg@10"])["ndcg@10"])
        found[way] = {"vectors": stored[way], "ndcg@10": round(ndcg, 4)}
    return found


def pruned(documents: Ragged, asked: PruneEmbeddings) -> Ragged:
    return Ragged.of(
        [prune(torch.from_numpy(documents.text(index)), asked).numpy() for index in range(len(documents))]
    )


def main(data: Path, model: Path) -> None:
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, asked in (("as usual", None), ("pooled by 2", PruneEmbeddings(pool_factor=2))):
            trained = train(model, data, Path(folder) / name.replace(" ", "-"), asked)
            results[name] = measure(trained, data)
            print(name, results[name], flush=True)
    write_report("pooling", results, lambda where: to_markdown(results, where))


def to_markdown(results: dict[str, Any], where: str) -> list[str]:
    lines = [
        "# Fewer vectors a document",
        "",
        f"Measured on {where}. SciFact, test split; a ColBERT of 128 dimensions made from MiniLM by two",
        "epochs of SciFact's train split, documents cut after 180 tokens, trained as usual and with vectors",
        "pooled by 2.",
        "",
        "| trained | stored | vectors | of all | nDCG@10 | change |",
        "|---|---|---:|---:|---:|---:|",
    ]
    for name, found in results.items():
        whole = found["all vectors"]
        for way, values in found.items():
            change = values["ndcg@10"] - whole["ndcg@10"]
            lines.append(
                f"| {name} | {way} | {values['vectors']:,} | {values['vectors'] / whole['vectors']:.0%} | "
                f"{values['ndcg@10']:.4f} | {change:+.4f} |"
            )
    return lines


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
