"""A prepare job: data as it is found -> one clean dataset, with a page on what became of every record."""

import json
import math
import shutil
from collections import defaultdict
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from core.artifacts import fresh_folder
from core.data.dedup.mixing import mix
from core.data.prepared.negatives import LEVELS, Chosen, choose
from core.data.prepared.read_sources import Gathered, Opened, batches_of, gather, open_sources
from core.data.prepared.retrieval_set import write_judged, write_retrieval
from core.data.prepared.splits import assign, components, first_of_each, mark_near_duplicates, neighbours
from core.data.retrieval_sets.judged_folders import is_judged
from core.data.rows.statistics import PREVIEW_ROWS, Statistics, write_preview
from core.data.training_rows.dataset import CHUNKS, SCHEMA, ParquetFile, read_facts, write_facts
from core.data.training_rows.pairs import is_dataset
from core.errors import BadData, BadSpec
from core.runtime.context import RunContext
from core.spec.prepare import Balance, PrepareSpec
from core.spec.unused import unused_in_preparation

_REASONIR_LICENCE = "CC BY-NC 4.0 (ReasonIR)"


class _Counting(Statistics):
    """Counts tables of rows, and keeps the first of each split to show."""

    def __init__(self) -> None:
        super().__init__()
        self.preview: dict[str, list[dict[str, Any]]] = defaultdict(list)

    def count(self, rows: pa.Table, split: str) -> None:
        for role, column in (("query", "query"), ("positive", "positive"), ("negative", "negatives")):
            values = rows.column(column)
            self._count(role, pc.list_flatten(values) if role == "negative" else values)
        self.categories.update(_counted(rows.column("category")))
        self.difficulty.update(_counted(pc.list_flatten(rows.column("difficulty"))))
        self._show(rows, split)

    def count_passages(self, passages: pa.Table) -> None:
        self._count("passage", passages.column("text"))
        self.categories.update(_counted(passages.column("category")))
        self._show(passages, "chunks")

    def _count(self, role: str, texts: Any) -> None:
        self.lengths[role].update(_counted(pc.utf8_length(texts)))

    def _show(self, rows: pa.Table, split: str) -> None:
        shown = self.preview[split]
        if len(shown) < PREVIEW_ROWS:
            shown += rows.slice(0, PREVIEW_ROWS - len(shown)).to_pylist()


def _counted(values: Any) -> dict[Any, int]:
    counts = values.value_counts().to_pylist()
    return {item["values"]: item["counts"] for item in counts if item["values"] is not None}


def prepare(spec: PrepareSpec, context: RunContext) -> None:
    """Read, clean, tell repetitions, split, draw negatives, publish. Raises `Stopped` or a `JobFailure`."""
    context.phase("preparing")
    work = fresh_folder(context.folder / "work")
    out = fresh_folder(work / "dataset")
    sources = open_sources(spec, context, work)
    task = settle_task(spec, sources)
    page: dict[str, Any] = {"task": task}
    judged = task == "retrieval" and all(_is_judged(opened) for opened in sources)
    documents = any(opened.documents for opened in sources)
    context.tell_unused(unused_in_preparation(spec, task, documents=documents, judged=judged))
    if judged:
        page |= write_judged(spec, context, sources, out)
        kind = "retrieval"
    else:
        rejects = out / "rejects.jsonl"
        gathered = gather(spec, context, sources, work, rejects)
        kind = {"retrieval": "retrieval", "chunks": "chunks"}.get(task, "triplets")
        if task == "chunks":
            page |= _write_chunks(gathered, out, context)
        else:
            page |= _write_rows(spec, context, gathered, out, rejects, task)
        page |= _accounts(gathered, page["rows"])
        _tell_unreadable(gathered, context)
        if not rejects.stat().st_size:
            rejects.unlink()
    facts = {
        **page,
        "licence": _licence(spec, sources, page),
        "sources": [source.model_dump(mode="json", exclude_defaults=True) for source in spec.sources],
        "inputs": context.request.inputs,
        "split": spec.split.model_dump(mode="json"),
        "seed": spec.seed,
    }
    write_facts(out, kind, facts)
    _tell(facts, task, context)
    context.phase("publishing")
    told = ("splits", "statistics", "licence", "sources", "inputs")
    metadata = {name: facts[name] for name in told if name in facts}
    context.publish("dataset", "dataset", out, {"name": spec.name or "dataset", "type": kind, **metadata})
    shutil.rmtree(work)


