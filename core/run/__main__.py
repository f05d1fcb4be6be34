"""``python -m core.run RUN_DIR``: one attempt by hand, for debugging."""

import sys

from core.run.process import main

if __name__ == "__main__":
    main(sys.argv[1])
