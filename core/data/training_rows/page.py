"""``dataset.json``: what a prepared dataset is, what it was made of, and what became of every record."""

import json
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from core.data.training_rows.pairs import DATASET_FACTS
from core.errors import BadData

_VERSION = 1


class PassageCounts(BaseModel):
    """Of the passages that documents were cut into."""

    all: int
    nobody_asks_for: int | None = None
    longer_than_asked: int


class NegativeCounts(BaseModel):
    """Of the negatives that were drawn, by difficulty: how the mix was asked for, and what came out."""

    asked: dict[str, float]
    counts: dict[str, int]
    shares: dict[str, float]
    places_left_empty: int


class MinedBy(BaseModel):
    """Where mined negatives come from. What else a mining says stays as it is (see `core.mining.page`)."""

    model_config = ConfigDict(extra="allow")

    model: str

    @property
    def has_teacher(self) -> bool:
        """Whether the rows' scores are those of a cross-encoder, and not the miner's."""
        return bool((self.model_extra or {}).get("teacher"))


class DatasetPage(BaseModel):
    """Fields that were never set are not written; those of later versions are kept when read."""

    model_config = ConfigDict(extra="allow")

    format: int = _VERSION
    type: Literal["triplets", "retrieval", "chunks"]
    task: str | None = None  # of the prepare job
    rows: int | None = None
    splits: dict[str, int]  # rows of each
    documents: int | None = None  # of a retrieval set's corpus
    queries: int | None = None
    remarks: dict[str, Any] | None = None  # see `core.data.rows.remarks.Remarks.as_dict`
    statistics: dict[str, Any] | None = None  # see `core.data.rows.statistics.Statistics.page`
    passages: PassageCounts | None = None
    asking: dict[str, Any] | None = None  # see `core.data.queries.query_report.QueryReport.page`
    negatives: NegativeCounts | None = None
    read: int | None = None  # records
    kept: int | None = None
    unreadable: int | None = None
    lines: int | None = None
    left_out: dict[str, int] | None = None  # by reason
    dropped_negatives: int | None = None
    pairs: dict[str, int] | None = None  # ReasonIR's, by what became of them
    rows_by_negatives: dict[str, int] | None = None  # of a mining: how many rows have how many
    mining: MinedBy | None = None
    licence: str | None = None
    sources: list[dict[str, Any]] | None = None  # as the spec names them
    inputs: dict[str, Any] | None = None  # see `core.jobs.protocol.dump_inputs`
    split: dict[str, Any] | None = None  # as the spec asks for it
    seed: int | None = None

    def as_dict(self, *names: str) -> dict[str, Any]:
        """As JSON; of ``names`` alone, where some are given."""
        return self.model_dump(mode="json", exclude_unset=True, include=set(names) or None)

    def write(self, folder: Path) -> None:
        self.format = _VERSION
        text = json.dumps(self.as_dict(), indent=2, ensure_ascii=False)
        (folder / DATASET_FACTS).write_text(text + "\n", encoding="utf-8")


def read_page(folder: Path) -> DatasetPage:
    """Raises `BadData` for a dataset of a newer format, and for a page that is none."""
    try:
        values = json.loads((folder / DATASET_FACTS).read_text(encoding="utf-8"))
        version = values["format"]
        page = DatasetPage.model_validate(values) if version == _VERSION else None
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise BadData(
            f"{DATASET_FACTS} is not the page of a prepared dataset: {place}: {first['msg']}"
        ) from error
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise BadData(f"{DATASET_FACTS} is not the page of a prepared dataset: {error}") from error
    if page is None:
        raise BadData(f"{folder.name} is a dataset of format {version}; this version reads {_VERSION}")
    return page
