"""What a mine job makes: the rows with their negatives, and a page on where they come from."""

import json
from collections import Counter
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from core.artifacts import fresh_folder
from core.data.dataset import SCHEMA, ParquetFile, read_facts, read_split, write_facts
from core.data.gathering import batches_of
from core.data.pairs import is_dataset
from core.data.statistics import PREVIEW_ROWS, write_preview
from core.mining.choose import Mined
from core.mining.finders import Found
from core.mining.gather import Gathered
from core.reports import Details, Document, Figure, Heading, Listing, Table, Text, write_document
from core.reports.plots import plot_histograms
from core.run.context import RunContext
from core.spec.filters import RankFilters
from core.spec.mine import MineSpec

MINED = pa.schema([*SCHEMA, ("ranks", pa.large_list(pa.int32()))])
"""``ranks`` of the negatives, from 0 among the documents that are no answers; ``scores`` are the miner's, or
those of the cross-encoder that has checked them."""

_LEVELS = ("hard", "medium", "easy")
_EXAMPLES = 5


def publish_mined(
    spec: MineSpec,
    context: RunContext,
    gathered: Gathered,
    found: Found,
    mined: Mined,
    facts: dict[str, Any],
) -> None:
    """The outputs ``dataset`` and ``report``. ``facts`` say how the candidates were found."""
    context.phase("publishing")
    work = gathered.rows.parent
    out = fresh_folder(work / "dataset")
    source = context.dataset_path(spec.dataset.ref)
    split = spec.dataset.split or "train"
    preview = _write_rows(spec, gathered, mined, out / f"{split}.parquet", context)
    splits = {split: len(gathered.pairs), **_other_splits(source, split, out)}
    page = _page(spec, context, gathered, mined, facts, splits)
    write_preview(out, {split: preview})
    write_facts(out, "triplets", page)
    context.metrics = {"dataset": {"splits": page["splits"], "removed": page["mining"]["removed"]}}
    _write_report(spec, page, preview, found, mined, fresh_folder(work / "report"))
    metadata = {name: page[name] for name in ("splits", "mining", "licence", "sources", "inputs")}
    context.publish("dataset", "dataset", out, {"name": spec.name or "mined", "type": "triplets", **metadata})
    context.publish("report", "report", work / "report", {"name": "mining report"})


def difficulty_of(rank: int, filters: RankFilters) -> str:
    """By thirds of the ranks that may be: the nearest are the hard ones."""
    third = (rank - filters.range_min) * len(_LEVELS) // (filters.range_max - filters.range_min)
    return _LEVELS[min(max(third, 0), len(_LEVELS) - 1)]


def _write_rows(
    spec: MineSpec, gathered: Gathered, mined: Mined, path: Path, context: RunContext
) -> list[dict[str, Any]]:
    """The rows with their negatives. Returns the first of them."""
    first: list[dict[str, Any]] = []
    number = 0
    with ParquetFile(path, MINED) as file:
        for batch in batches_of(gathered.rows):
            context.check_stop()
            rows = batch.to_pylist()
            queries = gathered.pairs[number : number + len(rows), 0].tolist()
            wanted = np.concatenate([mined.negatives[query] for query in queries] or [np.empty(0, np.int64)])
            texts, ids = gathered.documents.texts(wanted), gathered.documents.ids(wanted)
            begin = 0
            for row, query in zip(rows, queries, strict=True):
                end = begin + len(mined.negatives[query])
                ranks = mined.ranks[query].tolist()
                row |= {
                    "negatives": texts[begin:end],
                    "negative_ids": ids[begin:end],
                    "scores": [float(mined.of_pairs[number]), *mined.written[query].tolist()],
                    "ranks": ranks,
                    "difficulty": [difficulty_of(rank, spec.filters) for rank in ranks],
                }
                file.add(row)
                if len(first) < PREVIEW_ROWS:
                    first.append(row)
                begin = end
                number += 1
    return first


def _other_splits(source: Path, split: str, out: Path) -> dict[str, int]:
    """What a prepared dataset keeps for evaluation goes along, as it is."""
    facts = read_facts(source) if is_dataset(source) else {}
    if facts.get("type") != "triplets":
        return {}
    sizes = {}
    for name, rows in facts["splits"].items():
        if rows and name != split:
            with ParquetFile(out / f"{name}.parquet", MINED) as file:
                for row in read_split(source, name):
                    file.add(vars(row))
            sizes[name] = file.rows
    return sizes


