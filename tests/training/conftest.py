"""What tests of models ask for."""

import pytest

from core.data.sources.inputs import make_context
from core.jobs.protocol import RunRequest
from core.runtime.context import RunContext
from core.runtime.reporter import RecordingReporter


@pytest.fixture
def context(tmp_path) -> RunContext:
    """Of a job without a service."""
    request = RunRequest(
        job_id="job", attempt=1, spec={}, checkpoints=tmp_path / "c", cache=tmp_path / "cache", offline=True
    )
    return make_context(request, tmp_path, RecordingReporter())
