"""Models in today's configurations: read, evaluated, trained where they can be, saved, and used the same."""

import json

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from transformers import AutoModelForCausalLM, AutoTokenizer

from core.engine.batching import Packing
from core.errors import BadModel
from core.families import cross_encoder, dense
from core.families.cross_encoder.pair_model import QWEN3_INSTRUCTION
from core.process.local import run_local
from core.runtime.reporter import RecordingReporter
from core.spec.parts.models import Prompts
from tests import today
from tests.tiny import make_static

BI_ENCODERS = {
    "qwen3": today.qwen3_embedding,
    "gemma": today.embedding_gemma,
    "modernbert": today.modernbert,
    "xlm_roberta": today.xlm_roberta,
    "t5": today.t5_encoder,
    "static": make_static,
}
TEXTS = ["what is the river", "a bridge of copper and a violin in the garden", "document 7", "castle"]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    place = tmp_path_factory.mktemp("today")
    return {name: make(place / name) for name, make in BI_ENCODERS.items()}


def done(spec, out):
    reporter = RecordingReporter()
    result = run_local(spec, out, reporter)
    assert result.state == "succeeded", result.end_reason
    return result, [event.data.message for event in reporter.events if event.type == "notice"]


def prompts_of(folder) -> Prompts:
    told = json.loads((folder / "config_sentence_transformers.json").read_text()).get("prompts") or {}
    return Prompts(query=told.get("query"), document=told.get("document") or told.get("passage"))


@pytest.mark.parametrize("name", BI_ENCODERS)
def test_vectors_are_the_librarys_whatever_is_padded(context, folders, name):
    library = SentenceTransformer(str(folders[name]), device="cpu")
    model = dense.load_model(context, f"file:{folders[name]}", "cpu").eval()
    encode = dense.make_encode(model, Prompts(), Packing(512), lambda: None)
    for text, vector in zip(TEXTS, encode(TEXTS, "document").detach().numpy(), strict=True):
        [wanted] = library.encode([text], normalize_embeddings=True, prompt="")  # alone: nothing is padded
        assert np.abs(vector - wanted).max() < 1e-5


@pytest.mark.parametrize("name", BI_ENCODERS)
def test_what_is_evaluated_is_what_the_saved_folder_gives(folders, pairs_file, tmp_path, name):
    """With its prompts, by the library's own `encode_query` and `encode_document`."""
    evaluated = {"datasets": [{"ref": f"file:{pairs_file}", "name": "pairs"}], "metrics": ["ndcg@10"]}
    spec = {
        "kind": "train",
        "base_model": f"file:{folders[name]}",
        "dataset": f"file:{pairs_file}",
        "batch_size": 8,
        "max_steps": 3,
        "learning_rate": 0.01,
        "evaluation": evaluated,
    }
    result, notices = done(spec, tmp_path / "out")
    before, saved = folders[name], tmp_path / "out" / "model"
    asked = prompts_of(before)
    assert bool(asked.query) == any("own prompts stand before its texts" in line for line in notices)
    library = SentenceTransformer(str(saved), device="cpu")
    rows = [json.loads(line) for line in pairs_file.read_text().splitlines()]
    queries = sorted({row["query"] for row in rows})
    documents = [row["positive"] for row in rows]
    found = tmp_path / "found"
    for role, texts, encode in (
        ("query", queries, library.encode_query),
        ("document", documents, library.encode_document),
    ):
        corpus = tmp_path / f"{role}.jsonl"
        corpus.write_text("".join(json.dumps({"_id": str(n), "text": t}) + "\n" for n, t in enumerate(texts)))
        done(
            {"kind": "embed", "model": f"file:{saved}", "corpus": f"file:{corpus}", "role": role},
            found / role,
        )
        [path] = (found / role / "embeddings").glob("vectors-*.npy")
        assert np.abs(np.load(path) - encode(texts, normalize_embeddings=True)).max() < 1e-5
        changed = (getattr(asked, role) or "") != ""
        assert (
            np.abs(np.load(path) - library.encode(texts, normalize_embeddings=True)).max() > 1e-4
        ) == changed
    again, _ = done(
        {"kind": "evaluate", "models": [{"ref": f"file:{saved}", "name": "saved"}], **evaluated},
        tmp_path / "again",
    )
    assert again.metrics["scores"]["saved"]["pairs"] == pytest.approx(
        result.metrics["finetuned"]["pairs"], abs=1e-6
    )


def test_foreign_code_is_refused_and_never_run(context, folders, tmp_path):
    folder = today.foreign_code(tmp_path / "nomic", folders["xlm_roberta"])
    with pytest.raises(BadModel, match=r"contains its own code \(modeling_hf_nomic_bert"):
        dense.load_model(context, f"file:{folder}", "cpu")


