"""The flat form of earlier scripts, as somebody would post it."""

import pytest

from core.spec.pipelines.flat import FlatSpec, expand_flat

FLAT = {
    "dataset_name": "o/pairs",
    "sample_size": 1080,
    "test_size": 0.2,
    "seed": 12,
    "model_name": "o/base",
    "mining_model_name": "o/static",
    "num_epochs": 8,
    "batch_size": 128,
    "learning_rate": 3e-5,
    "weight_decay": 0.02,
    "warmup_ratio": 0.1,
    "cache_dir": "/tmp/cache",
    "mining": {
        "num_negatives": 2,
        "batch_size": 512,
        "margin": 0.05,
        "range_min": 3,
        "range_max": 50,
        "sampling_strategy": "random",
    },
    "training": {
        "gradient_checkpointing": True,
        "fp16": False,
        "bf16": True,
        "eval_steps": 10,
        "save_steps": 20,
        "logging_steps": 5,
        "warmup_ratio": 0.2,
    },
}


def test_every_setting_arrives_where_it_belongs(http):
    answer = http.post("/pipelines", json=FLAT)
    assert answer.status_code == 201, answer.text
    made = answer.json()
    assert list(made["stages"]) == ["prepare", "baseline", "mine", "train", "compare"]
    assert made["recipe"] == "flat"
    specs = {name: http.get(f"/jobs/{stage['job']}").json()["spec"] for name, stage in made["stages"].items()}
    prepare, mine, train = specs["prepare"], specs["mine"], specs["train"]
    assert prepare["source"]["ref"] == "hf:o/pairs"
    assert (prepare["sample"], prepare["split"]["test"], prepare["seed"]) == (1080, 0.2, 12)
    assert (mine["model"], mine["num_negatives"], mine["batch_size"]) == ("o/static", 2, 512)
    assert (mine["sampling"], mine["resources"]["gpus"]) == ("random", 0)
    filters = {name: mine["filters"][name] for name in ("absolute_margin", "positive_aware", "range_min")}
    assert filters == {"absolute_margin": 0.05, "positive_aware": None, "range_min": 3}
    assert mine["filters"]["range_max"] == 50
    for name, value in {
        "base_model": "o/base",
        "epochs": 8,
        "batch_size": 128,
        "learning_rate": 3e-5,
        "weight_decay": 0.02,
        "warmup_ratio": 0.2,
        "gradient_checkpointing": True,
        "precision": "bf16",
        "logging_steps": 5,
        "seed": 12,
    }.items():
        assert train[name] == value, name
    assert train["evaluation"]["every_steps"] == 10
    assert train["checkpoint"]["every_steps"] == 20
    assert [model["name"] for model in specs["compare"]["models"]] == ["trained", "base"]
    assert any(choice["field"] == "cache_dir" and "no effect" in choice["why"] for choice in made["choices"])


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"learning_rat": 1}, "learning_rat: unknown field"),
        ({"mining": {"margins": 1}}, "mining.margins: unknown field"),
        ({"training": {"fp16": True, "bf16": True}}, "fp16 and bf16 exclude each other"),
        ({"test_size": 2000}, "test_size must be below sample_size"),
        ({"model_name": ...}, "model_name: Field required"),
        ({"test_size": 100, "sample_size": None}, "give sample_size too"),
    ],
)
def test_what_is_refused(http, changes, sentence):
    body = {name: value for name, value in {**FLAT, **changes}.items() if value is not ...}
    answer = http.post("/pipelines", json=body)
    assert answer.status_code == 422
    assert sentence in answer.text


def test_a_job_says_what_the_flat_form_is(http):
    answer = http.post("/jobs", json=FLAT)
    assert answer.status_code == 422
    assert "the flat form (dataset_name, model_name, ...) is a pipeline" in answer.text


@pytest.mark.parametrize(
    ("name", "reference"),
    [
        ("o/pairs", "hf:o/pairs"),
        ("data/pairs.jsonl", "file:data/pairs.jsonl"),
        ("./pairs", "file:./pairs"),
        ("/srv/pairs", "file:/srv/pairs"),
        ("dataset:pairs@2", "dataset:pairs@2"),
        ("beir:scifact", "beir:scifact"),
        ("o/pairs-v1.5", "hf:o/pairs-v1.5"),
        ("data/pairs.v2/rows.jsonl.gz", "file:data/pairs.v2/rows.jsonl.gz"),
        ("data/pairs.ndjson", "file:data/pairs.ndjson"),
    ],
)
def test_names_of_datasets(name, reference):
    made = expand_flat(FlatSpec(dataset_name=name, model_name="o/m"))
    assert made.stages["prepare"]["source"] == reference


@pytest.mark.parametrize(
    ("name", "reference"),
    [
        ("BAAI/bge-small-en-v1.5", "BAAI/bge-small-en-v1.5"),
        ("Qwen/Qwen3-Embedding-0.6B", "Qwen/Qwen3-Embedding-0.6B"),
        ("models/mine/final", "file:models/mine/final"),
        ("/srv/model", "file:/srv/model"),
        ("model:mine@2", "model:mine@2"),
    ],
)
def test_names_of_models(name, reference):
    made = expand_flat(FlatSpec(dataset_name="o/d", model_name=name))
    assert made.stages["train"]["base_model"] == reference


def test_a_number_of_test_rows_is_a_share():
    made = expand_flat(FlatSpec.model_validate({**FLAT, "test_size": 270}))
    assert made.stages["prepare"]["split"] == {"test": 0.25}
