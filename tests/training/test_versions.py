"""What this service saves, read by other versions of sentence-transformers, and the other way round."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.versions
@pytest.mark.timeout(1800)
def test_every_version_reads_what_it_is_given(tmp_path):
    """The table of benchmarks/reports/versions.md, run anew and not kept."""
    code = f"""
import pathlib
from benchmarks import report, versions
report.REPORTS = versions.REPORTS = pathlib.Path({str(tmp_path)!r})
versions.main()
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-2000:]
    assert "| late_interaction | 6.2 | ok | ok | ok | ok | ok |" in (tmp_path / "versions.md").read_text()
