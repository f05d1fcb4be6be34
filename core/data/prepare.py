"""A prepare job: data as it is found -> one clean dataset, with a page on what became of every row."""

import json
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from itertools import count, product
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from core.data.dataset import SCHEMA, SplitWriter, write_facts
from core.data.near_duplicates import NearDuplicates
from core.data.pairs import TrainingRow, read_pairs
from core.data.readers import Reject
from core.data.rejects import Rejects
from core.data.splits import Components, assign, key_of, smallest_names
from core.errors import BadData, BadSpec
from core.run.context import RunContext
from core.spec.prepare import Cleaning, Dedup, PrepareSpec, Source

_ROWS = 4096
_CATEGORIES = 100


@dataclass
class Census:
    """What has become of the records, and what the rows are like."""

    unreadable: Rejects = field(default_factory=Rejects)
    left_out: Counter[str] = field(default_factory=Counter)  # reason -> rows
    dropped_negatives: int = 0
    lengths: dict[str, list[int]] = field(
        default_factory=lambda: {"query": [], "positive": [], "negative": []}
    )
    categories: Counter[str] = field(default_factory=Counter)

    def count(self, row: TrainingRow) -> None:
        self.unreadable.kept += 1
        self.lengths["query"].append(len(row.query))
        self.lengths["positive"].append(len(row.positive))
        self.lengths["negative"] += [len(text) for text in row.negatives]
        self.categories[row.category or ""] += 1

    def statistics(self) -> dict[str, Any]:
        """Characters by role (mean, percentiles, longest), negatives a row, rows by category."""
        rows = max(len(self.lengths["query"]), 1)
        return {
            "characters": {role: _describe(values) for role, values in self.lengths.items() if values},
            "negatives_per_row": round(len(self.lengths["negative"]) / rows, 2),
            "categories": {name: rows for name, rows in self.categories.most_common(_CATEGORIES) if name},
        }


def prepare(spec: PrepareSpec, context: RunContext) -> None:
    """Read, clean, tell duplicates, split, publish. Raises `Stopped` or a `JobFailure`."""
    context.phase("preparing")
    work = context.folder / "work"
    shutil.rmtree(work, ignore_errors=True)
    out = work / "dataset"
    out.mkdir(parents=True)
    components, names, census = _gather(spec, context, work / "rows.arrow", out / "rejects.jsonl")
    shares = {"test": spec.split.test, "dev": spec.split.dev}
    roots = components.roots()
    splits = assign(roots, smallest_names(roots, names), shares, spec.seed)
    sizes = _write_splits(work / "rows.arrow", out, [*shares, "train"], splits, context.check_stop)
    for name, share in shares.items():
        if share > 0 and not sizes[name]:
            raise BadData(
                f"split.{name} {share:g} of {len(roots)} rows cannot be had by {spec.split.by}: what belongs "
                f"together has up to {int(np.bincount(roots).max())} rows. Split by text, or ask for more."
            )
    if not sizes["train"]:
        raise BadData("the splits leave nothing to train on")
    rejects = census.unreadable.count
    facts = {
        "splits": sizes,
        "read": census.unreadable.kept + rejects + sum(census.left_out.values()),
        "kept": census.unreadable.kept,
        "unreadable": rejects,
        "left_out": dict(census.left_out.most_common()),
        "dropped_negatives": census.dropped_negatives,
        "statistics": census.statistics(),
        "licence": spec.licence,
        "sources": [source.model_dump(mode="json", exclude_defaults=True) for source in spec.sources],
        "inputs": context.request.inputs,
        "split": spec.split.model_dump(mode="json"),
        "seed": spec.seed,
    }
    write_facts(out, facts)
    context.metrics = {
        "dataset": {name: facts[name] for name in ("splits", "read", "kept", "unreadable", "left_out")}
    }
    rows = ", ".join(f"{name} {number}" for name, number in sizes.items() if number)
    context.notice(f"{facts['read']} records read, {facts['kept']} rows kept: {rows}.")
    context.phase("publishing")
    metadata = {name: facts[name] for name in ("splits", "licence", "sources", "inputs")}
    context.publish("dataset", "dataset", out, {"name": spec.name or "dataset", **metadata})
    shutil.rmtree(work)


def _gather(
    spec: PrepareSpec, context: RunContext, path: Path, rejects_path: Path
) -> tuple[Components, list[bytes], Census]:
    """All rows that stay, into an Arrow file; what links them; a name of each; and the census."""
    components, census = Components(), Census()
    names: list[bytes] = []
    repetitions = _Repetitions(spec.dedup, spec.seed)
    waiting: list[dict[str, Any]] = []
    with (
        pa.OSFile(str(path), "wb") as sink,
        pa.ipc.new_stream(sink, SCHEMA) as writer,
        rejects_path.open("w", encoding="utf-8") as rejects,
    ):

        def flush() -> None:
            writer.write_table(pa.Table.from_pylist(waiting, schema=SCHEMA))
            waiting.clear()
            context.check_stop()

        for number, record in enumerate(_records(spec, context)):
            if number % _ROWS == _ROWS - 1:
                flush()
            if isinstance(record, Reject):
                census.unreadable.add(record)
                rejects.write(json.dumps(vars(record), ensure_ascii=False) + "\n")
                continue
            row, dropped = _clean(record, spec.cleaning)
            census.dropped_negatives += dropped
            name = key_of(row.query, row.positive)
            links = _links(row, spec.split.by)
            reason = _fault(row, spec.cleaning) or repetitions.fault(row, name, links)
            if reason:
                census.left_out[reason] += 1
                line = {"reason": reason, "query": row.query[:200], "positive": row.positive[:200]}
                rejects.write(json.dumps(line, ensure_ascii=False) + "\n")
                continue
            names.append(name)
            components.add(links)
            census.count(row)
            waiting.append(vars(row))
        flush()
    if not census.unreadable.count and not census.left_out:
        rejects_path.unlink()
    census.unreadable.check(spec.max_reject_share)
    return components, names, census


