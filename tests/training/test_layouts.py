"""Models saved by other versions of sentence-transformers: read with equal vectors, or refused by name."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from core.errors import BadModel
from core.families import cross_encoder, dense
from core.families.cross_encoder.model import load_model as load_cross_encoder
from core.families.dense.model import load_model as load_dense
from core.families.detect import family_in
from core.run.context import RunContext
from core.run.reporter import RecordingReporter
from core.run.request import RunRequest

SAVED = Path(__file__).parents[1] / "fixtures" / "models"
VERSIONS = sorted(path.name for path in SAVED.iterdir())


@pytest.fixture
def context(tmp_path) -> RunContext:
    request = RunRequest(
        job_id="job", attempt=1, spec={}, checkpoints=tmp_path / "c", cache=tmp_path / "cache", offline=True
    )
    return RunContext(request, tmp_path, RecordingReporter())


def changed(tmp_path: Path, model: Path, name: str, change) -> str:
    """A copy of a model with one file of JSON changed."""
    folder = tmp_path / "changed"
    shutil.copytree(model, folder)
    content = json.loads((folder / name).read_text())
    change(content)
    (folder / name).write_text(json.dumps(content))
    return f"file:{folder}"


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("name", ["dense", "plain"])
def test_bi_encoders_give_the_vectors_that_they_were_saved_with(context, version, name):
    expected = json.loads((SAVED / version / "expected.json").read_text())
    reference = f"file:{SAVED / version / name}"
    assert family_in(context, reference) == "dense"
    model = load_dense(context, reference, "cpu").eval()
    assert np.abs(model.encode(expected["texts"]) - np.array(expected[name])).max() < 1e-5
    if name == "dense":
        assert (model.max_seq_length, model.similarity_fn_name) == (9, "dot")
        assert model.prompts == {"query": "a ", "document": "the "}


@pytest.mark.parametrize("version", VERSIONS)
def test_cross_encoders_give_the_scores_that_they_were_saved_with(context, version):
    expected = json.loads((SAVED / version / "expected.json").read_text())
    reference = f"file:{SAVED / version / 'cross_encoder'}"
    assert family_in(context, reference) == "cross_encoder"
    model = load_cross_encoder(context, reference, "cpu")
    scores = model.predict([("what is a river", text) for text in expected["texts"]])
    assert np.abs(scores - np.array(expected["cross_encoder"])).max() < 1e-5


@pytest.mark.parametrize(
    ("name", "words"),
    [("sparse", "is a sparse encoder"), ("multi_vector", "was saved by MultiVectorEncoder")],
)
def test_other_kinds_are_named(context, name, words):
    found = [SAVED / version / name for version in VERSIONS if (SAVED / version / name).is_dir()]
    assert found
    for folder in found:
        for load in (lambda at: family_in(context, at), lambda at: load_dense(context, at, "cpu")):
            with pytest.raises(BadModel, match=words):
                load(f"file:{folder}")


SENTENCE = "sentence_bert_config.json"


@pytest.mark.parametrize(
    ("model", "name", "change", "words"),
    [
        ("dense", "config_sentence_transformers.json", {"model_type": "Router"}, "no known kind of model"),
        ("dense", "1_Pooling/config.json", {"pooling_mode": "median"}, "pooling 'median' is not known"),
        (
            "dense",
            "2_Dense/config.json",
            {"module_input_name": "token_embeddings"},
            "works on token_embeddings",
        ),
        ("dense", SENTENCE, {"transformer_task": "fill-mask"}, "uses its transformer for fill-mask"),
        ("dense", SENTENCE, {"modality_config": {"text": {}, "image": {}}}, "reads image beside texts"),
        (
            "dense",
            SENTENCE,
            {"modality_config": {"text": {"method_output_name": "pooler_output"}}},
            "takes pooler_output",
        ),
        ("dense", SENTENCE, {"query_length": 32}, "not known here: query_length"),
        (
            "cross_encoder",
            "config_sentence_transformers.json",
            {"prompts": {"query": "score: "}},
            "puts a prompt in front of its pairs",
        ),
    ],
)
def test_what_the_old_layout_cannot_say_is_refused(context, tmp_path, model, name, change, words):
    reference = changed(tmp_path, SAVED / VERSIONS[-1] / model, name, lambda content: content.update(change))
    load = load_dense if model == "dense" else load_cross_encoder
    with pytest.raises(BadModel, match=words):
        load(context, reference, "cpu")


def test_several_poolings_are_read_as_several(context, tmp_path):
    reference = changed(
        tmp_path,
        SAVED / VERSIONS[-1] / "plain",
        "1_Pooling/config.json",
        lambda content: content.update(pooling_mode=["mean", "cls"]),
    )
    assert load_dense(context, reference, "cpu").get_sentence_embedding_dimension() == 16


@pytest.mark.parametrize("version", VERSIONS)
def test_they_are_saved_in_the_layout_that_all_tools_read(context, tmp_path, version):
    model = load_dense(context, f"file:{SAVED / version / 'dense'}", "cpu")
    dense.save_model(model, tmp_path / "saved")
    modules = json.loads((tmp_path / "saved" / "modules.json").read_text())
    assert {module["type"].rpartition(".")[0] for module in modules} == {"sentence_transformers.models"}
    pooling = json.loads((tmp_path / "saved" / "1_Pooling" / "config.json").read_text())
    assert pooling["pooling_mode_cls_token"] is True
    length = json.loads((tmp_path / "saved" / SENTENCE).read_text())["max_seq_length"]
    assert length == 9
    scorer = load_cross_encoder(context, f"file:{SAVED / version / 'cross_encoder'}", "cpu")
    cross_encoder.save_model(scorer, tmp_path / "scorer")
    assert not (tmp_path / "scorer" / "modules.json").exists()
    saved = json.loads((tmp_path / "scorer" / "config.json").read_text())
    assert saved["sentence_transformers"]["activation_fn"].endswith("Tanh")
