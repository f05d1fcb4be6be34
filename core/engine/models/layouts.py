"""Folders of sentence-transformers 5.4 to 6.2, as the library before them would have saved the model.

Since 5.4 the library writes other paths of classes, one name for the pooling, and lengths into the
tokenizer's settings. What is read here becomes the layout before: the one that every generation of the
library, TEI, vLLM and llama.cpp read. Whatever has no counterpart there is refused, because leaving it out
would change vectors.
"""

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from core.errors import BadModel
from core.models.description import CONFIG, MODULES, SETTINGS, Description, read_json, write_json

_NEW = tuple(
    f"sentence_transformers.{package}.modules."
    for package in ("base", "sentence_transformer", "multi_vector_encoder", "cross_encoder")
)
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
        elif described.model_type == "MultiVectorEncoder":
            _multi_vector(folder, place, described, reference)
        else:
            _modules(folder, place, described, reference)
        yield place


def write_old_layout(folder: Path) -> None:
    """Turn what the library has just saved into the old layout, in place. Nothing to do before 5.4."""
    described = Description.of(folder)
    if not is_new(described):
        return
    with in_old_layout(folder, "the saved model") as place:
        files = [path for path in place.rglob("*") if path.is_file() and not path.is_symlink()]
        contents = {path.relative_to(place): path.read_bytes() for path in files}
    for name, content in contents.items():
        (folder / name).write_bytes(content)


def is_new(described: Description) -> bool:
    """Whether the modules are named as since 5.4."""
    return any(str(module.get("type", "")).startswith(_NEW) for module in described.modules)


def _cross_encoder(folder: Path, place: Path, described: Description, reference: str) -> None:
    """A folder of transformers; the activation stands in its configuration."""
    if others := [name for name in described.names() if name != "Transformer"]:
        raise BadModel(
            f"{reference} scores by {', '.join(others)} and no classifier's head, with a template of its "
            "own: of causal rerankers those are read that transformers saved (Qwen3-Reranker)"
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
    write_json(place / CONFIG, config)


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
            write_json(place / path / CONFIG, _configuration(kind, config, reference))
    write_json(place / MODULES, written)


def _transformer(folder: Path, place: Path, reference: str, and_known: tuple[str, ...] = ()) -> int | None:
    """Returns the most tokens that it is set to."""
    _check_task(folder, "feature-extraction", reference, and_known)
    if folder != place and (folder / CONFIG).exists() and not (place / CONFIG).exists():
        (place / CONFIG).symlink_to((folder / CONFIG).resolve())
    before = read_json(folder / _TRANSFORMER) or {}
    length = before.get("max_seq_length")
    if length is None:
        length = (read_json(folder / _TOKENIZER) or {}).get("model_max_length")
    if isinstance(length, int | float) and length >= _ENDLESS:
        length = None
    lower = bool(before.get("do_lower_case", False))
    write_json(place / _TRANSFORMER, {"max_seq_length": length, "do_lower_case": lower})
    return None if length is None else int(length)


def _multi_vector(folder: Path, place: Path, described: Description, reference: str) -> None:
    """PyLate's layout: what follows the projections there is settings and no modules."""
    names = described.names()
    projections = [number for number, name in enumerate(names) if name == "Dense"]
    after = sorted(names[1 + len(projections) :])
    if names[:1] != ["Transformer"] or after != ["MultiVectorMask", "Normalize"]:
        raise BadModel(f"{reference} is made of {', '.join(names)}, which is not known as late interaction")
    if (similarity := described.settings.get("similarity_fn_name")) not in (None, "maxsim"):
        raise BadModel(f"{reference} compares by {similarity}, and only MaxSim is known")
    module = {
        name: folder / str(at.get("path") or "") for name, at in zip(names, described.modules, strict=True)
    }
    mask = read_json(module["MultiVectorMask"] / CONFIG) or {}
    if (mask.get("skiplist_words") and mask.get("skiplist_tasks") != ["document"]) or mask.get(
        "keep_only_token_ids"
    ):
        raise BadModel(
            f"{reference} leaves out tokens in another way than documents' skiplist (MultiVectorMask)"
        )
    (transformer, *_), written = described.modules, []
    path = str(transformer.get("path") or "")
    others = {str(at.get("path") or "") for at in described.modules[1:]}
    _link(folder, place, but=(MODULES, SETTINGS, _TRANSFORMER, *others, *([path] if path else [])))
    if path:
        (place / path).mkdir()
        _link(folder / path, place / path, but=(_TRANSFORMER,))
    longest = _transformer(folder / path, place / path, reference, and_known=_OF_TOKENS)
    written.append({**transformer, "type": "sentence_transformers.models.Transformer"})
    for number in projections:
        at = str(described.modules[number].get("path") or "")
        (place / at).mkdir()
        _link(folder / at, place / at, but=(CONFIG,))
        config = dict(read_json(folder / at / CONFIG) or {})
        if {config.pop(f"module_{end}_name", None) for end in ("input", "output")} - {
            None,
            "token_embeddings",
        }:
            raise BadModel(f"{reference}: its projection {at} does not work on tokens")
        write_json(place / at / CONFIG, config)
        written.append({**described.modules[number], "type": "pylate.models.Dense.Dense"})
    write_json(place / MODULES, written)
    write_json(
        place / SETTINGS,
        {
            "model_type": "ColBERT",
            "prompts": described.settings.get("prompts") or {},
            # What would be a prefix there is a prompt here: a text that is one token.
            "query_prefix": "",
            "document_prefix": "",
            **_lengths(read_json(folder / path / _TRANSFORMER) or {}, longest, reference),
            "skiplist_words": _known_words(folder / path, mask.get("skiplist_words") or []),
        },
    )


_OF_TOKENS = ("query_length", "document_length", "query_expansion")
_LONGEST = 512
"""Where neither the model nor its tokenizer says one."""


def _lengths(settings: dict[str, Any], longest: int | None, reference: str) -> dict[str, Any]:
    """Of queries and documents, and whether queries are filled up, by PyLate's names."""
    longest = longest or _LONGEST
    expansion = settings.get("query_expansion")
    if expansion and (expansion.get("strategy") != "fixed" or expansion.get("token")):
        raise BadModel(f"{reference} fills its queries up in another way than with masks to a fixed length")
    query = expansion["length"] if expansion else settings.get("query_length")
    return {
        "query_length": query or longest,
        "document_length": settings.get("document_length") or longest,
        "do_query_expansion": bool(expansion),
        "attend_to_expansion_tokens": bool(expansion and expansion.get("attend")),
    }


def _known_words(folder: Path, words: list[str]) -> list[str]:
    """Those of a skiplist that are single tokens: the others leave nothing out there."""
    tokenizer = read_json(folder / "tokenizer.json") or {}
    vocabulary = (tokenizer.get("model") or {}).get("vocab") or {}
    known = set(vocabulary) if isinstance(vocabulary, dict) else {piece for piece, _ in vocabulary}
    return [word for word in words if word in known]


def _check_task(folder: Path, task: str, reference: str, and_known: tuple[str, ...] = ()) -> None:
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
    if more := sorted(name for name, value in settings.items() if name not in {*known, *and_known} and value):
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
