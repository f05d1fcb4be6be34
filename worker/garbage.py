"""``reason gc``: remove what is old and needed by nothing, now, or say what would go."""

import argparse
import json
import sys
from dataclasses import asdict

from pydantic import ValidationError

from core.errors import StorageFailure, Unavailable
from core.settings import Settings, settings_problem
from core.store import open_store
from migrations import is_current
from worker.collector import Collector


def collect_once(arguments: list[str]) -> int:
    """Exit codes: 0, and 1 where database or storage do not answer."""
    parser = argparse.ArgumentParser(
        prog="reason gc",
        description="Remove artifacts, checkpoints, run folders and cache entries that are older than the "
        "settings say (REASON_ARTIFACT_DAYS, ...) and that nothing needs. Workers do the same every hour. "
        "Run it on a host of the service: run folders and caches are those of the host.",
        epilog="example: reason gc --dry-run",
    )
    parser.add_argument("--dry-run", action="store_true", help="only say what would be removed")
    parser.add_argument(
        "--unknown",
        action="store_true",
        help="also remove folders of the artifact storage that this database does not know, a day after they "
        "were first seen. Not after restoring an older database: what it does not know would be lost",
    )
    parser.add_argument("--json", action="store_true", help="print JSON, one object a line")
    asked = parser.parse_args(arguments)
    try:
        settings = Settings()
    except ValidationError as error:
        print(f"reason gc: invalid setting: {settings_problem(error)}", file=sys.stderr)
        return 2
    store = open_store(settings)
    total = count = 0
    try:
        if not is_current(store.database):
            print(
                "reason gc: the database has an older schema: run `reason db upgrade` first", file=sys.stderr
            )
            return 2
        for item in Collector(settings, store, dry_run=asked.dry_run).collect(unknown=asked.unknown):
            count, total = count + 1, total + item.bytes
            told = (
                json.dumps(asdict(item)) if asked.json else _line(item.what, item.name, item.bytes, item.why)
            )
            print(told, flush=True)
    except (Unavailable, StorageFailure) as error:
        print(f"reason gc: {error}", file=sys.stderr)
        return 1
    finally:
        store.close()
    if not asked.json:
        verb = "would be removed" if asked.dry_run else "removed"
        print(f"{count} items, {total / 1e6:,.1f} MB {verb}. Files of deleted artifacts go within minutes.")
    return 0


def _line(what: str, name: str, size: int, why: str) -> str:
    return f"{what:<12} {size / 1e6:>10,.1f} MB  {name}: {why}"
