"""What tests of models ask for."""

import pytest

from core.run.context import RunContext
from core.run.reporter import RecordingReporter
from core.run.request import RunRequest


@pytest.fixture
def context(tmp_path) -> RunContext:
    """Of a job without a service."""
    request = RunRequest(
        job_id="job", attempt=1, spec={}, checkpoints=tmp_path / "c", cache=tmp_path / "cache", offline=True
    )
    return RunContext(request, tmp_path, RecordingReporter())