def settle_task(spec: PrepareSpec, sources: list[Opened]) -> str:
    """What ``auto`` means for these sources. Raises `BadSpec` for a task that cannot be done with them."""
    documents = [opened for opened in sources if opened.documents]
    if spec.task == "auto":
        return "triplets" if documents else "columns"
    if spec.task in ("columns", "reasonir_hq") and documents:
        raise BadSpec(
            f"task {spec.task} is about rows, and {documents[0].source.ref} holds documents: triplets?"
        )
    if spec.task == "chunks" and len(documents) < len(sources):
        rows = next(opened for opened in sources if not opened.documents)
        raise BadSpec(f"task chunks is about documents, and {rows.source.ref} holds rows")
    return spec.task


def _is_judged(opened: Opened) -> bool:
    if is_dataset(opened.path):
        return read_facts(opened.path).get("type") == "retrieval"
    return not opened.documents and is_judged(opened.path)


def _licence(spec: PrepareSpec, sources: list[Opened], page: dict[str, Any]) -> str | None:
    """What was said, or those of the prepared datasets that it is made from."""
    if spec.licence is not None:
        return spec.licence
    found = [read_facts(opened.path).get("licence") for opened in sources if is_dataset(opened.path)]
    if _has_reasonir(page):
        found.append(_REASONIR_LICENCE)
    return "; ".join(dict.fromkeys(licence for licence in found if licence)) or None


def _has_reasonir(page: dict[str, Any]) -> bool:
    """Pairs are counted of ReasonIR's rows alone, however they were found out to be."""
    return any(name.startswith("positive: ") for name in page.get("pairs", {}))


def _accounts(gathered: Gathered, rows: int) -> dict[str, Any]:
    """What became of every record."""
    unreadable = gathered.unreadable.count
    return {
        "read": rows + unreadable + sum(gathered.left_out.values()),
        "kept": rows,
        "unreadable": unreadable,
        "lines": gathered.unreadable.lines or None,
        "left_out": dict(gathered.left_out.most_common()),
        "dropped_negatives": gathered.dropped_negatives,
        "pairs": {name: count for name, count in sorted(gathered.pairs.items()) if count},
    }


def _tell_unreadable(gathered: Gathered, context: RunContext) -> None:
    found = gathered.unreadable
    if not found.count:
        return
    context.notice(
        f"{found.count:,} of {found.read:,} lines ({found.count / found.read:.1%}) cannot be used and are "
        f"left out; the first: {found.examples[0]}. All of them are in rejects.jsonl.",
        "warning",
    )


def _write_rows(
    spec: PrepareSpec, context: RunContext, gathered: Gathered, out: Path, rejects: Path, task: str
) -> dict[str, Any]:
    """Rows into splits, with negatives where they come from passages. Returns the page of it."""
    verdict = _repetitions(spec, gathered)
    names = list(_SPLITS)
    belonging = components(gathered.queries, gathered.positives, gathered.labels)
    shares = {name: getattr(spec.split, name) for name in ("test", "dev")}
    # Of all rows, left out or not: which of two near ones stays depends on their order, their split does not.
    splits = assign(belonging, gathered.names, shares, spec.seed).astype(np.int8)
    if task == "retrieval" and not any(shares.values()):
        splits[:] = 0
    verdict, told = _balance(spec.balance, gathered, verdict, splits, spec.seed)
    for sentence in told:
        context.notice(sentence, "warning")
    kept = verdict == 0
    if not kept.any():
        raise BadData("nothing is left of the rows")
    splits[~kept] = -1
    sizes = {name: int((splits == index).sum()) for index, name in enumerate(names)}
    _check_splits(spec, belonging[kept], shares, sizes, task)
    chosen = _negatives(spec, context, gathered, splits) if task != "retrieval" else None
    statistics = _Counting()
    with rejects.open("a", encoding="utf-8") as rejected:

        def each(batch: pa.Table, rows: slice) -> None:
            context.check_stop()
            _tell_left_out(gathered, batch, verdict[rows], rejected)

        if task == "retrieval":

            def count_too(batch: pa.Table, rows: slice) -> None:
                each(batch, rows)
                for index, name in enumerate(names):
                    statistics.count(batch.filter(pa.array(splits[rows] == index)), name)

            counted = write_retrieval(gathered, splits, names, out, count_too)
        else:
            _write_splits(gathered, splits, names, out, chosen, statistics, each)
            counted = {"splits": {name: sizes[name] for name in reversed(names)}}
    page = {
        "rows": int(kept.sum()),
        **counted,
        "statistics": statistics.page(),
    }
    write_preview(out, {split: found for split, found in statistics.preview.items() if found})
    if len(gathered.passages):
        page["passages"] = {
            "all": len(gathered.passages),
            "nobody_asks_for": gathered.unasked,
            "longer_than_asked": gathered.oversized,
        }
    if chosen is not None:
        page["negatives"] = _negatives_page(spec, chosen, context)
    _warn_of_categories(spec, gathered, kept, context)
    return page


