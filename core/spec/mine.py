"""``kind: mine``: documents that look like answers and are none, for every query of a dataset."""

from typing import Annotated, ClassVar, Literal

from pydantic import BeforeValidator, Field, model_validator

from core.spec.filters import Filters, KeepOwn
from core.spec.job import PART_OF, JobSpec, Resources
from core.spec.parts.base import BARE_REFERENCES, Strict
from core.spec.parts.evaluation import RankedSource
from core.spec.parts.models import ModelOrWords, Prompts
from core.spec.parts.options import Arithmetic, EncodingBatchSize, MaxLength, RejectShare, Sampling, Seed
from core.spec.parts.reference_places import ReferencePlace, find_references
from core.spec.parts.refs import DatasetReference


def _as_list(value: object) -> object:
    return [value] if isinstance(value, str) else value


class Part(Strict):
    """One of several jobs among which a corpus is divided."""

    number: int = Field(ge=1, le=100)
    of: int = Field(ge=2, le=100)

    @model_validator(mode="after")
    def _consistent(self) -> "Part":
        if self.number > self.of:
            raise ValueError("number is above of")
        return self


class MiningOptions(Strict):
    """How negatives are found: where, by which model, and which of them."""

    MINING_REFERENCES: ClassVar = (
        ReferencePlace("corpus.*", "dataset"),
        ReferencePlace("model", "model"),
        ReferencePlace("filters.cross_encoder.model", "model"),
    )

    corpus: Annotated[list[DatasetReference], Field(max_length=100), BeforeValidator(_as_list)] | None = (
        Field(
            None,
            description="Where negatives come from: one or several. Default: the dataset's own documents.",
        )
    )
    family: Literal["dense", "late_interaction"] = Field(
        "dense", description="What the model is: one vector a text, or one a token (ColBERT)."
    )
    model: ModelOrWords = Field("sentence-transformers/all-MiniLM-L6-v2", description="Or bm25.")
    index: Literal["auto", "exact", "faiss", "plaid"] = Field(
        "auto",
        description="exact: every document is scored. faiss (dense) and plaid (late_interaction): an index "
        "finds most of the nearest. auto: exact, or plaid above 20,000 documents for late_interaction.",
    )
    num_negatives: int = Field(4, ge=1, le=1000)
    filters: Filters = Field(default_factory=Filters)
    keep_own: KeepOwn = "auto"
    sampling: Sampling = "top"
    prefer: Literal["other_category", "same_category", "other_dataset"] | None = Field(
        None,
        description="Candidates of another category than the row's, of the same, or from another dataset "
        "than its positive come before the others, which fill up.",
    )
    prompts: Prompts = Field(default_factory=Prompts)
    max_length: MaxLength | None = Field(
        None,
        description="Tokens of a text, of late_interaction of a document; default: what the model is set to.",
    )
    precision: Arithmetic = Field(
        "auto", description="Of a bi-encoder's arithmetic. auto: bf16 where a GPU has it, else fp32."
    )
    half: bool = Field(False, description="Keep embeddings in float16: half the disk, scores to 3 digits.")
    batch_size: EncodingBatchSize = None
    block_mb: int = Field(
        64,
        ge=1,
        le=100_000,
        description="Memory of the block of scores that is computed at once, in MB (10^6).",
    )

    @model_validator(mode="after")
    def _of_this_model(self) -> "MiningOptions":
        if self.model == "bm25" and self.family != "dense":
            raise ValueError("bm25 has no family")
        if self.model == "bm25" and self.index not in ("auto", "exact"):
            raise ValueError(f"bm25 has an index of its own: index {self.index} is for models")
        unused: set[str] = set()
        if self.model == "bm25":
            unused = {"precision", "max_length", "prompts", "half", "batch_size"}
        if self.family == "late_interaction":
            unused = {"precision"}  # of float32 it is
        for name in sorted(unused & self.model_fields_set):
            if getattr(self, name) != type(self).model_fields[name].get_default(call_default_factory=True):
                raise ValueError(
                    f"{name} means nothing to {self.model if self.model == 'bm25' else self.family}"
                )
        if (self.index, self.family) in (("faiss", "late_interaction"), ("plaid", "dense")):
            raise ValueError(f"index {self.index} does not hold the vectors of family {self.family}")
        return self

    def mining_references(self) -> dict[str, str]:
        """Every reference among the options, by the path where it stands."""
        found = find_references(self, self.MINING_REFERENCES)
        return {reference.path: reference.text for reference in found if reference.text != "bm25"}


class MineFirst(MiningOptions):
    """Every dataset's negatives are mined once before the first step, by a model of its own."""

    device: Literal["cpu", "auto"] = Field(
        "cpu",
        description="cpu: the GPU's memory stays free for the training. auto: where the training runs.",
    )


class MineSpec(MiningOptions, JobSpec):
    """Finds negatives for every row of a dataset. Outputs: ``dataset`` and ``report``; of a part,
    ``candidates``."""

    REFERENCES: ClassVar = (
        ReferencePlace("dataset.ref", "dataset"),
        *MiningOptions.MINING_REFERENCES,
        ReferencePlace("candidates.*", "dataset"),
    )

    kind: Literal["mine"]
    dataset: Annotated[RankedSource, BARE_REFERENCES] = Field(
        description="Rows of query and positive: a file, a folder, a prepared dataset."
    )
    parts: int = Field(
        1,
        ge=1,
        le=100,
        description="The service divides the corpus among so many jobs, and one more brings them together. "
        "The result is that of one job.",
    )
    part: Part | None = Field(None, description="Only encode and search this part: what parts makes.")
    candidates: Annotated[list[DatasetReference], Field(max_length=100)] = Field(
        default_factory=list, description="What all parts have found: what parts makes."
    )
    max_reject_share: RejectShare = 0.01
    seed: Seed = 42
    resources: Resources = Field(
        default_factory=lambda: Resources(gpus=0), description="A small model mines on the CPU by default."
    )

    @model_validator(mode="after")
    def _consistent(self) -> "MineSpec":
        divided = self.parts > 1 or self.part is not None or self.candidates
        if divided and (
            self.model == "bm25" or self.family != "dense" or self.index not in ("auto", "exact")
        ):
            raise ValueError("parts are of an exact search with one vector a text")
        if sum((self.parts > 1, self.part is not None, bool(self.candidates))) > 1:
            raise ValueError("parts, part and candidates exclude each other")
        return self

    def divided(self, own_id: str, ids: list[str]) -> tuple["MineSpec", dict[str, "MineSpec"]]:
        """The job that brings the parts together, and the parts by the ids that their jobs will have."""
        labels = {**self.labels, PART_OF: own_id}
        parts = {
            part_id: self.model_copy(
                update={
                    "parts": 1,
                    "part": Part(number=number, of=len(ids)),
                    "name": f"{self.name or 'mined'} {number} of {len(ids)}"[:200],
                    "labels": labels,
                }
            )
            for number, part_id in enumerate(ids, 1)
        }
        candidates = [f"job:{part_id}/candidates" for part_id in ids]
        return self.model_copy(update={"parts": 1, "candidates": candidates}), parts

    @property
    def scores_at_once(self) -> int:
        """Of four bytes each, in ``block_mb``."""
        return self.block_mb * 250_000

    @property
    def corpora(self) -> list[str]:
        """One or several references, or none."""
        return self.corpus or []