def _records(spec: PrepareSpec, context: RunContext) -> Iterator[TrainingRow | Reject]:
    for source in spec.sources:
        path = context.resolve(source.ref)
        if not isinstance(path, Path):
            raise BadSpec(f"{source.ref} is not data in files")
        if not path.exists():
            raise BadData(f"{source.ref}: there is no such file or folder")
        for record in read_pairs(
            path, source.split, {str(name): there for name, there in source.columns.items()}
        ):
            yield _with_category(record, source)


def _with_category(record: TrainingRow | Reject, source: Source) -> TrainingRow | Reject:
    if isinstance(record, Reject) or record.category is not None or source.category is None:
        return record
    return replace(record, category=source.category)


def _clean(row: TrainingRow, cleaning: Cleaning) -> tuple[TrainingRow, int]:
    """Without white space around texts, and without negatives that are too short, too long or there twice."""
    kept: dict[str, int] = {}
    for index, text in enumerate(row.negatives):
        stripped = text.strip()
        if _within(stripped, cleaning.min_document, cleaning.max_document):
            kept.setdefault(stripped, index)
    kept.pop(row.positive.strip(), None)
    scores = row.scores and [row.scores[0], *(row.scores[1 + index] for index in kept.values())]
    cleaned = replace(
        row,
        query=row.query.strip(),
        positive=row.positive.strip(),
        negatives=list(kept),
        scores=scores,
    )
    return cleaned, len(row.negatives) - len(kept)


def _fault(row: TrainingRow, cleaning: Cleaning) -> str | None:
    if not _within(row.query, cleaning.min_query, cleaning.max_query):
        return "query too short" if len(row.query) < cleaning.min_query else "query too long"
    if not _within(row.positive, cleaning.min_document, cleaning.max_document):
        return "positive too short" if len(row.positive) < cleaning.min_document else "positive too long"
    if row.query == row.positive:
        return "the positive is the query"
    return None


def _within(text: str, least: int, most: int | None) -> bool:
    return least <= len(text) and (most is None or len(text) <= most)


class _Repetitions:
    """Which rows have been said before, or nearly."""

    def __init__(self, asked: Dedup, seed: int) -> None:
        self._exact = asked.exact
        self._names: set[bytes] = set()
        self._pairs: set[tuple[int, int]] = set()  # numbers of query and positive
        self._near = [NearDuplicates(asked.near.threshold, seed) for _ in range(2)] if asked.near else []

    def fault(self, row: TrainingRow, name: bytes, links: list[bytes]) -> str | None:
        """Why the row is left out. None: it counts as said, and ``links`` grow by what it is near to."""
        if self._exact and name in self._names:
            return "said before"
        if self._near:
            queries, positives = self._near[0].add(row.query), self._near[1].add(row.positive)
            if any(pair in self._pairs for pair in product(queries, positives)):
                return "nearly said before"
            self._pairs.add((queries[0], positives[0]))
            links += [key_of("near query", str(number)) for number in queries]
            links += [key_of("near positive", str(number)) for number in positives]
        self._names.add(name)
        return None


def _links(row: TrainingRow, by: str) -> list[bytes]:
    """What keeps a row together with others."""
    links = [key_of("query", row.query), key_of("document", row.positive)]
    whole = {"group": row.group, "category": row.category}.get(by)
    if by != "text":
        if whole is None:
            raise BadData(f"split.by {by}: a row has no {by}: {row.query[:80]!r}")
        links.append(key_of(by, whole))
    return links


def _write_splits(
    path: Path, out: Path, names: list[str], splits: np.ndarray, check_stop: Callable[[], None]
) -> dict[str, int]:
    """Rows into a file for each split that has any. Returns rows by split, the training's first."""
    with ExitStack() as stack:
        writers = {index: SplitWriter(out, names[index]) for index in sorted(set(splits.tolist()))}
        for writer in writers.values():
            stack.callback(writer.close)
        rows = count()
        with pa.memory_map(str(path)) as source, pa.ipc.open_stream(source) as batches:
            for batch in batches:
                check_stop()
                for values in batch.to_pylist():
                    writers[int(splits[next(rows)])].add(TrainingRow(**values))
    sizes = {name: writers[index].rows if index in writers else 0 for index, name in enumerate(names)}
    return {name: sizes[name] for name in reversed(names)}


def _describe(values: list[int]) -> dict[str, float]:
    lengths = np.array(values)
    return {
        "mean": round(float(lengths.mean()), 1),
        **{f"p{share}": int(np.percentile(lengths, share)) for share in (50, 90, 95)},
        "longest": int(lengths.max()),
    }
