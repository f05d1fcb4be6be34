"""What a model's vectors and scores depend on, as one hash: the key of everything that is kept of them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from core.artifacts.cache import key_of
from core.engine.models.loading import transformer_of, weights_sha256
from core.engine.tokens import fingerprint
from core.stack import library_versions

ENCODING = 1
"""Version of our own encoding. Raise it with any change that changes vectors or scores."""

_VOLATILE = frozenset({"_name_or_path", "transformers_version", "torch_dtype", "dtype", "architectures"})
"""Entries of a configuration that say where a model comes from, and change nothing that it computes."""

_SETTINGS = (
    "max_seq_length",
    "similarity_fn_name",
    "truncate_dim",
    "prompts",
    "default_prompt_name",
    # Of late-interaction models:
    "query_length",
    "document_length",
    "query_prefix",
    "document_prefix",
    "skiplist_words",
    "do_query_expansion",
    "attend_to_expansion_tokens",
    # Of causal rerankers:
    "instruction",
)


@dataclass(frozen=True)
class Identity:
    """What a loaded model is. Take it before its weights are cast: they are hashed once, as they were loaded.

    ``model_sha256`` is of the weights, every module's type and configuration, the tokenizer, prompts and
    lengths: two models with equal weights and another pooling, activation or lower-casing differ.
    """

    weights_sha256: str
    model_sha256: str
    device: str
    attention: str | None

    @classmethod
    def of(cls, model: nn.Module) -> "Identity":
        weights = weights_sha256(model)
        modules = list(model) if isinstance(model, nn.Sequential) else [model]
        described = {
            "weights": weights,
            "modules": [[type(module).__qualname__, _configuration(module)] for module in modules],
            "transformer": _configuration_of(transformer_of(model)),
            "tokenizer": fingerprint(model.tokenizer),
            "settings": {name: _plain(getattr(model, name, None)) for name in _SETTINGS},
            "activation": repr(getattr(model, "activation_fn", None)),
            "length": model.tokenizer.model_max_length,
        }
        return cls(
            weights,
            key_of(described),
            next(model.parameters()).device.type,
            getattr(transformer_of(model).config, "_attn_implementation", None),
        )

    def key(self, *settings: object) -> str:
        """The key under which what the model makes of texts is kept: the model, its use, and the code.

        ``settings`` are whatever else the caller decides: role, prompt, precision, what is pruned.
        """
        return key_of(
            [ENCODING, library_versions(), self.device, self.attention, self.model_sha256, *settings]
        )


def _configuration(module: nn.Module) -> Any:
    """A module's own configuration, as it would be saved."""
    get = getattr(module, "get_config_dict", None)
    return _plain(get()) if callable(get) else None


def _configuration_of(transformer: nn.Module) -> Any:
    return {
        name: _plain(value) for name, value in transformer.config.to_dict().items() if name not in _VOLATILE
    }


def _plain(value: Any) -> Any:
    """As JSON writes it, with sets in an order."""
    if isinstance(value, Mapping):
        return {str(name): _plain(item) for name, item in value.items()}
    if isinstance(value, set | frozenset):
        return sorted(map(str, value))
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value if isinstance(value, str | int | float | bool | None) else repr(value)
