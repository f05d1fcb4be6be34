"""Folders of sentence-transformers 5.4 to 6.2, as the library before them would have saved the model.

Since 5.4 the library writes other paths of classes, one name for the pooling, and lengths into the
tokenizer's settings. What is read here becomes the layout before: the one that every generation of the
library, TEI, vLLM and llama.cpp read. Whatever has no counterpart there is refused, because leaving it out
would change vectors.
"""

import contextlib
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from core.errors import BadModel
from core.families.description import CONFIG, MODULES, SETTINGS, Description, read_json

_NEW = ("sentence_transformers.base.modules.", "sentence_transformers.sentence_transformer.modules.")
_TRANSFORMER = "sentence_bert_config.json"
_TOKENIZER = "tokenizer_config.json"

_POOLING = {
    "cls": "pooling_mode_cls_token",
    "mean": "pooling_mode_mean_tokens",
    "max": "pooling_mode_max_tokens",
    "mean_sqrt_len_tokens": "pooling_mode_mean_sqrt_len_tokens",
    "weightedmean": "pooling_mode_weightedmean_tokens",
    "lasttoken": "pooling_mode_lasttoken",
}
_ENDLESS = 10**9
"""What tokenizers write where they have no length of their own."""


@contextlib.contextmanager
def in_old_layout(folder: Path, reference: str) -> Iterator[Path]:
    """The folder, or one of links to its files with configurations of the old layout.

    Raises `BadModel` for what the old layout cannot say.
    """
    described = Description.of(folder)
    if not is_new(described):
        yield folder
        return
    with tempfile.TemporaryDirectory(prefix="reason-model-") as name:
        place = Path(name)
        if described.model_type == "CrossEncoder":
            _cross_encoder(folder, place, described, reference)
        else:
            _modules(folder, place, described, reference)
        yield place


def is_new(described: Description) -> bool:
    """Whether the modules are named as since 5.4."""
    return any(str(module.get("type", "")).startswith(_NEW) for module in described.modules)


def _cross_encoder(folder: Path, place: Path, described: Description, reference: str) -> None:
    """A folder of transformers; the activation stands in its configuration."""
    if others := [name for name in described.names() if name != "Transformer"]:
        raise BadModel(
            f"{reference} scores by {', '.join(others)} and no classifier's head (a causal reranker): such "
            "models are not read yet"
        )
    if prompts := [text for text in (described.settings.get("prompts") or {}).values() if text]:
        raise BadModel(
            f"{reference} puts a prompt in front of its pairs ({prompts[0]!r}), which is not read yet"
        )
    _check_task(folder, "sequence-classification", reference)
    _link(folder, place, but=(CONFIG, MODULES, SETTINGS, _TRANSFORMER))
    config = dict(described.config)
    if activation := described.settings.get("activation_fn"):
        config["sentence_transformers"] = {"activation_fn": activation}
    _write(place / CONFIG, config)


def _modules(folder: Path, place: Path, described: Description, reference: str) -> None:
    paths = {str(module.get("path", "")) for module in described.modules} - {""}
    _link(folder, place, but=(MODULES, _TRANSFORMER, *paths))
    written = []
    for module in described.modules:
        kind, path = str(module["type"]).rpartition(".")[2], str(module.get("path", ""))
        if path:
            (place / path).mkdir(parents=True, exist_ok=True)
            _link(folder / path, place / path, but=(CONFIG, _TRANSFORMER))
        written.append({**module, "type": f"sentence_transformers.models.{kind}"})
        if kind == "Transformer":
            _transformer(folder / path, place / path, reference)
        elif (config := read_json(folder / path / CONFIG)) is not None and path:
            _write(place / path / CONFIG, _configuration(kind, config, reference))
    _write(place / MODULES, written)


def _transformer(folder: Path, place: Path, reference: str) -> None:
    _check_task(folder, "feature-extraction", reference)
    if folder != place and (folder / CONFIG).exists() and not (place / CONFIG).exists():
        (place / CONFIG).symlink_to((folder / CONFIG).resolve())
    before = read_json(folder / _TRANSFORMER) or {}
    length = before.get("max_seq_length")
    if length is None:
        length = (read_json(folder / _TOKENIZER) or {}).get("model_max_length")
    if isinstance(length, int | float) and length >= _ENDLESS:
        length = None
    lower = bool(before.get("do_lower_case", False))
    _write(place / _TRANSFORMER, {"max_seq_length": length, "do_lower_case": lower})


def _check_task(folder: Path, task: str, reference: str) -> None:
    """Raises `BadModel` for a transformer that is asked for something else than the text's vectors."""
    settings = read_json(folder / _TRANSFORMER) or {}
    found = settings.get("transformer_task", task)
    if found != task:
        raise BadModel(f"{reference} uses its transformer for {found} ({_TRANSFORMER}), and not for {task}")
    modalities = settings.get("modality_config") or {"text": {}}
    if others := set(modalities) - {"text"}:
        raise BadModel(f"{reference} reads {', '.join(sorted(others))} beside texts, which is not supported")
    output = modalities["text"].get("method_output_name")
    if output not in (None, "last_hidden_state", "logits"):
        raise BadModel(
            f"{reference} takes {output} of its transformer ({_TRANSFORMER}), which is not supported"
        )
    known = {"transformer_task", "modality_config", "module_output_name", "max_seq_length", "do_lower_case"}
    if more := sorted(name for name, value in settings.items() if name not in known and value):
        raise BadModel(
            f"{reference}: {_TRANSFORMER} has settings of a newer sentence-transformers that are not known "
            f"here: {', '.join(more)}"
        )


def _configuration(kind: str, config: dict[str, Any], reference: str) -> dict[str, Any]:
    config = dict(config)
    for name in ("module_input_name", "module_output_name"):
        if (found := config.pop(name, None)) not in (None, "sentence_embedding"):
            raise BadModel(f"{reference}: its {kind} works on {found}, as no bi-encoder's does")
    if kind != "Pooling" or "pooling_mode" not in config:
        return config
    asked = config.pop("pooling_mode")
    modes = [asked] if isinstance(asked, str) else list(asked)
    if unknown := [mode for mode in modes if mode not in _POOLING]:
        raise BadModel(f"{reference}: pooling {unknown[0]!r} is not known; there are {', '.join(_POOLING)}")
    dimension = config.pop("embedding_dimension", config.pop("word_embedding_dimension", None))
    return {
        "word_embedding_dimension": dimension,
        **{key: mode in modes for mode, key in _POOLING.items()},
        **config,
    }


def _link(folder: Path, place: Path, but: tuple[str, ...]) -> None:
    # A module without settings may have no folder: git does not keep empty ones.
    for path in folder.iterdir() if folder.is_dir() else ():
        if path.name not in but:
            (place / path.name).symlink_to(path.resolve())


def _write(path: Path, content: object) -> None:
    path.write_text(json.dumps(content, indent=2), encoding="utf-8")
