"""Loading models of all families: safetensors only, no foreign code unless allowed, float32 weights."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import torch
from tokenizers import normalizers
from torch import nn
from transformers.utils import logging as transformers_logging

from core.engine.models.layouts import in_old_layout
from core.engine.models.weights import check_vocabulary, checked_weights
from core.errors import BadModel
from core.models.description import CONFIG, read_json, write_json
from core.models.files import check_folder
from core.native_errors import first_line, reading_model, translated
from core.runtime.context import RunContext
from core.spec.parts.models import Prompts

Model = TypeVar("Model")


def load(
    make: Callable[..., Model],
    context: RunContext,
    reference: str,
    device: str,
    *,
    new_head: bool = False,
    **model_kwargs: Any,
) -> Model:
    """The model that ``reference`` names, with float32 weights, by a library's class.

    ``new_head``: its files may lack a head, which is new then and must be trained. Raises `BadModel` for a
    folder that is not whole, for weights that the files lack, and for another kind of model.
    """
    transformers_logging.disable_progress_bar()  # a bar in a log file is noise
    trust = context.request.trust_remote_code
    folder = context.model_path(reference)
    with reading_model(f"{reference} cannot be loaded"):
        check_folder(folder, reference, trust_remote_code=trust)

    def explained(error: Exception) -> BadModel:
        # Whatever it is: safetensors, tokenizers and torch have exception types of their own, and what a
        # model's files make a library raise (TypeError, AttributeError) is the model's fault.
        return BadModel(f"{reference} cannot be loaded: {first_line(error)}")

    told = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()  # tables of weights that older checkpoints have in excess
    try:
        with (
            translated(explained, f"{reference} cannot be read"),
            in_old_layout(folder, reference) as place,
            checked_weights(reference, new_head=new_head) as new,
        ):
            model: Any = make(
                str(place),
                device=device,
                trust_remote_code=trust,
                local_files_only=context.request.offline,
                # Left to itself the loader keeps a checkpoint's bf16 and trains in it.
                model_kwargs={"torch_dtype": torch.float32, "use_safetensors": True, **model_kwargs},
            )
            if isinstance(model, nn.Sequential) and len(model) == 0:
                raise BadModel(f"{reference} has no modules: its modules.json is empty")
            check_vocabulary(model, reference)
            _put_texts_in_lower_case(model, reference)
            model.loaded_from = reference  # for messages about what it computes
            model.drawn = new  # names of weights that its files lack
            return model
    except BadModel as error:
        if reference in str(error):
            raise
        raise BadModel(f"{reference}: {error}") from error
    finally:
        transformers_logging.set_verbosity(told)


def _put_texts_in_lower_case(model: Any, reference: str) -> None:
    """Give the tokenizer the lower-casing that sentence-transformers does before it (``do_lower_case``).

    Texts are tokenized here without that library's own step. Raises `BadModel`.
    """
    if not (isinstance(model, nn.Sequential) and getattr(model[0], "do_lower_case", False)):
        return
    backend = getattr(model.tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise BadModel(f"{reference} asks for lower case (do_lower_case), which its slow tokenizer cannot do")
    before = [backend.normalizer] if backend.normalizer is not None else []
    backend.normalizer = normalizers.Sequence([normalizers.Lowercase(), *before])


def keep_prompts(model: Any, prompts: Prompts) -> None:
    """The saved model says which prompts it was trained with, under the names that `encode_query` and
    `encode_document` look for."""
    for role, text in prompts:
        if text is not None and text != (model.prompts.get(role) or ""):
            model.prompts = {**model.prompts, role: text}


def keep_attention_window(model: Any, folder: Path) -> None:
    """Write the window of a bidirectional Gemma (EmbeddingGemma) as it must be read.

    Its configuration halves the window whenever it is made, and before transformers 5.4 it saved the half: a
    model that was saved and loaded attended to fewer tokens each time.
    """
    config = transformer_of(model).config
    path = folder / CONFIG
    saved = read_json(path)
    if getattr(config, "use_bidirectional_attention", False) and saved.get("sliding_window"):
        window = 2 * (config.sliding_window - 1)
        write_json(path, {**saved, "sliding_window": window})


def weights_sha256(model: nn.Module) -> str:
    """Of every weight in the order of their names: tells models apart whatever folder they came from."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


_OFFSET_POSITIONS = {"roberta", "xlm-roberta", "camembert", "mpnet"}
"""Models that count positions from padding_idx + 1, and so have two fewer than their table."""


def context_length(model: Any) -> int:
    """The most tokens that the model can take, which may be more than it is set to."""
    config = transformer_of(model).config
    positions = getattr(config, "max_position_embeddings", None)
    if not positions or positions < 8:
        return int(getattr(model, "max_seq_length", None) or 512)
    return int(positions) - (2 if config.model_type in _OFFSET_POSITIONS else 0)


def transformer_of(model: Any) -> nn.Module:
    """The part that came pretrained and knows the words: of a bi-encoder or ColBERT its first module, of a
    cross-encoder what stands below the head."""
    if isinstance(model, nn.Sequential):
        return model[0].auto_model
    return model.model.base_model


def made_for_scores(config: Any) -> bool:
    """Whether a model has a trained head that gives numbers: a cross-encoder, or a classifier."""
    return any(name.endswith("ForSequenceClassification") for name in config.architectures or ())
