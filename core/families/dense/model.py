"""Loading and saving bi-encoders: safetensors only, no foreign code unless allowed, float32 weights."""

import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.models import Transformer
from transformers import BitsAndBytesConfig
from transformers.utils import logging as transformers_logging

from core.errors import BadModel
from core.run.context import RunContext
from core.spec.refs import Ref


def load_model(
    context: RunContext, reference: str, device: str, quantization: str | None = None
) -> SentenceTransformer:
    """The model that ``reference`` names, with trainable float32 weights. Raises `BadModel`.

    ``quantization`` (int8 or int4) stores the transformer's linear layers in so many bits, frozen.
    """
    transformers_logging.disable_progress_bar()  # a bar in a log file is noise
    source = context.resolve(reference)
    trust = context.request.trust_remote_code
    if isinstance(source, Path):
        _check_folder(source, reference, trust_remote_code=trust)
        name, revision = str(source), None
    else:
        name, revision = source.target, source.revision
    try:
        model = SentenceTransformer(
            name,
            device=device,
            revision=revision,
            trust_remote_code=trust,
            local_files_only=context.request.offline,
            # Left to itself the loader keeps a checkpoint's bf16 and trains in it.
            model_kwargs={
                "torch_dtype": torch.float32,
                "use_safetensors": True,
                **({"quantization_config": _quantization_config(quantization)} if quantization else {}),
            },
        )
    except (OSError, ValueError, ImportError, KeyError) as error:
        raise BadModel(_explain(source, reference, error, offline=context.request.offline)) from error
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            # Else bitsandbytes packs the weights anew, in place and rounded, at the first evaluation.
            module.support_avx512bf16_for_cpu = False
    if not isinstance(model[0], Transformer) or not hasattr(model, "tokenizer"):
        raise BadModel(f"{reference} does not begin with a transformer: only such models can be trained")
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


def _check_folder(folder: Path, reference: str, *, trust_remote_code: bool) -> None:
    if not folder.is_dir():
        raise BadModel(f"{reference}: there is no such folder")
    if not any(folder.rglob("*.safetensors")):
        pickles = [
            path.name for pattern in ("*.bin", "*.pt", "*.pth", "*.pkl") for path in folder.rglob(pattern)
        ]
        if pickles:
            raise BadModel(
                f"{reference} has its weights as a pickle ({pickles[0]}), which can run code when loaded. "
                "Convert them to safetensors."
            )
        raise BadModel(f"{reference} has no weights: no .safetensors file in the folder")
    if not trust_remote_code and (foreign := _foreign_code(folder)):
        raise BadModel(
            f"{reference} brings its own code ({foreign}), which is refused unless the service runs with "
            "REASON_TRUST_REMOTE_CODE=true"
        )


def _foreign_code(folder: Path) -> str | None:
    """What of the folder would be executed, if anything."""
    for config in folder.rglob("config.json"):
        if auto_map := _json(config).get("auto_map"):
            return str(next(iter(auto_map.values()), config.name))
    modules = folder / "modules.json"
    for module in _json(modules) if modules.exists() else []:
        if not str(module.get("type", "")).startswith("sentence_transformers."):
            return str(module.get("type"))
    return None


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise BadModel(f"{path.name} of the model is not JSON: {error}") from error


def _explain(source: Path | Ref, reference: str, error: Exception, *, offline: bool) -> str:
    first = str(error).strip().partition("\n")[0]
    if isinstance(source, Path):
        return f"{reference} cannot be loaded: {first}"
    if offline:
        return (
            f"{reference} is not in the local hub cache, and REASON_OFFLINE is set. Give file:PATH instead."
        )
    return f"{reference} cannot be had from the model hub (is its name right, is the hub reachable?): {first}"


_OFFSET_POSITIONS = {"roberta", "xlm-roberta", "camembert", "mpnet"}
"""Models that count positions from padding_idx + 1, and so have two fewer than their table."""


def context_length(model: SentenceTransformer) -> int:
    """The most tokens that the model can take, which may be more than it is set to."""
    config = model[0].auto_model.config
    positions = getattr(config, "max_position_embeddings", None)
    if not positions or positions < 8:
        return int(model.max_seq_length or 512)
    return int(positions) - (2 if config.model_type in _OFFSET_POSITIONS else 0)


def weights_sha256(model: SentenceTransformer) -> str:
    """Of every weight in the order of their names: tells models apart whatever folder they came from."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def save_model(model: SentenceTransformer, folder: Path) -> None:
    """A folder that `SentenceTransformer(folder)` loads."""
    model.save_pretrained(str(folder), safe_serialization=True, create_model_card=False)
