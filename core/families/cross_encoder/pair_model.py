"""Models that read a query and a document together and score them with one number.

Two kinds: classifiers with one label (BERT- and BGE-type rerankers; sentence-transformers' `CrossEncoder`
loads and saves the same folders), and language models that are asked whether the document answers the query
(Qwen3-Reranker). The classes need no wrapper of a library, so that they are the same on both stacks.
"""

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

from core.errors import BadModel
from core.models.description import Description

Tokens = dict[str, list[list[int]]]
"""What a model reads of pairs, by the name of its argument: of each pair, [tokens]."""


class PairModel(nn.Module):
    """``model`` is transformers' own, ``activation_fn`` makes scores of what `logits` gives."""

    def __init__(self, model: Any, tokenizer: Any, activation_fn: nn.Module) -> None:
        super().__init__()
        self.model, self.tokenizer, self.activation_fn = model, tokenizer, activation_fn
        self.drawn: list[str] = []

    @property
    def config(self) -> Any:
        return self.model.config

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device

    def gradient_checkpointing_enable(self, **options: Any) -> None:
        """As the trainer asks for it."""
        self.model.gradient_checkpointing_enable(**options)

    def read_pairs(self, queries: Sequence[str], documents: Sequence[str]) -> Tokens:
        """Not padded, cut to the model's own length."""
        return dict(
            self.tokenizer(
                list(queries),
                list(documents),
                truncation=True,
                max_length=self.tokenizer.model_max_length,
                padding=False,
            )
        )

    def forward(self, **micro_batch: torch.Tensor) -> torch.Tensor:
        """Padded pairs -> what their scores are made of: [pairs]."""
        return self.model(**micro_batch).logits[:, 0].clone()  # not a view: FSDP2 hooks what comes out

    def save_pretrained(self, folder: str) -> None:
        """As `CrossEncoder` before 5.4: a folder of transformers, the activation in its configuration."""
        known = dict(getattr(self.config, "sentence_transformers", None) or {})
        kind = type(self.activation_fn)
        self.config.sentence_transformers = {
            **known,
            "activation_fn": f"{kind.__module__}.{kind.__qualname__}",
        }
        self.model.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)


QWEN3_INSTRUCTION = "Given a web search query, retrieve relevant passages that answer the query"
_QWEN3_BEFORE = (
    "<|im_start|>system\nJudge whether the Document meets the requirements based on the Query and the "
    'Instruct provided. Note that the answer can only be "yes" or "no".<|im_end|>\n<|im_start|>user\n'
)
_QWEN3_AFTER = "<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"
_QWEN3_LONGEST = 8192


class CausalPairModel(PairModel):
    """Qwen3-Reranker as its authors use it (Zhang et al. 2025, arXiv 2506.05176): the score is the logit of
    "yes" less that of "no" after a fixed question, through a sigmoid. ``instruction`` is part of it.

    Too long documents are cut, never the question behind them. The last token's vector meets the two rows of
    the table of words, not the whole vocabulary.
    """

    def __init__(self, model: Any, tokenizer: Any) -> None:
        super().__init__(model, tokenizer, nn.Sigmoid())
        self.instruction = QWEN3_INSTRUCTION
        tokenizer.padding_side = "left"
        tokenizer.model_max_length = min(tokenizer.model_max_length, _QWEN3_LONGEST, _positions(model.config))
        self._before, self._after = (
            tokenizer(text, add_special_tokens=False)["input_ids"] for text in (_QWEN3_BEFORE, _QWEN3_AFTER)
        )
        words = tokenizer.get_vocab()
        if missing := [word for word in ("yes", "no", "<|im_start|>", "<|im_end|>") if word not in words]:
            raise BadModel(
                f"its tokenizer has no {missing[0]!r}, which rerankers of Qwen3's kind answer with"
            )
        self._answers = [words["yes"], words["no"]]

    def read_pairs(self, queries: Sequence[str], documents: Sequence[str]) -> Tokens:
        asked = [
            f"<Instruct>: {self.instruction}\n<Query>: {query}\n<Document>: {document}"
            for query, document in zip(queries, documents, strict=True)
        ]
        room = self.tokenizer.model_max_length - len(self._before) - len(self._after)
        found = self.tokenizer(asked, add_special_tokens=False, truncation=True, max_length=max(1, room))
        ids = [[*self._before, *of_pair, *self._after] for of_pair in found["input_ids"]]
        return {"input_ids": ids, "attention_mask": [[1] * len(of_pair) for of_pair in ids]}

    def forward(self, **micro_batch: torch.Tensor) -> torch.Tensor:
        hidden = self.model.base_model(**micro_batch).last_hidden_state[:, -1]  # [pairs, dim]: padded left
        yes, no = self.model.get_output_embeddings().weight[self._answers]
        return hidden @ (yes - no)


def read_pair_model(
    folder: str,
    *,
    device: str,
    trust_remote_code: bool = False,
    local_files_only: bool = False,
    model_kwargs: dict[str, Any] | None = None,
) -> PairModel:
    """The model of a folder. An encoder without a head gets a new one, of one label.

    Raises `BadModel` for what scores in no known way.
    """
    described = Description.of(Path(folder))
    if "StaticEmbedding" in described.names():
        raise BadModel("it has static embeddings, which score no pairs")
    prompts = described.settings.get("prompts") or {}
    if not described.modules and any(prompts.values()):
        raise BadModel("it puts a prompt in front of its pairs, which is not read yet")
    options = {"trust_remote_code": trust_remote_code, "local_files_only": local_files_only}
    config = AutoConfig.from_pretrained(folder, **options)
    architectures = config.architectures or []
    tokenizer = AutoTokenizer.from_pretrained(folder, **options)
    named = described.model_type
    if any(name.endswith(("ForCausalLM", "LMHeadModel")) for name in architectures) and named is None:
        if config.model_type != "qwen3":
            raise BadModel(
                f"it is a language model ({architectures[0]}): of those only Qwen3-Reranker's way to score "
                "pairs is known"
            )
        model = AutoModelForCausalLM.from_pretrained(folder, config=config, **options, **(model_kwargs or {}))
        return CausalPairModel(model, tokenizer).to(device)
    if not any(name.endswith("ForSequenceClassification") for name in architectures):
        config.num_labels = 1
    model = AutoModelForSequenceClassification.from_pretrained(
        folder, config=config, **options, **(model_kwargs or {})
    )
    tokenizer.model_max_length = min(tokenizer.model_max_length, _positions(config))
    activation = _activation(config, trust_remote_code=trust_remote_code)
    return PairModel(model, tokenizer, activation).to(device)


def _positions(config: Any) -> int:
    return int(getattr(config, "max_position_embeddings", None) or 1 << 30)


def _activation(config: Any, *, trust_remote_code: bool) -> nn.Module:
    """As the model's configuration names it: since 4.0 one way, before another. Of one label a sigmoid."""
    known = getattr(config, "sentence_transformers", None) or {}
    name = known.get("activation_fn") or getattr(config, "sbert_ce_default_activation_function", None)
    if hasattr(config, "sbert_ce_default_activation_function"):
        del config.sbert_ce_default_activation_function
    if name is None:
        return nn.Sigmoid() if config.num_labels == 1 else nn.Identity()
    if not (str(name).startswith("torch.") or trust_remote_code):
        raise BadModel(f"its activation {name} is foreign code")
    package, _, kind = str(name).rpartition(".")
    activation: nn.Module = getattr(import_module(package), kind)()
    return activation
