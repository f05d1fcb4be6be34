"""A mine job: rows and a corpus -> the same rows with negatives, and a page on where they come from."""

import json
import shutil
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from core.artifacts import fresh_folder
from core.data.dataset import SCHEMA, ParquetFile, read_facts, read_parquet, read_split, write_facts
from core.data.documents import AS_WRITTEN, read_passages
from core.data.formats import is_documents, settle_format
from core.data.gathering import batches_of
from core.data.judged import is_bright, is_judged, judged_files, splits_of
from core.data.pairs import TrainingRow, is_dataset, read_pairs
from core.data.readers import Reject
from core.data.rejects import Rejects
from core.data.splits import neighbours
from core.data.statistics import PREVIEW_ROWS, write_preview
from core.mining.filters import Limits, choose, keep
from core.mining.finders import DenseFinder, Finder, Found, LexicalFinder
from core.mining.pool import Pool
from core.run.context import RunContext
from core.spec.mine import Filters, MineSpec
from core.spec.prepare import Format

MINED = pa.schema([*SCHEMA, ("ranks", pa.large_list(pa.int32()))])
"""``ranks`` of the negatives, from 0 among the documents that are no answers; ``scores`` are the miner's."""

_LEVELS = ("hard", "medium", "easy")
_MOST_ANSWERS = 1000
_EXAMPLES = 5
_BINS = 40


@dataclass
class Gathered:
    """The rows in numbers: ``pairs`` [rows] of a query and its positive; the first ``candidates`` documents
    may be negatives."""

    rows: Path
    pairs: np.ndarray
    groups: list[str | None]
    queries: Pool
    documents: Pool
    candidates: int
    rejects: Rejects


@dataclass
class Mined:
    """For each query the numbers of its negatives, their scores and ranks."""

    negatives: list[np.ndarray]
    scores: list[np.ndarray]
    ranks: list[np.ndarray]
    removed: Counter[str]


def mine(spec: MineSpec, context: RunContext) -> None:
    """Read, encode, search, filter, publish. Raises `Stopped` or a `JobFailure`."""
    context.phase("preparing")
    work = fresh_folder(context.folder / "work")
    out = fresh_folder(work / "dataset")
    source = context.dataset_path(spec.dataset.ref)
    gathered = gather(spec, context, source, work)
    answers = answers_of(spec.filters, gathered, context)
    finder: Finder = LexicalFinder(context.check_stop) if spec.model == "bm25" else DenseFinder(spec, context)
    most = min(max((len(found) for found in answers), default=0), _MOST_ANSWERS)
    depth = min(gathered.candidates, spec.filters.range_max + most)
    found = finder.find(gathered.queries, gathered.documents, gathered.candidates, gathered.pairs, depth)
    mined = filter_all(spec, context, gathered, answers, found)
    split = spec.dataset.split or "train"
    preview = write_rows(spec, gathered, found, mined, out / f"{split}.parquet", context)
    splits = {split: len(gathered.pairs), **_other_splits(source, split, out)}
    page = _page(spec, context, gathered, found, mined, finder, splits)
    write_preview(out, {split: preview})
    write_facts(out, "triplets", page)
    _publish(spec, context, gathered, found, mined, page, preview, out)
    shutil.rmtree(work)


def gather(spec: MineSpec, context: RunContext, source: Path, work: Path) -> Gathered:
    """Rows onto the disk, their distinct texts into pools. Raises `BadData`."""
    near = spec.filters.near_duplicates
    threshold = near.threshold if near else None
    queries = Pool(work, "queries", threshold, spec.seed)
    documents = Pool(work, "documents", threshold, spec.seed)
    if spec.corpus is not None:
        for name, text, group in read_corpus(context.dataset_path(spec.corpus)):
            documents.add(text, name, group)
    candidates = len(documents) if spec.corpus is not None else None
    rejects, pairs, groups = Rejects(), [], []
    waiting: list[dict[str, Any]] = []
    with pa.OSFile(str(work / "rows.arrow"), "wb") as sink, pa.ipc.new_file(sink, SCHEMA) as writer:

        def flush() -> None:
            context.check_stop()
            writer.write_table(pa.Table.from_pylist(waiting, schema=SCHEMA))
            waiting.clear()

        for row in read_pairs(source, spec.dataset.split):
            if isinstance(row, Reject):
                rejects.add(row)
                continue
            rejects.kept += 1
            positive = documents.add(row.positive, row.positive_id, row.group)
            if candidates is None:
                for text in row.negatives:
                    documents.add(text)
            pairs.append((queries.add(row.query, row.query_id), positive))
            groups.append(row.group)
            waiting.append(vars(replace(row, negatives=[], scores=[], difficulty=[], negative_ids=[])))
            if len(waiting) == 2048:
                flush()
        flush()
    rejects.check(spec.max_reject_share)
    queries.close()
    documents.close()
    return Gathered(
        work / "rows.arrow",
        np.array(pairs, np.int64),
        groups,
        queries,
        documents,
        len(documents) if candidates is None else candidates,
        rejects,
    )


