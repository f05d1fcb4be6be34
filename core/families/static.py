"""Static embeddings as the engine reads them: a text is the mean of its tokens' vectors (model2vec;
sentence-transformers' `StaticEmbedding`). There is no transformer: encoding is a matter of the tokenizer.

The library's module takes all texts' ids in one row with offsets, and a bare tokenizer. Here it stands behind
the same face as a transformer, so that batches, caches, training and evaluation need not know of it; it is
taken out again when the model is saved.
"""

import contextlib
from collections.abc import Iterator, Sequence
from types import SimpleNamespace
from typing import Any

import torch
from tokenizers import Tokenizer
from torch import nn

from core.engine.batching import Packing
from core.engine.tokens import on_all_cores
from core.spec.parts.models import UNLIMITED

_BUDGET = 1 << 20
"""Tokens of a micro-batch: what is kept of a text is one vector, however long it is."""


class BareTokenizer:
    """A tokenizer of `tokenizers` with what the engine asks of one of transformers.

    It puts no special tokens around a text and cuts only where its own file says so, as the library uses it.
    """

    pad_token = "none"  # noqa: S105 - padding is left out of the mean, whatever stands there
    pad_token_id = 0
    padding_side = truncation_side = "right"
    do_lower_case = False

    def __init__(self, backend: Tokenizer) -> None:
        self.backend_tokenizer = backend
        self.special_tokens_map: dict[str, str] = {}
        cut = backend.truncation
        self.model_max_length = int(cut["max_length"]) if cut else UNLIMITED

    def __call__(
        self, texts: str | Sequence[str], *, max_length: int | None = None, truncation: bool = False, **_: Any
    ) -> dict[str, list[Any]]:
        """Ids of one text, or of each."""
        single = isinstance(texts, str)
        with on_all_cores():
            found = self.backend_tokenizer.encode_batch_fast(
                [texts] if single else list(texts), add_special_tokens=False
            )
        ids = [encoding.ids[: max_length if truncation else None] for encoding in found]
        return {"input_ids": ids[0] if single else ids}

    def get_vocab(self) -> dict[str, int]:
        return self.backend_tokenizer.get_vocab()

    def __len__(self) -> int:
        return self.backend_tokenizer.get_vocab_size()


class StaticText(nn.Module):
    """The first module of a static model: padded ids and their mask -> the mean of the tokens' vectors.

    ``embedding`` is the library's own table, under its own name. A text without a token that is known gives
    zeros, as in the library.
    """

    def __init__(self, original: Any) -> None:
        super().__init__()
        self.embedding: nn.EmbeddingBag = original.embedding
        self.tokenizer = BareTokenizer(original.tokenizer)
        self.max_seq_length = self.tokenizer.model_max_length
        self._original = [original]  # in a list: its table is not to be counted twice
        self.config = SimpleNamespace(
            model_type="static",
            architectures=["StaticEmbedding"],
            hidden_size=self.embedding.embedding_dim,
            max_position_embeddings=self.max_seq_length,
            to_dict=lambda: {"model_type": "static", "mode": self.embedding.mode},
        )

    def forward(self, features: dict[str, torch.Tensor], **_: Any) -> dict[str, torch.Tensor]:
        mask = features["attention_mask"].bool()  # [texts, tokens]
        counts = mask.sum(1)
        features["sentence_embedding"] = self.embedding(
            features["input_ids"][mask], counts.cumsum(0) - counts
        )
        return features

    @property
    def auto_model(self) -> nn.Module:
        """What knows the words."""
        return self

    def get_input_embeddings(self) -> nn.EmbeddingBag:
        return self.embedding

    def get_sentence_embedding_dimension(self) -> int:
        return self.embedding.embedding_dim

    get_embedding_dimension = get_sentence_embedding_dimension  # its name since 5.4

    @property
    def original(self) -> nn.Module:
        """The library's module, with the same table."""
        return self._original[0]


def is_static(model: Any) -> bool:
    """Whether a bi-encoder has no transformer."""
    return isinstance(model, nn.Sequential) and isinstance(model[0], StaticText)


def packing_of(model: Any, usual: Packing) -> Packing:
    """How a model's texts are packed: ``usual``, or, without a transformer, as few micro-batches as can be.
    Each has a backward pass over the whole table."""
    return Packing(_BUDGET, overhead=_BUDGET) if is_static(model) else usual


@contextlib.contextmanager
def in_library_form(model: nn.Sequential) -> Iterator[None]:
    """The model as the library saves it. Does nothing to another one."""
    face = model[0]
    if not isinstance(face, StaticText):
        yield
        return
    model[0] = face.original
    try:
        yield
    finally:
        model[0] = face
