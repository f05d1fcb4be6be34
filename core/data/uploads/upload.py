"""What somebody has sent: what it is, whether it can be read, and what stands in it. No torch, no numpy.

The cost is linear in bytes and files: no folder is listed, and no file opened, more than a fixed number of
times.
"""

import gzip
import io
import json
import zipfile
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import Any

import zstandard

from core.data.documents.passages import AS_WRITTEN, read_passages
from core.data.io.archives import check_size, is_archive
from core.data.io.folders import split_files
from core.data.io.readers import format_of, read_rows
from core.data.io.stopping import checked, no_stop
from core.data.retrieval_sets.judged_folders import files_by_split, is_judged
from core.data.retrieval_sets.judged_splits import rows_of_splits
from core.data.retrieval_sets.nested import is_retrieval_head, is_retrieval_json
from core.data.rows.reading import Reading
from core.data.rows.row import Reject, Row
from core.data.rows.statistics import PREVIEW_ROWS, shortened
from core.data.sources.formats import is_documents, settle_format
from core.data.training_rows.distillation import is_scored_by_ids
from core.data.training_rows.page import read_page
from core.data.training_rows.pairs import TrainingRow, is_dataset, read_pairs
from core.data.training_rows.reasonir import is_reasonir
from core.data.uploads.inspected import Inspected
from core.data.uploads.inspected_documents import inspect_documents, possible_queries
from core.data.uploads.staging import stage
from core.errors import BadData
from core.spec.parts.rows import RowOptions

MOST_COLUMNS = 1000


_MAGIC = {b"PAR1": ".parquet", b"PK\x03\x04": ".zip", b"ARROW1": ".arrow"}


def ending_of(path: Path, name: str | None, media_type: str | None) -> str:
    """What the file would be called by: as its ``name`` ends, else by its content. Raises `BadData`.

    The media type decides between text formats alone; browsers and curl do not know the others.
    """
    if name and (format_of(Path(name)) or is_archive(name) or Path(name).suffix.lower() in (".md", ".rst")):
        return _endings(name)
    with path.open("rb") as file:
        head = file.read(1 << 16)
    packed = ""
    try:
        if head.startswith(b"\x1f\x8b"):
            packed, head = ".gz", gzip.GzipFile(fileobj=io.BytesIO(head)).read1(1 << 15)
        elif head.startswith(b"\x28\xb5\x2f\xfd"):
            reader = zstandard.ZstdDecompressor().stream_reader(io.BytesIO(head))
            packed, head = ".zst", reader.read(1 << 15)
    except (OSError, EOFError, zstandard.ZstdError) as error:
        raise BadData(f"the body is compressed and damaged: {error}") from error
    if not packed and head.startswith(b"PK\x03\x04") and _is_workbook(path):
        return ".xlsx"
    if head[257:262] == b"ustar":
        return f".tar{packed}"
    if not packed and (found := next((end for magic, end in _MAGIC.items() if head.startswith(magic)), None)):
        return found
    return f"{_text_ending(head, media_type)}{packed}"


def _endings(name: str) -> str:
    """ ".jsonl.gz" of rows.v2.jsonl.gz"""
    suffixes = [suffix.lower() for suffix in Path(name).suffixes]
    return "".join(suffixes[-2:] if suffixes[-1] in (".gz", ".zst", ".bz2", ".xz") else suffixes[-1:])


def _text_ending(head: bytes, media_type: str | None) -> str:
    start = head.lstrip(b"\xef\xbb\xbf\xff\xfe \t\r\n\0")[:1]
    if start == b"[":
        return ".json"
    if start == b"{":
        return ".jsonl" if media_type != "application/json" and _is_a_line(head) else ".json"
    first = head.split(b"\n", 1)[0]
    if media_type == "text/tab-separated-values" or (b"\t" in first and b"," not in first):
        return ".tsv"
    if media_type == "text/csv" or any(mark in first for mark in (b",", b";", b"|")):
        return ".csv"
    raise BadData(
        "the body is none of JSONL, JSON, CSV, TSV, Excel, Parquet, tar and zip: say which by its name "
        "(filename=NAME.csv)"
    )


def _is_a_line(head: bytes) -> bool:
    """Whether the first line that is not empty holds a whole record, or the start of a very long one."""
    line, end, _ = head.lstrip(b"\xef\xbb\xbf \t\r\n").partition(b"\n")
    if is_retrieval_head(line.decode("utf-8", "replace")):
        return False
    try:
        return not end or isinstance(json.loads(line), dict)
    except ValueError:
        return False


def _is_workbook(path: Path) -> bool:
    """Whether a zip is an Excel file."""
    try:
        with zipfile.ZipFile(path) as archive:
            return "xl/workbook.xml" in archive.namelist()
    except (zipfile.BadZipFile, OSError):
        return False


def unpack(
    path: Path, ending: str, folder: Path, most_bytes: int, check_stop: Callable[[], None] = no_stop
) -> Path:
    """The folder that becomes the dataset: an archive's content, perhaps packed, or the one file.

    ``path`` is gone then.
    """
    if is_archive(f"archive{ending}"):
        top = stage(path, folder, f"archive{ending}", most_bytes=most_bytes, check_stop=check_stop)
        path.unlink()
        return top
    packed = path.with_name(f"data{ending}")
    path.rename(packed)
    if ending.endswith((".gz", ".zst")):
        check_size(packed, most_bytes, check_stop)
    folder.mkdir(parents=True)
    packed.rename(folder / packed.name)
    return folder


