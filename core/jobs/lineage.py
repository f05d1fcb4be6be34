"""The API's answer about where an artifact comes from."""

from datetime import datetime
from typing import Any, Literal

from pydantic import Field

from core.jobs.origin import Origin
from core.jobs.state import JobState
from core.spec.parts.base import Lenient

Direction = Literal["self", "up", "down"]


class LineageArtifact(Lenient):
    """An artifact of a lineage. ``direction``: up is what the artifact was made from, down what was made of
    it."""

    id: str
    direction: Direction
    kind: str
    output: str
    name: str | None = None
    version: int | None = None
    sha256: str
    bytes: int
    licence: str | None = None
    created_at: datetime
    job: str | None = Field(None, description="Id of the job that made it. Null for an upload.")


class LineageJob(Lenient):
    """A job of a lineage: its spec (with the seed), and what its result depends on."""

    id: str
    direction: Direction
    kind: str
    name: str | None = None
    state: JobState
    created_at: datetime
    spec: dict[str, Any]
    origin: Origin | None = None
    reused_from: str | None = None
    inputs: dict[str, str | None] = Field(
        description="Reference in the spec -> id of the artifact. Null: no artifact, see origin.contents."
    )


class LineageView(Lenient):
    """Everything that an artifact was made from, and everything that was made of it."""

    artifact: str
    artifacts: list[LineageArtifact]
    jobs: list[LineageJob]
    whole: bool = Field(
        description="false: something was left out, because there are more than 500 jobs, because it belongs "
        "to others, or because it was deleted."
    )
    stages: dict[str, dict[str, Any]] = Field(
        default_factory=dict,
        description="The stages of a pipeline that makes it again. Empty for an upload, if "
        "something was left out, or if a checkpoint was used.",
    )
    stage: str | None = Field(None, description="The stage whose output the artifact is.")
