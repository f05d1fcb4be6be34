"""``reason``. Exit codes: 0 success, 1 the job failed, 2 invalid usage or spec, 3 cancelled, 4 no service."""

import os
import sys

from pydantic import ValidationError

from client.cli import (  # each adds its commands to the application
    artifacts,
    improve,
    jobs,
    lineage,
    machine,
    pipelines,
    retention,
    schedules,
    webhooks,
)
from client.cli.shared import app
from core.errors import InvalidRequest, ReasonError, ServiceUnreachable
from core.settings import settings_problem

__all__ = [
    "artifacts",
    "improve",
    "jobs",
    "lineage",
    "machine",
    "main",
    "pipelines",
    "retention",
    "schedules",
    "webhooks",
]


def main() -> None:
    """The entry point: turn errors of the service into a message and an exit code."""
    passed_on = _PASSED_ON.get(sys.argv[1] if len(sys.argv) > 1 else "")
    if passed_on:
        # In our place, not as a child: signals reach the command itself, and its exit code is ours.
        os.execv(sys.executable, [sys.executable, "-m", *passed_on, *sys.argv[2:]])  # noqa: S606
    try:
        app()
    except ServiceUnreachable as error:
        _fail(str(error), 4)
    except InvalidRequest as error:
        _fail(
            "\n        ".join([str(error), *(f"{item.path}: {item.message}" for item in error.problems[1:])]),
            2,
        )
    except ReasonError as error:
        _fail(str(error), 2 if error.status < 500 else 1)
    except ValidationError as error:
        _fail(f"invalid setting: {settings_problem(error)}", 2)
    except BrokenPipeError:  # `reason logs ID | head`
        sys.exit(0)


_PASSED_ON = {
    # Programs of their own: the client does not import them.
    "api": ["api"],
    "worker": ["worker"],
    "keys": ["api", "keys"],
    "gc": ["worker", "gc"],
    "doctor": ["worker", "doctor"],
    "run": ["core.cli.run"],
}


def _fail(sentence: str, code: int) -> None:
    print(f"reason: {sentence}", file=sys.stderr)
    sys.exit(code)
