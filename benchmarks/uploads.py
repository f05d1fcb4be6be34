"""Archives of many files over HTTP: seconds, peak memory of the API, and the job that prepares the dataset.

Run as ``python -m benchmarks.uploads [--pages 1000 10000 100000] [--docs ARCHIVE]``. Every archive is sent to
a service of its own (API and worker as processes, SQLite, local storage), so that the kernel's peak (VmHWM)
of the API process is that of one upload.
"""

import argparse
import io
import json
import random
import tarfile
import tempfile
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil

from benchmarks.report import write_report
from tests.faults.service import Service

_DOCS = Path(__file__).parents[1].parent / "shared" / "data" / "docs_cpp" / "cpp-docs_md.tar.gz"
_WORDS = [f"{first}{second}{third}" for first in "bdfgklmnprst" for second in "aeiou" for third in range(400)]
_JOB_SECONDS = 3600


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--pages", type=int, nargs="+", default=[1000, 10_000, 100_000])
    parser.add_argument("--shapes", nargs="+", default=[entries.__name__ for _, entries, *_ in _SHAPES])
    parser.add_argument("--docs", type=Path, default=_DOCS)
    parser.add_argument("--no-prepare", action="store_true", help="measure the uploads alone")
    asked = parser.parse_args()
    results: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for shape, entries, pack, most in _SHAPES:
            if entries.__name__ not in asked.shapes:
                continue
            for pages in dict.fromkeys(min(pages, most) for pages in asked.pages):
                archive = folder / f"{shape}.{pack}"
                write_archive(archive, entries(pages))
                results.append(measure(folder / "service", archive, shape, pages, asked.no_prepare))
                archive.unlink()
        if asked.docs.exists():
            results.append(
                measure(folder / "service", asked.docs, "the C++ documentation", 9746, asked.no_prepare)
            )
    write_report("uploads", {"results": results}, lambda where: to_markdown(results, where))


# -- archives ----------------------------------------------------------------------------------------


def flat(pages: int) -> Iterator[tuple[str, bytes]]:
    drawn = random.Random(0)
    for number in range(pages):
        yield f"docs/page-{number:06}.md", page(number, drawn)


def nested(pages: int) -> Iterator[tuple[str, bytes]]:
    """Folders of folders, with an image for every ten pages."""
    drawn = random.Random(0)
    for number in range(pages):
        folder = f"docs/part-{number % 40}/chapter-{number % 400}"
        yield f"{folder}/page-{number:06}.md", page(number, drawn)
        if number % 10 == 0:
            yield f"{folder}/images/{number}.png", b"\x89PNG" + bytes(500)


def splits(files: int) -> Iterator[tuple[str, bytes]]:
    """Files of rows, each a split of its own."""
    for number in range(files):
        row = {"query": f"query {number}", "positive": f"the answer to query {number}"}
        yield f"rows/split{number}.jsonl", (json.dumps(row) + "\n").encode() * 5


def page(number: int, drawn: random.Random) -> bytes:
    """A page of three sections, about 2 KB."""
    start = drawn.randrange(len(_WORDS) - 300)
    words = _WORDS[start : start + 300]
    sections = [
        f"# Page {number} {words[0]}\n\n{' '.join(words[:60])}",
        f"## How {words[1]} {number} is used\n\n{' '.join(words[60:180])}",
        f"## How {words[2]} {number} is made\n\n{' '.join(words[180:])}",
    ]
    return ("\n\n".join(sections) + "\n").encode()


_SHAPES = [
    ("one flat folder", flat, "tar.gz", 1_000_000),
    ("nested folders with images", nested, "zip", 1_000_000),
    ("JSONL, a split a file", splits, "tar", 20_000),
]
"""What it is called, its entries, its ending, and the most files."""


def write_archive(path: Path, entries: Iterator[tuple[str, bytes]]) -> None:
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as packed:
            for name, content in entries:
                packed.writestr(name, content)
        return
    mode: Any = "w:gz" if path.suffix == ".gz" else "w"
    with tarfile.open(path, mode) as archive:
        for name, content in entries:
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))


