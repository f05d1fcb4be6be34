"""The two attitudes of the house: strict on what people send, lenient on what we stored."""

from pydantic import BaseModel, BeforeValidator, ConfigDict, Discriminator

BY_SHAPE = Discriminator(lambda value: "<several>" if isinstance(value, list) else "<one>")
"""Tells one thing from a list of them, so that a fault is one fault, and not one for each way to read it."""


def with_bare_references(value: object) -> object:
    """A text where a mapping with ``ref`` is meant, alone or in a list, as that mapping."""
    if isinstance(value, list):
        return [{"ref": item} if isinstance(item, str) else item for item in value]
    return {"ref": value} if isinstance(value, str) else value


BARE_REFERENCES = BeforeValidator(with_bare_references)
"""Of a field that may be written as the reference alone."""


class Strict(BaseModel):
    """Rejects unknown keys and infinities: a typo is an answer, not a surprise."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, validate_default=True)


class Lenient(BaseModel):
    """Ignores unknown keys, so that an old reader never breaks on a newer writer."""

    model_config = ConfigDict(extra="ignore")
