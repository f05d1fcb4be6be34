"""The prompts that a model brings with it stand before its texts in every kind of job, and are told."""

import json
import shutil

import numpy as np
import pytest
from sentence_transformers import SentenceTransformer

from core.process.local import run_local
from core.runtime.reporter import RecordingReporter
from tests.tiny import make_cross_encoder


@pytest.fixture(scope="module")
def prompted(tiny_model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("prompted") / "model"
    shutil.copytree(tiny_model, folder)
    set_prompts(folder, {"query": "what is ", "passage": "the document "})
    return folder


def set_prompts(folder, prompts, default=None):
    path = folder / "config_sentence_transformers.json"
    settings = json.loads(path.read_text())
    path.write_text(json.dumps({**settings, "prompts": prompts, "default_prompt_name": default}))


def done(spec, out):
    reporter = RecordingReporter()
    result = run_local(spec, out, reporter)
    assert result.state == "succeeded", result.end_reason
    return result, [event.data.message for event in reporter.events if event.type == "notice"]


def embedded(model, tmp_path, **fields):
    corpus = tmp_path / "corpus.jsonl"
    texts = ["river of winter", "a bridge", "copper and thunder"]
    corpus.write_text(
        "".join(json.dumps({"_id": str(n), "text": text}) + "\n" for n, text in enumerate(texts))
    )
    spec = {"kind": "embed", "model": f"file:{model}", "corpus": f"file:{corpus}", **fields}
    _, notices = done(spec, tmp_path / "out")
    found = np.concatenate([np.load(path) for path in sorted((tmp_path / "out").rglob("*.npy"))])
    return found, texts, notices


def test_embed_puts_the_documents_prompt_in_front(prompted, tmp_path):
    found, texts, notices = embedded(prompted, tmp_path)
    model = SentenceTransformer(str(prompted), device="cpu")
    expected = model.encode([f"the document {text}" for text in texts], normalize_embeddings=True)
    assert np.abs(found - expected).max() < 1e-5
    assert np.abs(found - model.encode(texts, normalize_embeddings=True)).max() > 1e-4
    assert any("own prompts stand before its texts: query 'what is ', document" in line for line in notices)


def test_a_prompt_of_the_spec_counts_and_is_told(prompted, tmp_path):
    found, texts, notices = embedded(prompted, tmp_path, prompts={"document": ""})
    model = SentenceTransformer(str(prompted), device="cpu")
    assert np.abs(found - model.encode(texts, normalize_embeddings=True)).max() < 1e-5
    assert any(
        "prompts.document is '' in place of the model's own 'the document '" in line for line in notices
    )


def test_a_default_prompt_stands_before_both(tiny_model, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(tiny_model, folder)
    set_prompts(folder, {"all": "a "}, default="all")
    found, texts, _ = embedded(folder, tmp_path)
    model = SentenceTransformer(str(folder), device="cpu")
    expected = model.encode(texts, normalize_embeddings=True)  # with its default prompt
    assert np.abs(found - expected).max() < 1e-5


def test_evaluate_ranks_with_them(prompted, pairs_file, tmp_path):
    spec = {"kind": "evaluate", "datasets": [f"file:{pairs_file}"], "metrics": ["ndcg@10"]}
    written = {"query": "what is ", "document": "the document "}
    by_model, notices = done({**spec, "models": [f"file:{prompted}"]}, tmp_path / "one")
    by_spec, told = done(
        {**spec, "models": [{"ref": f"file:{prompted}", "prompts": written}]}, tmp_path / "two"
    )
    without, _ = done(
        {**spec, "models": [{"ref": f"file:{prompted}", "prompts": {"query": "", "document": ""}}]},
        tmp_path / "three",
    )
    assert by_model.metrics == by_spec.metrics
    assert by_model.metrics != without.metrics
    assert any("own prompts" in line for line in notices)
    assert any("own prompts" in line for line in told)


@pytest.mark.parametrize(
    ("asked", "saved"),
    [
        ({}, {"query": "what is ", "document": "the document "}),
        ({"query": "on "}, {"query": "on ", "document": "the document "}),
        ({"document": "of "}, {"query": "what is ", "passage": "the document ", "document": "of "}),
    ],
)
def test_the_saved_model_says_what_it_was_trained_with(prompted, pairs_file, tmp_path, asked, saved):
    spec = {"kind": "train", "base_model": f"file:{prompted}", "dataset": f"file:{pairs_file}"}
    done({**spec, "max_steps": 1, "batch_size": 8, "prompts": asked}, tmp_path / "out")
    found = json.loads((tmp_path / "out" / "model" / "config_sentence_transformers.json").read_text())
    assert found["prompts"].items() >= saved.items()
    model = SentenceTransformer(str(tmp_path / "out" / "model"), device="cpu")
    before = {"query": "what is ", "document": "the document ", **asked}
    for role, encode in (("query", model.encode_query), ("document", model.encode_document)):
        assert np.allclose(encode("river"), model.encode(before[role] + "river", prompt=""), atol=1e-6)


def test_training_reads_them(prompted, pairs_file, tmp_path):
    spec = {"kind": "train", "base_model": f"file:{prompted}", "dataset": f"file:{pairs_file}"}
    spec |= {"max_steps": 1, "batch_size": 8, "logging_steps": 1}
    done(spec, tmp_path / "own")
    written = {"query": "what is ", "document": "the document "}
    done({**spec, "prompts": written}, tmp_path / "same")
    done({**spec, "prompts": {"query": "", "document": ""}}, tmp_path / "other")
    weights = [
        (tmp_path / name / "model" / "model.safetensors").read_bytes() for name in ("own", "same", "other")
    ]
    assert weights[0] == weights[1] != weights[2]


def test_a_pooling_without_its_prompt_is_refused(prompted, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(prompted, folder)
    path = folder / "1_Pooling" / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "include_prompt": False}))
    corpus = tmp_path / "corpus.jsonl"
    corpus.write_text('{"_id": "1", "text": "river"}\n')
    spec = {"kind": "embed", "model": f"file:{folder}", "corpus": f"file:{corpus}"}
    result = run_local(spec, tmp_path / "out", RecordingReporter())
    assert result.end_reason.code == "bad_model"
    assert "leaves its prompt out of the pooling" in result.end_reason.message


