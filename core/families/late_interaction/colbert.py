"""A late-interaction model: a transformer, projections of its tokens' vectors, and how texts are read.

Read from and written to PyLate's layout, which PyLate, sentence-transformers' `MultiVectorEncoder` (6.0 and
later), vLLM and we load; folders of `MultiVectorEncoder` become that layout in `engine.models.layouts`. The
class needs neither library's wrapper, so that it is the same on both stacks. Tests hold it against both.
"""

import string
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from sentence_transformers.models import Transformer
from torch import nn

from core.errors import BadModel
from core.models.description import CONFIG, MODULES, SETTINGS, Description, read_json, write_json

_WEIGHTS = "model.safetensors"
_TRANSFORMER = "sentence_bert_config.json"
_STANFORD = "artifact.metadata"
_PROJECTION = 128
_DENSE = "pylate.models.Dense.Dense"
"""As PyLate calls it in ``modules.json``; `MultiVectorEncoder` knows the name, too."""

_DEFAULTS: dict[str, Any] = {
    "query_prefix": "[Q] ",
    "document_prefix": "[D] ",
    "query_length": 32,
    "document_length": 180,
    "do_query_expansion": True,
    "attend_to_expansion_tokens": False,
    "skiplist_words": list(string.punctuation),
}
"""PyLate's, of 1.0 to 1.6: what a folder does not say."""