_SPLITS = ("test", "dev", "train")
"""In the order of their numbers."""

_UNBALANCED = 3
_FEW_LEFT = 0.5
"""Of a split's rows: where balancing keeps a smaller share, that is said."""
_REASONS = {1: "said before", 2: "nearly said before", 3: "more than its category's share"}


def _repetitions(spec: PrepareSpec, gathered: Gathered) -> np.ndarray:
    """For every row 0 when it stays, or a key of `_REASONS`. [rows]"""
    verdict = np.zeros(len(gathered.names), np.int8)
    if spec.dedup.exact:
        verdict[~first_of_each(gathered.names)] = 1
    if spec.dedup.near is not None:
        near = mark_near_duplicates(gathered.queries, gathered.positives, verdict == 0)
        verdict[near] = 2
    return verdict


def _balance(
    asked: Balance, gathered: Gathered, verdict: np.ndarray, splits: np.ndarray, seed: int
) -> tuple[np.ndarray, list[str]]:
    """Leaves out rows of categories that have more than their share of a split: the same ones whatever their
    order. Returns the verdicts, and sentences on splits that lack a category. Raises `BadData`.
    """
    if asked.shares is None:
        return verdict, []
    kept = verdict == 0
    there = _categories_of(gathered, kept)
    shares = asked.shares if isinstance(asked.shares, dict) else {name: 1 / len(there) for name in there}
    if missing := set(shares) - set(there):
        raise BadData(
            f"balance: no row has the category {', '.join(sorted(missing))}; there are {', '.join(there)}"
        )
    if not shares:
        raise BadData("balance: no row has a category")
    verdict = verdict.copy()
    verdict[kept & ~np.isin(gathered.category, [gathered.categories.index(name) for name in shares])] = (
        _UNBALANCED
    )
    order = mix(gathered.names ^ mix(np.array([seed + 2], np.uint64)))
    told = []
    for split in np.unique(splits[kept]).tolist():
        of_split = kept & (splits == split)
        counts = _categories_of(gathered, of_split)
        able = {name: share for name, share in shares.items() if name in counts}
        if absent := sorted(set(shares) - set(able)):
            told.append(f"balance: split {_SPLITS[split]} has no row of {', '.join(absent)}.")
        if not able:
            continue
        scarce = min(able, key=lambda name: counts[name] / able[name])
        whole = counts[scarce] / able[scarce]
        for name, share in able.items():
            rows = np.flatnonzero(of_split & (gathered.category == gathered.categories.index(name)))
            surplus = rows[np.argsort(order[rows], kind="stable")][max(1, int(share * whole + 1e-9)) :]
            verdict[surplus] = _UNBALANCED
        before, after = int(of_split.sum()), int((of_split & (verdict == 0)).sum())
        if after < _FEW_LEFT * before:
            told.append(
                f"balance.shares keeps {after:,} of {before:,} rows of split {_SPLITS[split]}: it has "
                f"{counts[scarce]} of {scarce}, whose share decides how many the others may have. Name "
                "shares without that category, give it a smaller one, or use balance.min_rows alone."
            )
    return verdict, told


def _categories_of(gathered: Gathered, rows: np.ndarray) -> dict[str, int]:
    """How many of the marked rows each category has, of those that have any."""
    counts = np.bincount(
        gathered.category[rows & (gathered.category >= 0)], minlength=len(gathered.categories)
    )
    return {name: int(count) for name, count in zip(gathered.categories, counts, strict=True) if count}


def _check_splits(
    spec: PrepareSpec, belonging: np.ndarray, shares: dict[str, float], sizes: dict[str, int], task: str
) -> None:
    for name, share in shares.items():
        if share > 0 and not sizes[name]:
            largest = int(np.unique(belonging, return_counts=True)[1].max())
            raise BadData(
                f"split.{name} {share:g} of {len(belonging)} rows cannot be had by {spec.split.by}: what "
                f"belongs together has up to {largest} rows. "
                + ("Ask for more." if spec.split.by == "text" else "Split by text, or ask for more.")
            )
    if task != "retrieval" and not sizes["train"]:
        raise BadData("the splits leave nothing to train on")


