"""What happens between two steps: telling, evaluating, saving, stopping. One class each."""

import math
import time
from collections.abc import Callable
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from core.errors import BadSpec, Diverged
from core.runtime.context import RunContext
from core.spec.parts.evaluation import EarlyStopping, rises
from core.spec.parts.training import Checkpointing
from core.training.checkpoints.checkpoint import Checkpoints, Evaluation, Scores, TrainingState
from core.training.checkpoints.weights import WeightsPublisher
from core.training.negatives.remining import Remining
from core.training.recovery import AGAINST_DIVERGENCE


class Throughput:
    """Counts samples and tokens, and the time spent on steps alone: evaluation and saving do not count."""

    def __init__(self) -> None:
        self.samples = self.tokens = 0
        self.seconds = 0.0
        self._since: float | None = None

    def start(self) -> None:
        self._since = time.monotonic()

    def pause(self) -> None:
        if self._since is not None:
            self.seconds += time.monotonic() - self._since
            self._since = None

    def add(self, samples: int, tokens: int) -> None:
        self.samples += samples
        self.tokens += tokens

    def lap(self) -> tuple[int, int, float]:
        """(samples, tokens, seconds) since the last lap."""
        running = self._since is not None
        self.pause()
        lap = self.samples, self.tokens, self.seconds
        self.samples = self.tokens = 0
        self.seconds = 0.0
        if running:
            self.start()
        return lap


class Decide(TrainerCallback):
    """What the first rank alone knows when a step ends: whether the job is asked to stop, and whether time
    wants a checkpoint. The ranks of a sharded model must act on it alike, so it is settled before the other
    callbacks look at it, with ``agree`` (`Ranks.broadcast_from_rank0`, or a plain call)."""

    def __init__(
        self,
        context: RunContext,
        every_seconds: float | None,
        agree: Callable[[Callable[[], tuple[bool, bool]]], tuple[bool, bool]],
    ) -> None:
        self._context, self._every_seconds, self._agree = context, every_seconds, agree
        self.stop = self.save = False
        self.saved_at = time.monotonic()

    def _look(self) -> tuple[bool, bool]:
        waited = time.monotonic() - self.saved_at
        return self._context.should_stop(), bool(self._every_seconds and waited >= self._every_seconds)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        self.stop, self.save = self._agree(self._look)


class Report(TrainerCallback):
    """Loss, gradient norm, learning rate, speed and progress, as the trainer logs them."""

    def __init__(
        self, context: RunContext, state: TrainingState, throughput: Throughput, per_epoch: int
    ) -> None:
        self._context, self._state, self._throughput = context, state, throughput
        self._per_epoch = max(per_epoch, 1)
        self._told = 0.0
        self._first: tuple[float, int] | None = None

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        self._throughput.start()
        self._first = (time.monotonic(), state.global_step)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        now = time.monotonic()
        if now - self._told < 0.5 and state.global_step < state.max_steps:
            return
        self._told = now
        assert self._first is not None
        begun, first_step = self._first
        done = state.global_step - first_step
        self._context.progress(
            state.global_step,
            state.max_steps,
            epoch=round(state.global_step * args.gradient_accumulation_steps / self._per_epoch, 3),
            eta_seconds=round((now - begun) / done * (state.max_steps - state.global_step), 1)
            if done
            else None,
        )

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **_: Any,
    ) -> None:
        logs = logs or {}
        if "loss" not in logs:
            return
        samples, tokens, seconds = self._throughput.lap()
        self._state.tokens_seen += tokens
        self._state.training_seconds += seconds
        values = {"loss": float(logs["loss"]), "learning_rate": float(logs["learning_rate"])}
        if "grad_norm" in logs:
            values["grad_norm"] = float(logs["grad_norm"])
        if seconds > 0:
            values["samples_per_second"] = samples / seconds
            values["tokens_per_second"] = tokens / seconds
        self._context.metric(state.global_step, values)
        if not math.isfinite(values["loss"]):
            raise Diverged(f"The loss at step {state.global_step} is {values['loss']}. {AGAINST_DIVERGENCE}")


