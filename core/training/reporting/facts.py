"""What a training was made of and has measured: report, card and metadata are written from it."""

from dataclasses import asdict, dataclass, fields
from typing import Any

from core.families.family import VectorsPerDocument
from core.ranking.comparison import Compared
from core.training.checkpoints.checkpoint import Scores
from core.training.lengths import ChosenLengths


@dataclass(frozen=True)
class TrainingFacts:
    # -- what it was made of
    base_model: str
    dataset: str
    inputs: dict[str, Any]  # see `core.jobs.protocol.dump_inputs`
    base_model_sha256: str
    rows_sha256: str
    steps: int
    rows: int
    rejects: int
    mining: list[dict[str, Any]]  # of each dataset that was mined first: its page's part
    licences: list[str]
    # -- how texts were read
    lengths: ChosenLengths
    tokens_metadata: dict[str, Any]  # see `core.engine.token_table.describe_tokens`
    saved_lengths: dict[str, int]  # tokens by role, of the saved model
    # -- how it was trained
    parameters: int
    trained_parameters: int
    precision: str
    device: str
    processes: int
    cached: bool
    micro_batch_size: int | None
    micro_batch_tokens: int | None
    tokens: int  # that were seen
    operations: float
    training_seconds: float
    # -- how good it is
    baseline: Scores
    finetuned: Scores
    best_step: int | None
    evaluation_sets: dict[str, list[str]]  # remarks on each
    comparisons: list[Compared]
    # -- what pruning changed
    pruned_tokens: tuple[int, int] | None  # of the documents, before and after
    seconds_saved: float | None
    unpruned: Scores | None  # with all vectors of the documents
    vectors_per_document: VectorsPerDocument | None

    def as_dict(self) -> dict[str, Any]:
        """As ``report.json`` has it."""
        found = {field.name: getattr(self, field.name) for field in fields(self)}
        found["lengths"] = self.lengths.as_dict()
        found["comparisons"] = [item.as_dict() for item in self.comparisons]
        if self.vectors_per_document is None:
            del found["vectors_per_document"]
        else:
            found["vectors_per_document"] = asdict(self.vectors_per_document)
        return found
