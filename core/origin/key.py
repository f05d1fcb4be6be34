"""The key of a job's result: two jobs with the same key make the same."""

import platform
from collections.abc import Mapping
from functools import cache
from typing import Any

import core
from core.artifacts.cache import key_of
from core.jobs.origin import Origin
from core.origin.code import code_sha256
from core.spec import AnySpec, EvaluateSpec
from core.spec.parts.reference_places import replace_references
from core.stack import RESULT_LIBRARIES, installed

_NOT_OF_THE_RESULT = frozenset(
    {
        "name",
        "labels",
        "priority",
        "resources",  # the device and the number of processes are in the origin
        "max_attempts",
        "timeout_seconds",
        "depends_on",
    }
)


def find_origin(
    kind: str,
    contents: Mapping[str, str | None],
    *,
    device: str = "cpu",
    processes: int = 1,
    trust_remote_code: bool = False,
) -> Origin:
    """The origin of a job that starts here and now."""
    return Origin(
        contents=dict(contents),
        code=code_sha256(kind),
        version=core.__version__,
        python=platform.python_version(),
        libraries=_libraries(),
        device=device,
        processes=processes,
        trust_remote_code=trust_remote_code,
    )


@cache
def _libraries() -> dict[str, str]:
    return installed(RESULT_LIBRARIES)


def result_key(spec: AnySpec, origin: Origin) -> str | None:
    """The key; None where the content of a reference is not known, code from elsewhere may run, or the speed
    of the machine is measured.

    References count by what they hold, and never by their names.
    """
    measures_time = isinstance(spec, EvaluateSpec) and spec.latency_queries > 0
    if origin.unknown or origin.trust_remote_code or measures_time:
        return None
    asked: dict[str, Any] = spec.model_dump(mode="json", exclude=set(_NOT_OF_THE_RESULT))
    asked = replace_references(asked, spec.REFERENCES, lambda text: origin.contents.get(text) or text)
    all_contents = [origin.contents[found.text] for found in spec.find_references()]
    return key_of([asked, all_contents, origin.comparable])
