"""``python -m worker``: one worker on this host."""

import sys

from worker.celery_app import main

if __name__ == "__main__":
    sys.exit(main())