class Projection(nn.Module):
    """A token's vector into another: linear, an activation, and what came in again (``use_residual``)."""

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        bias: bool = False,
        activation_function: str = "torch.nn.modules.linear.Identity",
        use_residual: bool = False,
    ) -> None:
        super().__init__()
        self.in_features, self.out_features, self.use_residual = in_features, out_features, use_residual
        self.linear = nn.Linear(in_features, out_features, bias=bias)
        self.activation_name = activation_function
        self.activation_function = _activation(activation_function)
        if use_residual and in_features != out_features:
            self.residual = nn.Linear(in_features, out_features, bias=False)

    def forward(self, features: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        vectors = features["token_embeddings"]  # [texts, tokens, in_features]
        projected = self.activation_function(self.linear(vectors))
        if self.use_residual:
            projected = projected + (self.residual(vectors) if hasattr(self, "residual") else vectors)
        features["token_embeddings"] = projected
        return features

    def get_config_dict(self) -> dict[str, Any]:
        return {
            "in_features": self.in_features,
            "out_features": self.out_features,
            "bias": self.linear.bias is not None,
            "activation_function": self.activation_name,
            "use_residual": self.use_residual,
        }


class ColBERT(nn.Sequential):
    """Features of micro-batches -> the same with ``token_embeddings`` [texts, tokens, dim].

    ``query_prefix`` and ``document_prefix`` are tokens that stand second in every text of the role ("" for
    none), with numbers ``*_prefix_id``. ``skiplist`` are numbers of tokens that give no vector in documents.
    Lengths are tokens, special ones included. ``trained``: its projection came with it.
    """

    query_prefix: str
    document_prefix: str
    query_length: int
    document_length: int
    do_query_expansion: bool
    attend_to_expansion_tokens: bool
    skiplist_words: list[str]

    def __init__(
        self,
        transformer: Any,
        projections: Sequence[nn.Module],
        settings: dict[str, Any],
        *,
        prompts: dict[str, str] | None = None,
        trained: bool,
    ) -> None:
        super().__init__(transformer, *projections)
        for name, usual in _DEFAULTS.items():
            value = settings.get(name)
            setattr(self, name, usual if value is None else value)
        if not self.do_query_expansion:
            self.attend_to_expansion_tokens = False
        self.prompts = prompts or {}
        self.trained = trained
        self.new_words: list[int] = []
        self._take_prefixes()
        tokenizer = self.tokenizer
        if tokenizer.mask_token_id is not None:
            tokenizer.pad_token_id = tokenizer.mask_token_id  # what queries are filled up with
        elif tokenizer.eos_token_id is not None:
            tokenizer.pad_token_id = tokenizer.eos_token_id
        elif tokenizer.pad_token_id is None:
            raise BadModel(
                "its tokenizer has no token to fill queries up with: no mask, end or padding token"
            )
        self.skiplist = [tokenizer.convert_tokens_to_ids(word) for word in self.skiplist_words]

    def forward(self, features: dict[str, Any]) -> dict[str, Any]:
        for module in self:
            features = module(features)
        return features

    @property
    def tokenizer(self) -> Any:
        return self[0].tokenizer

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device

    def gradient_checkpointing_enable(self, **options: Any) -> None:
        """As the trainer asks for it."""
        self[0].auto_model.gradient_checkpointing_enable(**options)

    def _take_prefixes(self) -> None:
        """Make sure that both prefixes are tokens of one number each, and have rows in the table."""
        prefixes = [prefix for prefix in (self.query_prefix, self.document_prefix) if prefix]
        transformer = self[0].auto_model
        if prefixes:
            transformer.resize_token_embeddings(len(self.tokenizer))
            if self.tokenizer.add_tokens(prefixes):
                transformer.resize_token_embeddings(len(self.tokenizer))
        self.query_prefix_id, self.document_prefix_id = (
            self.tokenizer.convert_tokens_to_ids(prefix) if prefix else None
            for prefix in (self.query_prefix, self.document_prefix)
        )

    def save_pretrained(self, folder: str) -> None:
        """PyLate's layout, of the whole model."""
        place = Path(folder)
        place.mkdir(parents=True, exist_ok=True)
        transformer = self[0]
        transformer.max_seq_length = self.document_length
        transformer.save(str(place), safe_serialization=True)
        # What a library of 5.4 or later writes here, PyLate's does not read.
        lower = bool(getattr(transformer, "do_lower_case", False))
        write_json(place / _TRANSFORMER, {"max_seq_length": self.document_length, "do_lower_case": lower})
        modules = [{"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"}]
        for number, projection in enumerate(list(self)[1:], 1):
            path = f"{number}_Dense"
            (place / path).mkdir(exist_ok=True)
            write_json(place / path / CONFIG, projection.get_config_dict())
            state = {name: tensor.contiguous() for name, tensor in projection.state_dict().items()}
            save_file(state, place / path / _WEIGHTS)
            modules.append({"idx": number, "name": str(number), "path": path, "type": _DENSE})
        write_json(place / MODULES, modules)
        settings = {
            "model_type": "ColBERT",
            "prompts": {"query": "", "document": "", **self.prompts},
            "default_prompt_name": None,
            "similarity_fn_name": "MaxSim",
            **{name: getattr(self, name) for name in _DEFAULTS},
        }
        for role in ("query", "document"):
            # PyLate puts prefixes in front by itself, and prompts only when it is told to.
            prompt = settings["prompts"][role]
            if not settings[f"{role}_prefix"] and self._is_a_mark(prompt):
                settings[f"{role}_prefix"], settings["prompts"][role] = prompt, ""
        write_json(place / SETTINGS, settings)

    def _is_a_mark(self, prompt: str) -> bool:
        """Whether a prompt is one token that was added to the vocabulary: as a prefix it is read the same."""
        ids = self.tokenizer(prompt, add_special_tokens=False)["input_ids"] if prompt else []
        return ids == [self.tokenizer.added_tokens_encoder.get(prompt, -1)]


def read_colbert(
    folder: str,
    *,
    device: str,
    trust_remote_code: bool = False,
    local_files_only: bool = False,
    model_kwargs: dict[str, Any] | None = None,
    embedding_size: int | None = None,
    **asked: Any,
) -> ColBERT:
    """The model of a folder: PyLate's, Stanford's ColBERT, or an encoder, which gets a new projection.

    ``asked`` are settings in place of the folder's. Dense layers of a bi-encoder become projections of its
    tokens; another ``embedding_size`` than theirs adds one.
    """
    place = Path(folder)
    described = Description.of(place)
    transformers = [at for name, at in _modules(described) if name == "Transformer"]
    if described.modules and not transformers:
        raise BadModel("it does not begin with a transformer")
    transformer: Any = Transformer.load(
        folder,
        subfolder=transformers[0] if transformers else "",
        trust_remote_code=trust_remote_code,
        local_files_only=local_files_only,
        model_kwargs=model_kwargs,
    )
    hidden = transformer.auto_model.config.hidden_size
    stanford = not described.modules and "HF_ColBERT" in described.architectures
    settings = _stanford_settings(place) if stanford else dict(described.settings)
    projections = [_read_projection(place / at) for name, at in _modules(described) if name == "Dense"]
    if stanford:
        projections = [_stanford_projection(place)]
    trained = stanford or "query_prefix" in described.settings
    if not projections:
        projections = [Projection(hidden, embedding_size or _PROJECTION)]
    if not trained:
        if embedding_size not in (None, last := projections[-1].out_features):
            projections.append(Projection(last, embedding_size))
        # A bi-encoder's lengths and marks are none of a late-interaction model.
        settings = {"prompts": settings.get("prompts")}
    model = ColBERT(
        transformer,
        projections,
        {**settings, **asked},
        prompts=dict(settings.get("prompts") or {}),
        trained=trained,
    )
    return model.to(device)


def _modules(described: Description) -> list[tuple[str, str]]:
    """(class, path) of each."""
    paths = [str(module.get("path") or "") for module in described.modules]
    return list(zip(described.names(), paths, strict=True))


def _read_projection(folder: Path) -> Projection:
    config = read_json(folder / CONFIG) or {}
    known = ("bias", "activation_function", "use_residual")
    projection = Projection(
        config["in_features"],
        config["out_features"],
        **{name: config[name] for name in known if name in config},
    )
    projection.load_state_dict(load_file(folder / _WEIGHTS))
    return projection


def _stanford_projection(folder: Path) -> Projection:
    """Its matrix lies among the transformer's weights."""
    weight = load_file(folder / _WEIGHTS).get("linear.weight")
    if weight is None:
        raise BadModel(f"{_WEIGHTS} has no projection (linear.weight)")
    projection = Projection(weight.shape[1], weight.shape[0])
    projection.load_state_dict({"linear.weight": weight})
    return projection


def _stanford_settings(folder: Path) -> dict[str, Any]:
    """Of ColBERT's own ``artifact.metadata``, by PyLate's names."""
    found = read_json(folder / _STANFORD) or {}
    return {
        "query_prefix": found.get("query_token_id") or "[unused0]",
        "document_prefix": found.get("doc_token_id") or "[unused1]",
        "query_length": found.get("query_maxlen"),
        "document_length": found.get("doc_maxlen"),
        "attend_to_expansion_tokens": found.get("attend_to_mask_tokens"),
    }


def _activation(name: str) -> nn.Module:
    """Of torch's own activations by their full names: others would be foreign code."""
    package, _, kind = name.rpartition(".")
    found = getattr(import_module("torch.nn"), kind, None) if package.startswith("torch.nn") else None
    if not (isinstance(found, type) and issubclass(found, nn.Module)):
        raise BadModel(f"its projection has an activation that is not known: {name}")
    return found()
