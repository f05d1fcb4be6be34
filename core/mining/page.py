"""What a mining says of itself: on the page of the dataset that it makes, and in its report."""

from dataclasses import asdict, dataclass
from typing import Any

from core.data.training_rows.page import MinedBy
from core.retrieval.system_facts import SystemFacts


@dataclass(frozen=True, kw_only=True)
class CheckedBy:
    """The cross-encoder that has checked candidates, and how many pairs it has scored."""

    model: str
    weights_sha256: str
    model_sha256: str
    pairs: int


@dataclass(frozen=True, kw_only=True)
class MiningPage:
    """``finder`` has found the candidates; its facts stand beside the other fields when written."""

    finder: SystemFacts
    queries: int
    corpus: int  # documents that were candidates
    corpus_sha256: str
    filters: dict[str, Any]  # as the spec asks for them
    cross_encoder: CheckedBy | None
    teacher: str | None  # the cross-encoder whose scores the rows have; None: they are the finder's
    sampling: str
    prefer: str | None
    num_negatives: int
    removed: dict[str, int]  # candidates, by the filter that took them out
    queries_by_rank: int  # that have negatives which their rank alone allows
    negatives_by_rank: int
    keep_own: str
    rows_with_own: int
    negatives_of_rows: int  # own ones that were kept

    def as_dict(self) -> dict[str, Any]:
        """As JSON."""
        own = asdict(self)
        del own["finder"]
        return {**self.finder.as_dict(), **own}

    def for_dataset(self) -> MinedBy:
        """As ``dataset.json`` has it."""
        return MinedBy.model_validate(self.as_dict())
