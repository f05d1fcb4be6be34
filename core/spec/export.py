"""``kind: export``: a checkpoint of a training as a model."""

from typing import ClassVar, Literal

from pydantic import field_validator

from core.spec.job import JobSpec
from core.spec.parts.reference_places import ReferencePlace
from core.spec.parts.refs import ModelReference, parse_ref


class ExportSpec(JobSpec):
    """Make a model of a checkpoint. Output: ``model``.

    Other jobs that refer to a checkpoint get such a job by themselves.
    """

    REFERENCES: ClassVar = (ReferencePlace("model", "model"),)

    OUTPUTS: ClassVar = {"model": "model"}

    kind: Literal["export"]
    model: ModelReference

    @field_validator("model")
    @classmethod
    def _of_a_checkpoint(cls, text: str) -> str:
        if not parse_ref(text).is_checkpoint:
            raise ValueError(f"{text!r} is no checkpoint: write job:ID/checkpoint@STEP, @best or @last")
        return text
