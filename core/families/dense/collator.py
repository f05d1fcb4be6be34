"""Rows into micro-batches of token ids."""

from typing import Any

from transformers import PreTrainedTokenizerBase

from core.spec.train import Prompts
from core.training.encoding import make_micro_batches, tokenize


class PairCollator:
    """Tokenizes a batch's queries and documents, each cut to its role's length, and pads them in groups.

    The result: ``micro_batches`` and ``positions`` (see `core.training.encoding`), ``queries``, the number
    of queries (they come first, then the positives in the same order, then all negatives), and ``tokens``,
    the number of real tokens.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        *,
        query_length: int,
        document_length: int,
        token_budget: int,
        prompts: Prompts,
    ) -> None:
        self._tokenizer = tokenizer
        self._query_length, self._document_length = query_length, document_length
        self._query_prompt, self._document_prompt = prompts.query or "", prompts.document or ""
        self.token_budget = token_budget

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        queries = [self._query_prompt + row["query"] for row in rows]
        documents = [row["positive"] for row in rows]
        documents += [negative for row in rows for negative in row["negatives"]]
        tokens = tokenize(self._tokenizer, queries, self._query_length)
        tokens += tokenize(
            self._tokenizer,
            [self._document_prompt + document for document in documents],
            self._document_length,
        )
        micro_batches, positions = make_micro_batches(self._tokenizer, tokens, self.token_budget)
        return {
            "micro_batches": micro_batches,
            "positions": positions,
            "queries": len(queries),
            "tokens": sum(len(text["input_ids"]) for text in tokens),
        }