def test_a_model_in_lower_case_reads_lower_case(tiny_model, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(tiny_model, folder)
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    tokenizer["normalizer"]["lowercase"] = False
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    path = folder / "sentence_bert_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "do_lower_case": True}))
    corpus = tmp_path / "corpus.jsonl"
    texts = ["The RIVER of Winter", "a Bridge"]
    corpus.write_text(
        "".join(json.dumps({"_id": str(n), "text": text}) + "\n" for n, text in enumerate(texts))
    )
    done({"kind": "embed", "model": f"file:{folder}", "corpus": f"file:{corpus}"}, tmp_path / "out")
    found = np.concatenate([np.load(path) for path in sorted((tmp_path / "out").rglob("*.npy"))])
    expected = SentenceTransformer(str(folder), device="cpu").encode(texts, normalize_embeddings=True)
    assert np.abs(found - expected).max() < 1e-5
    path.write_text(json.dumps({**json.loads(path.read_text()), "do_lower_case": False}))
    without = SentenceTransformer(str(folder), device="cpu").encode(texts, normalize_embeddings=True)
    assert np.abs(found - without).max() > 1e-3


def test_a_rerankers_retriever_uses_its_own(prompted, tiny_model, pairs_file, tmp_path):
    """The candidates of an evaluation are those that the retriever finds when it is evaluated itself."""
    scorer = make_cross_encoder(tmp_path / "scorer", tiny_model)
    data = {"datasets": [{"ref": f"file:{pairs_file}", "name": "pairs"}], "metrics": ["ndcg@10"]}
    models = [{"ref": f"file:{scorer}", "name": "scorer"}, {"ref": f"file:{prompted}", "name": "own"}]
    rerank = {"retriever": f"file:{prompted}", "depth": 10}
    result, _ = done({"kind": "evaluate", "models": models, "rerank": rerank, **data}, tmp_path / "out")
    page = json.loads((tmp_path / "out" / "report" / "report.json").read_text())
    assert page["candidates"]["pairs"]["ndcg@10"] == pytest.approx(
        result.metrics["scores"]["own"]["pairs"]["ndcg@10"], abs=1e-9
    )
    plain = {**models[1], "prompts": {"query": "", "document": ""}}
    other, _ = done({"kind": "evaluate", "models": [plain], **data}, tmp_path / "plain")
    assert other.metrics["scores"]["own"] != result.metrics["scores"]["own"]
    report = (tmp_path / "out" / "report" / "report.md").read_text()
    assert "scorer brings the 10 best candidates of file:" in report
    assert "query 'what is ', document 'the document '" in report


def test_prompts_of_no_role_are_told(tiny_model, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(tiny_model, folder)
    set_prompts(folder, {"clustering": "cluster: "})
    _, _, notices = embedded(folder, tmp_path)
    assert any("its prompts clustering are of no role" in line for line in notices)
