"""Memory of the job's process, told every few seconds from a thread of its own."""

import sys
import threading
from types import TracebackType

import psutil

from core.jobs.events import Memory
from core.runtime.context import RunContext

_SECONDS = 2.0


class MemorySampler:
    """A context manager that reports resident memory, children included, and the GPU's where it is used."""

    def __init__(self, context: RunContext) -> None:
        self._context = context
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._sample, name="memory", daemon=True)

    def __enter__(self) -> "MemorySampler":
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._done.set()
        self._thread.join()
        self.tell()

    def _sample(self) -> None:
        while not self._done.wait(_SECONDS):
            self.tell()

    def tell(self) -> None:
        """Reports once."""
        gpu, peak = _gpu_bytes()
        self._context.memory(Memory(rss_bytes=_resident(), gpu_bytes=gpu, gpu_peak_bytes=peak))


def _resident() -> int:
    process = psutil.Process()
    total: int = process.memory_info().rss
    for child in process.children(recursive=True):
        try:
            total += child.memory_info().rss
        except psutil.NoSuchProcess:
            continue  # a data loader's worker that has just ended
    return total


def _gpu_bytes() -> tuple[int | None, int | None]:
    cuda = getattr(sys.modules.get("torch"), "cuda", None)
    initialized = getattr(cuda, "is_initialized", None)  # not there while torch is being imported
    if cuda is None or initialized is None or not initialized():
        return None, None
    devices = range(cuda.device_count())
    return (
        sum(cuda.memory_reserved(device) for device in devices),
        sum(cuda.max_memory_reserved(device) for device in devices),
    )
