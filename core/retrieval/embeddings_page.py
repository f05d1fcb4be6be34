"""``embeddings.json``: what the files of an embed job are, and how a query is to be read for them."""

import json
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError, field_serializer, model_validator

from core.errors import BadData
from core.spec.embed import Precision
from core.spec.parts.models import Prompts

PAGE = "embeddings.json"
"""Written last: a folder without it is not whole."""

_FORMAT = 1


class Shard(BaseModel):
    """The texts ``begin`` up to ``end``, in the files that end in ``number``."""

    number: int
    begin: int
    end: int


class EmbeddingsPage(BaseModel):
    """Fields that were never set are not written; those of later versions are kept when read."""

    model_config = ConfigDict(extra="allow")

    format: int = _FORMAT
    model: str
    family: str
    weights_sha256: str | None = None
    model_sha256: str | None = None  # older versions did not write it
    max_length: int | None = None
    prompts: Prompts = Prompts()
    similarity: str
    precision: Precision
    dimension: int | None = None
    device: str | None = None
    compute: str | None = None  # the precision that the model computed in
    index: str
    codec: dict[str, Any] | None = None  # see `core.ranking.quantization.Codec`; of one vector a text
    vectors: int
    bytes: int
    prune_embeddings: dict[str, Any] | None = None
    shards: list[Shard]
    reference: str
    corpus: str | None = None
    role: str
    texts: int
    texts_kept: bool
    unreadable: int = 0
    inputs: dict[str, Any] = {}  # see `core.jobs.protocol.dump_inputs`

    @model_validator(mode="after")
    def _vectors_have_a_codec(self) -> "EmbeddingsPage":
        if self.codec is None and not self.has_token_vectors:
            raise ValueError("codec is missing")
        return self

    @field_serializer("prompts")
    def _whole(self, prompts: Prompts) -> dict[str, Any]:
        return prompts.model_dump()

    @property
    def has_token_vectors(self) -> bool:
        """Whether a text has a vector for each token, and not one for all."""
        return self.family == "late_interaction"

    def as_dict(self) -> dict[str, Any]:
        """As JSON."""
        return self.model_dump(mode="json", exclude_unset=True)

    def write(self, folder: Path) -> None:
        self.format = _FORMAT
        text = json.dumps(self.as_dict(), indent=2, ensure_ascii=False)
        (folder / PAGE).write_text(text, encoding="utf-8")


def is_embeddings(folder: Path) -> bool:
    return (folder / PAGE).is_file()


def read_page(folder: Path) -> EmbeddingsPage:
    """Raises `BadData` for a folder that is none, and for a newer format."""
    try:
        values = json.loads((folder / PAGE).read_text(encoding="utf-8"))
        version = values["format"]
        if version != _FORMAT:
            raise BadData(f"{folder.name} is of format {version}; this version reads {_FORMAT}")
        return EmbeddingsPage.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        raise BadData(
            f"{folder} is not what an embed job makes ({PAGE}: {'.'.join(map(str, first['loc']))}: "
            f"{first['msg']})"
        ) from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BadData(f"{folder} is not what an embed job makes ({PAGE}: {error})") from error
