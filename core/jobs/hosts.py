"""Hardware of a worker's host."""

from core.spec.parts.base import Lenient


class Gpu(Lenient):
    """An NVIDIA GPU, as reported by NVML. ``free_bytes`` is the free memory at the last measurement."""

    index: int
    uuid: str
    name: str
    memory_bytes: int
    free_bytes: int = 0
