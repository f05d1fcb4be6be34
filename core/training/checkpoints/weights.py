"""Weights of checkpoints as artifacts, of which an export job makes models: while a training runs, and after
it has failed.

A checkpoint itself belongs to its attempt, which drops it when newer ones are there. What is published is the
part of it that a model is made of: what was trained, and what the rest is rebuilt from.
"""

import contextlib
import shutil
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import Field
from safetensors.torch import load_file
from transformers import set_seed

from core.artifacts import fresh_folder
from core.artifacts.locks import unlocked
from core.engine.models.identity import Identity
from core.engine.models.loading import transformer_of
from core.errors import BadModel, ReasonError
from core.families.family import Family, family_of
from core.jobs.protocol import ArtifactInput, Input, dump_inputs
from core.native_errors import reading_model
from core.runtime.context import RunContext
from core.spec import SPEC_VERSION
from core.spec.parts.base import Lenient
from core.spec.parts.evaluation import Evaluation
from core.spec.stored import read_stored_spec
from core.spec.train import TrainSpec
from core.training.adapters import choose_trainable, merge, restore_trained_state
from core.training.checkpoints.checkpoint import WEIGHTS, Checkpoints, TrainingState, link

_TRAINING = "training.json"


class SavedTraining(Lenient):
    """What a model is rebuilt from, beside the weights. ``base_model_sha256`` is of the base model with its
    tokenizer and settings (`Identity`), ``lengths`` are the most tokens of a query and of a document."""

    step: int
    spec: dict[str, Any]
    spec_version: int
    inputs: dict[str, Input] = Field(default_factory=dict)
    base_model_sha256: str
    lengths: dict[str, int]

    @classmethod
    def read(cls, folder: Path) -> "SavedTraining":
        """Raises `BadModel` for a folder that has none."""
        with reading_model("The checkpoint cannot be read"):
            return cls.model_validate_json((folder / _TRAINING).read_bytes())

    @property
    def training(self) -> TrainSpec:
        spec = read_stored_spec(self.spec, self.spec_version).spec
        assert isinstance(spec, TrainSpec), spec.kind
        return spec


class WeightsPublisher:
    """Publishes the weights of the checkpoints of one attempt, one after the other, beside the training.

    A failure costs nothing but the use of that checkpoint as a model, and is told.
    """

    def __init__(
        self,
        spec: TrainSpec,
        context: RunContext,
        checkpoints: Checkpoints,
        *,
        base_model_sha256: str,
        lengths: Mapping[str, int],
    ) -> None:
        self._context, self._checkpoints = context, checkpoints
        known = context.request.inputs.get(spec.base_model)
        self._saved = SavedTraining(
            step=0,
            spec=spec.model_dump(mode="json"),
            spec_version=SPEC_VERSION,
            inputs={spec.base_model: known} if isinstance(known, ArtifactInput) else {},
            base_model_sha256=base_model_sha256,
            lengths=dict(lengths),
        )
        self._published: set[int] = set()
        self._thread: threading.Thread | None = None
        self._remove_left_over()

    def push(self, checkpoint: Path, step: int, state: TrainingState, *, stopping: bool) -> None:
        """Begin to publish a whole checkpoint's weights, and the best ones if these are not published yet.
        Waits for those of the checkpoint before.

        ``stopping``: the job is asked to stop. Then an upload would take the time that the checkpoint's copy
        needs, and is left out.
        """
        if stopping and self._context.remote is not None:
            return
        self.wait()
        wanted = [(step, checkpoint / WEIGHTS)]
        if state.best_step is not None and state.best_step not in (step, *self._published):
            wanted.insert(0, (state.best_step, self._checkpoints.best))
        staged = []
        for number, weights in wanted:
            with self._telling(number):
                staged.append((number, self._stage(weights, number)))
        self._thread = threading.Thread(target=self._publish, args=(staged,), daemon=True, name="weights")
        self._thread.start()

    def wait(self) -> None:
        """Until nothing is being published."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def _remove_left_over(self) -> None:
        """What attempts that were killed were about to publish."""
        for folder in self._checkpoints.folder.glob("attempt-*/weights-*"):
            with unlocked(folder.parent) as free:
                if free:
                    shutil.rmtree(folder, ignore_errors=True)

    def _stage(self, weights: Path, step: int) -> Path:
        """A folder of its own now, which a newer checkpoint cannot take away."""
        folder = fresh_folder(self._checkpoints.attempt_folder / f"weights-{step}")
        link(weights, folder / WEIGHTS)
        saved = self._saved.model_copy(update={"step": step})
        (folder / _TRAINING).write_text(saved.model_dump_json(indent=2), encoding="utf-8")
        return folder

    def _publish(self, staged: list[tuple[int, Path]]) -> None:
        for step, folder in staged:
            with self._telling(step):
                try:
                    told = {"step": step, "attempt": self._context.request.attempt}
                    self._context.publish_checkpoint(step, folder, told)
                    self._published.add(step)
                finally:
                    shutil.rmtree(folder, ignore_errors=True)

    @contextlib.contextmanager
    def _telling(self, step: int) -> Iterator[None]:
        try:
            yield
        except (ReasonError, OSError) as error:
            told = f"The checkpoint of step {step} cannot be used as a model: {error}"
            self._context.notice(told, "warning")


def model_of_checkpoint(folder: Path, context: RunContext) -> tuple[Family, Any, SavedTraining]:
    """Rebuild the model as it was when the checkpoint was saved, ready to be saved.

    Raises `BadModel` if the base model is no longer the one that was trained.
    """
    saved = SavedTraining.read(folder)
    # What the training measured with is not needed, and may be gone.
    spec = saved.training.model_copy(update={"evaluation": Evaluation()})
    # Into main memory, where every model fits that was trained in shards; few bits need their own kernels.
    device = "cpu" if spec.quantization is None else context.device
    context.request.inputs.update(saved.inputs)
    set_seed(spec.seed)  # a new head was drawn by it
    family = family_of(spec.family)
    model = family.load_for_training(context.on(device), spec, device)
    if Identity.of(model).model_sha256 != saved.base_model_sha256:
        raise BadModel(
            f"{spec.base_model} is another model than when it was trained (its weights, tokenizer or "
            "settings): no model can be made of the checkpoint"
        )
    choose_trainable(spec, model, transformer_of(model))
    with reading_model("The checkpoint's weights cannot be read"):
        weights = load_file(str(folder / WEIGHTS), device=device)
    restore_trained_state(model, weights)
    family.set_lengths(model, saved.lengths, spec.lengths)
    if spec.lora is not None:
        merge(model)
    return family, model, saved


def describe_checkpoint(saved: SavedTraining) -> dict[str, Any]:
    """For the manifest of the model that is made of it."""
    return {
        "step": saved.step,
        "base_model": saved.training.base_model,
        "base_model_sha256": saved.base_model_sha256,
        "family": saved.training.family,
        "lengths": saved.lengths,
        "training_inputs": dump_inputs(saved.inputs),
    }
