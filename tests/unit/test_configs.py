"""The specs that we ship validate."""

from pathlib import Path

import pytest

from core.spec import parse_spec
from core.spec.files import read_spec

CONFIGS = sorted((Path(__file__).parent.parent.parent / "configs").glob("*.yaml"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_it_validates(path: Path):
    kind = next(
        (kind for kind in ("prepare", "mine", "evaluate", "embed") if path.name.startswith(kind)), "train"
    )
    assert parse_spec(read_spec(path)).kind == kind
