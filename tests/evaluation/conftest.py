from pathlib import Path

import pytest

from tests.tiny import make_colbert, make_cross_encoder, make_model


@pytest.fixture(scope="session")
def models(tmp_path_factory) -> dict[str, Path]:
    """Two bi-encoders, and the other families made of the first."""
    folder = tmp_path_factory.mktemp("models")
    one = make_model(folder / "one", seed=1)
    return {
        "one": one,
        "other": make_model(folder / "other", seed=2),
        "colbert": make_colbert(folder / "colbert", one),
        "reranker": make_cross_encoder(folder / "reranker", one),
    }
