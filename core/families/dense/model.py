"""Loading and saving bi-encoders, with float32 weights."""

from pathlib import Path

import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.models import StaticEmbedding, Transformer
from transformers import BitsAndBytesConfig

from core.engine.models.layouts import write_old_layout
from core.engine.models.loading import keep_attention_window, keep_prompts, load, made_for_scores
from core.errors import BadModel, BadSpec
from core.families.static import StaticText, in_library_form, is_static
from core.models.description import Description
from core.runtime.context import RunContext
from core.spec.train import TrainSpec


def load_for_training(context: RunContext, spec: TrainSpec, device: str) -> SentenceTransformer:
    """The base model. Raises `BadModel`, and `BadSpec` for dimensions that it does not have."""
    model = load_model(context, spec.base_model, device, spec.quantization)
    keep_prompts(model, spec.prompts)
    if is_static(model):
        _check_static(spec, context)
    dim = dimension_of(model)
    if spec.matryoshka and max(spec.matryoshka.dimensions) >= dim:
        raise BadSpec(
            f"matryoshka.dimensions go up to {max(spec.matryoshka.dimensions)}; the model's embeddings have "
            f"{dim}: each must be smaller"
        )
    return model


def dimension_of(model: SentenceTransformer) -> int:
    """Of a text's vector. The library's method has another name since 5.4."""
    ask = getattr(model, "get_embedding_dimension", None) or model.get_sentence_embedding_dimension
    return int(ask() or 0)


def load_model(
    context: RunContext, reference: str, device: str, quantization: str | None = None
) -> SentenceTransformer:
    """The model that ``reference`` names, with trainable float32 weights. Raises `BadModel`.

    ``quantization`` (int8 or int4) stores the transformer's linear layers in so many bits, frozen.
    """
    fewer_bits = {"quantization_config": _quantization_config(quantization)} if quantization else {}
    if Description.of(context.model_path(reference)).is_late_interaction:
        raise BadModel(f"{reference} is a late-interaction model (ColBERT), not a bi-encoder")
    model = load(SentenceTransformer, context, reference, device, **fewer_bits)
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            # Else bitsandbytes packs the weights anew, in place and rounded, at the first evaluation.
            module.support_avx512bf16_for_cpu = False
    if isinstance(model[0], StaticEmbedding):
        if quantization:
            raise BadSpec(f"quantization: {reference} has static embeddings and no linear layers")
        model[0] = StaticText(model[0])
        return model.float()  # model2vec keeps its table in half precision
    if not isinstance(model[0], Transformer) or not hasattr(model, "tokenizer"):
        raise BadModel(f"{reference} begins with neither a transformer nor static embeddings")
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


_WITH_LAYERS = ("lora", "train_last_n", "freeze_base", "gradient_checkpointing", "compile", "prune_tokens")
_FAST_ENOUGH = 1e-3


def _check_static(spec: TrainSpec, context: RunContext) -> None:
    """Raises `BadSpec` for what needs a transformer."""
    for name in _WITH_LAYERS:
        if getattr(spec, name):
            raise BadSpec(f"{name}: {spec.base_model} has static embeddings, a table and no layers")
    if spec.sharding != "none":
        raise BadSpec(f"sharding: {spec.base_model} has static embeddings, a table and no layers")
    if spec.lengths.saved == "trained":
        raise BadSpec(f"lengths.saved: {spec.base_model} has static embeddings, which read whole texts")
    if spec.learning_rate < _FAST_ENOUGH:
        context.notice(
            f"learning_rate {spec.learning_rate:g} hardly changes static embeddings: published ones were "
            "trained with 0.2, each token's vector by the few texts that it stands in.",
            "warning",
        )


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
    with in_library_form(model):
        model.save_pretrained(str(folder), safe_serialization=True, create_model_card=False)
    write_old_layout(folder)
    keep_attention_window(model, folder)
