"""docs/promises.md: every behaviour has a test, and every test that is named is there."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "promises.md"


def table_rows() -> list[list[str]]:
    lines = [line for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("| ")]
    return [
        [cell.strip() for cell in line.strip("|").split("|")] for line in lines if "| where |" not in line
    ]


@pytest.mark.parametrize("row", table_rows(), ids=lambda row: re.sub(r"\W+", "-", row[0])[:60])
def test_a_promise_names_tests_that_exist(row):
    _, _, tests = row
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", tests)
    assert named
    for path, name in named:
        assert re.search(rf"^def {name}\(", (ROOT / path).read_text(encoding="utf-8"), re.MULTILINE), name


def test_files_that_a_promise_names_exist():
    for _, where, _ in table_rows():
        for path in re.findall(r"`((?:core|configs|notebooks|docs)/[\w/.-]*|Makefile)`", where):
            assert (ROOT / path).exists(), path