def test_a_bge_reranker_is_trained(pairs_file, tmp_path):
    folder = today.bge_reranker(tmp_path / "bge")
    spec = {
        "kind": "train",
        "family": "cross_encoder",
        "base_model": f"file:{folder}",
        "dataset": f"file:{pairs_file}",
        "batch_size": 8,
        "max_steps": 2,
        "evaluation": {"datasets": [{"ref": f"file:{pairs_file}", "name": "pairs"}], "metrics": ["ndcg@10"]},
    }
    result, _ = done(spec, tmp_path / "out")
    again, _ = done(
        {
            "kind": "evaluate",
            "models": [{"ref": f"file:{tmp_path / 'out' / 'model'}", "name": "saved"}],
            **spec["evaluation"],
        },
        tmp_path / "again",
    )
    assert again.metrics["scores"]["saved"]["pairs"] == pytest.approx(
        result.metrics["finetuned"]["pairs"], abs=1e-6
    )


@pytest.fixture
def reranker(tmp_path):
    return today.qwen3_reranker(tmp_path / "qwen3-reranker")


def published_score(folder, query: str, document: str) -> float:
    """As the authors' page computes it: one pair, the whole vocabulary, softmax over the two answers."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    before = (
        "<|im_start|>system\nJudge whether the Document meets the requirements based on the Query and the "
        'Instruct provided. Note that the answer can only be "yes" or "no".<|im_end|>\n<|im_start|>user\n'
    )
    after = "<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"
    asked = f"<Instruct>: {QWEN3_INSTRUCTION}\n<Query>: {query}\n<Document>: {document}"
    ids = [
        number
        for text in (before, asked, after)
        for number in tokenizer(text, add_special_tokens=False)["input_ids"]
    ]
    with torch.no_grad():
        logits = model(torch.tensor([ids])).logits[0, -1]
    answers = logits[tokenizer.convert_tokens_to_ids(["no", "yes"])]
    return float(answers.softmax(0)[1])


def test_a_causal_reranker_scores_as_published(context, reranker):
    model = cross_encoder.load_model(context, f"file:{reranker}", "cpu")
    pairs = [("what is a river", text) for text in TEXTS]
    found = cross_encoder.score_with(model, Packing(4096), lambda: None)(pairs)
    assert np.abs(found - [published_score(reranker, *pair) for pair in pairs]).max() < 1e-5
    assert found.std() > 1e-4


def test_a_long_document_does_not_cut_the_question(context, reranker):
    model = cross_encoder.load_model(context, f"file:{reranker}", "cpu", max_length=480)
    tokens = model.read_pairs(["river", "river"], ["a bridge", "a bridge " * 400])
    short, long = tokens["input_ids"]
    assert len(long) == 480
    end = model.tokenizer("<|im_end|>\n<|im_start|>assistant", add_special_tokens=False)["input_ids"][0]
    tail = short[len(short) - 1 - short[::-1].index(end) :]
    assert long[-len(tail) :] == tail


def test_a_causal_reranker_evaluates_filters_and_is_not_trained(reranker, tiny_model, pairs_file, tmp_path):
    datasets = [{"ref": f"file:{pairs_file}", "name": "pairs"}]
    models = [{"ref": f"file:{reranker}", "family": "cross_encoder", "name": "qwen3"}]
    spec = {"kind": "evaluate", "models": models, "datasets": datasets, "metrics": ["ndcg@10"]}
    result, notices = done({**spec, "rerank": {"depth": 5}}, tmp_path / "evaluated")
    assert "qwen3" in result.metrics["scores"]
    assert any("is asked as Qwen3-Reranker is, with the instruction" in line for line in notices)
    checked = {"model": f"file:{reranker}"}
    mined = {
        "kind": "mine",
        "dataset": f"file:{pairs_file}",
        "model": f"file:{tiny_model}",
        "filters": {"positive_aware": None, "cross_encoder": checked},
    }
    done(mined, tmp_path / "mined")
    trained = {"kind": "train", "family": "cross_encoder", "dataset": f"file:{pairs_file}"}
    refused = run_local({**trained, "base_model": f"file:{reranker}"}, tmp_path / "no", RecordingReporter())
    assert refused.end_reason.code == "bad_model"
    assert "is a causal reranker: it scores pairs as a filter, as a teacher" in refused.end_reason.message


def test_another_language_model_is_no_reranker(context, tmp_path):
    import transformers

    config = transformers.GPT2Config(vocab_size=128, n_embd=32, n_layer=1, n_head=2, n_positions=64)
    folder = today.save_transformer(
        tmp_path / "gpt", transformers.GPT2LMHeadModel(config), today.tokenizer_of()
    )
    with pytest.raises(BadModel, match="of those only Qwen3-Reranker's way to score pairs is known"):
        cross_encoder.load_model(context, f"file:{folder}", "cpu")
