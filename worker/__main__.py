"""``python -m worker``: one worker on this host; ``gc`` removes what is old, ``doctor`` checks all parts."""

import argparse
import signal
import sys

from core.runtime.orphans import end_with_parent
from core.settings import Settings
from worker.celery_app import main
from worker.doctor import examine
from worker.garbage import collect_once

if __name__ == "__main__":
    if sys.argv[1:2] == ["gc"]:
        sys.exit(collect_once(sys.argv[2:]))
    if sys.argv[1:2] == ["doctor"]:
        sys.exit(examine(sys.argv[2:]))
    parser = argparse.ArgumentParser(
        prog="reason worker",
        description="Run jobs on this host. Ctrl-C: running jobs save a checkpoint and go back to the queue.",
        epilog="example: reason worker --slots 2",
    )
    parser.add_argument("--slots", type=int, help="jobs at once (REASON_SLOTS); default: one a GPU, or one")
    parser.add_argument("--end-with-parent", action="store_true", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.end_with_parent:
        end_with_parent(signal.SIGTERM)
    sys.exit(main(Settings() if asked.slots is None else Settings(slots=asked.slots)))
