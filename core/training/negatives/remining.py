"""Mining while training: the rows' negatives are found again with the weights as they are then.

ANCE (Xiong et al. 2020, arXiv 2007.00808). What is found is a *generation*: a file of negatives by row, and
the batch from which on it counts. Both go into the checkpoints, so that who goes on sees the same rows.
"""

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from core.artifacts.cache import whole_file
from core.engine.batching import Packing
from core.engine.ranks import Ranks
from core.errors import BadSpec
from core.families import dense
from core.ranking.inverted_lists import check_faiss
from core.runtime.context import RunContext, Stopped
from core.spec.train import TrainSpec
from core.training.adapters import choose_trainable, restore_trained_state, trained_state
from core.training.arguments import first_free_batch
from core.training.checkpoints.checkpoint import TrainingState
from core.training.negatives.mined_dataset import file_of, mined_folder
from core.training.negatives.search import KnownAnswers, Texts, find_negatives
from core.training.prepare import Prepared

_SNAPSHOT = "mining.safetensors"
# -- when, and by whom -----------------------------------------------------------------------------------


class Remining:
    """The schedule of a training's minings. The first rank mines; all ranks know the generations."""

    def __init__(
        self,
        spec: TrainSpec,
        context: RunContext,
        ranks: Ranks,
        prepared: Prepared,
        state: TrainingState,
    ) -> None:
        assert spec.remine is not None
        self._spec, self._asked = spec, spec.remine
        if spec.remine.index == "faiss":
            check_faiss()
        if spec.remine.prefer is not None and len(spec.datasets) == 1:
            raise BadSpec("remine.prefer other_dataset: there is one dataset")
        self._context, self._ranks, self._prepared, self._state = context, ranks, prepared, state
        self.folder = mined_folder(context)
        self._texts = Texts(
            prepared.tokens,
            prepared.rows.sizes,
            prepared.reader.frame,
            prepared.lengths.query.max_length,
            prepared.lengths.document.max_length,
        )
        self._known_answers: KnownAnswers | None = None
        self._copy: Any = None
        self._beside: _Beside | None = None
        for batch, generation in state.mined:
            prepared.batches.renew(batch, generation)

    def generation_of(self, step: int) -> int | None:
        """What is mined after that step, if anything is."""
        if step == 0:
            return 1 if self._asked.at_start else None
        period = self._asked.every_epochs * self._prepared.batches.per_epoch
        period = max(1.0, period / self._spec.gradient_accumulation_steps)
        turn = max(1, round(step / period))
        return turn + 1 if round(turn * period) == step < self._prepared.steps else None

    def begin(self, step: int) -> None:
        """Before the first step, or the first after a resumption: what is due and was not done."""
        if self._asked.background and self._ranks.first:
            self._copy = self._load_copy()
        if self._state.mining is not None:
            self._start(*self._state.mining)
        self.after(step)
        self._context.check_stop()  # nothing was trained that is not in a checkpoint

    def after(self, step: int) -> bool:
        """Mines where it is time to. A request to stop ends it, on all ranks: then the result is False, and
        who goes on mines again."""
        generation = self.generation_of(step)
        if generation is None or any(generation == known for _, known in self._state.mined):
            return True
        pending = self._state.mining[0] if self._state.mining else None
        if pending == generation:
            return True
        if step == 0 or not self._asked.background:
            if not self._ranks.broadcast_from_rank0(lambda: self._mine(generation, step)):
                return False
            self._register(generation, step)
            return True
        if pending is not None:
            if not self._ranks.broadcast_from_rank0(self._wait):
                return False
            self._register(pending, step)
        if self._ranks.saves:
            snapshot = trained_state(self._prepared.model, keep=self._ranks.first)
        if self._ranks.first:
            temporary = self.folder / f".{_SNAPSHOT}"
            save_file(snapshot, str(temporary))
            temporary.replace(self.folder / _SNAPSHOT)  # checkpoints that hold the former one keep it
        self._start(generation, step)
        return True

    def close(self) -> None:
        """Nobody waits any more for what is mined in the background."""
        if self._beside is not None:
            self._beside.abandon()

    def _register(self, generation: int, step: int) -> None:
        batch = first_free_batch(self._spec, self._prepared.device, step) if step else 0
        self._state.mined.append((batch, generation))
        self._state.mining = None
        self._prepared.batches.renew(batch, generation)
        # Whoever goes on from here begins behind the batches of the steps so far.
        done = step * self._spec.gradient_accumulation_steps
        behind = [known for begin, known in self._state.mined if begin <= done]
        for known in behind[:-1] if self._ranks.first else ():
            file_of(self.folder, known).unlink(missing_ok=True)

    def _mine(self, generation: int, step: int) -> bool:
        """With the weights as they are. False when asked to stop."""
        self._context.phase("mining")
        packing = replace(self._prepared.packing, width=None, texts=self._asked.batch_size)
        try:
            embed = dense.make_embed(self._prepared.model, packing, self._context.check_stop)
            self._write(generation, embed, self._prepared.device, self._context.check_stop, f"step {step}")
        except Stopped:
            return False
        finally:
            self._context.phase("training")
        return True

    def _write(
        self,
        generation: int,
        embed: dense.Embed,
        device: str,
        check_stop: Callable[[], None],
        when: str,
    ) -> None:
        begun = time.monotonic()
        if self._known_answers is None:
            self._known_answers = KnownAnswers(self._texts.table, self._asked, self.folder.parent)
        found = find_negatives(
            self._texts,
            embed,
            self._asked,
            (self._spec.seed, generation),
            self.folder / ".vectors.npy",
            device,
            check_stop,
            self._known_answers,
        )
        with whole_file(file_of(self.folder, generation)) as file:
            np.savez(file, starts=found.starts, documents=found.documents)
        for warning in found.warnings:
            self._context.notice(warning, "warning")
        counts = np.diff(found.starts)
        short = int((counts < self._asked.num_negatives).sum())
        self._context.notice(
            f"Negatives mined with the weights of {when} in {time.monotonic() - begun:.1f} s: "
            f"{counts.mean():.2f} a row; {short} of {len(counts)} rows have fewer than "
            f"{self._asked.num_negatives}."
        )

    # -- in the background -----------------------------------------------------------------------------

    def _load_copy(self) -> Any:
        """A second model on the CPU, into which snapshots are put. Draws nothing from the training's luck."""
        with torch.random.fork_rng():
            model = dense.load_model(self._context, self._spec.base_model, "cpu")
            choose_trainable(self._spec, model, model[0].auto_model)
        return model.eval()

    def _start(self, generation: int, step: int) -> None:
        self._state.mining = (generation, step)
        if not self._ranks.first:
            return
        restore_trained_state(self._copy, load_file(str(self.folder / _SNAPSHOT)))

        def work(check_stop: Callable[[], None]) -> None:
            def check() -> None:
                check_stop()
                self._context.check_stop()

            embed = dense.make_embed(
                self._copy, Packing(2048, overhead=64, texts=self._asked.batch_size), check
            )
            self._write(generation, embed, "cpu", check, f"step {step}")

        self._beside = _Beside(work)

    def _wait(self) -> bool:
        """For what was begun a period ago. False when asked to stop."""
        assert self._beside is not None
        self._context.phase("mining")
        try:
            self._beside.wait(self._context.check_stop)
        except Stopped:
            return False
        finally:
            self._context.phase("training")
        return True


class _Beside:
    """Work in a thread beside the training, whose error is raised where its result is wanted."""

    def __init__(self, work: Callable[[Callable[[], None]], None]) -> None:
        self._abandoned = threading.Event()
        self._executor = ThreadPoolExecutor(1, "mining")
        self._work = self._executor.submit(work, self._check)

    def _check(self) -> None:
        if self._abandoned.is_set():
            raise Stopped

    def wait(self, check_stop: Callable[[], None]) -> None:
        """Raises what the work has raised, and whatever ``check_stop`` does."""
        while not wait([self._work], 0.2).done:
            check_stop()
        self._work.result()
        self._executor.shutdown()

    def abandon(self) -> None:
        self._abandoned.set()
        self._executor.shutdown()
