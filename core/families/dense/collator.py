"""Rows of token ids into micro-batches."""

from typing import Any

import torch

from core.training.batching import WHOLE, Packing, Share
from core.training.encoding import make_micro_batches
from core.training.tokens import Frame, TokenRow


class PairCollator:
    """Cuts a batch's queries and documents to their roles' lengths, and pads them in groups.

    The result: ``micro_batches`` and ``positions`` (see `core.training.encoding`), ``queries``, the number
    of queries (they come first, then the positives in the same order, then all negatives), ``owners``
    [documents], the query of each, ``teacher`` [documents], where every row has scores, and ``tokens``, the
    number of real tokens. With a guide also ``guide``, the same texts for that model. Of the micro-batches
    only the process's ``share`` is made.
    """

    def __init__(
        self,
        frame: Frame,
        *,
        query_length: int,
        document_length: int,
        packing: Packing,
        guide: tuple[Frame, int] | None = None,
        share: Share = WHOLE,
    ) -> None:
        self._frame = frame
        self._query_length, self._document_length = query_length, document_length
        self._packing = packing
        self._guide = guide  # its frame and its length
        self._share = share

    def __call__(self, rows: list[TokenRow]) -> dict[str, Any]:
        texts = _framed(rows, self._frame, self._query_length, self._document_length)
        micro_batches, positions = make_micro_batches(self._frame, texts, self._packing, self._share)
        batch = {
            "micro_batches": micro_batches,
            "positions": positions,
            "queries": len(rows),
            "owners": torch.tensor(
                [*range(len(rows)), *(index for index, row in enumerate(rows) for _ in row.documents[1:])]
            ),
            "tokens": sum(len(text) for text in texts),
        }
        if all(row.scores for row in rows):
            batch["teacher"] = torch.tensor(_positives_first([row.scores for row in rows]))
        if self._guide is not None:
            frame, length = self._guide
            guided = _framed([row.guide for row in rows], frame, length, length)
            micro_batches, positions = make_micro_batches(frame, guided, self._packing, self._share)
            batch["guide"] = {"micro_batches": micro_batches, "positions": positions}
        return batch


def _framed(rows: list[Any], frame: Frame, query_length: int, document_length: int) -> list[Any]:
    documents = _positives_first([row.documents for row in rows])
    return [frame.put(row.query, query_length) for row in rows] + [
        frame.put(document, document_length) for document in documents
    ]


def _positives_first(of_rows: list[Any]) -> list[Any]:
    """The first item of every row, then all the others."""
    return [items[0] for items in of_rows] + [item for items in of_rows for item in items[1:]]