def _negatives(
    spec: PrepareSpec, context: RunContext, gathered: Gathered, splits: np.ndarray
) -> Chosen | None:
    """Negatives of the rows whose positives are passages; None when there are none of these."""
    of_passages = (gathered.passage >= 0) & (splits >= 0)
    if not of_passages.any():
        return None
    context.phase("mining")
    shape = (len(splits), spec.negatives.per_query)
    chosen = Chosen(np.full(shape, -1, np.int32), np.full(shape, -1, np.int8))
    forbidden = _Answers(gathered)
    with pa.memory_map(str(gathered.passages_path)) as source, pa.memory_map(str(gathered.rows)) as rows:
        texts = pa.ipc.open_file(source).read_all().column("text")
        queries = pa.ipc.open_file(rows).read_all().column("query")
        for split in range(3):
            choose(
                spec.negatives,
                spec.difficulty_mix,
                gathered.passages,
                np.flatnonzero(of_passages & (splits == split)),
                gathered.passage,
                forbidden.of,
                forbidden.alike,
                lambda numbers: texts.take(pa.array(numbers)).to_pylist(),
                lambda numbers: queries.take(pa.array(numbers)).to_pylist(),
                spec.seed,
                context.check_stop,
                chosen,
            )
    context.phase("preparing")
    return chosen


class _Answers:
    """Which passages answer a row's query, or nearly repeat one that does."""

    def __init__(self, gathered: Gathered) -> None:
        self._gathered = gathered
        self._of_query: dict[int, set[int]] = defaultdict(set)
        self._of_text: dict[int, set[int]] = defaultdict(set)
        self._text_of: dict[int, int] = {}
        queries, positives = gathered.queries.same_as.tolist(), gathered.positives.same_as.tolist()
        for row, passage in enumerate(gathered.passage.tolist()):
            if passage >= 0:
                self._of_query[queries[row]].add(passage)
                self._of_text[positives[row]].add(passage)
                self._text_of[passage] = positives[row]
        self._near_query = neighbours(gathered.queries.near)
        self._near_text = neighbours(gathered.positives.near)

    def of(self, row: int) -> set[int]:
        query = int(self._gathered.queries.same_as[row])
        answers: set[int] = set()
        for near in (query, *self._near_query.get(query, ())):
            answers |= self._of_query.get(near, set())
        return answers.union(*(self.alike(passage) for passage in answers))

    def alike(self, passage: int) -> set[int]:
        """The passage, and those that say the same, or nearly."""
        text = self._text_of[passage]
        found = {passage}
        for near in (text, *self._near_text.get(text, ())):
            found |= self._of_text.get(near, set())
        return found


def _tell_left_out(gathered: Gathered, batch: pa.Table, verdict: np.ndarray, file: IO[str]) -> None:
    """Counts and writes down the rows that are left out because of others."""
    for index in np.flatnonzero(verdict).tolist():
        reason = _REASONS[int(verdict[index])]
        gathered.left_out[reason] += 1
        line = {name: batch.column(name)[index].as_py()[:200] for name in ("query", "positive")}
        file.write(json.dumps({"reason": reason, **line}, ensure_ascii=False) + "\n")


def _write_splits(
    gathered: Gathered,
    splits: np.ndarray,
    names: list[str],
    out: Path,
    chosen: Chosen | None,
    statistics: _Counting,
    each: Callable[[pa.Table, slice], None],
) -> None:
    """Rows into a file for each split that has any."""
    with ExitStack() as stack:
        writers = {
            index: stack.enter_context(ParquetFile(out / f"{names[index]}.parquet", SCHEMA))
            for index in range(len(names))
            if (splits == index).any()
        }
        fill = None
        if chosen is not None:
            fill = _Filler(gathered, chosen, stack.enter_context(pa.memory_map(str(gathered.passages_path))))
        begin = 0
        for batch in batches_of(gathered.rows):
            table = pa.Table.from_batches([batch])
            rows = slice(begin, begin + table.num_rows)
            begin = rows.stop
            each(table, rows)
            if fill is not None:
                table = fill(table, rows)
            for index, writer in writers.items():
                part = table.filter(pa.array(splits[rows] == index))
                if part.num_rows:
                    statistics.count(part, names[index])
                    writer.add_table(part)


