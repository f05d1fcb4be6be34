"""The output of mining: rows with negatives, and a report on where they come from."""

import json
from collections import Counter
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from core.artifacts import fresh_folder
from core.data.io.table_files import ParquetFile, read_batches
from core.data.rows.statistics import PREVIEW_ROWS, write_preview
from core.data.training_rows.dataset import SCHEMA, read_split
from core.data.training_rows.page import DatasetPage, read_page
from core.data.training_rows.pairs import is_dataset
from core.jobs.protocol import dump_inputs
from core.mining.choose import Mined
from core.mining.finders import Found
from core.mining.page import MiningPage
from core.mining.read_input import Gathered
from core.reports import Details, Document, Figure, Heading, Listing, Table, Text, write_document
from core.reports.plots import plot_histograms
from core.retrieval.system_facts import SystemFacts
from core.runtime.context import RunContext
from core.spec.mine import MineSpec
from core.spec.parts.filters import RankFilters

MINED = pa.schema([*SCHEMA, ("ranks", pa.large_list(pa.int32()))])
"""``ranks`` of the negatives, from 0 among the documents that are no answers, -1 of a row's own; ``scores``
are the miner's, or those of the cross-encoder that has checked them. Rows that keep negatives of their own
have no scores of the miner."""

NOT_MINED = -1
"""The rank of a row's own negative."""

_LEVELS = ("hard", "medium", "easy")
_EXAMPLES = 5


@dataclass(frozen=True)
class Written:
    """The folders of the dataset and of its report, and the pages that describe them."""

    dataset: Path
    report: Path
    page: DatasetPage
    mining: MiningPage


def write_mined(
    spec: MineSpec,
    context: RunContext,
    gathered: Gathered,
    found: Found,
    mined: Mined,
    facts: SystemFacts,
    *,
    split: str | None = None,
    other_splits: bool = True,
) -> Written:
    """The rows with their negatives as a prepared dataset, and a report.

    ``facts`` say how the candidates were found; ``other_splits`` of a prepared dataset go along.
    """
    work = gathered.rows.parent
    out = fresh_folder(work / "dataset")
    source = context.dataset_path(spec.dataset.ref)
    split = split or spec.dataset.split or "train"
    preview = _write_rows(spec, gathered, mined, out / f"{split}.parquet", context)
    splits = {split: len(gathered.pairs)}
    if other_splits:
        splits |= _other_splits(source, split, out)
    mining = _describe_mining(spec, gathered, mined, facts)
    page = _describe_dataset(spec, context, gathered, mined, mining, splits)
    write_preview(out, {split: preview})
    page.write(out)
    report = fresh_folder(work / "report")
    _write_report(spec, page, mining, preview, found, mined, report)
    return Written(out, report, page, mining)


def publish_mined(spec: MineSpec, context: RunContext, written: Written) -> None:
    """The outputs ``dataset`` and ``report``."""
    context.metrics = {"dataset": {"splits": written.page.splits, "removed": written.mining.removed}}
    metadata = written.page.as_dict("type", "splits", "mining", "licence", "sources", "inputs")
    context.publish("dataset", "dataset", written.dataset, {"name": spec.name or "mined", **metadata})
    context.publish("report", "report", written.report, {"name": "mining report"})


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
        for batch in read_batches(gathered.rows):
            context.check_stop()
            rows = batch.to_pylist()
            queries = gathered.pairs[number : number + len(rows), 0].tolist()
            wanted = np.concatenate([mined.negatives[query] for query in queries] or [np.empty(0, np.int64)])
            texts, ids = gathered.documents.texts(wanted), gathered.documents.ids(wanted)
            begin = 0
            for row, query in zip(rows, queries, strict=True):
                end = begin + len(mined.negatives[query])
                row |= _with_negatives(spec, mined, number, row, query, texts[begin:end], ids[begin:end])
                file.add(row)
                if len(first) < PREVIEW_ROWS:
                    first.append(row)
                begin = end
                number += 1
    return first


def _with_negatives(
    spec: MineSpec,
    mined: Mined,
    number: int,
    row: dict[str, Any],
    query: int,
    texts: list[str],
    ids: list[str],
) -> dict[str, Any]:
    """The columns of a row that mining writes: the mined negatives, and those of its own that stay."""
    ranks = mined.ranks[query].tolist()
    found = [
        [
            {
                "text": text,
                "id": name,
                "rank": rank,
                "score": score,
                "level": difficulty_of(rank, spec.filters),
            }
            for text, name, rank, score in zip(texts, ids, ranks, mined.written[query].tolist(), strict=True)
        ]
    ]
    if own := mined.own.get(number):
        scores = mined.own_scores.get(number)
        kept = [
            {
                "text": row["negatives"][place],
                "id": row["negative_ids"][place] if row["negative_ids"] else "",
                "rank": NOT_MINED,
                "score": scores[index] if scores else None,
                # Behind all ranks, as far as anybody knows.
                "level": row["difficulty"][place] if row["difficulty"] else _LEVELS[-1],
            }
            for index, place in enumerate(own)
        ]
        found.insert(0 if spec.keep_own == "always" else 1, kept)
    negatives = [negative for some in found for negative in some]
    scores = [negative["score"] for negative in negatives]
    return {
        "negatives": [negative["text"] for negative in negatives],
        "negative_ids": [negative["id"] for negative in negatives],
        # All of one scale, or none.
        "scores": [] if None in scores else [float(mined.of_pairs[number]), *scores],
        "ranks": [negative["rank"] for negative in negatives],
        "difficulty": [negative["level"] for negative in negatives],
    }


