"""What a job computes on: CUDA, Apple's MPS or the CPU, and what differs between them at run time.

torch is imported where it is asked: a job that only prepares data never loads it.
"""

import gc
import platform
import sys
import warnings
from collections.abc import Callable
from typing import Any, Literal, TextIO

from core.errors import BadSpec

Device = Literal["cuda", "mps", "cpu"]

_FALLBACK_WORDS = "will fall back to run on the CPU"


def choose_device(asked: str, *, gpus: int, gpus_asked: int | str, mps: bool) -> Device:
    """The device of a job, as torch calls it.

    ``asked`` is the spec's ``device``; ``gpus`` the number of NVIDIA GPUs that the job was given and
    ``gpus_asked`` what ``resources.gpus`` says; ``mps`` whether Apple's GPU can be used here. With
    ``resources.gpus: 0`` no GPU is used. Raises `BadSpec` for a device that is not here.
    """
    if asked == "cpu" or (asked == "auto" and gpus_asked == 0):
        return "cpu"
    if asked in ("auto", "cuda") and gpus:
        return "cuda"
    if asked in ("auto", "mps") and mps:
        return "mps"
    if asked == "auto":
        return "cpu"
    what = "an NVIDIA GPU" if asked == "cuda" else "Apple's MPS (a Mac with Apple silicon)"
    raise BadSpec(
        f"device: {asked} needs {what}, which this worker cannot use; device: auto takes what is available"
    )


def choose_precision(asked: str, device: str) -> str:
    """``auto`` settled. Raises `BadSpec` for what the device cannot do."""
    import torch

    if asked == "auto":
        return "bf16" if device == "cuda" and torch.cuda.is_bf16_supported() else "fp32"
    if asked == "fp16" and device == "cpu":
        raise BadSpec("precision fp16 needs a GPU: use fp32 or bf16.")
    if asked != "fp32" and device == "mps":
        raise BadSpec(f"precision {asked} is not supported with MPS: use fp32.")
    return asked


def mps_available() -> bool:
    """Whether torch can compute on Apple's GPU here. Imports torch on a Mac only."""
    if platform.system() != "Darwin":
        return False
    import torch

    return bool(torch.backends.mps.is_available())


def free_memory(device: str) -> int:
    """Bytes that may still be taken: of the GPU, or of the machine."""
    import psutil
    import torch

    if device == "cuda":
        return int(torch.cuda.mem_get_info()[0])
    free = int(psutil.virtual_memory().available)
    if device == "mps":  # one memory for both, of which Metal recommends a share
        room = torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory()
        free = min(free, int(room))
    return free


def release_memory() -> None:
    """Give cached memory of GPUs back, after what held it is gone."""
    torch: Any = sys.modules.get("torch")
    if torch is None:
        return
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()
    elif mps_available():
        gc.collect()
        torch.mps.empty_cache()


def tell_cpu_fallbacks(tell: Callable[[str], None]) -> None:
    """Tell of operations that MPS does not have, which torch then computes on the CPU, once each.

    The process must have PYTORCH_ENABLE_MPS_FALLBACK=1 before torch is imported; else torch raises.
    """
    shown, told = warnings.showwarning, set[str]()

    def show(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        text = str(message)
        if _FALLBACK_WORDS not in text:
            shown(message, category, filename, lineno, file, line)
            return
        operation = text.partition("'")[2].partition("'")[0] or text
        if operation not in told:
            told.add(operation)
            tell(f"MPS has no {operation}: the CPU computes it, which is slower.")

    warnings.showwarning = show
