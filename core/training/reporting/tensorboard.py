"""Learning curves for TensorBoard, written beside the checkpoints, so that a resumed job goes on in them."""

from pathlib import Path
from typing import Any

from torch.utils.tensorboard import SummaryWriter
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from core.training.checkpoints.checkpoint import TrainingState


class TensorBoard(TrainerCallback):
    """The trainer's numbers and every evaluation as scalars."""

    def __init__(self, folder: Path, state: TrainingState) -> None:
        self._folder, self._state = folder, state
        self._writer: SummaryWriter | None = None
        self._written = 0

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        # What a killed attempt wrote after its last checkpoint is purged: those steps are done again.
        self._writer = SummaryWriter(str(self._folder), purge_step=state.global_step or None)
        if state.global_step:
            self._written = len(self._state.evaluations)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **_: Any,
    ) -> None:
        if self._writer is None:  # the base model's scores come before the first step
            return
        for name, value in (logs or {}).items():
            if name in ("loss", "learning_rate", "grad_norm"):
                self._writer.add_scalar(f"train/{name}", value, state.global_step)
        self._write_evaluations()

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        assert self._writer is not None
        self._write_evaluations()
        self._writer.close()

    def _write_evaluations(self) -> None:
        assert self._writer is not None
        for evaluation in self._state.evaluations[self._written :]:
            for dataset, scores in evaluation.scores.items():
                for metric, value in scores.items():
                    self._writer.add_scalar(f"{dataset}/{metric}", value, evaluation.step)
        self._written = len(self._state.evaluations)
