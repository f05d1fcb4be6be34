"""What a spec accepts, and how it says no."""

from typing import Annotated, get_args

import pytest
from pydantic import BaseModel

from core.errors import InvalidRequest
from core.spec import parse_spec
from core.spec.files import apply_settings, localize, read_spec
from core.spec.parse import SPEC_BY_KIND
from core.spec.parts.models import ModelOrWords
from core.spec.parts.reference_places import ReferencePlace, find_references, replace_references
from core.spec.parts.refs import DatasetReference, ModelReference, parse_ref

MINIMAL = {"kind": "train", "base_model": "org/model", "dataset": "file:pairs.jsonl"}


def problems(spec: dict) -> dict[str, str]:
    with pytest.raises(InvalidRequest) as caught:
        parse_spec(spec)
    return {problem.path: problem.message for problem in caught.value.problems}


def test_the_smallest_spec_has_a_default_for_all_the_rest():
    spec = parse_spec(MINIMAL)
    assert (spec.family, spec.loss.name, spec.batch_size, spec.precision) == ("dense", "mnrl", 64, "auto")
    assert spec.dataset.ref == "file:pairs.jsonl"


def test_the_contract_s_example_validates():
    spec = parse_spec(
        {
            **MINIMAL,
            "base_model": "sentence-transformers/all-MiniLM-L6-v2",
            "evaluation": {
                "datasets": [{"ref": "file:data/scifact", "split": "test"}],
                "metrics": ["ndcg@10", "mrr@10", "recall@100"],
                "every_steps": 50,
                "baseline": True,
                "early_stopping": {"metric": "ndcg@10", "patience": 3, "per_dataset": True},
            },
            "loss": {"name": "mnrl", "temperature": 0.05, "cached": "auto"},
            "epochs": 1,
            "max_steps": None,
            "micro_batch_tokens": "auto",
            "learning_rate": 5.0e-5,
            "warmup_ratio": 0.1,
            "lengths": {"query": "auto", "document": "auto", "percentile": 0.95},
            "precision": "auto",
            "optimizer": "adamw",
            "lora": None,
            "quantization": None,
            "checkpoint": {"every_steps": 100, "every_seconds": 300, "keep": 2},
            "seed": 42,
            "resources": {"gpus": "auto"},
        }
    )
    assert spec.evaluation.early_stopping.per_dataset


@pytest.mark.parametrize(
    ("change", "path"),
    [
        ({"learning_rte": 1}, "learning_rte"),
        ({"loss": {"temprature": 1}}, "loss.temprature"),
        ({"learning_rate": "fast"}, "learning_rate"),
        ({"learning_rate": float("nan")}, "learning_rate"),
        ({"batch_size": 1}, "batch_size"),
        ({"epochs": -1}, "epochs"),
        ({"dataset": "pairs.jsonl"}, "dataset.ref"),
        ({"dataset": "org/dataset"}, "dataset.ref"),
        ({"base_model": "stage:train/model"}, "base_model"),
        ({"base_model": "job:abc"}, "base_model"),
        ({"evaluation": {"metrics": ["ndcg"]}}, "evaluation.metrics.0"),
        ({"evaluation": {"early_stopping": {"metric": "ndcg@10"}}}, "evaluation"),
        ({"lengths": {"query": 4}}, "lengths.query"),
        ({"labels": {"a b": "c"}}, "labels"),
        ({"resources": {"gpus": 65}}, "resources.gpus"),
        ({"lora": {"r": 0}}, "lora.r"),
        ({"lora": {"targets": ["q"]}}, "lora.targets"),
        ({"dataset": ["file:a.jsonl", {"ref": "file:b.jsonl", "wieght": 2}]}, "dataset.1.wieght"),
        ({"dataset": [{"ref": "file:a", "weight": 2}, "file:b"]}, "dataset"),
        ({"dataset": []}, "dataset"),
        ({"kind": "trian"}, "kind"),
    ],
)
def test_a_fault_is_named_by_its_path(change: dict, path: str):
    assert any(found == path or found.startswith(f"{path}.") for found in problems({**MINIMAL, **change}))


def test_every_fault_is_told_at_once():
    assert set(problems({**MINIMAL, "epochs": 0, "seed": -1, "x": 1})) == {"epochs", "seed", "x"}


def test_references():
    assert str(parse_ref("org/name")) == "hf:org/name"
    assert parse_ref("hf:org/name@v1").revision == "v1"
    assert parse_ref("model:search@3").revision == "3"
    assert parse_ref("job:job_1/model").output == "model"
    assert parse_ref("s3://bucket/key").scheme == "url"
    with pytest.raises(ValueError, match="not a reference"):
        parse_ref("just words")


