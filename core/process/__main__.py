"""``python -m core.process RUN_DIR``: one attempt by hand, for debugging."""

import sys

from core.process.main import main

if __name__ == "__main__":
    main(sys.argv[1])
