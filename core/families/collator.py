"""Rows of token ids into micro-batches, the same for every family: how a text is read is its `Reader`'s."""

from typing import Any

import torch

from core.engine.batching import WHOLE, Packing, Share
from core.engine.encoding import make_micro_batches
from core.engine.tokens import Frame, Ids, TokenRow
from core.families.family import Reader


class Collator:
    """Puts a batch's texts together, cut to their roles' lengths, and pads them in groups.

    The result: ``micro_batches``, ``positions``, ``height`` (see `core.engine.encoding.MicroBatches`),
    ``queries``, the number of queries, ``owners`` [documents], the query of each document (first the
    positives in the order of the queries, then all negatives), ``teacher`` [documents], where every row has
    scores, ``tokens``, the number of real tokens, and what the reader says. With a guide also ``guide``, the
    same texts for that model. Of the micro-batches only the process's ``share`` is made.
    """

    def __init__(
        self,
        reader: Reader,
        lengths: dict[str, int],
        packing: Packing,
        *,
        guide: tuple[Frame, int, Packing] | None = None,
        share: Share = WHOLE,
    ) -> None:
        self._reader, self._lengths, self._packing = reader, lengths, packing
        self._guide = guide  # its frame, its length and how its texts are packed
        self._share = share

    def __call__(self, rows: list[TokenRow]) -> dict[str, Any]:
        queries = [row.query for row in rows]
        documents = _positives_first([row.documents for row in rows])
        owners = [*range(len(rows)), *(index for index, row in enumerate(rows) for _ in row.documents[1:])]
        inputs, beside = self._reader.read(queries, documents, owners, self._lengths)
        batch: dict[str, Any] = {
            **make_micro_batches(self._reader.frame, inputs, self._packing, self._share),
            **beside,
            "queries": len(rows),
            "owners": torch.tensor(owners),
            "tokens": sum(len(found.ids) for found in inputs),
        }
        if all(row.scores for row in rows):
            batch["teacher"] = torch.tensor(_positives_first([row.scores for row in rows]))
        if self._guide is not None:
            batch["guide"] = self._for_guide(rows, *self._guide)
        return batch

    def _for_guide(self, rows: list[TokenRow], frame: Frame, length: int, packing: Packing) -> Any:
        guided: list[Any] = [row.guide for row in rows]
        texts: list[Ids] = [
            *(row.query for row in guided),
            *_positives_first([row.documents for row in guided]),
        ]
        return make_micro_batches(frame, [frame.put(text, length) for text in texts], packing, self._share)


def _positives_first(of_rows: list[Any]) -> list[Any]:
    """The first item of every row, then all the others."""
    return [items[0] for items in of_rows] + [item for items in of_rows for item in items[1:]]
