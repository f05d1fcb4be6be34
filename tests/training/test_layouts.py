"""Models saved by other versions of sentence-transformers: read with equal vectors, or refused by name."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from core.engine.batching import Packing
from core.errors import BadModel
from core.families import cross_encoder, dense, late_interaction
from core.families.cross_encoder.model import load_model as load_cross_encoder
from core.families.dense.model import load_model as load_dense
from core.families.detect import family_in
from core.families.prompts import own_prompts
from core.models.description import Description
from core.spec.parts.models import Prompts

SAVED = Path(__file__).parents[1] / "fixtures" / "models"
VERSIONS = sorted(path.name for path in SAVED.iterdir())


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
    score = cross_encoder.score_with(model, Packing(64), lambda: None)
    scores = score([("what is a river", text) for text in expected["texts"]])
    assert np.abs(scores - np.array(expected["cross_encoder"])).max() < 1e-5


@pytest.mark.parametrize("version", VERSIONS)
def test_sparse_encoders_are_named(context, version):
    reference = f"file:{SAVED / version / 'sparse'}"
    for load in (lambda at: family_in(context, at), lambda at: load_dense(context, at, "cpu")):
        with pytest.raises(BadModel, match="is a sparse encoder"):
            load(reference)


@pytest.mark.parametrize("version", VERSIONS)
def test_static_embeddings_give_the_vectors_that_they_were_saved_with(context, version):
    expected = json.loads((SAVED / version / "expected.json").read_text())
    model = load_dense(context, f"file:{SAVED / version / 'static'}", "cpu")
    encode = dense.make_encode(model, Prompts(), Packing(64), lambda: None)
    found = encode(expected["texts"], "query").detach().numpy()
    assert np.abs(found - np.array(expected["static"])).max() < 1e-5


def token_vectors_of(model, role, texts, prompts):
    encode = late_interaction.make_encode(model, Packing(64), lambda: None)
    found = encode([prompts[role] + text for text in texts], role)
    return [found.text(number) for number in range(len(texts))]


MULTI_VECTOR = SAVED / VERSIONS[-1] / "multi_vector"
MARKS = {"query": "what ", "document": "the "}


def test_a_multi_vector_encoder_is_read_and_written_as_late_interaction(context, tmp_path):
    expected = json.loads((MULTI_VECTOR.parent / "expected.json").read_text())
    assert family_in(context, f"file:{MULTI_VECTOR}") == "late_interaction"
    model = late_interaction.load_model(context, f"file:{MULTI_VECTOR}", "cpu")
    assert (model.query_length, model.document_length, model.skiplist_words) == (12, 9, ["of", "a"])
    assert own_prompts(Description.of(MULTI_VECTOR)).model_dump() == MARKS
    late_interaction.save_model(model, tmp_path / "saved")
    again = late_interaction.load_model(context, f"file:{tmp_path / 'saved'}", "cpu")
    for read in (model, again):
        for role in ("query", "document"):
            found = token_vectors_of(read, role, expected["texts"], MARKS)
            for vectors, wanted in zip(found, expected["multi_vector"][role], strict=True):
                assert np.abs(vectors - np.array(wanted)).max() < 1e-5
    modules = json.loads((tmp_path / "saved" / "modules.json").read_text())
    assert [module["type"] for module in modules] == [
        "sentence_transformers.models.Transformer",
        "pylate.models.Dense.Dense",
    ]
    assert json.loads((tmp_path / "saved" / SENTENCE).read_text()).keys() == {
        "max_seq_length",
        "do_lower_case",
    }


@pytest.mark.parametrize(
    ("name", "change", "words"),
    [
        ("2_MultiVectorMask/config.json", {"keep_only_token_ids": [3]}, "leaves out tokens in another way"),
        ("2_MultiVectorMask/config.json", {"skiplist_tasks": ["query"]}, "leaves out tokens in another way"),
        ("config_sentence_transformers.json", {"similarity_fn_name": "meanmaxsim"}, "compares by meanmaxsim"),
        (
            "sentence_bert_config.json",
            {"query_expansion": {"strategy": "min", "length": 12}},
            "fills its queries up in another way",
        ),
        ("1_Dense/config.json", {"module_input_name": "sentence_embedding"}, "does not work on tokens"),
        ("1_Dense/config.json", {"activation_function": "os.system"}, "activation that is not known"),
    ],
)
def test_what_late_interaction_here_cannot_do_is_refused(context, tmp_path, name, change, words):
    reference = changed(tmp_path, MULTI_VECTOR, name, lambda content: content.update(change))
    with pytest.raises(BadModel, match=words):
        late_interaction.load_model(context, reference, "cpu")


def test_another_order_of_modules_is_refused(context, tmp_path):
    reference = changed(tmp_path, MULTI_VECTOR, "modules.json", lambda modules: modules.pop())
    with pytest.raises(BadModel, match="made of Transformer, Dense, MultiVectorMask, which is not known"):
        late_interaction.load_model(context, reference, "cpu")


SENTENCE = "sentence_bert_config.json"


@pytest.mark.parametrize(
    ("model", "name", "change", "words"),
    [
        ("dense", "config_sentence_transformers.json", {"model_type": "Router"}, "which is not supported"),
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
    assert dense.dimension_of(load_dense(context, reference, "cpu")) == 16


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
