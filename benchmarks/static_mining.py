"""Mining with static embeddings against mining with the transformer that they were distilled from.

Run as ``python -m benchmarks.static_mining MODEL [--passages 100000] [--queries 10000] [--docs ARCHIVE]``.
Corpus and queries are those of `benchmarks.mining`. The static models are made here, because none can be
had without a hub: each token of the vocabulary goes through MODEL alone (Model2Vec, Tulkens and van Dongen
2024); a second one is then trained by `kind: train` on headings of other passages.
"""

import argparse
import json
import os
import random
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.mining import SETTINGS, describe, make_data, run_job, share_of_same
from benchmarks.report import write_report

_DOCS = Path(__file__).parents[1].parent / "shared" / "data" / "docs_cpp" / "cpp-docs_md.tar.gz"
_DIMENSION = 256
_SIF = 1e-4
_JUDGED = 500
_USUAL = "MiniLM"
TRAINING = {"batch_size": 1024, "learning_rate": 0.02, "epochs": 1}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("model", type=Path)
    parser.add_argument("--passages", type=int, default=100_000)
    parser.add_argument("--queries", type=int, default=10_000)
    parser.add_argument("--max-length", type=int, default=256, help="tokens of a text, of MODEL")
    parser.add_argument(
        "--characters", type=int, nargs=2, default=(100, 800), help="of a passage: least, most"
    )
    parser.add_argument("--report", default="static_mining", help="the report's name")
    parser.add_argument("--docs", type=Path, default=_DOCS)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["REASON_DATA_DIR"] = name  # a cache of its own: nothing is encoded already
        facts = make_data(asked.docs, folder, asked.passages, asked.queries, tuple(asked.characters))
        distilled = distill(asked.model, folder / "distilled")
        seconds, pairs = train(folder, distilled)
        models = {
            "static, distilled": (distilled, None),
            "static, distilled and trained": (folder / "trained" / "model", None),
            _USUAL: (asked.model.resolve(), asked.max_length),
        }
        arms, rows = {}, {}
        for arm, (model, length) in models.items():
            arms[arm], rows[arm] = mine(folder, model, length)
            arms[arm]["cosine"] = nearness(asked.model, rows[arm])
            print(arm, arms[arm], flush=True)
    results: dict[str, Any] = {
        "settings": SETTINGS,
        "max_length": asked.max_length,
        "precision": _fastest_precision(),
        **facts,
        "dimension": _DIMENSION,
        "training": {**TRAINING, "pairs": pairs, "seconds": round(seconds, 1)},
        "arms": arms,
        "same_negatives": {
            arm: share_of_same(found, rows[_USUAL]) for arm, found in rows.items() if "static" in arm
        },
    }
    write_report(asked.report, results, lambda where: to_markdown(results, where))


def distill(model: Path, folder: Path) -> Path:
    """A table of what the model makes of each token alone: centred, its main directions, and rare tokens
    weighing more than frequent ones, whose rank is their place in the vocabulary."""
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.models import StaticEmbedding

    teacher = SentenceTransformer(str(model), device="cpu")
    tokenizer = teacher.tokenizer
    ids = torch.arange(len(tokenizer))
    around = tokenizer("a", return_special_tokens_mask=True)
    first, last = around["input_ids"][0], around["input_ids"][-1]
    found = []
    with torch.inference_mode():
        for part in ids.split(512):
            whole = torch.stack([torch.full_like(part, first), part, torch.full_like(part, last)], 1)
            features = {"input_ids": whole, "attention_mask": torch.ones_like(whole)}
            found.append(teacher(features)["sentence_embedding"])
    vectors = torch.cat(found)
    vectors -= vectors.mean(0)
    _, _, directions = torch.pca_lowrank(vectors, _DIMENSION, center=False)
    frequency = 1 / (2 + ids)
    weight = _SIF / (_SIF + frequency / frequency.sum())
    table = StaticEmbedding(tokenizer, embedding_weights=(vectors @ directions) * weight[:, None])
    table.tokenizer.no_truncation()
    SentenceTransformer(modules=[table], device="cpu").save_pretrained(str(folder), create_model_card=False)
    return folder


