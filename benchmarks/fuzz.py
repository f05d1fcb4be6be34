"""Schemathesis against a running API on PostgreSQL: thousands of requests, every check.

Run: ``make fuzz``, which takes some ten minutes.
Exit status 0: no 5xx, and no answer that the schema does not describe. The test suite runs a small part of it
(tests/api/test_fuzz.py).
"""

import argparse
import os
import sys
import tempfile
from pathlib import Path

from core.settings import Settings
from tests.fuzz import fuzz, serving, temporary_database


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--examples", type=int, default=12, help="requests of each call and kind")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--phases", default="examples,coverage,fuzzing,stateful")
    asked = parser.parse_args()
    total, failed = 0, False
    with (
        tempfile.TemporaryDirectory() as name,
        temporary_database(os.environ["REASON_TEST_POSTGRES"]) as url,
    ):
        os.chdir(name)
        settings = Settings(data_dir=Path(name) / "data", database_url=url)
        with serving(settings) as target:
            for known_ids, phases in ((False, asked.phases), (True, "fuzzing")):
                found = fuzz(
                    target,
                    Path(name) / "fuzz",
                    examples=asked.examples,
                    seed=asked.seed,
                    phases=phases,
                    known_ids=known_ids,
                )
                print(found.output)
                total += found.requests
                failed = failed or found.status != 0
    print(f"{total} requests, {'failures: see above' if failed else 'no failure'}")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
