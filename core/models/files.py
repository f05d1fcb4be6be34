"""Whether a model's folder is whole: every file that it needs, and weights that are weights. No torch.

A missing file is seldom an error of the libraries: without a tokenizer they make one of five words, and
without a module's configuration they take defaults. So it is looked for before anything is loaded.
"""

import json
from pathlib import Path

from core.errors import BadModel
from core.models.description import CONFIG, MODULES, Description, read_json

_POINTER = b"version https://git-lfs"
_LONGEST_HEADER = 100 << 20
"""safetensors' own limit."""

_TOKENIZERS = ("tokenizer.json", "vocab.txt", "vocab.json", "*.model", "*.spm", "*.tiktoken", "*.bpe")
_OWN_MODULES = ("sentence_transformers.", "pylate.")

_WITHOUT_FILES = ("Normalize",)
"""Modules that have no settings: their folders are empty, and git does not keep those."""


def check_folder(folder: Path, reference: str, *, trust_remote_code: bool) -> Description:
    """What a folder that can be loaded says of itself. Raises `BadModel` for one that is not whole, has its
    weights as a pickle, is of another kind, or brings code that may not run."""
    described = Description.of(folder)
    described.check_known(reference)
    if not any((folder / name).is_file() for name in (CONFIG, MODULES)):
        raise BadModel(f"{reference} is not a model folder: it has neither {CONFIG} nor {MODULES}")
    if not described.config and not described.modules:
        raise BadModel(f"{reference}: {CONFIG} does not describe a model")
    if described.config.get("model_type") == "model2vec" and not described.modules:
        raise BadModel(
            f"{reference} is a folder of model2vec without {MODULES}: save it again with model2vec 0.3 or "
            "later, or with StaticEmbedding.from_model2vec"
        )
    if not any(folder.rglob("*.safetensors")):
        if pickles := pickled(folder):
            raise BadModel(
                f"{reference} has pickled weights ({pickles[0].name}), which can run code when loaded. "
                "Convert them to safetensors."
            )
        raise BadModel(f"{reference} has no weights: no .safetensors file in the folder")
    if not trust_remote_code and (foreign := _foreign_code(folder, described)):
        raise BadModel(
            f"{reference} contains its own code ({foreign}), which is refused unless the service runs with "
            "REASON_TRUST_REMOTE_CODE=true"
        )
    check_files(folder, described, reference)
    return described


def pickled(folder: Path) -> list[Path]:
    """Files that run code when they are loaded."""
    return sorted(
        path for pattern in ("*.bin", "*.pt", "*.pth", "*.pkl", "*.ckpt") for path in folder.rglob(pattern)
    )


def _foreign_code(folder: Path, described: Description) -> str | None:
    """What of the folder would be executed, if anything."""
    for path in folder.rglob("config.json"):
        config = read_json(path)
        if isinstance(config, dict) and (auto_map := config.get("auto_map")):
            return str(next(iter(auto_map.values()), path.name))
    for module in described.modules:
        if not str(module.get("type", "")).startswith(_OWN_MODULES):
            return str(module.get("type"))
    return None


def check_files(folder: Path, described: Description, reference: str) -> None:
    """Raises `BadModel` with the file and what is wrong with it."""
    for path in sorted(folder.rglob("*.safetensors")):
        _check_weights(path, reference, str(path.relative_to(folder)))
    for path in sorted(folder.rglob("*.safetensors.index.json")):
        _check_shards(path, reference)
    for module in described.modules:
        _check_module(folder, module, reference)
    for place in _of_kind(folder, described, "Transformer") if described.modules else [folder]:
        if not (place / CONFIG).is_file():
            raise BadModel(f"{reference}: {CONFIG} of its transformer is missing")
        _check_tokenizer(place, reference)
    for place in _of_kind(folder, described, "StaticEmbedding"):
        _check_static(place, reference)


def _check_weights(path: Path, reference: str, name: str) -> None:
    """Read a safetensors file's header, and compare the file's size with what it promises."""
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(len(_POINTER))
        if head == _POINTER:
            raise BadModel(
                f"{reference}: {name} is a Git LFS pointer, not the weights: run `git lfs pull` there"
            )
        file.seek(0)
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or length > min(size - 8, _LONGEST_HEADER):
            what = "is empty" if not size else f"is incomplete, or not a safetensors file ({size:,} bytes)"
            raise BadModel(f"{reference}: {name} {what}")
        try:
            header = json.loads(file.read(length))
            ends = [int(entry["data_offsets"][1]) for key, entry in header.items() if key != "__metadata__"]
        except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
            raise BadModel(f"{reference}: {name} is not a safetensors file: {error}") from error
    promised = 8 + length + max(ends, default=0)
    if promised != size:
        raise BadModel(
            f"{reference}: {name} has {size:,} bytes instead of {promised:,}: it was not copied completely"
        )


def _check_shards(path: Path, reference: str) -> None:
    index = read_json(path)
    shards = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(shards, dict):
        raise BadModel(f"{reference}: {path.name} lists no weights (weight_map)")
    if missing := sorted({str(name) for name in shards.values() if not (path.parent / str(name)).is_file()}):
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise BadModel(f"{reference}: {missing[0]}{more}, listed in {path.name}, is missing")


def _check_module(folder: Path, module: dict[str, object], reference: str) -> None:
    path, kind = str(module.get("path") or ""), str(module.get("type", "")).rpartition(".")[2]
    if (
        not path
        or kind in _WITHOUT_FILES
        or kind in ("Transformer", "StaticEmbedding", "WordEmbeddings", "BoW")
    ):
        return
    if not (folder / path / CONFIG).is_file():
        raise BadModel(f"{reference}: {path}/{CONFIG}, listed in {MODULES}, is missing ({kind})")


def _of_kind(folder: Path, described: Description, kind: str) -> list[Path]:
    """Where modules of a kind lie: in the folder itself, or below it."""
    kinds = zip(described.names(), described.modules, strict=True)
    return [folder / str(module.get("path") or "") for name, module in kinds if name == kind]


def _check_static(folder: Path, reference: str) -> None:
    """A table of vectors and the tokenizer that numbers them, without which there is nothing to read."""
    if not (folder / "tokenizer.json").is_file():
        raise BadModel(f"{reference} has no tokenizer: tokenizer.json of its static embeddings is missing")
    names = tensor_names(folder / "model.safetensors")
    if not names & {"embedding.weight", "embeddings"}:
        raise BadModel(f"{reference}: model.safetensors has no table of embeddings (embedding.weight)")
    if more := sorted(names & {"mapping", "weights"}):
        raise BadModel(
            f"{reference}: its static embeddings are quantized by model2vec ({', '.join(more)} in "
            "model.safetensors), which sentence-transformers would ignore. Save it unquantized"
        )


def tensor_names(path: Path) -> set[str]:
    """Of a safetensors file that was checked; none where there is none."""
    if not path.is_file():
        return set()
    with path.open("rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    return set(header) - {"__metadata__"}


def _check_tokenizer(folder: Path, reference: str) -> None:
    settings = read_json(folder / "tokenizer_config.json")
    if isinstance(settings, dict) and "auto_map" in settings:
        return  # it brings a class of its own, with files of any name
    if not any(next(folder.glob(pattern), None) for pattern in _TOKENIZERS):
        raise BadModel(f"{reference} has no tokenizer: none of {', '.join(_TOKENIZERS)} is in the folder")