def _page(
    spec: MineSpec,
    context: RunContext,
    gathered: Gathered,
    mined: Mined,
    facts: dict[str, Any],
    splits: dict[str, int],
) -> dict[str, Any]:
    counts = Counter(len(mined.negatives[query]) for query in gathered.pairs[:, 0].tolist())
    short = sum(rows for count, rows in counts.items() if count < spec.num_negatives)
    if short:
        context.notice(
            f"{short} of {len(gathered.pairs)} rows have fewer than {spec.num_negatives} negatives; "
            f"{counts[0]} have none.",
            "warning",
        )
    source = context.dataset_path(spec.dataset.ref)
    return {
        "splits": splits,
        "read": len(gathered.pairs) + gathered.rejects.count,
        "kept": len(gathered.pairs),
        "unreadable": gathered.rejects.count,
        "rows_by_negatives": {str(count): rows for count, rows in sorted(counts.items())},
        "mining": {
            **facts,
            "queries": len(gathered.queries),
            "corpus": gathered.candidates,
            "corpus_sha256": gathered.documents.sha256,
            "filters": spec.filters.model_dump(mode="json"),
            "cross_encoder": mined.checked,
            "teacher": mined.teacher,
            "sampling": spec.sampling,
            "prefer": spec.prefer,
            "num_negatives": spec.num_negatives,
            "removed": dict(mined.removed),
        },
        "licence": read_facts(source).get("licence") if is_dataset(source) else None,
        "sources": [{"ref": spec.dataset.ref}, *({"ref": ref} for ref in spec.corpora)],
        "inputs": context.request.inputs,
        "seed": spec.seed,
    }


def _write_report(
    spec: MineSpec,
    page: dict[str, Any],
    preview: list[dict[str, Any]],
    found: Found,
    mined: Mined,
    folder: Path,
) -> None:
    negatives = np.concatenate([*mined.scores, np.empty(0, np.float32)])
    examples = [
        {
            "query": row["query"],
            "positive": row["positive"][:300],
            "negatives": [text[:300] for text in row["negatives"]],
        }
        for row in islice(preview, _EXAMPLES)
    ]
    told = {**page, "examples": examples, "spec": spec.model_dump(mode="json")}
    (folder / "report.json").write_text(json.dumps(told, indent=2, ensure_ascii=False), encoding="utf-8")
    plot_histograms({"positives": found.of_pairs, "negatives": negatives}, "score", folder / "scores.png")
    write_document(_document(page, examples, found, negatives), folder)


def _document(
    page: dict[str, Any], examples: list[dict[str, Any]], found: Found, negatives: np.ndarray
) -> Document:
    mining = page["mining"]
    return Document(
        "Mining report",
        [
            Text(
                f"{page['kept']} rows, {mining['queries']} queries, {mining['corpus']} documents, "
                f"{mining['model']}."
            ),
            *([Text(f"Tokens of BM25: {mining['tokenizer']}.")] if "tokenizer" in mining else []),
            Table(
                ["taken out by", "candidates"],
                [[name, f"{count:,}"] for name, count in mining["removed"].items()],
            ),
            Table(
                ["negatives of a row", "rows"],
                [[count, f"{rows:,}"] for count, rows in page["rows_by_negatives"].items()],
            ),
            Heading("Scores"),
            Text(f"Positives {_middle(found.of_pairs)}, negatives {_middle(negatives)}."),
            Figure("scores.png", "Scores of positives and of the negatives that were taken"),
            Heading("Examples"),
            *(
                Details(
                    example["query"][:200],
                    [
                        Listing(
                            [
                                f"positive: {example['positive'][:200]!r}",
                                *(f"negative: {text[:200]!r}" for text in example["negatives"]),
                            ]
                        )
                    ],
                )
                for example in examples
            ),
        ],
    )


def _middle(scores: np.ndarray) -> str:
    return f"{np.median(scores):.3f} in the middle" if len(scores) else "none"
