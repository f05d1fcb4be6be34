"""What tests of mining ask for."""

from pathlib import Path

import pytest

from tests.data.running import write
from tests.tiny import WORDS


@pytest.fixture
def rows_file(tmp_path) -> Path:
    """A row a word; two rows a group."""
    lines = [
        {
            "query": f"what is {word}",
            "positive": f"{word} is this and {WORDS[(number + 3) % 20]}",
            "group": f"g{number // 2}",
        }
        for number, word in enumerate(WORDS)
    ]
    return write(tmp_path / "rows.jsonl", lines)
