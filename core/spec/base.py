"""The two attitudes of the house: strict on what people send, lenient on what we stored."""

from pydantic import BaseModel, ConfigDict


class Strict(BaseModel):
    """Rejects unknown keys and infinities: a typo is an answer, not a surprise."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, validate_default=True)


class Lenient(BaseModel):
    """Ignores unknown keys, so that an old reader never breaks on a newer writer."""

    model_config = ConfigDict(extra="ignore")
