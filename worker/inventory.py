"""What this host has: GPUs by NVML, memory by psutil."""

import logging
import os
import socket

import psutil
import pynvml

from core.jobs.hosts import Gpu
from core.settings import Settings
from core.store.fleet import Inventory

_log = logging.getLogger(__name__)


def read_gpus() -> list[Gpu]:
    """The GPUs that this worker may use."""
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return []
    try:
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        allowed = None if visible is None else {item.strip() for item in visible.split(",")}
        gpus = []
        for index in range(pynvml.nvmlDeviceGetCount()):
            handle = pynvml.nvmlDeviceGetHandleByIndex(index)
            memory = pynvml.nvmlDeviceGetMemoryInfo(handle)
            uuid = _text(pynvml.nvmlDeviceGetUUID(handle))
            if allowed is None or str(index) in allowed or uuid in allowed:
                gpus.append(
                    Gpu(
                        index=index,
                        uuid=uuid,
                        name=_text(pynvml.nvmlDeviceGetName(handle)),
                        memory_bytes=int(memory.total),
                        free_bytes=int(memory.free),
                    )
                )
        return gpus
    except pynvml.NVMLError as error:
        _log.warning("The GPUs cannot be listed: %s", error)
        return []
    finally:
        pynvml.nvmlShutdown()


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value


def read_inventory(settings: Settings) -> Inventory:
    """This host as a worker. Slots: as set, else one a GPU, else one."""
    gpus = read_gpus()
    return Inventory(
        host=socket.gethostname(),
        slots=settings.slots or max(1, len(gpus)),
        gpus=gpus,
        memory_bytes=psutil.virtual_memory().total,
        queues=settings.queues,
    )