def train(folder: Path, base: Path) -> tuple[float, int]:
    """(seconds, pairs): `kind: train` on headings of the corpus that are not among the queries."""
    import pyarrow.parquet as pq

    chunks = folder / "chunks" / "dataset" / "chunks.parquet"
    asked = {json.loads(line)["positive"] for line in (folder / "pairs.jsonl").read_text().splitlines()}
    rows = pq.read_table(chunks, columns=["text", "queries"]).to_pylist()
    pairs = {row["text"]: row["queries"][0] for row in rows if row["queries"] and row["text"] not in asked}
    lines = [json.dumps({"query": query, "positive": text}) + "\n" for text, query in pairs.items()]
    (folder / "training.jsonl").write_text("".join(lines))
    spec = {
        "kind": "train",
        "base_model": f"file:{base}",
        "dataset": f"file:{folder / 'training.jsonl'}",
        **TRAINING,
    }
    seconds, _ = run_job(spec, folder / "trained")
    return seconds, len(pairs)


def _fastest_precision() -> str:
    """bf16 on a CPU whose instructions it has, where it is twice as fast as fp32; elsewhere it is slower."""
    flags = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    return "bf16" if "avx512_bf16" in flags or "amx_bf16" in flags else "fp32"


def mine(folder: Path, model: Path, max_length: int | None) -> tuple[dict[str, Any], list[Any]]:
    import pyarrow.parquet as pq

    spec = {
        "kind": "mine",
        "dataset": f"file:{folder / 'pairs.jsonl'}",
        "corpus": f"file:{folder / 'corpus.jsonl'}",
        "model": f"file:{model}",
        "num_negatives": SETTINGS["num_negatives"],
        "filters": {"range_max": SETTINGS["range_max"], "positive_aware": SETTINGS["positive_aware"]},
    }
    if max_length is not None:
        spec |= {"max_length": max_length, "precision": _fastest_precision()}
    out = folder / "mined" / str(model).strip("/").replace("/", "-")
    out.parent.mkdir(exist_ok=True)
    seconds, peak = run_job(spec, out)
    found = pq.read_table(out / "dataset" / "train.parquet").to_pylist()
    rows = [[row["query"], row["positive"], row["negatives"]] for row in found]
    return describe(seconds, peak, rows), rows


def nearness(model: Path, rows: list[Any]) -> dict[str, float]:
    """Mean cosine, by the model, of queries with their positives and with their negatives; of a sample."""
    from sentence_transformers import SentenceTransformer

    judge = SentenceTransformer(str(model), device="cpu")
    drawn = random.Random(0).sample([row for row in rows if row[2]], _JUDGED)

    def cosine(texts: list[tuple[str, str]]) -> float:
        queries, documents = (
            judge.encode(side, normalize_embeddings=True) for side in zip(*texts, strict=True)
        )
        return round(float((queries * documents).sum(1).mean()), 4)

    return {
        "positives": cosine([(query, positive) for query, positive, _ in drawn]),
        "negatives": cosine([(query, text) for query, _, negatives in drawn for text in negatives]),
    }


def to_markdown(results: dict[str, Any], where: str) -> list[str]:
    usual, trained = results["arms"][_USUAL], results["training"]
    about = (
        f"{results['pairs']:,} queries, {results['passages']:,} passages of the C++ documentation, "
        f"{results['characters']} characters on average. MiniLM reads {results['max_length']} tokens in "
        f"{results['precision']}, static embeddings of {results['dimension']} dimensions all; "
        f"{results['settings']}. The trained ones saw "
        f"{trained['pairs']:,} headings of other passages once, in {trained['seconds']:.0f} s."
    )
    titles = ("seconds", "against MiniLM", "peak RSS", "negatives", "MiniLM's as well", "cosine by MiniLM")
    lines = [
        "# Mining with static embeddings",
        "",
        f"Measured on {where}, each arm in a process of its own, start-up included.",
        "",
        about,
        "",
        f"| miner | {' | '.join(titles)} |",
        f"|---|{'---:|' * len(titles)}",
    ]
    for name, found in results["arms"].items():
        same = results["same_negatives"].get(name)
        cells = [
            name,
            f"{found['seconds']:,.0f}",
            f"{usual['seconds'] / found['seconds']:.1f}x",
            f"{found['peak_rss_bytes'] / 1e9:.2f} GB",
            f"{found['negatives']:,}",
            "" if same is None else f"{same:.1%}",
            f"{found['cosine']['negatives']:.3f} ({found['cosine']['positives']:.3f})",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    lines += ["", f"Cosine: of queries with negatives (with positives), of {_JUDGED} queries with negatives."]
    return lines


if __name__ == "__main__":
    main()
