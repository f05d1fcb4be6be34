"""What a worker's host has."""

from core.spec.parts.base import Lenient


class Gpu(Lenient):
    """An NVIDIA GPU, as NVML tells. ``free_bytes`` is what nobody had taken when it was looked at."""

    index: int
    uuid: str
    name: str
    memory_bytes: int
    free_bytes: int = 0
