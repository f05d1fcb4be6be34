"""Where a benchmark's numbers go: JSON for machines, markdown for people, the machine named in both."""

import json
import platform
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil

REPORTS = Path(__file__).parent / "reports"


def write_report(name: str, data: dict[str, Any], page: Callable[[str], list[str]]) -> None:
    """Writes ``reports/NAME.json`` and ``NAME.md``, and prints the latter.

    ``page`` gets the words for where and when this was measured, and returns the lines.
    """
    memory = f"{psutil.virtual_memory().total / 2**30:.0f} GiB"
    machine = f"{psutil.cpu_count()} cores, {memory}, {platform.platform()}"
    date = f"{datetime.now(UTC):%Y-%m-%d}"
    REPORTS.mkdir(exist_ok=True)
    report = {"machine": machine, "date": date, **data}
    (REPORTS / f"{name}.json").write_text(json.dumps(report, indent=2) + "\n")
    text = "\n".join(page(f"{machine}, {date}")) + "\n"
    (REPORTS / f"{name}.md").write_text(text)
    print(text)