class Evaluate(TrainerCallback):
    """Scores the model every so many steps, remembers the best, and ends training when nothing rises."""

    def __init__(
        self,
        context: RunContext,
        state: TrainingState,
        throughput: Throughput,
        decided: Decide,
        every_steps: int | None,
        stopping: EarlyStopping | None,
        evaluate: Callable[[int], Scores],
        save_best: Callable[[], None],
        stalled: Callable[[int, str], None],
    ) -> None:
        self._context, self._state, self._throughput = context, state, throughput
        self._decided, self._every_steps, self._stopping = decided, every_steps, stopping
        self._evaluate, self._save_best, self._stalled = evaluate, save_best, stalled

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        if self._is_due(state) and not self._decided.stop:
            self._look_between_steps(state, control)

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """What was due after the step that a request to stop came in: it was saved and not evaluated."""
        evaluated = {found.step for found in self._state.evaluations}
        if state.global_step > 0 and self._is_due(state) and state.global_step not in evaluated:
            self._look_between_steps(state, control)

    def _is_due(self, state: TrainerState) -> bool:
        due = self._every_steps and state.global_step % self._every_steps == 0
        return bool(due) and state.global_step < state.max_steps

    def _look_between_steps(self, state: TrainerState, control: TrainerControl) -> None:
        self._throughput.pause()
        self._context.phase("evaluating")
        enough = self.evaluate_now(state.global_step)
        self._context.phase("training")
        self._throughput.start()
        if enough:
            control.should_training_stop = True

    def evaluate_now(self, step: int) -> bool:
        """Evaluates now. True when early stopping says that it is enough."""
        return self._consider(step, self._evaluate(step))

    def _consider(self, step: int, scores: Scores) -> bool:
        """Takes note of an evaluation. True when early stopping says that it is enough."""
        self._state.evaluations.append(Evaluation(step, scores))
        if self._stopping is None:
            return False
        metric = self._stopping.metric
        # Triplets are not in every dataset.
        only = self._stopping.dataset
        if only is not None and only not in scores:
            raise BadSpec(f"early_stopping.dataset: there is no {only!r}; there are {', '.join(scores)}")
        by_dataset = {
            name: values[metric]
            for name, values in scores.items()
            if metric in values and only in (None, name)
        }
        if not by_dataset:
            raise BadSpec(f"early_stopping.metric {metric}: no evaluation dataset has it")
        mean = sum(by_dataset.values()) / len(by_dataset)
        sign = 1 if rises(metric) else -1
        if self._state.best_score is None or sign * (mean - self._state.best_score) > 0:
            self._state.best_score, self._state.best_step = mean, step
            self._save_best()
        watched = by_dataset if self._stopping.per_dataset else {"mean": mean}
        for name, value in watched.items():
            best = self._state.best_by_dataset.get(name)
            if best is None or sign * (value - best) > self._stopping.min_delta:
                self._state.best_by_dataset[name] = value
                self._state.stalled[name] = 0
            else:
                self._state.stalled[name] = self._state.stalled.get(name, 0) + 1
                if self._state.stalled[name] % self._stopping.patience == 0:
                    self._stalled(step, name)
        if min(self._state.stalled[name] for name in watched) < self._stopping.patience:
            return False
        self._context.notice(
            f"Early stopping at step {step}: {self._stopping.metric} has not become better for "
            f"{self._stopping.patience} evaluations; the best was {self._state.best_score:.4f} "
            f"at step {self._state.best_step}."
        )
        return True


class Mine(TrainerCallback):
    """Finds the rows' negatives anew, where it is time to."""

    def __init__(self, throughput: Throughput, decided: Decide, remining: Remining) -> None:
        self._throughput, self._decided, self._remining = throughput, decided, remining

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        self._throughput.pause()
        self._remining.begin(state.global_step)
        self._throughput.start()

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        if control.should_training_stop or self._decided.stop:
            return
        if self._remining.generation_of(state.global_step) is not None:
            self._throughput.pause()
            if not self._remining.after(state.global_step):
                self._decided.stop = True  # before the next step: a checkpoint of this one mines again
            self._throughput.start()


class Save(TrainerCallback):
    """Checkpoints by steps and by time, and one more when the job is asked to stop.

    ``owner``: the first rank. Others of a sharded model have this callback to give their shards. ``weights``
    publishes what a model can be made of.
    """

    def __init__(
        self,
        context: RunContext,
        state: TrainingState,
        throughput: Throughput,
        decided: Decide,
        checkpoints: Checkpoints,
        asked: Checkpointing,
        weights: WeightsPublisher | None,
        *,
        owner: bool,
    ) -> None:
        self._context, self._state, self._throughput = context, state, throughput
        self._decided, self._checkpoints, self._asked = decided, checkpoints, asked
        self._weights, self._owner = weights, owner

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        step = state.global_step
        by_steps = self._asked.every_steps and step % self._asked.every_steps == 0
        if self._decided.stop:
            control.should_training_stop = True
        # The last step as well: a job that is killed while it is evaluated need not train again.
        if control.should_training_stop or by_steps or self._decided.save or step >= state.max_steps:
            control.should_save = True
        if control.should_save:
            self._throughput.pause()

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        if not self._owner:
            self._throughput.start()
            return
        size, seconds = self._checkpoints.complete(state.global_step, self._state)
        self._decided.saved_at = time.monotonic()
        self._throughput.start()
        self._context.checkpointed(state.global_step, size, seconds)
        if self._weights is not None:
            checkpoint = self._checkpoints.attempt_folder / f"checkpoint-{state.global_step}"
            self._weights.push(checkpoint, state.global_step, self._state, stopping=self._decided.stop)
