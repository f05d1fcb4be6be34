"""Several processes, one a GPU, that share the work of every batch.

Each rank draws the same batches, encodes its share of a batch's distinct texts, gathers the embeddings of
all, and computes the loss of the whole batch. The loss's gradient flows back through the rank's own texts
only, and the parameters' gradients are summed over the ranks, once an update. So batches, in-batch negatives,
loss and gradients are those of a single process, whatever the number of ranks; ``batch_size`` is the job's.

The first rank is the job's process. It alone reads data, evaluates, saves and reports; the others are its
helpers, and end when it does. Of a model in shards (`core.engine.sharding`) no rank has all weights: then
helpers compute along where the first rank evaluates.
"""

import logging
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import distributed

from core.engine.batching import Share
from core.errors import JobFailure, OutOfMemory, ProcessDied, ReasonError
from core.jobs.reasons import describe_signal
from core.runtime.context import RunContext, Seat
from core.runtime.failures import write_end

T = TypeVar("T")

_log = logging.getLogger(__name__)

_SUMMED_AT_ONCE = 8 << 20
"""Gradients' numbers: few enough that the copies of them do not count, many enough to fill the wires."""

_FOR_EVER = timedelta(days=30)
"""Helpers wait while the first rank reads data or evaluates; what has died is noticed by `_Helpers`."""

_LAST_WORDS_SECONDS = 10.0

_DYING_SECONDS = 2.0
"""A connection is closed before its process is seen to have ended."""


@dataclass(frozen=True)
class _Call:
    """What the first rank asks of all while they wait for it."""

    function: Callable[..., Any]
    arguments: tuple[Any, ...]


class ShortElsewhere(MemoryError):
    """Another rank ran out of memory in this step."""


class Ranks:
    """The ranks of a job, as one of them sees them. Alone, none of this does anything."""

    def __init__(self, rank: int = 0, size: int = 1) -> None:
        self.share = Share(rank, size)
        self.model: Any = None  # where it is sharded: what functions that all ranks call need

    @property
    def first(self) -> bool:
        return self.share.rank == 0

    @property
    def saves(self) -> bool:
        """Whether saving needs this rank: the first one writes, and those of a sharded model give parts."""
        return self.first or self.model is not None

    @property
    def alone(self) -> bool:
        return self.share.size == 1

    # -- what happens in a step ------------------------------------------------------------------

    def gather(self, embeddings: torch.Tensor) -> torch.Tensor:
        """[texts of this rank, dim] -> [texts of all ranks, dim], rank after rank; as many of each.

        Raises `ShortElsewhere`, like `meet`, where a rank has no memory for its share.
        """
        return embeddings if self.alone else _Gather.apply(embeddings, self)

    def sum_gradients(self, parameters: Iterable[torch.nn.Parameter]) -> None:
        """Over the ranks, in place. Raises `ShortElsewhere`, like `meet`."""
        if self.alone:
            return
        self.meet()
        trained = [parameter for parameter in parameters if parameter.requires_grad]
        # A module that no text of this rank has gone through has no gradient here.
        present = self.all_reduce_max([int(parameter.grad is not None) for parameter in trained])
        gradients = []
        for parameter, anywhere in zip(trained, present, strict=True):
            if anywhere:
                if parameter.grad is None:
                    parameter.grad = torch.zeros_like(parameter)
                parameter.grad = parameter.grad.contiguous()
                gradients.append(parameter.grad)
        buckets = list(_buckets(gradients))
        most = max((sum(gradient.numel() for gradient in bucket) for bucket in buckets), default=0)
        buffers = {gradient.dtype: gradient.new_empty(most) for gradient in gradients}
        self.meet()  # what memory it takes is there: no rank can fail between the sums
        for bucket in buckets:
            flat = buffers[bucket[0].dtype][: sum(gradient.numel() for gradient in bucket)]
            pieces = flat.split([gradient.numel() for gradient in bucket])
            for gradient, piece in zip(bucket, pieces, strict=True):
                piece.copy_(gradient.view(-1))
            distributed.all_reduce(flat)
            for gradient, piece in zip(bucket, pieces, strict=True):
                gradient.copy_(piece.view_as(gradient))

    def meet(self, *, failed: bool = False) -> None:
        """Every rank comes here before it gathers and before it sums. Who has run out of memory meanwhile
        comes with ``failed``, and the step is done again by all: the others get `ShortElsewhere`."""
        if self.all_reduce_max([int(failed)]) == [1] and not failed:
            raise ShortElsewhere("another GPU of this job has run out of memory")

    def all_reduce_max(self, numbers: Sequence[int]) -> list[int]:
        """The largest of all ranks, number by number."""
        if self.alone or not numbers:
            return list(numbers)
        found = torch.tensor(numbers, dtype=torch.long)
        distributed.all_reduce(found, distributed.ReduceOp.MAX)
        return found.tolist()

    def reseed(self, seed: int, step: int, batch: int) -> None:
        """Helpers draw their dropout by the step, so that a resumed job needs no random state of theirs.

        The first rank's is saved with its checkpoints.
        """
        if not self.first:
            size = self.share.size
            torch.manual_seed((((seed * 1_000_003 + step) * 1_009 + batch) * size + self.share.rank) % 2**63)

    # -- what happens once in a while -----------------------------------------------------------------

    def broadcast_from_rank0(self, make: Callable[[], T]) -> T:
        """What ``make`` returns on the first rank. It is not called on the others, which meanwhile do what
        the first one asks of them by `call_on_all_ranks`."""
        if self.alone:
            return make()
        if self.first:
            return self._broadcast(make())
        while isinstance(found := self._broadcast(None), _Call):
            self._take_part(found)
        return found

    def call_on_all_ranks(self, function: Callable[..., T], *arguments: Any) -> list[T]:
        """Call ``function(ranks, *arguments)`` on every rank; return what each has returned.

        The first rank calls it, while the others wait in `broadcast_from_rank0`. All of it is pickled.
        """
        call = _Call(function, arguments)
        if not self.alone:
            self._broadcast(call)
        return self._take_part(call)

    def _take_part(self, call: _Call) -> list[Any]:
        found = call.function(self, *call.arguments)
        if self.alone:
            return [found]
        gathered = [None] * self.share.size if self.first else None
        distributed.gather_object(found, gathered, dst=0)
        return gathered or []

    def _broadcast(self, item: Any) -> Any:
        items = [item]
        distributed.broadcast_object_list(items, src=0, device=torch.device("cpu"))
        return items[0]

    def equalize(self, tensors: Iterable[torch.Tensor]) -> None:
        """Every rank gets the first one's values."""
        if not self.alone:
            for tensor in tensors:
                distributed.broadcast(tensor.data, src=0)


