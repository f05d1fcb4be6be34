"""Texts into token ids, once for a training and for all that follow it on the same data.

Kept in the cache by the content of the rows and of the tokenizer. A text is kept once however many rows it
stands in, without special tokens, cut only at the model's context: how long a text may be, and what stands
around it, is settled when a batch is made.
"""

import hashlib
import json
import os
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from transformers import PreTrainedTokenizerBase

from core.artifacts.cache import Cache, key_of
from core.data.rows.hashing import text_hash
from core.engine.batching import RowRef
from core.engine.tokens import Frame, TokenRow, fingerprint, on_all_cores
from core.spec.parts.models import Prompts

_FORMAT = 2
_ROWS = 1024
_KEPT_BYTES = 20 << 30


LEVELS = {"easy": 1, "medium": 2, "hard": 3}
"""Difficulties of negatives as they are kept; 0 is everything else."""


class TokenTable:
    """Rows of token ids, memory-mapped, so that data may be larger than memory.

    A dataset for torch's DataLoader. With ``guide`` every row also carries that table's row.
    """

    def __init__(self, folder: Path, guide: "TokenTable | None" = None) -> None:
        def array(name: str) -> np.ndarray:
            return np.load(folder / f"{name}.npy", mmap_mode="r")

        self._ids: np.ndarray = np.empty(0, np.int32)  # an empty file cannot be mapped
        if (folder / "ids.bin").stat().st_size:
            self._ids = np.memmap(folder / "ids.bin", np.int32, "r")
        self._starts = array("text_starts")  # [texts + 1], into ids
        self._text_keys = array("text_keys")  # [texts]
        self._queries = array("queries")  # [rows], numbers of texts
        self._row_starts = array("row_starts")  # [rows + 1], into documents
        self._documents = array("documents")  # [documents of all rows], numbers of texts
        self._scores = self.all_scores = array("scores")  # the same, NaN where there is none
        self._levels = self.all_levels = array("levels")  # the same, of negatives: see LEVELS
        self._guide = guide
        self._by_key: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self._queries)

    def __getitem__(self, ref: RowRef) -> TokenRow:
        return self.row(ref.row)

    def row(self, index: int, negatives: np.ndarray | None = None) -> TokenRow:
        """A row with all of its negatives, or those of these numbers (from 0)."""
        span = slice(self._row_starts[index], self._row_starts[index + 1])
        documents, scores = self._documents[span], self._scores[span]
        if negatives is not None:
            chosen = np.concatenate([[0], negatives + 1]).astype(np.int64)
            documents, scores = documents[chosen], scores[chosen]
        return TokenRow(
            self._text(self._queries[index]),
            [self._text(number) for number in documents],
            None if np.isnan(scores).any() else scores.tolist(),
            None if self._guide is None else self._guide.row(index, negatives),
        )

    def row_with(self, index: int, documents: np.ndarray) -> TokenRow:
        """A row with other negatives: ``documents`` are numbers of texts."""
        numbers = [self._documents[self._row_starts[index]], *documents.tolist()]
        guide = None
        if self._guide is not None:
            texts = [self._guide.text_of(int(self._text_keys[number])) for number in numbers]
            guide = TokenRow(self._guide.row(index).query, texts)
        query = self._text(self._queries[index])
        return TokenRow(query, [self._text(number) for number in numbers], None, guide)

    def text_of(self, key: int) -> np.ndarray:
        """Of the text with this 64-bit hash: other tables number their texts otherwise."""
        if self._by_key is None:
            self._by_key = np.argsort(self._text_keys)
        place = np.searchsorted(self._text_keys, np.uint64(key), sorter=self._by_key)
        return self._text(self._by_key[place])

    def numbers(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Texts by number: queries [rows], all rows' documents, and where each row's begin [rows + 1]."""
        return self._queries, self._documents, self._row_starts

    def texts(self, numbers: np.ndarray) -> list[np.ndarray]:
        """Token ids without special ones."""
        return [self._text(number) for number in numbers]

    def keys_of(self, numbers: np.ndarray) -> np.ndarray:
        """64-bit hashes of texts."""
        return self._text_keys[numbers]

    def framed(self, numbers: np.ndarray, frame: Frame, limit: int) -> list[np.ndarray]:
        """Token ids of texts within their special tokens, at most ``limit``."""
        return [frame.put(self._text(number), limit) for number in numbers]

    def levels(self, index: int) -> np.ndarray:
        """Of a row's negatives, as numbers: see `LEVELS`."""
        return self._levels[self._row_starts[index] + 1 : self._row_starts[index + 1]]

    def known_levels(self) -> list[str]:
        """Difficulties that some negative has."""
        there = set(np.unique(self._levels).tolist())
        return [name for name, number in LEVELS.items() if number in there]

    def _text(self, number: int) -> np.ndarray:
        return self._ids[self._starts[number] : self._starts[number + 1]]

    def counts(self) -> dict[str, np.ndarray]:
        """Tokens of every query and of every document, without special ones."""
        of_text = np.diff(self._starts)
        return {"query": of_text[self._queries], "document": of_text[self._documents]}

    def keys(self, *, negatives: bool = True) -> list[tuple[int, ...]]:
        """For each row the 64-bit hashes of its distinct texts: what may not meet twice in a batch."""
        queries = self._text_keys[self._queries].tolist()
        documents = self._text_keys[self._documents].tolist()
        starts = self._row_starts.tolist()
        return [
            tuple({query, *documents[starts[index] : starts[index + 1] if negatives else starts[index] + 1]})
            for index, query in enumerate(queries)
        ]

    @property
    def distinct_texts(self) -> int:
        return len(self._text_keys)

    @property
    def documents_per_row(self) -> float:
        """The mean."""
        return len(self._documents) / max(len(self), 1)

    @property
    def rows_without_scores(self) -> int:
        missing = np.isnan(self._scores)
        return int((np.add.reduceat(missing, self._row_starts[:-1]) > 0).sum()) if len(self) else 0


def tokens_of_table(
    table: pa.Table,
    rows_sha256: str,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Prompts,
    *,
    context: int,
    cache: Path,
    check_stop: Callable[[], None] = lambda: None,
) -> tuple[Path, bool]:
    """The folder of a table's tokens, and whether it was there already.

    ``rows_sha256`` stands for the table's content. Columns: see `core.data.training_rows.table`.
    """
    key = key_of(
        {
            "format": _FORMAT,
            "libraries": [version("tokenizers"), version("transformers")],
            "rows": rows_sha256,
            "tokenizer": fingerprint(tokenizer),
            "prompts": [prompts.query, prompts.document],
            "context": context,
        }
    )

    def fill(folder: Path) -> None:
        _write(table, tokenizer, prompts, context, folder, check_stop)
        described = describe_tokens(TokenTable(folder), tokenizer, context)
        (folder / METADATA).write_text(json.dumps(described, indent=2) + "\n", encoding="utf-8")

    tables = token_cache(cache)
    if (known := tables.find(key)) is not None:
        return known, True
    return tables.make(key, fill), False


def token_cache(root: Path) -> Cache:
    """Where tables are kept. They are opened at once, and stay open while they are used."""
    return Cache(root, "tokens", _KEPT_BYTES, in_use_seconds=3600.0)


METADATA = "metadata.json"
"""Of a folder of tokens: how they were made, and how many there are."""


def describe_tokens(table: TokenTable, tokenizer: PreTrainedTokenizerBase, context: int) -> dict[str, Any]:
    """How the tokens of a table were made, and their numbers by role, without special tokens.

    ``max_length`` is the model's context, after which nothing is kept: what training cuts after is settled
    later, and so is the padding.
    """
    queries, documents, starts = table.numbers()
    positive = np.zeros(len(documents), bool)
    positive[starts[:-1]] = True
    counts = table.counts()
    roles = {
        "query": counts["query"],
        "positive": counts["document"][positive],
        "negative": counts["document"][~positive],
    }
    return {
        "tokenizer": getattr(tokenizer, "name_or_path", "") or type(tokenizer).__name__,
        "tokenizer_sha256": fingerprint(tokenizer),
        "max_length": context,
        "padding": "none",
        "num_proc": os.cpu_count() or 1,
        "batch_size": _ROWS,
        "num_examples": len(queries),
        "num_texts": table.distinct_texts,
        **{
            name: value
            for role, tokens in roles.items()
            if len(tokens)
            for name, value in {
                f"avg_{role}_length": round(float(tokens.mean()), 2),
                f"p90_{role}_length": int(np.quantile(tokens, 0.9, method="inverted_cdf")),
                f"p95_{role}_length": int(np.quantile(tokens, 0.95, method="inverted_cdf")),
            }.items()
        },
    }


def write_tokens(table: TokenTable, documents: np.ndarray, kept: list[np.ndarray], folder: Path) -> None:
    """The table once more, of whose ``documents`` (numbers of texts) only the tokens at these places stay.

    A text that is a query as well stays whole as that.
    """
    queries, of_rows, row_starts = table.numbers()
    asking, query_of = np.unique(queries, return_inverse=True)
    lengths = []
    with (folder / "ids.bin").open("wb") as file:
        for text in table.texts(asking):
            file.write(np.asarray(text, np.int32).tobytes())
            lengths.append(len(text))
        for number, places in zip(documents, kept, strict=True):
            [text] = table.texts(np.array([number]))
            file.write(np.asarray(text[places], np.int32).tobytes())
            lengths.append(len(places))
    arrays: dict[str, np.ndarray] = {
        "text_starts": np.cumsum([0, *lengths], dtype=np.int64),
        "text_keys": np.concatenate([table.keys_of(asking), table.keys_of(documents)]),
        "queries": query_of.astype(np.int32),
        "row_starts": np.asarray(row_starts),
        "documents": (len(asking) + np.searchsorted(documents, of_rows)).astype(np.int32),
        "scores": np.asarray(table.all_scores),
        "levels": np.asarray(table.all_levels),
    }
    _save_arrays(folder, arrays)


class _Texts:
    """Numbers for distinct texts; their ids go to a file."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, context: int, path: Path) -> None:
        self._tokenizer, self._context = tokenizer, context
        self._file = path.open("wb")
        self._numbers: dict[bytes, int] = {}
        self._waiting: list[str] = []
        self.lengths: list[int] = []
        self.keys: list[int] = []

    def number(self, text: str, prompt: str) -> int:
        whole = prompt + text
        name = hashlib.blake2b(whole.encode(), digest_size=16).digest()
        number = self._numbers.setdefault(name, len(self._numbers))
        if number == len(self.keys):
            self.keys.append(text_hash(text))
            self._waiting.append(whole)
        return number

    def flush(self) -> None:
        """Tokenizes what has come since the last time; fast tokenizers use every core."""
        if not self._waiting:
            return
        with on_all_cores():
            found = self._tokenizer(
                self._waiting,
                add_special_tokens=False,
                truncation=True,
                max_length=self._context,
                return_attention_mask=False,
                return_token_type_ids=False,
                verbose=False,
            )["input_ids"]
        self._waiting.clear()
        for ids in found:
            self.lengths.append(len(ids))
            self._file.write(np.asarray(ids, np.int32).tobytes())

    def close(self) -> None:
        self._file.close()


def _write(
    table: pa.Table,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Prompts,
    context: int,
    folder: Path,
    check_stop: Callable[[], None],
) -> None:
    texts = _Texts(tokenizer, context, folder / "ids.bin")
    queries, documents, scores, counts, levels = [], [], [], [], []
    try:
        for query, document_texts, teacher, difficulty in _rows(table):
            queries.append(texts.number(query, prompts.query or ""))
            documents += [texts.number(text, prompts.document or "") for text in document_texts]
            counts.append(len(document_texts))
            known = [LEVELS.get(level, 0) for level in difficulty]
            levels += [
                0,
                *(known if len(known) == len(document_texts) - 1 else [0] * (len(document_texts) - 1)),
            ]
            scores += teacher if len(teacher) == len(document_texts) else [np.nan] * len(document_texts)
            if len(queries) % _ROWS == 0:
                texts.flush()
                check_stop()
        texts.flush()
    finally:
        texts.close()
    arrays: dict[str, np.ndarray] = {
        "text_starts": np.cumsum([0, *texts.lengths], dtype=np.int64),
        "text_keys": np.array(texts.keys, np.uint64),
        "queries": np.array(queries, np.int32),
        "row_starts": np.cumsum([0, *counts], dtype=np.int64),
        "documents": np.array(documents, np.int32),
        "scores": np.array(scores, np.float32),
        "levels": np.array(levels, np.uint8),
    }
    _save_arrays(folder, arrays)


def _save_arrays(folder: Path, arrays: dict[str, np.ndarray]) -> None:
    for name, values in arrays.items():
        np.save(folder / f"{name}.npy", values)


def _rows(table: pa.Table) -> Iterator[tuple[str, list[str], list[float], list[str]]]:
    """(query, documents with the positive first, scores, difficulties of the negatives)"""
    for batch in table.to_batches(max_chunksize=_ROWS):
        columns = batch.to_pydict()
        for query, positive, negatives, scores, levels in zip(
            *(columns[name] for name in ("query", "positive", "negatives", "scores", "difficulty")),
            strict=True,
        ):
            yield query, [positive, *(negatives or ())], scores or [], levels or []


def describe_counts(counts: np.ndarray, specials: int) -> dict[str, Any]:
    """Mean, percentiles and maximum of tokens, special ones included."""
    tokens = counts + specials
    return {
        "mean": round(float(tokens.mean()), 1),
        **{
            f"p{share}": int(np.quantile(tokens, share / 100, method="inverted_cdf"))
            for share in (50, 90, 95)
        },
        "longest": int(tokens.max()),
    }
