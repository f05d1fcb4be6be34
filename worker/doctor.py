"""``reason doctor``: looks at everything that the service needs on this host, and says what to do."""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import psutil
from kombu.exceptions import KombuError
from pydantic import ValidationError

from core.artifacts import Library
from core.errors import ReasonError, StorageFailure
from core.queue.wakeups import Queue
from core.settings import Settings, settings_problem
from core.stack import has_pylate, installed, stack_name
from core.store import open_store
from migrations import is_current
from worker.inventory import read_gpus

State = Literal["ok", "note", "problem"]

_LITTLE_DISK, _LITTLE_MEMORY = 10e9, 4e9
_SECONDS = 5


@dataclass(frozen=True)
class Finding:
    """``note``: works, and is worth knowing. ``advice``: what to do."""

    what: str
    state: State
    told: str
    advice: str = ""


def examine(arguments: list[str]) -> int:
    """Exit codes: 0, 1 for a problem, 2 for settings that are none."""
    parser = argparse.ArgumentParser(
        prog="reason doctor",
        description="Check the installation, GPUs, memory, disk, database, broker, artifact storage, model "
        "hub and the running service, with what to do. Run it where a part of the service runs: it reads the "
        "same settings.",
        epilog="example: reason doctor --json",
    )
    parser.add_argument("--json", action="store_true", help="print JSON, one object a line")
    asked = parser.parse_args(arguments)
    try:
        settings = Settings()
    except ValidationError as error:
        print(f"reason doctor: invalid setting: {settings_problem(error)}", file=sys.stderr)
        return 2
    problems = 0
    for check in CHECKS:
        for found in check(settings):
            problems += found.state == "problem"
            print(json.dumps(asdict(found)) if asked.json else _lines(found), flush=True)
    if not asked.json:
        print(f"\n{problems} problem{'' if problems == 1 else 's'}." if problems else "\nNo problem.")
    return 1 if problems else 0


_MARKS: dict[State, str] = {"ok": "ok     ", "note": "note   ", "problem": "PROBLEM"}


def _lines(found: Finding) -> str:
    line = f"{_MARKS[found.state]}  {found.what:<13} {found.told}"
    return f"{line}\n{'':24}{found.advice}" if found.advice else line


def _check_installation(_: Settings) -> Iterator[Finding]:
    python = ".".join(map(str, sys.version_info[:3]))
    stack = stack_name()
    if stack == "none":
        yield Finding(
            "installation",
            "note",
            f"Python {python}, without the libraries of models: this host can serve the API, and run no jobs",
            "make install, or pip install 'reason-service[train]', for a host that trains",
        )
        return
    listed = ", ".join(f"{name} {version}" for name, version in installed().items())
    yield Finding("installation", "ok", f"Python {python}, stack {stack}: {listed}")
    if not has_pylate():
        yield Finding(
            "PLAID", "note", "index: plaid needs PyLate, which the stack st6 has not", "make install"
        )


def _check_gpus(_: Settings) -> Iterator[Finding]:
    gpus = read_gpus()
    if not gpus:
        yield Finding(
            "GPU",
            "note",
            "none is seen: jobs run on the CPU",
            "If there is one: does nvidia-smi show it? In a container: is the NVIDIA runtime given?",
        )
        return
    for gpu in gpus:
        yield Finding("GPU", "ok", f"{gpu.index}: {gpu.name}, {gpu.memory_bytes / 1e9:.0f} GB")
    # In a process of its own: this one, like a worker, never loads torch.
    asked = subprocess.run(
        [sys.executable, "-c", "import torch; raise SystemExit(not torch.cuda.is_available())"],
        capture_output=True,
        check=False,
    )
    if asked.returncode:
        yield Finding(
            "GPU",
            "problem",
            "torch cannot use it",
            "Install a torch for CUDA that fits the driver: https://pytorch.org/get-started/locally",
        )


def _check_memory(_: Settings) -> Iterator[Finding]:
    memory = psutil.virtual_memory().total
    told = f"{memory / 1e9:.0f} GB, {os.cpu_count()} CPU cores"
    if memory < _LITTLE_MEMORY:
        yield Finding("memory", "note", told, "Trainings of larger models may end for want of memory")
    else:
        yield Finding("memory", "ok", told)