def _buckets(tensors: Iterable[torch.Tensor]) -> Iterator[list[torch.Tensor]]:
    bucket: list[torch.Tensor] = []
    for tensor in tensors:
        full = sum(other.numel() for other in bucket) + tensor.numel() > _SUMMED_AT_ONCE
        if bucket and (full or tensor.dtype != bucket[0].dtype):
            yield bucket
            bucket = []
        bucket.append(tensor)
    if bucket:
        yield bucket


class _Gather(torch.autograd.Function):
    """All ranks' embeddings; of their gradient, which is the same everywhere, the rank's own rows."""

    @staticmethod
    def forward(ctx: Any, embeddings: torch.Tensor, ranks: Ranks) -> torch.Tensor:
        share = ranks.share
        ctx.rows = slice(share.rank * len(embeddings), (share.rank + 1) * len(embeddings))
        whole = embeddings.new_empty(share.size * len(embeddings), *embeddings.shape[1:])
        ranks.meet()
        distributed.all_gather_into_tensor(whole, embeddings.contiguous())
        return whole

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None]:
        return gradients[0][ctx.rows], None


# -- coming together ------------------------------------------------------------------------------------


@contextmanager
def open_ranks(context: RunContext, *, sharded: bool = False) -> Iterator[Ranks]:
    """The ranks that the request asks for: helpers are started, or this process is one of them.

    Its end ends the helpers, at once if it is an error. ``sharded``: a process group is needed by one rank,
    too.
    """
    size = context.request.processes
    if size == 1 and not sharded:
        yield Ranks()
        return
    helpers = None if context.seat else _Helpers(context)
    seat = context.seat or helpers.seat  # type: ignore[union-attr]
    gpus = bool(context.request.gpus)
    logging.getLogger("transformers.training_args").addFilter(_no_advice)  # it knows of no ranks, on purpose
    threads = torch.get_num_threads()
    if not gpus:
        torch.set_num_threads(max(1, threads // size))
    try:
        distributed.init_process_group(
            "cpu:gloo,cuda:nccl" if gpus else "gloo",
            store=distributed.FileStore(str(seat.meeting), size),
            rank=seat.rank,
            world_size=size,
            timeout=_FOR_EVER,
        )
        ranks = Ranks(seat.rank, size)
        yield ranks
        _part(ranks, helpers)
        distributed.destroy_process_group()
    except ReasonError:
        raise
    except Exception as error:  # that a connection was closed says less than why
        if helpers is not None and (failure := helpers.failure()):
            raise failure from error
        raise
    finally:
        torch.set_num_threads(threads)
        if helpers is not None:
            helpers.end()
        if distributed.is_initialized() and not gpus:  # with NCCL this may wait for the dead
            distributed.destroy_process_group()


def _part(ranks: Ranks, helpers: "_Helpers | None") -> None:
    """Nobody leaves while others still compute. The first rank comes here when its result is whole and
    published: a helper that dies on its way out must not take that along."""
    try:
        ranks.meet()
    except Exception as error:
        if helpers is None:
            raise
        reason = helpers.failure() or error
        _log.warning("The job is done; a helper of it did not end in order: %s", reason, exc_info=error)


def _no_advice(record: logging.LogRecord) -> bool:
    return "torch.distributed process group" not in record.getMessage()


def _failure_of(rank: int, status: int, seat: Seat) -> JobFailure:
    who = f"Process {rank + 1} of the job"
    place = Seat(rank, seat.meeting).out_of_memory
    if place.exists():
        return OutOfMemory(f"{who}: {place.read_text(encoding='utf-8')}")
    if status < 0:
        return ProcessDied(f"{who} {describe_signal(-status)}")
    return JobFailure(f"{who} has ended with status {status}: its error is in the log.")


class _Helpers:
    """The processes of all ranks but the first."""

    def __init__(self, context: RunContext) -> None:
        self._context = context
        self._folder = Path(tempfile.mkdtemp(prefix="ranks-"))
        self.seat = Seat(0, self._folder / "meeting")
        self._ending = threading.Event()
        # All ranks are on this host: they talk to each other inside of it.
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo" if sys.platform == "linux" else "lo0")
        self._processes = {
            rank: self._start(rank) for rank in range(1, context.request.processes)
        }  # rank -> process
        threading.Thread(target=self._watch, name="ranks", daemon=True).start()

    def _start(self, rank: int) -> subprocess.Popen[bytes]:
        environment = dict(os.environ)
        gpus = self._context.request.gpus
        environment["CUDA_VISIBLE_DEVICES"] = gpus[rank] if gpus else ""
        arguments = [str(self._context.folder), str(rank), str(self.seat.meeting)]
        # A Ctrl-C that comes before the helper can ignore it must not fell it: it inherits the mask.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
        try:
            return subprocess.Popen(
                [sys.executable, "-m", "core.process.rank", *arguments],
                stdin=subprocess.PIPE,  # its closing tells the helper that we are gone
                stdout=sys.__stderr__,
                env=environment,
                cwd=Path(__file__).parents[2],
            )
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def _watch(self) -> None:
        """Without one rank the others wait for ever: then this process ends, to be tried again."""
        while not self._ending.wait(0.5):
            for rank, process in self._processes.items():
                if process.poll():
                    if self._ending.wait(_LAST_WORDS_SECONDS):  # what felled it may have felled us as well
                        return
                    write_end(self._context, _failure_of(rank, process.returncode, self.seat))
                    os._exit(1)

    def failure(self) -> JobFailure | None:
        """Why a helper has ended, where one has, or is about to."""
        end = time.monotonic() + _DYING_SECONDS
        while time.monotonic() < end:
            for rank, process in self._processes.items():
                if process.poll():
                    return _failure_of(rank, process.returncode, self.seat)
            time.sleep(0.05)
        return None

    def end(self) -> None:
        self._ending.set()
        for process in self._processes.values():
            process.kill()
            process.wait()
            assert process.stdin is not None
            process.stdin.close()
        shutil.rmtree(self._folder, ignore_errors=True)
