"""The specs that we ship validate."""

import re
from pathlib import Path

import pytest

from core.spec import parse_spec
from core.spec.files import read_spec
from core.spec.pipelines.flat import FlatSpec, expand_flat
from core.spec.pipelines.plan import PipelineSpec, plan_stages

CONFIGS = sorted((Path(__file__).parent.parent.parent / "configs").glob("*.yaml"))


FLAT = "train_embed.yaml"
"""A pipeline, and no job."""


def test_the_flat_form_becomes_a_pipeline():
    flat = FlatSpec.model_validate(read_spec(CONFIGS[0].parent / FLAT))
    stages = PipelineSpec(stages=expand_flat(flat).stages)
    planned = plan_stages(stages, lambda count: [f"job_{number}" for number in range(count)])
    assert [stage.spec.kind for stage in planned] == ["prepare", "evaluate", "mine", "train", "evaluate"]


@pytest.mark.parametrize("path", [path for path in CONFIGS if path.name != FLAT], ids=lambda path: path.name)
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
