"""Specs of older versions: translated, read without what is no longer known, refused where they are newer."""

import json

import pytest

from core.errors import InvalidRequest
from core.spec import SPEC_VERSION, parse_spec, stored
from core.spec.stored import read_stored_spec
from core.training.checkpoints.resuming import _changed_settings, _settings

TRAIN = {"kind": "train", "base_model": "file:/model", "dataset": "file:/rows.jsonl"}


def test_fields_that_are_gone_are_left_out_and_named():
    old = parse_spec(TRAIN).model_dump(mode="json")
    old["teleport"] = True
    old["loss"]["margins"] = [1, 2]
    old["evaluation"]["datasets"] = [{"ref": "file:/beir", "colour": "red"}]
    found = read_stored_spec(old, SPEC_VERSION)
    assert sorted(found.left_out) == ["evaluation.datasets.0.colour", "loss.margins", "teleport"]
    expected = parse_spec({**TRAIN, "evaluation": {"datasets": [{"ref": "file:/beir"}]}})
    assert found.spec == expected
    assert old["teleport"] is True  # what is stored stays


def test_a_spec_of_today_is_read_as_it_is():
    spec = parse_spec(TRAIN)
    assert read_stored_spec(spec.model_dump(mode="json"), SPEC_VERSION) == stored.StoredSpec(spec)


def test_older_versions_are_translated_step_by_step(monkeypatch):
    def rename(data):
        kept = {name: value for name, value in data.items() if name != "rate"}
        return {**kept, "learning_rate": data["rate"]}

    monkeypatch.setattr(stored, "SPEC_VERSION", SPEC_VERSION + 2)
    steps = {SPEC_VERSION: rename, SPEC_VERSION + 1: lambda data: {**data, "epochs": 7}}
    monkeypatch.setattr(stored, "TRANSLATIONS", steps)
    found = read_stored_spec({**TRAIN, "rate": 0.5}, SPEC_VERSION)
    assert (found.spec.learning_rate, found.spec.epochs, found.left_out) == (0.5, 7, ())


def test_a_newer_version_is_refused():
    with pytest.raises(InvalidRequest, match="newer version"):
        read_stored_spec(TRAIN, SPEC_VERSION + 1)


def test_values_that_cannot_be_are_refused_with_all_problems():
    with pytest.raises(InvalidRequest) as refused:
        read_stored_spec({**TRAIN, "teleport": True, "batch_size": "many", "epochs": 0}, SPEC_VERSION)
    assert [problem.path for problem in refused.value.problems] == ["epochs", "batch_size"]


def changed(before: dict, after: dict, *, gone: str = "", new: str = "") -> list[str]:
    """``gone`` and ``new``: paths that only the one or the other version knows."""
    old, now = (_settings(parse_spec({**TRAIN, **fields})) for fields in (before, after))
    old.pop(new, None)
    now.pop(gone, None)
    return _changed_settings(json.dumps(old), json.dumps(now))


@pytest.mark.parametrize(
    ("before", "after", "found"),
    [
        ({}, {}, []),
        ({}, {"name": "other", "resources": {"gpus": 2}, "sharding": "fsdp"}, []),
        ({}, {"dataset": "file:/elsewhere.jsonl", "base_model": "file:/copy"}, []),
        ({}, {"batch_size": 32}, ["batch_size: 64 -> 32"]),
        ({}, {"loss": {"temperature": 0.1}}, ["loss.temperature: 0.05 -> 0.1"]),
        ({"lora": {"r": 4}}, {"lora": {"r": 8}}, ["lora.r: 4 -> 8"]),
        ({}, {"lora": {}}, ['lora: null -> ["LoRA"]']),
        ({"lora": {}}, {}, ['lora: ["LoRA"] -> null']),
    ],
)
def test_a_resumed_training_names_what_changed(before, after, found):
    assert changed(before, after) == found


def test_more_datasets_are_a_change():
    two = {"dataset": [{"ref": "file:/a", "weight": 1}, {"ref": "file:/b", "weight": 2}]}
    assert changed({}, two)
    assert changed(two, {})


def test_fields_that_one_version_does_not_know_count_where_they_are_set():
    assert changed({}, {}, new="padding") == []
    assert changed({}, {"padding": "fixed"}, new="padding") == ["padding"]
    assert changed({}, {}, gone="padding") == []
    assert changed({"padding": "fixed"}, {}, gone="padding") == ["padding"]
    assert changed({"lora": {}}, {"lora": {}}, new="lora.modules_to_train") == []
