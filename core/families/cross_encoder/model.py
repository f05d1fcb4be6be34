"""Loading cross-encoders, with float32 weights."""

from sentence_transformers import CrossEncoder

from core.errors import BadModel
from core.families.loading import load, made_for_scores
from core.run.context import RunContext


def load_model(
    context: RunContext, reference: str, device: str, max_length: int | None = None
) -> CrossEncoder:
    """The model that ``reference`` names, which scores a pair with one number. Raises `BadModel`."""
    model = load(CrossEncoder, context, reference, device)
    if not made_for_scores(model.config):
        raise BadModel(f"{reference} is no cross-encoder: it has no trained head, its scores would be random")
    if model.config.num_labels != 1:
        raise BadModel(f"{reference} has {model.config.num_labels} labels; a score for ranking is one number")
    if model.tokenizer.pad_token is None:
        model.tokenizer.pad_token = model.tokenizer.eos_token
    if model.config.pad_token_id is None:
        model.config.pad_token_id = model.tokenizer.pad_token_id
    if max_length is not None:
        model.tokenizer.model_max_length = min(max_length, model.tokenizer.model_max_length)
    return model.eval()
