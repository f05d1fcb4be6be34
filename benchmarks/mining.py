"""Mining against ``mine_hard_negatives``: the same model, pairs, corpus and limits; then search at size.

Run as ``python -m benchmarks.mining MODEL [--passages 100000] [--queries 10000] [--docs ARCHIVE]``. MODEL is
a sentence-transformers folder. The corpus are the passages of the C++ documentation, as `kind: prepare` cuts
them; queries are their headings and descriptions. Every arm is a process of its own, start-up included, and
encodes everything itself.
"""

import argparse
import json
import os
import random
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.processes import measure
from benchmarks.report import write_report

_DOCS = Path(__file__).parents[1].parent / "shared" / "data" / "docs_cpp" / "cpp-docs_md.tar.gz"
_DIM = 384
_SHARD = 2048
_ASKED = 2000
SETTINGS = {"num_negatives": 4, "range_max": 100, "positive_aware": 0.95}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("model", type=Path)
    parser.add_argument("--passages", type=int, default=100_000)
    parser.add_argument("--queries", type=int, default=10_000)
    parser.add_argument("--max-length", type=int, default=256, help="tokens of a text")
    parser.add_argument("--batch-size", type=int, default=32, help="of mine_hard_negatives")
    parser.add_argument("--vectors", type=int, nargs="*", default=[100_000, 1_000_000])
    parser.add_argument("--bf16", action="store_true", help="also ours in bf16")
    parser.add_argument("--docs", type=Path, default=_DOCS)
    parser.add_argument("--peer", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--search", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.peer:
        theirs(asked.peer, asked.model, asked.max_length, asked.batch_size)
    elif asked.search:
        search_alone(asked.search)
    else:
        compare(asked)


def compare(asked: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["REASON_DATA_DIR"] = name  # a cache of its own: nothing is encoded already
        facts = make_data(asked.docs, folder, asked.passages, asked.queries)
        results: dict[str, Any] = {
            "settings": SETTINGS,
            "max_length": asked.max_length,
            "peer_batch_size": asked.batch_size,
            **facts,
            "arms": {},
            "search": [],
        }
        for precision in ("fp32", *(["bf16"] if asked.bf16 else [])):
            results["arms"][f"ours, {precision}"] = ours(asked, folder, precision)
            print(results["arms"], flush=True)
        command = [sys.executable, "-m", "benchmarks.mining", str(asked.model), "--peer", str(folder)]
        command += ["--max-length", str(asked.max_length), "--batch-size", str(asked.batch_size)]
        seconds, peak = measure(command)
        rows = json.loads((folder / "theirs.json").read_text())
        results["arms"]["mine_hard_negatives, fp32"] = describe(seconds, peak, rows)
        print(results["arms"], flush=True)
        results["same_negatives"] = share_of_same(json.loads((folder / "fp32.json").read_text()), rows)
        for count in asked.vectors:
            results["search"].append(search_of(folder / "vectors", count))
            print(results["search"], flush=True)
    write_report("mining", results, lambda where: to_markdown(results, where))


def make_data(
    docs: Path, folder: Path, passages: int, queries: int, characters: tuple[int, int] = (100, 800)
) -> dict[str, int]:
    """``corpus.jsonl`` and ``pairs.jsonl``: distinct passages of so many ``characters``, and what their
    headings ask for."""
    import pyarrow.parquet as pq

    spec = {
        "kind": "prepare",
        "source": f"file:{docs}",
        "task": "chunks",
        "chunking": {"min_characters": characters[0], "max_characters": characters[1]},
    }
    run_job(spec, folder / "chunks")
    rows = pq.read_table(
        folder / "chunks" / "dataset" / "chunks.parquet", columns=["text", "queries"]
    ).to_pylist()
    distinct = {row["text"]: row["queries"] for row in rows}
    drawn = random.Random(0)
    texts = drawn.sample(sorted(distinct), min(passages, len(distinct)))
    able = [text for text in texts if distinct[text]]
    pairs = [
        {"query": distinct[text][0], "positive": text} for text in drawn.sample(able, min(queries, len(able)))
    ]
    for name, lines in (("corpus", [{"text": text} for text in texts]), ("pairs", pairs)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return {"passages": len(texts), "pairs": len(pairs), "characters": sum(map(len, texts)) // len(texts)}


def run_job(spec: dict[str, Any], out: Path) -> tuple[float, int]:
    """(seconds, peak bytes) of `reason run`."""
    path = out.with_suffix(".spec.json")
    path.write_text(json.dumps(spec))
    return measure([sys.executable, "-m", "core.cli.run", str(path), "--out", str(out), "--overwrite"])


def ours(asked: argparse.Namespace, folder: Path, precision: str) -> dict[str, Any]:
    import pyarrow.parquet as pq

    spec = {
        "kind": "mine",
        "dataset": f"file:{folder / 'pairs.jsonl'}",
        "corpus": f"file:{folder / 'corpus.jsonl'}",
        "model": f"file:{asked.model.resolve()}",
        "max_length": asked.max_length,
        "precision": precision,
        "num_negatives": SETTINGS["num_negatives"],
        "filters": {
            "range_max": SETTINGS["range_max"],
            "positive_aware": SETTINGS["positive_aware"],
            # What the peer does not do.
            "near_duplicates": None,
            "same_group": True,
        },
    }
    seconds, peak = run_job(spec, folder / precision)
    found = pq.read_table(folder / precision / "dataset" / "train.parquet").to_pylist()
    rows = [[row["query"], row["positive"], row["negatives"]] for row in found]
    (folder / f"{precision}.json").write_text(json.dumps(rows))
    return describe(seconds, peak, rows)


def theirs(folder: Path, model: Path, max_length: int, batch_size: int) -> None:
    """The peer's rows, as ours are kept: in a process of its own."""
    from datasets import Dataset
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.util import mine_hard_negatives

    def read(name: str) -> list[dict[str, str]]:
        return [json.loads(line) for line in (folder / f"{name}.jsonl").read_text().splitlines()]

    bi_encoder = SentenceTransformer(str(model), device="cpu", model_kwargs={"torch_dtype": "float32"})
    bi_encoder.max_seq_length = max_length
    mined = mine_hard_negatives(
        Dataset.from_list(read("pairs")),
        bi_encoder,
        anchor_column_name="query",
        positive_column_name="positive",
        corpus=[row["text"] for row in read("corpus")],
        range_max=SETTINGS["range_max"],
        relative_margin=1 - SETTINGS["positive_aware"],
        num_negatives=SETTINGS["num_negatives"],
        sampling_strategy="top",
        output_format="triplet",
        batch_size=batch_size,
        verbose=False,
    )
    rows: dict[tuple[str, str], list[str]] = {(row["query"], row["positive"]): [] for row in read("pairs")}
    for row in mined:
        rows[row["query"], row["positive"]].append(row["negative"])
    (folder / "theirs.json").write_text(json.dumps([[*pair, negatives] for pair, negatives in rows.items()]))


def describe(seconds: float, peak: int, rows: list[Any]) -> dict[str, Any]:
    return {
        "seconds": round(seconds, 1),
        "peak_rss_bytes": peak,
        "negatives": sum(len(negatives) for _, _, negatives in rows),
    }


def share_of_same(one: list[Any], other: list[Any]) -> float:
    """Of the first one's negatives those that the other has for the same pair."""
    known = {(query, positive): set(negatives) for query, positive, negatives in other}
    same = sum(len(known[query, positive] & set(negatives)) for query, positive, negatives in one)
    return round(same / max(1, sum(len(negatives) for _, _, negatives in one)), 4)


def search_of(folder: Path, count: int) -> dict[str, Any]:
    """Seconds and peak memory of the search alone, over random vectors that lie on disk."""
    folder.mkdir(exist_ok=True)
    for path in folder.iterdir():
        path.unlink()
    drawn = np.random.default_rng(0)
    for number, start in enumerate(range(0, count, _SHARD)):
        vectors = drawn.standard_normal((min(_SHARD, count - start), _DIM), np.float32)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        np.save(folder / f"{number:06}.npy", vectors)
    _, peak = measure([sys.executable, "-m", "benchmarks.mining", "-", "--search", str(folder)])
    inside = json.loads((folder / "found.json").read_text())
    return {"vectors": count, "queries": _ASKED, "peak_rss_bytes": peak, "seconds": inside["seconds"]}


def search_alone(folder: Path) -> None:
    import time

    from core.ranking.search import search, shard_vectors

    asked = np.random.default_rng(1).standard_normal((_ASKED, _DIM), np.float32)
    begun = time.monotonic()
    search(asked, shard_vectors(sorted(folder.glob("*.npy"))), 100)
    (folder / "found.json").write_text(json.dumps({"seconds": round(time.monotonic() - begun, 1)}))


def to_markdown(results: dict[str, Any], where: str) -> list[str]:
    peer = results["arms"]["mine_hard_negatives, fp32"]
    about = (
        f"{results['pairs']:,} queries, {results['passages']:,} passages of the C++ documentation, "
        f"{results['characters']} characters on average, MiniLM at {results['max_length']} tokens; "
        f"{results['settings']}."
    )
    lines = [
        "# Mining",
        "",
        f"Measured on {where}, each arm in a process of its own, start-up included.",
        "",
        about,
        "",
        "| | seconds | against the peer | peak RSS | negatives |",
        "|---|---:|---:|---:|---:|",
    ]
    for name, found in results["arms"].items():
        cells = [
            name,
            f"{found['seconds']:,.0f}",
            f"{peer['seconds'] / found['seconds']:.2f}x",
            f"{found['peak_rss_bytes'] / 1e9:.2f} GB",
            f"{found['negatives']:,}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    lines += ["", f"Of our fp32 negatives {results['same_negatives']:.1%} are the peer's as well."]
    if results["search"]:
        lines += ["", "Search alone, exact, 100 of each:", "", "| vectors | queries | seconds | peak RSS |"]
        lines += ["|---:|---:|---:|---:|"]
    for found in results["search"]:
        lines.append(
            f"| {found['vectors']:,} of {_DIM} | {found['queries']:,} | {found['seconds']:.1f} | "
            f"{found['peak_rss_bytes'] / 1e9:.2f} GB |"
        )
    return lines


if __name__ == "__main__":
    main()