class _Filler:
    """Puts chosen passages into rows as their negatives."""

    def __init__(self, gathered: Gathered, chosen: Chosen, source: Any) -> None:
        self._chosen, self._passage = chosen, gathered.passage
        passages = pa.ipc.open_file(source).read_all()
        self._texts, self._ids = passages.column("text"), passages.column("id")

    def __call__(self, table: pa.Table, rows: slice) -> pa.Table:
        if (self._passage[rows] < 0).all():
            return table
        numbers, levels = self._chosen.negatives[rows], self._chosen.levels[rows]
        there = numbers >= 0
        flat = pa.array(numbers[there])
        offsets = pa.array(np.concatenate([[0], np.cumsum(there.sum(axis=1))]), pa.int64())
        words = pa.array([LEVELS[level] for level in levels[there].tolist()], pa.string())
        made = {
            "negatives": self._texts.take(flat).combine_chunks(),
            "negative_ids": self._ids.take(flat).combine_chunks(),
            "difficulty": words,
        }
        of_passages = pa.array(self._passage[rows] >= 0)
        for name, values in made.items():
            filled = pa.LargeListArray.from_arrays(offsets, values)
            own = table.column(name).combine_chunks()
            place = table.schema.get_field_index(name)
            table = table.set_column(place, SCHEMA.field(name), pc.if_else(of_passages, filled, own))
        return table


def _negatives_page(spec: PrepareSpec, chosen: Chosen, context: RunContext) -> dict[str, Any]:
    whole = sum(chosen.counts.values())
    if chosen.empty:
        context.notice(
            f"{chosen.empty} places for negatives stay empty: there are too few passages for the mix, "
            "max_per_difficulty or max_uses.",
            "warning",
        )
    return {
        "asked": dict(spec.difficulty_mix),
        "counts": {level: chosen.counts[level] for level in LEVELS},
        "shares": {level: round(chosen.counts[level] / max(whole, 1), 4) for level in LEVELS},
        "places_left_empty": chosen.empty,
    }


def _warn_of_categories(spec: PrepareSpec, gathered: Gathered, kept: np.ndarray, context: RunContext) -> None:
    least = _least_rows(spec, gathered)
    few = {
        name: (count, least[name])
        for name, count in _categories_of(gathered, kept).items()
        if count < least[name]
    }
    if few and (len(gathered.passages) or spec.balance.shares is not None):
        asked = spec.balance.min_rows
        shown = ", ".join(
            f"{name} {count}" + (f" of {wanted}" if not isinstance(asked, int) else "")
            for name, (count, wanted) in sorted(few.items(), key=lambda item: item[1])[:10]
        )
        more = f" and {len(few) - 10} more" if len(few) > 10 else ""
        bound = (
            f"{asked} rows" if isinstance(asked, int) else f"a row for {asked.share:.0%} of their passages"
        )
        context.notice(
            f"Categories with fewer than {bound} teach little of themselves: {shown}{more}.", "warning"
        )


def _least_rows(spec: PrepareSpec, gathered: Gathered) -> dict[str, int]:
    """Below how many rows a category gets a warning."""
    asked = spec.balance.min_rows
    if isinstance(asked, int):
        return dict.fromkeys(gathered.categories, asked)
    of = gathered.passages.category if len(gathered.passages) else gathered.category
    counts = np.bincount(of[of >= 0], minlength=len(gathered.categories))
    return {
        name: math.ceil(asked.share * count)
        for name, count in zip(gathered.categories, counts.tolist(), strict=True)
    }


def _write_chunks(gathered: Gathered, out: Path, context: RunContext) -> dict[str, Any]:
    statistics = _Counting()
    with ParquetFile(out / "chunks.parquet", CHUNKS) as file:
        for batch in batches_of(gathered.passages_path):
            context.check_stop()
            table = pa.Table.from_batches([batch])
            statistics.count_passages(table)
            file.add_table(table)
    write_preview(out, statistics.preview)
    return {
        "rows": file.rows,
        "splits": {"chunks": file.rows},
        "statistics": statistics.page(),
        "passages": {"all": file.rows, "longer_than_asked": gathered.oversized},
    }


def _tell(facts: dict[str, Any], task: str, context: RunContext) -> None:
    shown = ("type", "splits", "read", "kept", "unreadable", "left_out", "negatives", "passages")
    context.metrics = {"dataset": {name: facts[name] for name in shown if name in facts}}
    rows = ", ".join(f"{name} {number}" for name, number in facts["splits"].items() if number)
    context.notice(f"{facts['read']} records read, {facts['kept']} kept: {rows}.")
    if _has_reasonir(facts):
        context.notice(
            "ReasonIR's data are for noncommercial use, and so is what is trained on them. The positives of "
            "HQ are documents of BRIGHT: a model that is trained on them has seen a part of BRIGHT's corpus.",
            "warning",
        )
    lost = {
        name: count
        for name, count in facts.get("pairs", {}).items()
        if "no document" in name or "several" in name
    }
    if lost:
        context.notice(
            "Ids: " + ", ".join(f"{name} {count}" for name, count in lost.items()) + ".", "warning"
        )
