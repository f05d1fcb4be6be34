"""Rows into micro-batches of token ids."""

from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from core.spec.train import Prompts
from core.training.encoding import make_micro_batches, tokenize


class PairCollator:
    """Tokenizes a batch's queries and documents, each cut to its role's length, and pads them in groups.

    The result: ``micro_batches`` and ``positions`` (see `core.training.encoding`), ``queries``, the number
    of queries (they come first, then the positives in the same order, then all negatives), ``owners``
    [documents], the query of each, ``teacher`` [documents], where every row has scores, and ``tokens``, the
    number of real tokens. With a guide also ``guide``, the same texts for its tokenizer.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        *,
        query_length: int,
        document_length: int,
        token_budget: int,
        prompts: Prompts,
        multiple: int = 8,
        guide: tuple[PreTrainedTokenizerBase, int] | None = None,
    ) -> None:
        self._tokenizer = tokenizer
        self._query_length, self._document_length = query_length, document_length
        self._query_prompt, self._document_prompt = prompts.query or "", prompts.document or ""
        self.token_budget, self._multiple = token_budget, multiple
        self._guide = guide  # its tokenizer and its length

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        documents = [row["positive"] for row in rows]
        documents += [negative for row in rows for negative in row["negatives"]]
        tokens = tokenize(
            self._tokenizer, [self._query_prompt + row["query"] for row in rows], self._query_length
        )
        tokens += tokenize(
            self._tokenizer,
            [self._document_prompt + document for document in documents],
            self._document_length,
        )
        micro_batches, positions = make_micro_batches(
            self._tokenizer, tokens, self.token_budget, self._multiple
        )
        batch = {
            "micro_batches": micro_batches,
            "positions": positions,
            "queries": len(rows),
            "owners": torch.tensor(
                [*range(len(rows)), *(index for index, row in enumerate(rows) for _ in row["negatives"])]
            ),
            "tokens": sum(len(text["input_ids"]) for text in tokens),
        }
        if all(row.get("scores") for row in rows):
            scores = [row["scores"][0] for row in rows] + [
                score for row in rows for score in row["scores"][1:]
            ]
            batch["teacher"] = torch.tensor(scores)
        if self._guide is not None:
            tokenizer, length = self._guide
            texts = [row["query"] for row in rows] + documents
            micro_batches, positions = make_micro_batches(
                tokenizer, tokenize(tokenizer, texts, length), self.token_budget, self._multiple
            )
            batch["guide"] = {"micro_batches": micro_batches, "positions": positions}
        return batch
