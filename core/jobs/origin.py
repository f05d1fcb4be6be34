"""What the result of a job depends on, beside its spec: recorded with the job when it starts."""

from collections.abc import Mapping

from pydantic import Field

from core.spec.parts.base import Lenient


class Origin(Lenient):
    """Where a job's result comes from. With the spec it says how to make the result again."""

    contents: dict[str, str | None] = Field(
        default_factory=dict,
        description="Content of each reference of the spec when the job started: sha256:... of files and "
        "artifacts, commit:... of a model hub. null: unknown.",
    )
    code: str = Field(description="SHA-256 of the service's own code that this kind of job runs.")
    version: str = Field("", description="Version of the service.")
    python: str = ""
    libraries: dict[str, str] = Field(default_factory=dict, description="Versions of the libraries.")
    device: str = Field("cpu", description="cpu, or the name of the GPU.")
    processes: int = Field(1, description="Number of processes that shared the work.")
    trust_remote_code: bool = Field(False, description="Whether code in a model's folder was allowed to run.")

    @property
    def unknown(self) -> list[str]:
        """References whose content cannot be told from another."""
        return [reference for reference, content in self.contents.items() if content is None]

    @property
    def comparable(self) -> Mapping[str, object]:
        """What two jobs with the same result have in common, beside spec and contents."""
        return self.model_dump(exclude={"contents", "version"})
