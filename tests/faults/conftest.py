import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.faults.service import Service
from tests.tiny import WORDS


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Callable[..., Service]]:
    """Makes services; stops them, and whatever they left behind, at the end."""
    made: list[Service] = []

    def make(**settings: Any) -> Service:
        folder = tmp_path / f"service-{len(made)}"
        folder.mkdir()
        made.append(Service(folder, **settings))
        return made[-1]

    yield make
    for one in made:
        one.stop()


@pytest.fixture(scope="session")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """One service for all tests that leave its worker and its settings alone: a worker is slow to start."""
    service = Service(tmp_path_factory.mktemp("service")).start()
    yield service
    service.stop()


@pytest.fixture(scope="session")
def long_spec(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return make_long_spec(tiny_model, tmp_path_factory.mktemp("long") / "pairs.jsonl")


def make_long_spec(model: Path, pairs: Path) -> dict[str, Any]:
    """A job of some seconds with a checkpoint every twenty steps, on a tiny model."""
    with pairs.open("w", encoding="utf-8") as file:
        for index in range(2000):
            words = [WORDS[(index * step) % len(WORDS)] for step in (1, 3, 5, 7)]
            row = {
                "query": f"what is {words[0]} {index}",
                "positive": " ".join([*words, "document", str(index)]),
            }
            file.write(json.dumps(row) + "\n")
    return {
        "kind": "train",
        "base_model": f"file:{model}",
        "dataset": f"file:{pairs}",
        "batch_size": 16,
        "epochs": 4,
        "logging_steps": 10,
        "checkpoint": {"every_steps": 20},
        "name": "survivor",
    }