def _other_splits(source: Path, split: str, out: Path) -> dict[str, int]:
    """What a prepared dataset keeps for evaluation goes along, as it is."""
    if not is_dataset(source) or (page := read_page(source)).type != "triplets":
        return {}
    sizes = {}
    for name, rows in page.splits.items():
        if rows and name != split:
            with ParquetFile(out / f"{name}.parquet", MINED) as file:
                for row in read_split(source, name):
                    file.add(vars(row))
            sizes[name] = file.rows
    return sizes


def _describe_mining(spec: MineSpec, gathered: Gathered, mined: Mined, facts: SystemFacts) -> MiningPage:
    return MiningPage(
        finder=facts,
        queries=len(gathered.queries),
        corpus=gathered.candidates,
        corpus_sha256=gathered.documents.sha256,
        filters=spec.filters.model_dump(mode="json"),
        cross_encoder=mined.checked,
        teacher=mined.teacher,
        sampling=spec.sampling,
        prefer=spec.prefer,
        num_negatives=spec.num_negatives,
        removed=dict(mined.tally.removed),
        queries_by_rank=mined.queries_by_rank,
        negatives_by_rank=sum(int(marks.sum()) for marks in mined.by_rank),
        keep_own=spec.keep_own,
        rows_with_own=len(mined.own),
        negatives_of_rows=sum(map(len, mined.own.values())),
    )


def _describe_dataset(
    spec: MineSpec,
    context: RunContext,
    gathered: Gathered,
    mined: Mined,
    mining: MiningPage,
    splits: dict[str, int],
) -> DatasetPage:
    counts = Counter(
        len(mined.negatives[query]) + len(mined.own.get(row, ()))
        for row, query in enumerate(gathered.pairs[:, 0].tolist())
    )
    if mined.own and mined.written_by_search:
        context.notice(
            f"{len(mined.own)} rows keep negatives of their own (keep_own: {spec.keep_own}); the miner has "
            "not scored those, and these rows have no scores."
        )
    short = sum(rows for count, rows in counts.items() if count < spec.num_negatives)
    if short:
        context.notice(
            f"{short} of {len(gathered.pairs)} rows have fewer than {spec.num_negatives} negatives; "
            f"{counts[0]} have none.",
            "warning",
        )
    source = context.dataset_path(spec.dataset.ref)
    return DatasetPage(
        type="triplets",
        splits=splits,
        read=len(gathered.pairs) + gathered.rejects.count,
        kept=len(gathered.pairs),
        unreadable=gathered.rejects.count,
        rows_by_negatives={str(count): rows for count, rows in sorted(counts.items())},
        mining=mining.for_dataset(),
        licence=read_page(source).licence if is_dataset(source) else None,
        sources=[{"ref": spec.dataset.ref}, *({"ref": ref} for ref in spec.corpora)],
        inputs=dump_inputs(context.request.inputs),
        seed=spec.seed,
    )


def _write_report(
    spec: MineSpec,
    page: DatasetPage,
    mining: MiningPage,
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
    told = {**page.as_dict(), "examples": examples, "spec": spec.model_dump(mode="json")}
    (folder / "report.json").write_text(json.dumps(told, indent=2, ensure_ascii=False), encoding="utf-8")
    plot_histograms({"positives": found.of_pairs, "negatives": negatives}, "score", folder / "scores.png")
    write_document(_document(page, mining, examples, found, negatives), folder)


def _document(
    page: DatasetPage,
    mining: MiningPage,
    examples: list[dict[str, Any]],
    found: Found,
    negatives: np.ndarray,
) -> Document:
    return Document(
        "Mining report",
        [
            Text(
                f"{page.kept} rows, {mining.queries} queries, {mining.corpus} documents, "
                f"{mining.finder.model}."
            ),
            *([Text(f"Tokens of BM25: {tokenizer}.")] if (tokenizer := mining.finder.tokenizer) else []),
            Table(
                ["taken out by", "candidates"],
                [[name, f"{count:,}"] for name, count in mining.removed.items()],
            ),
            *([Text(by_rank)] if (by_rank := _told_by_rank(mining)) else []),
            Table(
                ["negatives of a row", "rows"],
                [[count, f"{rows:,}"] for count, rows in (page.rows_by_negatives or {}).items()],
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


def _told_by_rank(mining: MiningPage) -> str:
    """How many negatives no score of the miner has chosen."""
    told = []
    if mining.negatives_by_rank:
        told.append(
            f"{mining.negatives_by_rank:,} negatives of {mining.queries_by_rank:,} queries are above "
            "the bar and were taken by their rank."
        )
    if mining.rows_with_own:
        told.append(
            f"{mining.rows_with_own:,} rows keep {mining.negatives_of_rows:,} negatives of their own."
        )
    return " ".join(told)


def _middle(scores: np.ndarray) -> str:
    return f"{np.median(scores):.3f} in the middle" if len(scores) else "none"