def inspect(
    folder: Path, options: RowOptions | None = None, check_stop: Callable[[], None] = no_stop
) -> Inspected:
    """Read every record of a folder, or of a file, once, by the columns and the encoding of ``options``.

    Raises `BadData` when no job could use the folder, and for options that have no effect on it.
    ``check_stop`` is called for every record and every file; whatever it raises ends the reading.
    """
    # What a label means, the job says that reads the rows.
    reading = replace(Reading.of(options or RowOptions()), labels="defer")
    if is_dataset(folder):
        _refuse(reading, "a prepared dataset", "columns", "encoding")
        return _prepared(folder, check_stop)
    named = "query" in reading.columns
    form, path = settle_format(_only_file(folder), "auto", rows=named, check_stop=check_stop)
    if is_documents(form) and form != "chunks":
        _refuse(reading, "a tree of documents", "columns")
        return inspect_documents(path, form, check_stop, reading.encoding)
    if form == "chunks":
        return _chunks(path, check_stop, reading)
    if is_judged(path):
        _refuse(reading, "a judged set", "columns")
        return _judged(path, check_stop, reading.encoding)
    return _rows(path, check_stop, reading)


def _refuse(reading: Reading, what: str, *names: str) -> None:
    """Raises `BadData` for options that would have no effect."""
    if given := [name for name in names if getattr(reading, name)]:
        raise BadData(f"{' and '.join(given)} would have no effect: this is {what}")


def _only_file(folder: Path) -> Path:
    if folder.is_file():
        return folder
    files = list(islice((path for path in folder.iterdir() if not path.name.startswith(".")), 2))
    return files[0] if len(files) == 1 and files[0].is_file() else folder


def _rows(path: Path, check_stop: Callable[[], None], reading: Reading) -> Inspected:
    """Files of rows: the folder is listed once, whatever its number of splits."""
    found = Inspected("rows")
    records = partial(read_rows, encoding=reading.encoding, header=reading.header)
    splits = {"train": [path]} if path.is_file() else split_files(path)
    by_ids = is_scored_by_ids(path)
    columns: dict[str, None] = {}
    for split, files in splits.items():
        found.splits[split] = 0
        nested = is_retrieval_json(files[0])
        looked_at = islice(() if nested else records(files[0]), PREVIEW_ROWS)
        first = [row.values for row in looked_at if isinstance(row, Row)]
        found.show(split, first)
        for values in first:
            columns.update(dict.fromkeys(map(shortened, islice(values, MOST_COLUMNS - len(columns)))))
        # Rows that name documents are counted: only with a corpus they can be parsed.
        if first and ("positive_document_ids" in first[0] or is_reasonir(first[0])):
            for record in checked(chain.from_iterable(map(records, files)), check_stop):
                if isinstance(record, Reject):
                    found.reject(record)
                else:
                    found.splits[split] += 1
            continue
        parts = [(path, split)] if by_ids else [(file, None) for file in files]
        rows = chain.from_iterable(
            read_pairs(part, reading=replace(reading.quietly(), split=of_part)) for part, of_part in parts
        )
        for row in checked(rows, check_stop):
            if found.keep(row, split):
                found.statistics.difficulty.update(row.difficulty)
                if row.category is not None:
                    found.statistics.categories[row.category] += 1
                if nested:
                    found.show(split, [_shown(row)])
    found.columns = list(columns)
    return found


def _chunks(path: Path, check_stop: Callable[[], None], reading: Reading) -> Inspected:
    found = Inspected("chunks", {"chunks": 0})
    for passage in checked(read_passages(path, "chunks", None, AS_WRITTEN, reading), check_stop):
        if isinstance(passage, Reject):
            found.reject(passage)
            continue
        found.splits["chunks"] += 1
        found.statistics.lengths["passage"][len(passage.text)] += 1
        found.statistics.queries += possible_queries(passage)
        if passage.category is not None:
            found.statistics.categories[passage.category] += 1
        found.show("chunks", [passage.shown()])
    return found


def _judged(path: Path, check_stop: Callable[[], None], encoding: str | None) -> Inspected:
    """Every judgment must name a query and a document of the set."""
    found = Inspected("judged", dict.fromkeys(files_by_split(path), 0))
    for split in found.splits:
        found.show(split, [])
    for split, row in rows_of_splits(path, check_stop, encoding):
        if found.keep(row, split):
            found.show(split, [_shown(row)])
    return found


def _shown(row: TrainingRow) -> dict[str, Any]:
    return {name: value for name, value in vars(row).items() if value not in (None, [])}


def _prepared(folder: Path, check_stop: Callable[[], None]) -> Inspected:
    """A prepared dataset, downloaded and sent again."""
    from core.data.training_rows.dataset import read_split

    page = read_page(folder)
    found = Inspected(page.type, dict(page.splits))
    for split, rows in page.splits.items():
        if not rows or found.format == "chunks":
            continue
        found.show(split, [])
        for row in checked(read_split(folder, split), check_stop):  # to the end, so that damage is found now
            found.show(split, [_shown(row)])
    return found