# -- measurements ------------------------------------------------------------------------------------


def measure(folder: Path, archive: Path, shape: str, files: int, no_prepare: bool) -> dict[str, Any]:
    folder.mkdir()
    service = Service(folder, lease_seconds=15, sweep_seconds=1).start()
    found: dict[str, Any] = {"shape": shape, "files": files, "archive_bytes": archive.stat().st_size}
    try:
        service.client.workers()
        api = service.processes["api"].pid
        found["api_idle_bytes"] = peak_bytes(api)
        before, begun = cpu_seconds(api), time.monotonic()
        made = service.client.upload(archive, "pages")
        found["seconds"] = round(time.monotonic() - begun, 2)
        found["cpu_seconds"] = round(cpu_seconds(api) - before, 2)
        found["api_peak_bytes"] = peak_bytes(api)
        begun = time.monotonic()
        list(service.client.datasets())
        found["list_seconds"] = round(time.monotonic() - begun, 4)
        found["stored_files"] = made.file_count
        if not no_prepare and made.metadata["format"] == "markdown":
            found["prepare"] = prepare(service)
    finally:
        service.stop()
    for path in sorted(folder.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    folder.rmdir()
    print(json.dumps(found), flush=True)
    return found


def prepare(service: Service) -> dict[str, Any]:
    """The dataset into triplets: seconds and peak memory of the job's process."""
    spec = {"kind": "prepare", "source": {"ref": "dataset:pages", "format": "markdown"}, "task": "triplets"}
    begun = time.monotonic()
    job = service.client.submit(spec)
    ended = service.wait(job.id, _JOB_SECONDS)
    assert ended.state == "succeeded", ended.end_reason
    memory = [event.data.rss_bytes for event in service.client.events(job.id) if event.type == "memory"]
    [made] = service.client.artifacts(job.id)
    return {
        "seconds": round(time.monotonic() - begun, 1),
        "peak_rss_bytes": max(memory, default=0),
        "rows": made.metadata["splits"]["train"],
    }


def cpu_seconds(process: int) -> float:
    """User and system time of a process: how long it would take on an idle machine, disks left aside."""
    times = psutil.Process(process).cpu_times()
    return times.user + times.system


def peak_bytes(process: int) -> int:
    """VmHWM: the most resident memory that the process has had."""
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


def to_markdown(results: list[dict[str, Any]], where: str) -> list[str]:
    idle = results[0]["api_idle_bytes"] / 1e6
    columns = (
        "archive",
        "files",
        "size",
        "seconds",
        "CPU seconds",
        "API peak",
        "stored files",
        "list",
        "prepare",
    )
    lines = [
        "# Archives of many files",
        "",
        f"Measured on {where}, over HTTP, each archive with a service of its own. Other work shared the",
        f"machine: its load average over the last 15 minutes was {psutil.getloadavg()[2]:.1f}.",
        "",
        "Seconds: from the first byte sent to the answer. CPU seconds: user and system time of the API",
        f"process. API peak: VmHWM of that process, which idles at {idle:.0f} MB. List: `GET /datasets`.",
        "Prepare: `task: triplets` on the dataset, and the peak RSS of the job.",
        "",
        f"| {' | '.join(columns)} | its peak RSS |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for found in results:
        job = found.get("prepare")
        cells = [
            found["shape"],
            f"{found['files']:,}",
            f"{found['archive_bytes'] / 1e6:.1f} MB",
            f"{found['seconds']:.1f}",
            f"{found['cpu_seconds']:.1f}",
            f"{found['api_peak_bytes'] / 1e6:.0f} MB",
            f"{found['stored_files']:,}",
            f"{found['list_seconds'] * 1000:.0f} ms",
            f"{job['seconds']:.0f} s" if job else "",
            f"{job['peak_rss_bytes'] / 1e6:.0f} MB" if job else "",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


if __name__ == "__main__":
    main()