def read_corpus(path: Path) -> Iterator[tuple[str | None, str, str | None]]:
    """(id, text, group) of every document: of a judged or prepared set, of chunks, of documents, of rows'
    documents.

    Raises `BadData`.
    """
    if is_dataset(path) and (kind := read_facts(path)["type"]) != "triplets":
        for row in read_parquet(path / ("corpus.parquet" if kind == "retrieval" else "chunks.parquet")):
            yield row["id"], row["text"], row.get("document")
    elif not is_dataset(path) and is_judged(path):
        for files in judged_files(path, None if is_bright(path) else next(iter(splits_of(path)))):
            for name, text in files.documents():
                yield name, text, None
    else:
        yield from _documents_of(*settle_format(path, "auto"))


def _documents_of(form: Format, path: Path) -> Iterator[tuple[str | None, str, str | None]]:
    if is_documents(form):
        for found in read_passages(path, form, None, AS_WRITTEN):
            if not isinstance(found, Reject):
                yield found.id, found.text, found.document
        return
    for row in read_pairs(path):
        if isinstance(row, TrainingRow):
            yield row.positive_id, row.positive, row.group
            for text in row.negatives:
                yield None, text, None


def answers_of(filters: Filters, gathered: Gathered, context: RunContext) -> list[set[int]]:
    """For each query the documents that answer it, nearly repeat one that does, or share its group."""
    answers: list[set[int]] = [set() for _ in range(len(gathered.queries))]
    alike = _Alike(gathered.documents)
    context.check_stop()
    of_group: dict[int, list[int]] = defaultdict(list)
    groups = gathered.documents.groups()
    if not filters.same_group:
        for number, group in enumerate(groups.tolist()):
            if group >= 0:
                of_group[group].append(number)
    for query, positive in gathered.pairs.tolist():
        answers[query] |= alike.of(positive)
        if not filters.same_group and groups[positive] >= 0:
            answers[query].update(of_group[int(groups[positive])])
    # What answers a query answers those that ask the same, or nearly.
    alike = _Alike(gathered.queries)
    return [
        set().union(*(answers[other] for other in alike.of(query))) for query in range(len(gathered.queries))
    ]


class _Alike:
    """Which texts of a pool say the same, or nearly."""

    def __init__(self, pool: Pool) -> None:
        self._first, near = pool.near()
        self._near = neighbours(near)
        self._repeats: dict[int, list[int]] = defaultdict(list)  # of each first one
        for number in np.flatnonzero(self._first != np.arange(len(self._first))).tolist():
            self._repeats[int(self._first[number])].append(number)

    def of(self, number: int) -> set[int]:
        """The text, those that say the same, and those that nearly do."""
        first = int(self._first[number])
        firsts = (first, *self._near.get(first, ()))
        return set(firsts).union(*(self._repeats.get(text, ()) for text in firsts))


def filter_all(
    spec: MineSpec, context: RunContext, gathered: Gathered, answers: list[set[int]], found: Found
) -> Mined:
    """Every query's candidates through the filters, and the chosen of them."""
    asked = spec.filters
    limits = Limits(
        asked.range_min,
        asked.range_max,
        asked.min_score,
        asked.max_score,
        asked.absolute_margin,
        asked.relative_margin,
        asked.positive_aware,
    )
    of_query: dict[int, list[float]] = defaultdict(list)
    for (query, _), score in zip(gathered.pairs.tolist(), found.of_pairs.tolist(), strict=True):
        of_query[query].append(score)
    mined = Mined([], [], [], Counter())
    for query in range(len(gathered.queries)):
        if query % 4096 == 0:
            context.check_stop()
        left = keep(
            found.documents[query],
            found.scores[query],
            answers[query],
            of_query[query],
            limits,
            mined.removed,
        )
        places = choose(left, spec.num_negatives, spec.sampling, (spec.seed, query))
        mined.negatives.append(left.documents[places])
        mined.scores.append(left.scores[places])
        mined.ranks.append(left.ranks[places])
    return mined


