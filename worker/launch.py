"""Starting a job's process: from a warm fork server that has already imported the training stack.

The server is multiprocessing's own. This module names the function to run by its path and never imports
it here, so that torch stays out of the worker.
"""

import importlib
import multiprocessing
import os
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext, ForkServerProcess
from multiprocessing.forkserver import ensure_running
from pathlib import Path

from worker.control import Control

_PRELOAD = "core.process.preload"
_MAIN = "core.process.main"


def _start(folder: str, control: Connection) -> None:
    """Runs in the new process."""
    importlib.import_module(_MAIN).main(folder, control)


class Launcher:
    """A fork server and the processes that come from it."""

    def __init__(self) -> None:
        # Read by torch in the server: asking how many GPUs there are must not initialise CUDA before a fork.
        os.environ.setdefault("PYTORCH_NVML_BASED_CUDA_CHECK", "1")
        self._context: ForkServerContext = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload([_PRELOAD])

    def warm(self) -> None:
        """Starts the server, which then imports the training stack by itself. Returns at once."""
        ensure_running()

    def start(self, folder: Path) -> tuple[ForkServerProcess, Control]:
        """Start the request in ``folder``. Returns the process and our end of its control pipe."""
        ours, theirs = self._context.Pipe(duplex=True)
        process = self._context.Process(target=_start, args=(str(folder), theirs), name=folder.name)
        process.start()
        theirs.close()  # so that the process sees the pipe close when we die
        return process, Control(ours)
