"""Prepare jobs: peak memory from 100,000 to 1,000,000 rows, and the C++ documentation into triplets.

Run as ``python -m benchmarks.prepare [--rows 100000 1000000] [--docs ARCHIVE]``. Every job is a process of
its own (``reason run``), and its peak resident memory is the kernel's (``ru_maxrss``).
"""

import argparse
import json
import random
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.processes import measure
from benchmarks.report import write_report

_DOCS = Path(__file__).parents[1].parent / "shared" / "data" / "docs_cpp" / "cpp-docs_md.tar.gz"
_NEAR = 0.02
_WORDS = [f"{first}{second}{third}" for first in "bdfgklmnprst" for second in "aeiou" for third in range(400)]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, nargs="+", default=[100_000, 1_000_000])
    parser.add_argument("--docs", type=Path, default=_DOCS)
    asked = parser.parse_args()
    results: dict[str, Any] = {"rows": [], "documents": None}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for count in asked.rows:
            source = folder / f"{count}.jsonl"
            write_rows(source, count)
            spec = {"kind": "prepare", "source": f"file:{source}", "split": {"dev": 0.01, "test": 0.02}}
            found = run(spec, folder / "out", source.stat().st_size)
            results["rows"].append({"rows": count, **found})
            source.unlink()
        if asked.docs.exists():
            spec = {"kind": "prepare", "source": f"file:{asked.docs}", "split": {"test": 0.05, "by": "group"}}
            results["documents"] = run(spec, folder / "out", asked.docs.stat().st_size)
    write_report("prepare", results, lambda where: to_markdown(results, where))


def write_rows(path: Path, count: int) -> None:
    """Rows of 8 and 60 random words; one in fifty nearly repeats an earlier one."""
    drawn = random.Random(0)
    earlier: list[tuple[list[str], list[str]]] = []
    with path.open("w") as file:
        for number in range(count):
            if earlier and drawn.random() < _NEAR:
                query, positive = drawn.choice(earlier)
                positive = [*positive[:-1], drawn.choice(_WORDS)]
            else:
                query, positive = drawn.choices(_WORDS, k=8), drawn.choices(_WORDS, k=60)
            if number % 100 == 0:
                earlier.append((query, positive))
            file.write(json.dumps({"query": " ".join(query), "positive": " ".join(positive)}) + "\n")


def run(spec: dict[str, Any], out: Path, source_bytes: int) -> dict[str, Any]:
    """A job in a process of its own: seconds, peak memory, what it made."""
    path = out.with_suffix(".json")
    path.write_text(json.dumps(spec))
    command = [sys.executable, "-m", "core.cli.run", str(path), "--out", str(out), "--overwrite"]
    seconds, peak = measure(command)
    facts = json.loads((out / "dataset" / "dataset.json").read_text())
    told = ("read", "kept", "left_out", "splits", "negatives", "passages")
    return {
        "source_bytes": source_bytes,
        "seconds": round(seconds, 1),
        "peak_rss_bytes": peak,
        **{name: facts[name] for name in told if name in facts},
    }


def to_markdown(results: dict[str, Any], where: str) -> list[str]:
    lines = [
        "# Prepare jobs",
        "",
        f"Measured on {where}, each job in a process of its own (`reason run`).",
        "",
        "| source | size | records | seconds | records/s | peak RSS | kept |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    named = [("JSONL of 8 and 60 words, one in fifty a near repetition", found) for found in results["rows"]]
    if results["documents"]:
        named.append(("the C++ documentation (9,746 pages) into triplets", results["documents"]))
    for name, found in named:
        cells = [
            name,
            f"{found['source_bytes'] / 1e6:.0f} MB",
            f"{found['read']:,}",
            f"{found['seconds']:.1f}",
            f"{found['read'] / found['seconds']:,.0f}",
            f"{found['peak_rss_bytes'] / 1e6:.0f} MB",
            f"{found['kept']:,}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    if len(results["rows"]) > 1:
        first, last = results["rows"][0], results["rows"][-1]
        times = last["peak_rss_bytes"] / first["peak_rss_bytes"]
        lines += ["", f"{last['rows'] / first['rows']:g} times the rows take {times:.2f} times the memory."]
    return lines


if __name__ == "__main__":
    main()