def places_of(annotation, path=()):
    """Every place of a reference that a type has, as (path, role), by the types of its fields."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        fields = annotation.model_fields.items()
        return {
            place
            for name, field in fields
            for place in places_of(Annotated[field.annotation, *field.metadata, None], (*path, name))
        }
    roles = {
        REFERENCE_TYPES.get(getattr(mark, "func", None)) for mark in getattr(annotation, "__metadata__", ())
    }
    own = {(".".join(path), role) for role in roles - {None}}
    return own.union(*(places_of(part, path) for part in get_args(annotation)))


REFERENCE_TYPES = {
    get_args(kind)[-1].func: role
    for kind, role in ((DatasetReference, "dataset"), (ModelReference, "model"), (ModelOrWords, "model"))
}


@pytest.mark.parametrize("kind", SPEC_BY_KIND)
def test_every_field_of_a_reference_is_listed_among_the_places(kind: str):
    listed = set()
    for path, role in SPEC_BY_KIND[kind].REFERENCES:
        *parents, last = [part for part in path.split(".") if part != "*"]
        listed |= {(".".join([*parents, name]), role) for name in last.split("|")}
    assert listed == places_of(SPEC_BY_KIND[kind])


def test_references_are_found_wherever_they_may_be_written():
    places = [ReferencePlace("source.*.ref|corpus", "dataset"), ReferencePlace("deep.model", "model")]

    def found(spec: dict) -> dict[str, str]:
        return {found.path: found.text for found in find_references(spec, places)}

    assert found({"source": "a"}) == {"source": "a"}
    assert found({"source": ["a", {"ref": "b", "corpus": "c"}]}) == {
        "source.0": "a",
        "source.1.ref": "b",
        "source.1.corpus": "c",
    }
    assert found({"source": 3, "deep": "text"}) == {}
    assert found({"deep": {"model": "a"}}) == {"deep.model": "a"}


def test_a_replaced_reference_changes_no_other_part_of_the_spec():
    shared = {"ref": "a"}
    spec = {"source": [shared, "b"], "kept": shared}
    made = replace_references(spec, [ReferencePlace("source.*.ref", "dataset")], str.upper)
    assert made == {"source": [{"ref": "A"}, "B"], "kept": {"ref": "a"}}
    assert spec == {"source": [{"ref": "a"}, "b"], "kept": {"ref": "a"}}


def test_set_writes_nested_yaml_values():
    spec = apply_settings(
        {"datasets": [{"ref": "a"}]}, ["loss.temperature=0.02", "datasets.0.ref=b", "lora=null"]
    )
    assert spec == {"datasets": [{"ref": "b"}], "loss": {"temperature": 0.02}, "lora": None}
    for wrong in ("novalue", "datasets.7.ref=x", "datasets.x=1"):
        with pytest.raises(InvalidRequest):
            apply_settings({"datasets": [{"ref": "a"}]}, [wrong])


def test_plain_paths_become_references(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pairs.jsonl").write_text("{}")
    local = localize({**MINIMAL, "dataset": "pairs.jsonl", "evaluation": {"datasets": ["pairs.jsonl"]}})
    assert local["dataset"] == f"file:{tmp_path / 'pairs.jsonl'}"
    assert local["evaluation"]["datasets"] == [f"file:{tmp_path / 'pairs.jsonl'}"]
    assert local["base_model"] == "org/model"


@pytest.mark.parametrize("text", ["- a\n- b\n", "a: [", "just words"])
def test_a_spec_file_that_is_no_mapping(tmp_path, text: str):
    (tmp_path / "spec.yaml").write_text(text)
    with pytest.raises(InvalidRequest):
        read_spec(tmp_path / "spec.yaml")


def test_plain_paths_in_a_list_of_datasets_and_of_the_guide(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("one.jsonl", "two.jsonl"):
        (tmp_path / name).write_text("")
    (tmp_path / "guide").mkdir()
    local = localize(
        {**MINIMAL, "dataset": ["one.jsonl", {"ref": "two.jsonl"}], "loss": {"guide": {"model": "guide"}}}
    )
    assert local["dataset"] == [f"file:{tmp_path}/one.jsonl", {"ref": f"file:{tmp_path}/two.jsonl"}]
    assert local["loss"]["guide"]["model"] == f"file:{tmp_path}/guide"


def test_what_belongs_to_another_family_is_refused():
    train = {"kind": "train", "base_model": "a/b", "dataset": "file:x.jsonl"}
    for change, words in (
        ({"prune_embeddings": {}}, "prune_embeddings needs family: late_interaction"),
        ({"loss": {"name": "bce"}}, "loss bce needs family: cross_encoder"),
        ({"family": "cross_encoder", "loss": {"symmetric": True}}, "symmetric"),
        ({"family": "cross_encoder", "quantization": "int8", "lora": {}}, "quantization needs family: dense"),
        ({"evaluation": {"rerank": {"depth": 5}}}, "evaluation.rerank needs family: cross_encoder"),
    ):
        with pytest.raises(InvalidRequest, match=words) as raised:
            parse_spec(train | change)
        assert ": :" not in str(raised.value)


def test_a_family_has_its_usual_loss():
    train = {"kind": "train", "base_model": "a/b", "dataset": "file:x.jsonl"}
    of = {
        name: parse_spec({**train, "family": name}).loss
        for name in ("dense", "late_interaction", "cross_encoder")
    }
    assert {name: (loss.name, loss.temperature) for name, loss in of.items()} == {
        "dense": ("mnrl", 0.05),
        "late_interaction": ("mnrl", 1.0),
        "cross_encoder": ("bce", 1.0),
    }
    told = parse_spec({**train, "family": "cross_encoder", "loss": {"name": "mnrl", "temperature": 0.1}}).loss
    assert (told.name, told.temperature) == ("mnrl", 0.1)


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("kind: train\nbase_model: a/b\nkind: mine\n", ("line 3", "line 1")),
        ("loss:\n  name: mnrl\n  temperature: 1\n  name: bce\n", ("line 4", "line 2")),
        ("datasets:\n  - {ref: a, ref: b}\n", ("line 2", "line 2")),
        ('{"kind": "train", "kind": "mine"}', ("line 1", "line 1")),
        ("x-base: &base {seed: 1, seed: 2}\n", ("line 1", "line 1")),
        ("1: a\n1: b\n", ("line 2", "line 1")),
    ],
)
def test_a_key_twice_is_refused_with_both_lines(tmp_path, text, lines):
    (tmp_path / "spec.yaml").write_text(text)
    with pytest.raises(InvalidRequest) as refused:
        read_spec(tmp_path / "spec.yaml")
    for line in lines:
        assert line in str(refused.value)


def test_x_keys_hold_anchors(tmp_path):
    (tmp_path / "spec.yaml").write_text(
        "x-loss: &loss {name: mnrl, temperature: 0.05}\nkind: train\nloss: {<<: *loss, temperature: 0.1}\n"
    )
    assert read_spec(tmp_path / "spec.yaml") == {
        "kind": "train",
        "loss": {"name": "mnrl", "temperature": 0.1},
    }


def test_a_key_twice_in_a_setting_is_refused():
    with pytest.raises(InvalidRequest, match="on line"):
        apply_settings({}, ["loss={name: mnrl, name: bce}"])


def test_losses_of_pair_scores_are_of_families_with_one_scale():
    train = {"kind": "train", "base_model": "a/b", "dataset": "file:x.jsonl", "loss": {"name": "cosent"}}
    with pytest.raises(InvalidRequest, match="dense or cross_encoder"):
        parse_spec({**train, "family": "late_interaction"})
    with pytest.raises(InvalidRequest, match="holdout"):
        parse_spec({**train, "evaluation": {"holdout": 0.1}})


@pytest.mark.parametrize(
    ("fields", "path", "meant"),
    [
        ({"mircobatch_tokens": 64}, "mircobatch_tokens", "micro_batch_tokens"),
        ({"lora": {"modules_to_trian": ["dense"]}}, "lora.modules_to_trian", "modules_to_train"),
        ({"evaluation": {"early_stoping": None}}, "evaluation.early_stoping", "early_stopping"),
        ({"dataset": [{"ref": "file:/a", "wieght": 1}]}, "dataset.0.wieght", "weight"),
        ({"xyzzy": 1}, "xyzzy", None),
    ],
)
def test_an_unknown_field_names_the_nearest(fields, path, meant):
    asked = {"kind": "train", "base_model": "file:/m", "dataset": "file:/rows.jsonl", **fields}
    with pytest.raises(InvalidRequest) as refused:
        parse_spec(asked)
    [problem] = refused.value.problems
    said = f"unknown field; did you mean {meant}?" if meant else "unknown field"
    assert (problem.path, problem.message) == (path, said)
