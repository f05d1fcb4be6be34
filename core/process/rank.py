"""``python -m core.process.rank FOLDER RANK MEETING``: helps the job's own process, on a GPU of its own.

See `core.engine.ranks`. It reports nothing, writes nothing, and ends with the process that started it.
"""

import logging
import os
import shutil
import signal
import sys
import threading
import traceback
from pathlib import Path
from typing import NoReturn

from core.data.sources.inputs import make_context
from core.errors import JobFailure, OutOfMemory
from core.jobs.protocol import REQUEST, RunRequest
from core.process.attempt import quiet_libraries
from core.process.dispatch import run_job
from core.runtime.context import Seat
from core.runtime.reporter import NullReporter


def main(folder: str, rank: str, meeting: str) -> int:
    # Asking to stop is the first rank's business, and it must find us here to save what there is.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT, signal.SIGTERM})
    threading.Thread(target=_follow, args=(Path(meeting).parent,), name="follow", daemon=True).start()
    request = RunRequest.model_validate_json((Path(folder) / REQUEST).read_bytes())
    seat = Seat(int(rank), Path(meeting))
    quiet_libraries()
    context = make_context(request, Path(folder), NullReporter(), seat=seat)
    try:
        run_job(context)
    except JobFailure as error:  # the first rank fails by the same one, and tells
        print(f"Rank {rank}: {error}", file=sys.stderr)
        if isinstance(error, OutOfMemory):  # which may be this rank's alone
            seat.out_of_memory.write_text(str(error), encoding="utf-8")
        return 1
    return 0


def _follow(place: Path) -> None:
    """Ends this process when the first rank is gone. ``place``: the folder where the ranks have met.

    Not by `sys.stdin`, whose lock a data loader's forked process would wait for, and for ever.
    """
    while os.read(0, 1):
        pass
    shutil.rmtree(place, ignore_errors=True)  # whose owner was killed
    os._exit(1)


def run(arguments: list[str]) -> NoReturn:
    """Call `main`, and end this process without taking the interpreter down.

    gloo's threads outlive `destroy_process_group` where a mesh still refers to the group. One that lets go of
    the last operation's tensor only then, on a busy machine, asks for an interpreter that is ending: CPython
    ends the thread inside of a destructor, and so the process by SIGABRT.
    """
    status = 1
    try:
        status = main(*arguments)
    except BaseException:  # noqa: BLE001 - the process's own edge
        traceback.print_exc()
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


if __name__ == "__main__":
    run(sys.argv[1:])
