"""Settings that have no effect are named."""

import pytest

from core.spec import parse_spec
from core.spec.unused import _RULES, unused_in_preparation, unused_settings

TRAIN = {"kind": "train", "base_model": "a/b", "dataset": "file:x.jsonl"}
MINE = {"kind": "mine", "dataset": "file:x.jsonl", "model": "a/b"}
EVALUATE = {"kind": "evaluate", "models": ["a/b"], "datasets": ["file:x"]}
EMBED = {"kind": "embed", "model": "a/b", "texts": ["a"]}
LENGTHS = {"query": 32, "document": 64, "percentile": 0.5}


@pytest.mark.parametrize(
    ("spec", "named"),
    [
        ({**TRAIN, "loss": {"teacher_temperature": 2}}, ["loss.teacher_temperature"]),
        ({**TRAIN, "loss": {"name": "distillation", "teacher_temperature": 2}}, []),
        ({**TRAIN, "loss": {"name": "regression", "temperature": 0.1}}, ["loss.temperature"]),
        ({**TRAIN, "family": "cross_encoder", "loss": {"name": "regression"}}, []),
        ({**TRAIN, "sampling_temperature": 2}, ["sampling_temperature"]),
        ({**TRAIN, "dataset": ["file:x", "file:y"], "sampling_temperature": 2}, []),
        ({**TRAIN, "dataset": {"ref": "file:x", "weight": 2}}, ["dataset.weight"]),
        ({**TRAIN, "epochs": 3, "max_steps": 10}, ["epochs"]),
        ({**TRAIN, "epochs": 3}, []),
        ({**TRAIN, "lengths": LENGTHS}, ["lengths.percentile"]),
        (
            {**TRAIN, "evaluation": {"metrics": ["map@5"], "baseline": False}},
            ["evaluation.metrics", "evaluation.baseline"],
        ),
        ({**TRAIN, "evaluation": {"metrics": ["map@5"], "datasets": ["file:x"]}}, []),
        ({**TRAIN, "prune_tokens": {"seed": 1}}, ["prune_tokens.seed"]),
        ({**TRAIN, "dry_run": True, "checkpoint": {"keep": 5}}, ["checkpoint.keep"]),
        ({**MINE, "model": "bm25", "block_mb": 5}, ["block_mb"]),
        ({**EVALUATE, "rescore": 8, "examples": 5}, ["rescore", "examples"]),
        ({**EVALUATE, "precisions": ["binary"], "rescore": 8}, []),
        ({**EMBED, "calibration": 500, "split": "x"}, ["calibration", "split"]),
        ({**EMBED, "precision": "int8", "calibration": 500}, []),
        (TRAIN, []),
    ],
)
def test_settings_without_effect(spec, named):
    assert [sentence.partition(" ")[0] for sentence in unused_settings(parse_spec(spec))] == named


@pytest.mark.parametrize(
    ("options", "task", "documents", "judged", "named"),
    [
        (
            {"chunking": {"overlap": 5}, "purpose": "reranker"},
            "columns",
            False,
            False,
            ["purpose", "chunking"],
        ),
        ({"chunking": {"overlap": 5}}, "triplets", True, False, []),
        (
            {"split": {"dev": 0.1}, "negatives": {"per_query": 2}},
            "chunks",
            True,
            False,
            ["split", "negatives"],
        ),
        ({"negatives": {"per_query": 2}}, "retrieval", True, False, ["negatives"]),
        ({"dedup": {"exact": False}, "seed": 3}, "retrieval", False, True, ["dedup", "seed"]),
    ],
)
def test_settings_without_effect_on_what_a_source_is(options, task, documents, judged, named):
    spec = parse_spec({"kind": "prepare", "source": "file:x", **options})
    found = unused_in_preparation(spec, task, documents=documents, judged=judged)
    assert [sentence.partition(" ")[0] for sentence in found] == named


def test_every_rule_names_a_field():
    specs = {"train": TRAIN, "mine": MINE, "evaluate": EVALUATE, "embed": EMBED}
    for kind, rules in _RULES.items():
        for path, _, reason in rules:
            model = type(parse_spec(specs[kind])) if kind in specs else None
            assert model is not None
            assert path.split(".")[0] in model.model_fields, path
            assert reason
