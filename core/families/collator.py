"""Rows of token ids into micro-batches, the same for every family: how a text is read is its `Reader`'s."""

from typing import Any

import torch

from core.engine.batch import Batch, MicroBatches
from core.engine.batching import WHOLE, Packing, Share
from core.engine.encoding import make_micro_batches
from core.engine.tokens import Frame, Ids, TokenRow
from core.families.family import Reader


class Collator:
    """Puts a batch's texts together, cut to their roles' lengths, and pads them in groups.

    Of the micro-batches only the process's ``share`` is made.
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

    def __call__(self, rows: list[TokenRow]) -> Batch[Any]:
        queries = [row.query for row in rows]
        documents = _positives_first([row.documents for row in rows])
        owners = [*range(len(rows)), *(index for index, row in enumerate(rows) for _ in row.documents[1:])]
        inputs, outputs = self._reader.read(queries, documents, owners, self._lengths)
        taught = all(row.scores for row in rows)
        return Batch(
            make_micro_batches(self._reader.frame, inputs, self._packing, self._share),
            queries=len(rows),
            owners=torch.tensor(owners),
            tokens=sum(len(found.ids) for found in inputs),
            outputs=outputs,
            teacher=torch.tensor(_positives_first([row.scores for row in rows])) if taught else None,
            guide=self._for_guide(rows, *self._guide) if self._guide is not None else None,
        )

    def _for_guide(self, rows: list[TokenRow], frame: Frame, length: int, packing: Packing) -> MicroBatches:
        guided: list[Any] = [row.guide for row in rows]
        texts: list[Ids] = [
            *(row.query for row in guided),
            *_positives_first([row.documents for row in guided]),
        ]
        return make_micro_batches(frame, [frame.put(text, length) for text in texts], packing, self._share)


def _positives_first(of_rows: list[Any]) -> list[Any]:
    """The first item of every row, then all the others."""
    return [items[0] for items in of_rows] + [item for items in of_rows for item in items[1:]]
