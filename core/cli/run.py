"""``reason run``: run a job without the service."""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from core.cli.flags import add_output_flags
from core.errors import InvalidRequest
from core.jobs.reasons import EndReason
from core.process.local import run_local, stop_on_interrupt
from core.runtime.context import StopSignal
from core.runtime.reporter import ConsoleReporter
from core.settings import Settings
from core.spec.files import apply_settings, localize, read_spec

_EXITS = {"succeeded": 0, "cancelled": 3}


def run_main(arguments: list[str] | None = None) -> int:
    """Exit status: 0 success, 1 the job failed, 2 invalid usage or spec, 3 stopped."""
    parser = argparse.ArgumentParser(
        prog="reason run",
        description="Run a job in this terminal. Ctrl-C saves a checkpoint; the same command resumes.",
        epilog="example: reason run configs/train.yaml --out data/output/first --set epochs=2",
    )
    parser.add_argument("spec", type=Path, help="YAML or JSON job spec")
    parser.add_argument("--out", type=Path, required=True, help="folder for result.json and the outputs")
    parser.add_argument(
        "--set", action="append", default=[], metavar="PATH=VALUE", help="change a field of the spec"
    )
    parser.add_argument(
        "--processes",
        type=int,
        metavar="N",
        help="training on the CPU: N processes share every batch, and with sharding also the model",
    )
    add_output_flags(parser)
    asked = parser.parse_args(arguments)
    return run_and_tell(
        lambda: localize(apply_settings(read_spec(asked.spec), asked.set)),
        asked.out,
        overwrite=asked.overwrite,
        as_json=asked.json,
        processes=asked.processes,
    )


def run_and_tell(
    make_spec: Callable[[], dict[str, Any]],
    out: Path,
    *,
    overwrite: bool = False,
    as_json: bool = False,
    processes: int | None = None,
) -> int:
    """Run a job and show its progress on the console. Returns the exit status."""
    stop = StopSignal()
    reporter = None
    try:
        spec = make_spec()
        settings = Settings()
        stop_on_interrupt(stop)
        reporter = ConsoleReporter()
        result = run_local(
            spec,
            out,
            reporter,
            offline=settings.offline,
            trust_remote_code=settings.trust_remote_code,
            overwrite=overwrite,
            cache=settings.data_dir.absolute() / "cache",
            stop=stop,
            processes=processes,
        )
    except InvalidRequest as error:
        print(f"reason: {error}", file=sys.stderr)
        for problem in error.problems[1:]:
            print(f"        {problem.path}: {problem.message}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"reason: {out} cannot be written: {error.strerror or error}", file=sys.stderr)
        return 2
    finally:
        if reporter is not None:
            reporter.close()
    print(f"{result.state}: {result.end_reason.message}", file=sys.stderr)
    if result.state == "cancelled" or result.end_reason.code == EndReason.PROCESS_DIED:
        print("The same command resumes the job.", file=sys.stderr)
    for name, output in result.outputs.items():
        print(f"{name}: {output.uri}", file=sys.stderr)
    if as_json:
        print(result.model_dump_json())
    return _EXITS.get(result.state, 1)


if __name__ == "__main__":
    sys.exit(run_main(sys.argv[1:]))
