"""Fields that all kinds of jobs share."""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import ConfigDict, Field, model_validator

from core.spec.parts.base import Strict
from core.spec.parts.forms import LABEL_KEY, NAME, JobId
from core.spec.parts.reference_places import FoundReference, ReferencePlace, Role, find_references

Difficulty = Literal["easy", "medium", "hard"]
"""Of a negative."""

LONGEST_SECONDS = 31_536_000.0
"""A year: no timeout or interval is longer."""

PART_OF = "part_of"
"""Label of a job that was divided from another: that one's id."""


class Resources(Strict):
    """Hardware that the job needs."""

    gpus: Literal["auto"] | Annotated[int, Field(ge=0, le=64)] = Field(
        "auto",
        description="auto: one GPU if any worker has one, else the CPU. 0: the CPU. N: wait for N GPUs of "
        "one host, which share every batch.",
    )
    gpu_memory_gb: Literal["auto"] | Annotated[float, Field(gt=0, le=10_000)] = Field(
        "auto",
        description="Memory that each GPU must have, in GB (10^9 bytes). auto: the estimated minimum for "
        "the job.",
    )


Device = Literal["auto", "cuda", "mps", "cpu"]

JobName = Annotated[str, Field(min_length=1, max_length=200, pattern=NAME)]
Labels = Annotated[
    dict[Annotated[str, Field(pattern=LABEL_KEY)], Annotated[str, Field(max_length=200)]],
    Field(max_length=32),
]
Priority = Annotated[int, Field(ge=-1000, le=1000)]


class JobChanges(Strict):
    """What can be changed of a job after its submission. Fields that are not given stay as they are."""

    model_config = ConfigDict(json_schema_extra={"minProperties": 1})

    name: JobName | None = Field(None, description="null removes the name.")
    labels: Labels = Field(default_factory=dict, description="In place of all labels that it has.")
    priority: Priority = Field(0, description="Changes the order in which queued jobs are claimed.")

    @model_validator(mode="after")
    def _something(self) -> "JobChanges":
        if not self.model_fields_set:
            raise ValueError("give at least one of name, labels and priority")
        return self


class JobSpec(Strict):
    """Fields of all kinds of jobs."""

    REFERENCES: ClassVar[tuple[ReferencePlace, ...]]
    """Every place of a reference in the spec, in the order in which they are checked."""

    OUTPUTS: ClassVar[Mapping[str, Role | None]]
    """Name of each output, and what it may stand for in another spec; None: a report."""

    name: JobName | None = None
    labels: Labels = Field(
        default_factory=dict,
        description="Keys contain letters, digits, '_', '.' and '-', at most 63 characters.",
    )
    priority: Priority = Field(
        0, description="Jobs with a higher priority are claimed first, equal ones by age."
    )
    resources: Resources = Field(default_factory=Resources)
    device: Device = Field(
        "auto",
        description="Device to compute on. auto: the GPUs that resources gives the job, else Apple's MPS "
        "if present, else the CPU. cuda: wait for a GPU. cpu: the same as resources.gpus: 0.",
    )
    max_attempts: int = Field(
        3,
        ge=1,
        le=100,
        description="The job fails after this many retryable failures in a row. The count starts again "
        "when an attempt saves a later checkpoint than all before it.",
    )
    timeout_seconds: float | None = Field(
        None,
        gt=0,
        le=LONGEST_SECONDS,
        description="Longest running time of one attempt, in seconds; then the job fails.",
    )
    depends_on: list[JobId] = Field(
        default_factory=list,
        max_length=100,
        description="Ids of jobs that must succeed before this one starts.",
    )

    @model_validator(mode="after")
    def _resources_of_the_device(self) -> "JobSpec":
        """``device`` decides how many GPUs the job asks for, where ``resources`` does not."""
        if self.device == "auto":
            return self
        asked, given = self.resources.gpus, "resources" in self.model_fields_set
        if self.device == "cuda" and asked in (0, "auto"):
            if given and asked == 0:
                raise ValueError("device: cuda needs a GPU, but resources.gpus is 0")
            self.resources = self.resources.model_copy(update={"gpus": 1})
        elif self.device in ("cpu", "mps") and asked != 0:
            if given and asked != "auto":
                raise ValueError(f"device: {self.device} uses no NVIDIA GPU, but resources.gpus is {asked}")
            self.resources = self.resources.model_copy(update={"gpus": 0})
        return self

    @classmethod
    def outputs_of(cls, spec: Mapping[str, Any]) -> Mapping[str, Role | None]:
        """The outputs of a job of this kind, for a spec that may be unvalidated."""
        return cls.OUTPUTS

    def references(self) -> dict[str, str]:
        """Every reference in the spec, by the path where it stands."""
        return {found.path: found.text for found in self.find_references()}

    def find_references(self) -> list[FoundReference]:
        """Every reference in the spec. ``bm25`` is none."""
        places = find_references(self._with_references(), self.REFERENCES)
        return [found for found in places if found.text != "bm25"]

    def _with_references(self) -> Strict | Mapping[str, Any]:
        """Where `REFERENCES` are looked for."""
        return self
