"""The specs that we ship validate."""

import re
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


def test_the_mnrl_recipe_mines_and_evaluates():
    """Baseline, mining on the CPU, training, final evaluation: the four steps of the document in one spec."""
    spec = parse_spec(read_spec(CONFIGS[0].parent / "run_embedding_mnrl.yaml"))
    assert spec.mine is not None
    assert (spec.mine.device, spec.mine.num_negatives, spec.mine.sampling) == ("cpu", 1, "top")
    assert (spec.mine.filters.range_min, spec.mine.filters.range_max) == (0, 100)
    assert spec.evaluation.baseline
    assert spec.evaluation.datasets
    assert (spec.sample, spec.learning_rate, spec.weight_decay, spec.warmup_ratio) == (1080, 3e-5, 0.01, 0.1)


def test_every_target_of_the_makefile_names_a_config_that_is_there():
    text = (CONFIGS[0].parent.parent / "Makefile").read_text(encoding="utf-8")
    for target in ("setup-embed-dirs", "train-embed", "train-embed-tb", "eval-embed", "infer-embed"):
        assert re.search(rf"^{target}:", text, re.MULTILINE), target
    named = set(re.findall(r"configs/([\w.]+\.yaml)", text))
    assert named
    assert named <= {path.name for path in CONFIGS}
