"""What a model's files say that it is, before anything of it is loaded. No torch."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from core.errors import BadModel
from core.spec.parts.models import Family

CONFIG = "config.json"
SETTINGS = "config_sentence_transformers.json"
MODULES = "modules.json"

_FAMILIES: Mapping[str, Family] = {
    "SentenceTransformer": "dense",
    "CrossEncoder": "cross_encoder",
    "ColBERT": "late_interaction",
    "MultiVectorEncoder": "late_interaction",
}
"""By ``model_type``, which sentence-transformers writes since 5.0 and PyLate under its own name."""

_SPARSE = ("SparseEncoder", "SpladePooling", "SparseAutoEncoder", "SparseStaticEmbedding", "MLMTransformer")


@dataclass(frozen=True)
class Description:
    """The parsed configuration files of a model; empty where there is no such file."""

    config: dict[str, Any] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    modules: list[dict[str, Any]] = field(default_factory=list)

    @classmethod
    def of(cls, folder: Path) -> "Description":
        """Of a folder. Raises `BadModel` for files that are no JSON, or hold something else."""
        config, settings, modules = (read_json(folder / name) for name in (CONFIG, SETTINGS, MODULES))
        for name, found, kind in (
            (CONFIG, config, dict),
            (SETTINGS, settings, dict),
            (MODULES, modules, list),
        ):
            if found is not None and not isinstance(found, kind):
                raise BadModel(f"{name} of the model has unexpected content: {str(found)[:60]}")
        if modules is not None and not all(isinstance(module, dict) for module in modules):
            raise BadModel(f"{MODULES} of the model is not a list of modules")
        return cls(config or {}, settings or {}, modules or [])

    @property
    def architectures(self) -> list[str]:
        return [str(name) for name in self.config.get("architectures") or []]

    @property
    def model_type(self) -> str | None:
        """The class that saved it, as its settings say."""
        found = self.settings.get("model_type")
        return str(found) if found else None

    @property
    def is_late_interaction(self) -> bool:
        """Whatever its ``model_type`` says: PyLate keeps that of a model that it began with."""
        named = _FAMILIES.get(self.model_type or "") == "late_interaction"
        return named or "query_prefix" in self.settings or "HF_ColBERT" in self.architectures

    def names(self) -> list[str]:
        """The modules' classes, without their packages."""
        return [str(module.get("type", "")).rpartition(".")[2] for module in self.modules]

    def family(self, reference: str) -> Family:
        """The family that the files name. Raises `BadModel` for another kind of model, and where the files
        leave it open."""
        self.check_known(reference)
        if self.is_late_interaction:
            return "late_interaction"
        scores = any(name.endswith("ForSequenceClassification") for name in self.architectures)
        if self.model_type is not None and (self.modules or self.model_type != "SentenceTransformer"):
            return _FAMILIES[self.model_type]
        # A bi-encoder made of a classifier's checkpoint keeps the word, and says by its modules what it is.
        if not self.modules and scores:
            return "cross_encoder"
        if not self.modules and any(name.endswith("ForCausalLM") for name in self.architectures):
            raise BadModel(
                f"{reference} is a language model without a {MODULES}: its files do not say whether it "
                "embeds or scores texts. Set family in the spec"
            )
        return "dense"

    def check_known(self, reference: str) -> None:
        """Raises `BadModel` for a model of a kind that would be taken for something else."""
        if self.model_type == "SparseEncoder" or (found := set(self.names()) & set(_SPARSE)):
            named = "SparseEncoder" if self.model_type == "SparseEncoder" else ", ".join(sorted(found))
            raise BadModel(
                f"{reference} is a sparse encoder (SPLADE; {named}): the families are dense, "
                "late_interaction and cross_encoder"
            )
        if self.model_type is not None and self.model_type not in _FAMILIES:
            raise BadModel(
                f"{reference} has the model_type {self.model_type} in {SETTINGS}, which is not supported"
            )


def read_json(path: Path) -> Any:
    """A file's content, None where there is none. Raises `BadModel`."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise BadModel(f"{path.name} of the model cannot be read: {error}") from error


def write_json(path: Path, content: object) -> None:
    """A file of a model, as `read_json` reads it."""
    path.write_text(json.dumps(content, indent=2), encoding="utf-8")
