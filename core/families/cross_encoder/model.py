"""Loading and saving cross-encoders, with float32 weights."""

from pathlib import Path
from typing import Any

from torch import nn

from core.engine.models.loading import keep_attention_window, load, made_for_scores
from core.errors import BadModel
from core.families import dense
from core.families.cross_encoder.pair_model import CausalPairModel, PairModel, read_pair_model
from core.runtime.context import RunContext
from core.spec.parts.evaluation import Rerank
from core.spec.train import TrainSpec


def load_model(context: RunContext, reference: str, device: str, max_length: int | None = None) -> PairModel:
    """The model that ``reference`` names, which scores a pair with one number. Raises `BadModel`."""
    model = load(read_pair_model, context, reference, device)
    if isinstance(model, CausalPairModel):
        context.notice(
            f"{reference} is asked as Qwen3-Reranker is, with the instruction {model.instruction!r}."
        )
    elif not made_for_scores(model.config):
        raise BadModel(f"{reference} is no cross-encoder: it has no trained head, its scores would be random")
    _settle(model, reference)
    if max_length is not None:
        model.tokenizer.model_max_length = min(max_length, model.tokenizer.model_max_length)
    return model.eval()


def load_for_training(context: RunContext, spec: TrainSpec, device: str) -> PairModel:
    """A cross-encoder, or an encoder, which gets a new head. Raises `BadModel`."""
    model = load(read_pair_model, context, spec.base_model, device, new_head=True)
    if isinstance(model, CausalPairModel):
        raise BadModel(
            f"{spec.base_model} is a causal reranker: it scores pairs as a filter, as a teacher and in "
            "evaluations, and is not trained here. Train an encoder, from its scores if you like "
            "(loss.name: distillation or margin_mse)"
        )
    _settle(model, spec.base_model)
    evaluated = spec.evaluation.datasets or spec.evaluation.holdout is not None
    if evaluated and spec.evaluation.rerank.retriever != "bm25":
        # Loaded again when it is wanted: now it is only looked at, before hours are spent.
        load_retriever(context, spec.evaluation.rerank, "cpu")
    if spec.loss.name not in ("bce", "regression"):
        # What the other losses learn are logits: through a sigmoid, large ones would all be 1.
        model.activation_fn = nn.Identity()
    if not made_for_scores(model.config):
        context.notice(
            f"{spec.base_model} is no cross-encoder yet: it gets a new head for scores, which must be "
            f"trained ({', '.join(model.drawn) or 'random weights'})."
        )
    return model


def load_retriever(context: RunContext, asked: Rerank, device: str) -> Any:
    """The model whose candidates are brought into order. Raises `BadModel`."""
    if asked.family == "late_interaction":
        from core.families import late_interaction  # only who asks for it needs PyLate

        return late_interaction.load_model(context, asked.retriever, device)
    return dense.load_model(context, asked.retriever, device).eval()


def save_model(model: PairModel, folder: Path) -> None:
    """A folder that `CrossEncoder(folder)` loads."""
    model.save_pretrained(str(folder))
    keep_attention_window(model, folder)


def _settle(model: PairModel, reference: str) -> None:
    if not isinstance(model, CausalPairModel) and model.config.num_labels != 1:
        raise BadModel(f"{reference} has {model.config.num_labels} labels; a score for ranking is one number")
    if model.tokenizer.pad_token is None:
        model.tokenizer.pad_token = model.tokenizer.eos_token
    if model.config.pad_token_id is None:
        model.config.pad_token_id = model.tokenizer.pad_token_id
