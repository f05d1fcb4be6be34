"""``kind: mine``: hard negatives for every query of a dataset."""

from typing import Annotated, ClassVar, Literal

from pydantic import BeforeValidator, Field, model_validator

from core.spec.job import PART_OF, JobSpec, Resources
from core.spec.parts.base import BARE_REFERENCES, Strict
from core.spec.parts.evaluation import RankedSource
from core.spec.parts.filters import Filters, KeepOwn
from core.spec.parts.models import ModelOrWords, Prompts
from core.spec.parts.options import Arithmetic, EncodingBatchSize, MaxLength, RejectShare, Sampling, Seed
from core.spec.parts.reference_places import ReferencePlace, find_references
from core.spec.parts.refs import DatasetReference


def _as_list(value: object) -> object:
    return [value] if isinstance(value, str) else value


class Part(Strict):
    """One of the parts into which a corpus is divided."""

    number: int = Field(ge=1, le=100)
    of: int = Field(ge=2, le=100)

    @model_validator(mode="after")
    def _consistent(self) -> "Part":
        if self.number > self.of:
            raise ValueError("part.number must not be above part.of")
        return self


class MiningOptions(Strict):
    """Options for finding negatives: corpus, model, filters."""

    MINING_REFERENCES: ClassVar = (
        ReferencePlace("corpus.*", "dataset"),
        ReferencePlace("model", "model"),
        ReferencePlace("filters.cross_encoder.model", "model"),
    )

    corpus: Annotated[list[DatasetReference], Field(max_length=100), BeforeValidator(_as_list)] | None = (
        Field(
            None,
            description="Corpora to take negatives from, one or several. Default: the dataset's documents.",
        )
    )
    family: Literal["dense", "late_interaction"] = Field(
        "dense",
        description="Family of the model. dense: one vector for each text. late_interaction: one vector "
        "for each token (ColBERT).",
    )
    model: ModelOrWords = Field(
        "sentence-transformers/all-MiniLM-L6-v2", description="Model that finds the candidates, or bm25."
    )
    index: Literal["auto", "exact", "faiss", "plaid"] = Field(
        "auto",
        description="exact: score every document. faiss (dense) and plaid (late_interaction): an "
        "approximate index finds most of the nearest documents. auto: exact; for "
        "late_interaction plaid above 20,000 documents.",
    )
    num_negatives: int = Field(4, ge=1, le=1000)
    filters: Filters = Field(default_factory=Filters)
    keep_own: KeepOwn = "auto"
    sampling: Sampling = "top"
    prefer: Literal["other_category", "same_category", "other_dataset"] | None = Field(
        None,
        description="Which candidates to choose first: those of another category than the row's, of the "
        "same category, or of another dataset than the positive's. The others follow.",
    )
    prompts: Prompts = Field(default_factory=Prompts)
    max_length: MaxLength | None = Field(
        None,
        description="Longest text in tokens (late_interaction: longest document). Default: the model's "
        "own limit.",
    )
    precision: Arithmetic = Field(
        "auto",
        description="Dense models only: precision of the computation. auto: bf16 if the GPU supports it, "
        "else fp32.",
    )
    half: bool = Field(
        False, description="Cache embeddings in float16: half the disk space, scores exact to 3 digits."
    )
    batch_size: EncodingBatchSize = None
    block_mb: int = Field(
        64,
        ge=1,
        le=100_000,
        description="Memory for the scores that are computed at once, in MB (10^6 bytes).",
    )

    @model_validator(mode="after")
    def _of_this_model(self) -> "MiningOptions":
        if self.model == "bm25" and self.family != "dense":
            raise ValueError("family must be left out when model is bm25")
        if self.model == "bm25" and self.index not in ("auto", "exact"):
            raise ValueError(f"index: {self.index} needs a model; bm25 has its own index")
        unused: set[str] = set()
        if self.model == "bm25":
            unused = {"precision", "max_length", "prompts", "half", "batch_size"}
        if self.family == "late_interaction":
            unused = {"precision"}  # of float32 it is
        for name in sorted(unused & self.model_fields_set):
            if getattr(self, name) != type(self).model_fields[name].get_default(call_default_factory=True):
                what = self.model if self.model == "bm25" else self.family
                raise ValueError(f"{name} has no effect with {what}: remove it")
        if (self.index, self.family) in (("faiss", "late_interaction"), ("plaid", "dense")):
            raise ValueError(f"index: {self.index} cannot be used with family: {self.family}")
        return self

    def mining_references(self) -> dict[str, str]:
        """Every reference among the options, by the path where it stands."""
        found = find_references(self, self.MINING_REFERENCES)
        return {reference.path: reference.text for reference in found if reference.text != "bm25"}


class MineFirst(MiningOptions):
    """Mine negatives of every dataset once, before the first step, with a separate model."""

    device: Literal["cpu", "auto"] = Field(
        "cpu",
        description="cpu: mine on the CPU, so that GPU memory stays free for the training. auto: mine on "
        "the training's device.",
    )


class MineSpec(MiningOptions, JobSpec):
    """Find negatives for every row of a dataset.

    Outputs: ``dataset`` and ``report``; the job of a part has the output ``candidates``.
    """

    REFERENCES: ClassVar = (
        ReferencePlace("dataset.ref", "dataset"),
        *MiningOptions.MINING_REFERENCES,
        ReferencePlace("candidates.*", "dataset"),
    )

    OUTPUTS: ClassVar = {"dataset": "dataset", "report": None}

    kind: Literal["mine"]
    dataset: Annotated[RankedSource, BARE_REFERENCES] = Field(
        description="Rows with query and positive: a file, a folder, or a prepared dataset."
    )
    parts: int = Field(
        1,
        ge=1,
        le=100,
        description="Divide the corpus among this many jobs; one more job merges their candidates. The "
        "result is the same as that of a single job.",
    )
    part: Part | None = Field(
        None,
        description="Encode and search only this part of the corpus. Set by the service for the jobs that "
        "parts makes.",
    )
    candidates: Annotated[list[DatasetReference], Field(max_length=100)] = Field(
        default_factory=list,
        description="Outputs of the jobs of all parts, to merge. Set by the service for the job that "
        "merges them.",
    )
    max_reject_share: RejectShare = 0.01
    seed: Seed = 42
    resources: Resources = Field(
        default_factory=lambda: Resources(gpus=0),
        description="Default: the CPU, which is enough for a small model.",
    )

    @model_validator(mode="after")
    def _consistent(self) -> "MineSpec":
        divided = self.parts > 1 or self.part is not None or self.candidates
        if divided and (
            self.model == "bm25" or self.family != "dense" or self.index not in ("auto", "exact")
        ):
            raise ValueError(
                "parts needs an exact search with a dense model: family: dense, index: auto or exact, "
                "not bm25"
            )
        if sum((self.parts > 1, self.part is not None, bool(self.candidates))) > 1:
            raise ValueError("parts, part and candidates exclude each other")
        return self

    def divided(self, own_id: str, ids: list[str]) -> tuple["MineSpec", dict[str, "MineSpec"]]:
        """Return the job that merges the parts, and the parts by the ids of their future jobs."""
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
