"""Loading and saving bi-encoders, with float32 weights."""

from pathlib import Path

import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.models import Transformer
from transformers import BitsAndBytesConfig

from core.errors import BadModel, BadSpec
from core.families.loading import keep_prompts, load, made_for_scores
from core.run.context import RunContext
from core.spec.train import TrainSpec


def load_for_training(context: RunContext, spec: TrainSpec, device: str) -> SentenceTransformer:
    """The base model. Raises `BadModel`, and `BadSpec` for dimensions that it does not have."""
    model = load_model(context, spec.base_model, device, spec.quantization)
    keep_prompts(model, spec.prompts)
    dim = model.get_sentence_embedding_dimension() or 0
    if spec.matryoshka and max(spec.matryoshka.dimensions) >= dim:
        raise BadSpec(
            f"matryoshka.dimensions go up to {max(spec.matryoshka.dimensions)}; the model's embeddings have "
            f"{dim}: each must be smaller"
        )
    return model


def load_model(
    context: RunContext, reference: str, device: str, quantization: str | None = None
) -> SentenceTransformer:
    """The model that ``reference`` names, with trainable float32 weights. Raises `BadModel`.

    ``quantization`` (int8 or int4) stores the transformer's linear layers in so many bits, frozen.
    """
    fewer_bits = {"quantization_config": _quantization_config(quantization)} if quantization else {}
    model = load(SentenceTransformer, context, reference, device, **fewer_bits)
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            # Else bitsandbytes packs the weights anew, in place and rounded, at the first evaluation.
            module.support_avx512bf16_for_cpu = False
    if not isinstance(model[0], Transformer) or not hasattr(model, "tokenizer"):
        raise BadModel(f"{reference} does not begin with a transformer: only such models can be trained")
    if made_for_scores(model[0].auto_model.config):
        context.notice(
            f"{reference} was made to score or classify texts, not for embeddings that are compared.",
            "warning",
        )
    if model.tokenizer.pad_token is None:
        model.tokenizer.pad_token = model.tokenizer.eos_token
        context.notice(
            f"The tokenizer has no padding token; its end token {model.tokenizer.eos_token!r} pads."
        )
    return model


def _quantization_config(quantization: str) -> BitsAndBytesConfig:
    if quantization == "int8":
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.float32,
    )


def save_model(model: SentenceTransformer, folder: Path) -> None:
    """A folder that `SentenceTransformer(folder)` loads."""
    model.save_pretrained(str(folder), safe_serialization=True, create_model_card=False)