def difficulty_of(rank: int, filters: Filters) -> str:
    """By thirds of the ranks that may be: the nearest are the hard ones."""
    third = (rank - filters.range_min) * len(_LEVELS) // (filters.range_max - filters.range_min)
    return _LEVELS[min(max(third, 0), len(_LEVELS) - 1)]


def write_rows(
    spec: MineSpec, gathered: Gathered, found: Found, mined: Mined, path: Path, context: RunContext
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
                    "scores": [float(found.of_pairs[number]), *mined.scores[query].tolist()],
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
    if not is_dataset(source) or read_facts(source).get("type") != "triplets":
        return {}
    sizes = {}
    for name, rows in read_facts(source)["splits"].items():
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
    found: Found,
    mined: Mined,
    finder: Finder,
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
            **finder.facts,
            "queries": len(gathered.queries),
            "corpus": gathered.candidates,
            "filters": spec.filters.model_dump(mode="json"),
            "sampling": spec.sampling,
            "num_negatives": spec.num_negatives,
            "removed": dict(sorted(mined.removed.items())),
        },
        "licence": read_facts(source).get("licence") if is_dataset(source) else None,
        "sources": [{"ref": spec.dataset.ref}, *([{"ref": spec.corpus}] if spec.corpus else [])],
        "inputs": context.request.inputs,
        "seed": spec.seed,
    }


def _publish(
    spec: MineSpec,
    context: RunContext,
    gathered: Gathered,
    found: Found,
    mined: Mined,
    page: dict[str, Any],
    preview: list[dict[str, Any]],
    out: Path,
) -> None:
    context.phase("publishing")
    negatives = np.concatenate([*mined.scores, np.empty(0, np.float32)])
    context.metrics = {"dataset": {"splits": page["splits"], "removed": page["mining"]["removed"]}}
    report = fresh_folder(out.parent / "report")
    examples = [
        {
            "query": row["query"],
            "positive": row["positive"][:300],
            "negatives": [text[:300] for text in row["negatives"]],
        }
        for row in islice(preview, _EXAMPLES)
    ]
    told = {**page, "examples": examples, "spec": spec.model_dump(mode="json")}
    (report / "report.json").write_text(json.dumps(told, indent=2, ensure_ascii=False), encoding="utf-8")
    (report / "report.md").write_text(_markdown(page, examples, found, negatives), encoding="utf-8")
    plot_scores(found.of_pairs, negatives, report / "scores.png")
    metadata = {name: page[name] for name in ("splits", "mining", "licence", "sources", "inputs")}
    context.publish("dataset", "dataset", out, {"name": spec.name or "mined", "type": "triplets", **metadata})
    context.publish("report", "report", report, {"name": "mining report"})


def _markdown(
    page: dict[str, Any], examples: list[dict[str, Any]], found: Found, negatives: np.ndarray
) -> str:
    mining = page["mining"]
    lines = [
        "# Mining report",
        "",
        f"{page['kept']} rows, {mining['queries']} queries, {mining['corpus']} documents, {mining['model']}.",
        "",
        "| taken out by | candidates |",
        "|---|---:|",
        *(f"| {name} | {count:,} |" for name, count in mining["removed"].items()),
        "",
        "| negatives of a row | rows |",
        "|---|---:|",
        *(f"| {count} | {rows:,} |" for count, rows in page["rows_by_negatives"].items()),
        "",
        f"Scores: positives {_middle(found.of_pairs)}, negatives {_middle(negatives)}. ![scores](scores.png)",
    ]
    for example in examples:
        lines += ["", f"**{example['query'][:200]}**", "", f"- positive: {example['positive'][:200]!r}"]
        lines += [f"- negative: {text[:200]!r}" for text in example["negatives"]]
    return "\n".join(lines) + "\n"


def _middle(scores: np.ndarray) -> str:
    return f"{np.median(scores):.3f} in the middle" if len(scores) else "none"


def plot_scores(positives: np.ndarray, negatives: np.ndarray, path: Path) -> None:
    """Both histograms on one scale."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    both = np.concatenate([positives, negatives])
    bins = np.linspace(both.min(), both.max() + 1e-6, _BINS) if len(both) else _BINS
    for values, name in ((positives, "positives"), (negatives, "negatives")):
        if len(values):
            axes.hist(values, bins=bins, alpha=0.6, density=True, label=f"{len(values):,} {name}")
    axes.set_xlabel("score")
    axes.set_ylabel("density")
    axes.legend()
    figure.savefig(path, dpi=110)
