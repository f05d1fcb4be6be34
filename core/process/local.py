"""``reason run``: a job with no service, in this process, with live lines on the console."""

import os
import shutil
import signal
from pathlib import Path
from typing import Any

from core.artifacts.folders import write_atomically
from core.data.sources.inputs import make_context
from core.errors import InvalidRequest
from core.jobs.protocol import REQUEST, RESULT, RunRequest, RunResult
from core.process.attempt import run_attempt
from core.process.main import see_first_gpu
from core.runtime.context import StopSignal
from core.runtime.reporter import Reporter
from core.spec import SPEC_VERSION, parse_spec
from core.spec.stored import read_stored_spec
from core.spec.train import FREE_TO_CHANGE


def run_local(
    data: dict[str, Any],
    out: Path,
    reporter: Reporter,
    *,
    offline: bool = False,
    trust_remote_code: bool = False,
    overwrite: bool = False,
    cache: Path | None = None,
    stop: StopSignal | None = None,
    processes: int | None = None,
) -> RunResult:
    """Runs a spec and leaves its outputs and ``result.json`` in ``out``.

    Run again after an interruption, it goes on from the last checkpoint. Raises `InvalidRequest` when the
    folder holds a finished job, or another one, unless ``overwrite``. ``cache`` keeps what later jobs can use
    again; by default that is a part of ``out``. ``processes`` share the work; by default one a GPU.
    """
    out = out.absolute()
    spec = parse_spec(data).model_dump(mode="json")
    gpus = _gpus(spec)
    if processes is not None:
        _check_processes(processes, spec, gpus)
    if overwrite and out.exists():
        _check_ours(out)
        shutil.rmtree(out)
    _check_free(out, spec)
    out.mkdir(parents=True, exist_ok=True)
    request = RunRequest(
        job_id="local",
        attempt=1,
        spec=spec,
        spec_version=SPEC_VERSION,
        checkpoints=out / "checkpoints",
        cache=cache or out / "cache",
        gpus=gpus,
        processes=processes or max(1, len(gpus)),
        offline=offline,
        trust_remote_code=trust_remote_code,
    )
    write_atomically(out / REQUEST, request.model_dump_json(indent=2))
    (out / RESULT).unlink(missing_ok=True)
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    see_first_gpu(gpus)
    try:
        result = run_attempt(make_context(request, out, reporter, stop))
    finally:  # for the next job in this process
        os.environ.pop("CUDA_VISIBLE_DEVICES")
        if visible is not None:
            os.environ["CUDA_VISIBLE_DEVICES"] = visible
    if result.state == "succeeded":
        shutil.rmtree(request.checkpoints, ignore_errors=True)  # not every kind makes any
        shutil.rmtree(out / "cache", ignore_errors=True)
    return result


_MOST_PROCESSES = 64


def _check_processes(processes: int, spec: dict[str, Any], gpus: list[str]) -> None:
    """Raises `InvalidRequest` for a number that the job cannot have."""
    if not 1 <= processes <= _MOST_PROCESSES:
        raise InvalidRequest(f"processes must be 1 to {_MOST_PROCESSES}, not {processes}")
    if spec["kind"] != "train" and processes > 1:
        raise InvalidRequest(f"processes is only for kind: train, but this job has kind: {spec['kind']}")
    if gpus and processes != len(gpus):
        raise InvalidRequest(
            "processes is only for a training on the CPU (resources.gpus: 0). With GPUs, resources.gpus "
            "sets the number of processes"
        )


def stop_on_interrupt(stop: StopSignal) -> None:
    """The first Ctrl-C (or SIGTERM) asks the job to save and stop; the second ends it."""

    def ask(number: int, _frame: object) -> None:
        if stop:
            raise KeyboardInterrupt
        stop.request("cancel")

    signal.signal(signal.SIGINT, ask)
    signal.signal(signal.SIGTERM, ask)


def _check_ours(out: Path) -> None:
    if any(out.iterdir()) and not (out / REQUEST).exists():
        raise InvalidRequest(f"{out} was not made by reason run and is not overwritten")


def _check_free(out: Path, spec: dict[str, Any]) -> None:
    if out.exists() and not out.is_dir():
        raise InvalidRequest(f"{out} is a file: give a folder for the outputs")
    if not out.exists() or not any(out.iterdir()):
        return
    _check_ours(out)
    earlier = RunRequest.model_validate_json((out / REQUEST).read_bytes())
    finished = out / RESULT
    if finished.exists() and RunResult.model_validate_json(finished.read_bytes()).state == "succeeded":
        raise InvalidRequest(f"{out} holds a finished job: give another folder, or --overwrite")
    if not _is_same(earlier, spec) and any((out / "checkpoints").glob("attempt-*/checkpoint-*")):
        raise InvalidRequest(f"{out} holds another job's checkpoints: give another folder, or --overwrite")


def _is_same(earlier: RunRequest, spec: dict[str, Any]) -> bool:
    """Whether a request, of perhaps an older version, asks for the same result.

    A training checks its checkpoint by itself: more GPUs, or sharding, may be what it waits for.
    """
    try:
        stored = read_stored_spec(earlier.spec, earlier.spec_version)
    except InvalidRequest:
        return False
    found = stored.spec.model_dump(mode="json")
    free = FREE_TO_CHANGE if spec["kind"] == found["kind"] == "train" else frozenset()
    return not stored.left_out and all(found[name] == spec[name] for name in spec if name not in free)


def _gpus(spec: dict[str, Any]) -> list[str]:
    os.environ.setdefault("PYTORCH_ENABLE_MPS_FALLBACK", "1")  # read once, when torch is imported
    wanted = spec["resources"]["gpus"]
    if wanted == 0:
        return []
    os.environ.setdefault("PYTORCH_NVML_BASED_CUDA_CHECK", "1")  # looking must not initialise CUDA
    import torch

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    gpus = visible.split(",") if visible else [str(index) for index in range(count)]
    if wanted == "auto":
        return gpus[: min(count, 1)]
    if wanted > count:
        asks = "device cuda" if spec.get("device") == "cuda" else f"resources.gpus {wanted}"
        raise InvalidRequest(f"{asks}: of this machine torch can use {count} GPUs")
    return gpus[:wanted]
