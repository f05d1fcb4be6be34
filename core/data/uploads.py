"""What somebody has sent: what it is, whether it can be read, and what stands in it. No torch, no numpy."""

import gzip
import io
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import zstandard

from core.data.archives import check_size, extract, is_archive
from core.data.documents import AS_WRITTEN, document_files, read_passages
from core.data.folders import split_files
from core.data.formats import is_documents, settle_format
from core.data.judged import is_bright, is_judged, judged_files, splits_of
from core.data.pairs import TrainingRow, is_dataset, read_pairs
from core.data.readers import format_of, read_rows
from core.data.reading import Reading
from core.data.reasonir import is_reasonir
from core.data.rows import Reject, Row
from core.data.statistics import PREVIEW_ROWS, Statistics
from core.errors import BadData
from core.spec.prepare import Format

MOST_REJECTS_TOLD = 100


@dataclass
class Inspected:
    """What was found. ``splits`` has rows by split; ``columns`` are those of the first records."""

    format: str
    splits: dict[str, int] = field(default_factory=dict)
    columns: list[str] = field(default_factory=list)
    rejects: list[Reject] = field(default_factory=list)  # the first ones
    rejected: int = 0
    statistics: Statistics = field(default_factory=Statistics)
    preview: dict[str, list[dict[str, Any]]] = field(default_factory=dict)

    @property
    def rows(self) -> int:
        return sum(self.splits.values())

    def reject(self, found: Reject) -> None:
        self.rejected += 1
        if len(self.rejects) < MOST_REJECTS_TOLD:
            self.rejects.append(found)


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
        return ".jsonl" if media_type not in ("application/json",) else ".json"
    first = head.split(b"\n", 1)[0]
    if media_type == "text/tab-separated-values" or (b"\t" in first and b"," not in first):
        return ".tsv"
    if media_type == "text/csv" or b"," in first:
        return ".csv"
    raise BadData("the body is none of JSONL, JSON, CSV, TSV, Parquet, tar and zip: say which (filename=...)")


def unpack(path: Path, ending: str, folder: Path, most_bytes: int) -> Path:
    """The folder that becomes the dataset: an archive's content, or the one file. ``path`` is gone then."""
    if is_archive(f"archive{ending}"):
        top = extract(path, folder, f"archive{ending}", most_bytes=most_bytes)
        path.unlink()
        return top
    packed = path.with_name(f"data{ending}")
    path.rename(packed)
    if ending.endswith((".gz", ".zst")):
        check_size(packed, most_bytes)
    folder.mkdir(parents=True)
    packed.rename(folder / packed.name)
    return folder


def inspect(folder: Path) -> Inspected:
    """Reads everything once. Raises `BadData` when it is nothing that a job could use."""
    if is_dataset(folder):
        return _prepared(folder)
    form, path = settle_format(_only_file(folder), "auto")
    if is_documents(form):
        return _documents(path, form)
    if is_judged(path):
        return _judged(path)
    found = Inspected("rows")
    if path.is_file():
        _rows(path, None, "train", found)
    else:
        for split in split_files(path):
            _rows(path, split, split, found)
    return found


def _only_file(folder: Path) -> Path:
    files = [path for path in folder.iterdir() if not path.name.startswith(".")]
    return files[0] if len(files) == 1 and files[0].is_file() else folder


def _rows(path: Path, split: str | None, name: str, found: Inspected) -> None:
    found.splits[name] = 0
    files = [path] if path.is_file() else split_files(path)[name]
    first = [
        row for file in files[:1] for row in islice(read_rows(file), PREVIEW_ROWS) if isinstance(row, Row)
    ]
    found.preview[name] = [row.values for row in first]
    found.columns = list(dict.fromkeys([*found.columns, *(column for row in first for column in row.values)]))
    # Rows that name documents: only with a corpus can be told what they are worth.
    if first and ("positive_document_ids" in first[0].values or is_reasonir(first[0].values)):
        for file in files:
            for record in read_rows(file):
                if isinstance(record, Reject):
                    found.reject(record)
                else:
                    found.splits[name] += 1
        return
    reading = Reading(split, labels="defer")
    for row in _kept(read_pairs(path, reading=reading), name, found):
        found.statistics.difficulty.update(row.difficulty)
        if row.category is not None:
            found.statistics.categories[row.category] += 1


def _kept(rows: Iterable[TrainingRow | Reject], name: str, found: Inspected) -> Iterator[TrainingRow]:
    """The good rows of a split, counted."""
    for row in rows:
        if isinstance(row, Reject):
            found.reject(row)
            continue
        found.splits[name] += 1
        found.statistics.lengths["query"][len(row.query)] += 1
        found.statistics.lengths["positive"][len(row.positive)] += 1
        for text in row.negatives:
            found.statistics.lengths["negative"][len(text)] += 1
        yield row


def _documents(path: Path, form: Format) -> Inspected:
    found = Inspected(form, {"documents": 0} if form != "chunks" else {"chunks": 0})
    [role] = found.splits
    found.preview[role] = []
    if form != "chunks":
        found.splits[role] = len(document_files(path, form))
    for passage in read_passages(path, form, None, AS_WRITTEN):
        if isinstance(passage, Reject):
            found.reject(passage)
            continue
        if form == "chunks":
            found.splits[role] += 1
        found.statistics.lengths["passage"][len(passage.text)] += 1
        if passage.category is not None:
            found.statistics.categories[passage.category] += 1
        if len(found.preview[role]) < PREVIEW_ROWS:
            found.preview[role].append(vars(passage))
    return found


def _judged(path: Path) -> Inspected:
    """Every judgment must name what is there: checked when it is read, split by split."""
    found = Inspected("judged")
    splits = [None] if is_bright(path) else list(splits_of(path))
    for split in splits:
        name = split or "test"
        found.splits[name], found.preview[name] = 0, []
        for files in judged_files(path, split):
            _judgments(path, files.domain or split, name, found)
    return found


def _judgments(path: Path, split: str | None, name: str, found: Inspected) -> None:
    for row in _kept(read_pairs(path, split), name, found):
        if len(found.preview[name]) < PREVIEW_ROWS:
            found.preview[name].append(_shown(row))


def _shown(row: TrainingRow) -> dict[str, Any]:
    return {name: value for name, value in vars(row).items() if value not in (None, [])}


def _prepared(folder: Path) -> Inspected:
    """A prepared dataset, downloaded and sent again."""
    from core.data.dataset import read_facts, read_split

    facts = read_facts(folder)
    found = Inspected(str(facts.get("type")), dict(facts["splits"]))
    for split, rows in facts["splits"].items():
        if not rows or found.format == "chunks":
            continue
        found.preview[split] = []
        for row in read_split(folder, split):  # to the end, so that damage is found now
            if len(found.preview[split]) < PREVIEW_ROWS:
                found.preview[split].append(_shown(row))
    return found