def _check_disk(settings: Settings) -> Iterator[Finding]:
    folder = settings.data_dir.absolute()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"0" * 4096)
        free = shutil.disk_usage(folder).free
    except OSError as error:
        told = f"{folder} cannot be written: {error.strerror or error}"
        yield Finding("disk", "problem", told, "Give the service this folder, or set REASON_DATA_DIR")
        return
    told = f"{free / 1e9:.0f} GB free in {folder}"
    if free < _LITTLE_DISK:
        yield Finding("disk", "note", told, "reason gc removes what is old; REASON_DATA_DIR moves")
    else:
        yield Finding("disk", "ok", told)


def _check_database(settings: Settings) -> Iterator[Finding]:
    kind = settings.database_url.partition(":")[0].partition("+")[0]
    try:
        store = open_store(settings)
        try:
            store.database.ping()
            current = is_current(store.database)
            workers = [worker.host for worker, _ in store.workers.alive(60)] if current else []
        finally:
            store.close()
    except (ReasonError, OSError) as error:
        yield Finding("database", "problem", f"{kind}: {error}", "Is REASON_DATABASE_URL right, does it run?")
        return
    if not current:
        advice = "reason db upgrade (reason serve does it by itself)"
        yield Finding("database", "note", f"{kind}: empty, or of an older version", advice)
        return
    yield Finding("database", "ok", kind)
    if workers:
        yield Finding("workers", "ok", f"{len(workers)} up: {', '.join(sorted(set(workers)))}")
    else:
        yield Finding("workers", "note", "none is up", "reason worker, or reason serve for API and worker")


def _check_broker(settings: Settings) -> Iterator[Finding]:
    kind = settings.broker_url.partition(":")[0]
    try:
        Queue(settings).ping()
    except (KombuError, OSError) as error:
        advice = "Is REASON_BROKER_URL right, does it run? Without it workers look for jobs in the database"
        yield Finding("broker", "problem", f"{kind}: {error}", advice)
        return
    yield Finding("broker", "ok", kind)


def _check_storage(settings: Settings) -> Iterator[Finding]:
    kind = settings.artifact_url.partition("://")[0] if "://" in settings.artifact_url else "file"
    try:
        with tempfile.TemporaryDirectory() as folder:
            source, back = Path(folder) / "probe", Path(folder) / "back"
            source.write_bytes(os.urandom(1024))
            library = Library(settings.artifact_url)
            if library.local is not None:
                (library.local / "staging").mkdir(parents=True, exist_ok=True)
            place = f"staging/doctor-{os.getpid()}"
            library.put(source, place)
            library.get(place, back)
            library.remove(place)
            same = source.read_bytes() == back.read_bytes()
    except (StorageFailure, OSError) as error:
        advice = "Is REASON_ARTIFACT_URL right, and may its credentials read, write and delete there?"
        yield Finding("storage", "problem", f"{kind}: {error}", advice)
        return
    if same:
        yield Finding("storage", "ok", f"{kind}: written, read and removed")
    else:
        yield Finding("storage", "problem", f"{kind}: what was read differs from what was written")


def _check_hub(settings: Settings) -> Iterator[Finding]:
    if settings.offline:
        yield Finding("model hub", "note", "REASON_OFFLINE is set: only models of this disk are used")
        return
    url = os.environ.get("HF_ENDPOINT", "https://huggingface.co")
    try:
        with urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=_SECONDS):  # noqa: S310
            pass
    except urllib.error.HTTPError:  # it answers
        pass
    except (OSError, ValueError) as error:
        told = f"{url} cannot be reached: {getattr(error, 'reason', error)}"
        advice = (
            "A model may be a folder: base_model: file:FOLDER. With REASON_OFFLINE=true no job asks the hub"
        )
        yield Finding("model hub", "note", told, advice)
        return
    yield Finding("model hub", "ok", url)


def _check_service(settings: Settings) -> Iterator[Finding]:
    if not settings.api_url:
        return
    try:
        with urllib.request.urlopen(f"{settings.api_url}/healthz", timeout=_SECONDS):  # noqa: S310
            pass
    except (OSError, ValueError) as error:
        told = f"{settings.api_url} does not answer: {getattr(error, 'reason', error)}"
        yield Finding("service", "note", told, "reason serve starts it; REASON_API_URL names another")
        return
    yield Finding("service", "ok", settings.api_url)


CHECKS: tuple[Callable[[Settings], Iterator[Finding]], ...] = (
    _check_installation,
    _check_gpus,
    _check_memory,
    _check_disk,
    _check_database,
    _check_broker,
    _check_storage,
    _check_hub,
    _check_service,
)
