"""Documents lose tokens before the model reads them, and vectors after it."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer

from core.data.training_rows.table import SCHEMA
from core.engine.token_table import TokenTable, tokens_of_table
from core.families.cutting import make_cut
from core.jobs.events import EventType
from core.spec.parts.training import Lengths, PruneTokens
from core.spec.train import Prompts
from core.training.pruning import prune_documents
from tests.tiny import WORDS
from tests.training.running import of, run

LONG = " ".join(WORDS) + " the the the the"


@pytest.fixture
def model(tiny_model) -> SentenceTransformer:
    return SentenceTransformer(str(tiny_model), device="cpu")


@pytest.fixture
def table(model, tmp_path) -> TokenTable:
    import pyarrow as pa

    lines = [
        {"query": LONG, "positive": LONG, "negatives": ["the river", "the garden the"]},
        {"query": "what", "positive": "the " + " ".join(WORDS[:20]), "negatives": [LONG]},
    ]
    lines = [{"scores": [], **line} for line in lines]
    folder, _ = tokens_of_table(
        pa.Table.from_pylist(lines, schema=SCHEMA),
        "x",
        model.tokenizer,
        Prompts(),
        context=512,
        cache=tmp_path,
    )
    return TokenTable(folder)


def pruned(table, model, tmp_path, **asked) -> TokenTable:
    found = prune_documents(
        table, PruneTokens(min_tokens=4, **asked), model, "here", tmp_path / "cache", lambda: None
    )
    again = TokenTable(found.folder)
    assert found.before == table.counts()["document"].sum()
    assert found.after == again.counts()["document"].sum() < found.before
    assert len(again) == len(table)
    assert again.keys() == table.keys()
    return again


def is_part(some, whole) -> bool:
    """In the same order."""
    rest = iter(list(whole))
    return all(token in rest for token in list(some))


@pytest.mark.parametrize("strategy", ["length", "random", "attention", "threshold", "combined"])
def test_documents_are_shorter_and_in_order_and_queries_whole(table, model, tmp_path, strategy):
    found = pruned(table, model, tmp_path, strategy=strategy, keep_ratio=0.5)
    for index in range(len(table)):
        before, after = table.row(index), found.row(index)
        assert list(before.query) == list(after.query)
        for long, short in zip(before.documents, after.documents, strict=True):
            assert is_part(short, long)
            assert len(short) >= min(4, len(long))
            if strategy != "threshold":
                assert len(short) == min(len(long), max(4, round(0.5 * len(long))))
    same = pruned(table, model, tmp_path / "again", strategy=strategy, keep_ratio=0.5)
    assert list(same.row(0).documents[0]) == list(found.row(0).documents[0])


def test_what_stands_everywhere_goes_first(table, model, tmp_path):
    found = pruned(table, model, tmp_path, strategy="threshold", keep_ratio=0.6)
    [the] = model.tokenizer("the", add_special_tokens=False)["input_ids"]
    assert the in list(table.row(0).documents[0])
    assert the not in list(found.row(0).documents[0])
    assert the not in list(found.row(1).documents[0])


def test_attention_is_that_of_the_model(table, model, tmp_path):
    """By hand, for one document alone."""
    ids = list(table.row(0).documents[0])
    transformer = model[0].auto_model.eval()
    transformer.set_attn_implementation("eager")
    framed = torch.tensor([[2, *ids, 3]])
    last = transformer(framed, output_attentions=True).attentions[-1][0]
    received = last.mean(0).sum(0)[1:-1].detach().numpy()
    keep = np.sort(np.argsort(-received, kind="stable")[: round(0.5 * len(ids))])
    transformer.set_attn_implementation("sdpa")
    found = pruned(table, model, tmp_path, strategy="attention", keep_ratio=0.5)
    assert list(found.row(0).documents[0]) == [ids[place] for place in keep]
    assert transformer.config._attn_implementation == "sdpa"


def test_a_job_reads_so_much_less(tiny_model, tmp_path):
    path = tmp_path / "long.jsonl"
    lines = [{"query": word, "positive": f"{word} " + " ".join(WORDS)} for word in WORDS]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    spec = {
        "kind": "train",
        "base_model": f"file:{tiny_model}",
        "dataset": f"file:{path}",
        "batch_size": 8,
    }
    tokens = {}
    for name, change in (("whole", {}), ("half", {"prune_tokens": {"keep_ratio": 0.5, "min_tokens": 4}})):
        result, events = run(spec | change, tmp_path / name)
        assert result.state == "succeeded", result.end_reason
        tokens[name] = json.loads((tmp_path / name / "report" / "report.json").read_text())
    assert tokens["half"]["tokens"] < 0.65 * tokens["whole"]["tokens"]
    before, after = tokens["half"]["pruned_tokens"]
    assert after == pytest.approx(before / 2, rel=0.05)
    assert any("tokens left" in data["message"] for data in of(events, EventType.NOTICE))
    assert "tokens were read" in (tmp_path / "half" / "report" / "report.md").read_text()


@pytest.mark.parametrize("strategy", ["hierarchical", "attention"])
def test_pooled_models_train_save_and_tell_the_cost(bases, word_rows, tmp_path, strategy):
    ColBERT = pytest.importorskip("pylate.models").ColBERT  # noqa: N806

    spec = {
        "kind": "train",
        "family": "late_interaction",
        "base_model": f"file:{bases['lively']['late_interaction']}",
        "dataset": f"file:{word_rows}",
        "batch_size": 6,
        "epochs": 2,
        "prune_embeddings": {"strategy": strategy, "keep_ratio": 0.5, "protected_tokens": 0},
        "evaluation": {"datasets": [{"ref": f"file:{word_rows}", "name": "rows"}], "metrics": ["ndcg@10"]},
    }
    result, _ = run(spec, tmp_path / "out")
    assert result.state == "succeeded", result.end_reason
    report = json.loads((tmp_path / "out" / "report" / "report.json").read_text())
    vectors = report["vectors_per_document"]
    assert vectors["mean"] == pytest.approx(vectors["unpruned"] / 2, rel=0.1)
    assert set(report["unpruned"]["rows"]) == {"ndcg@10"}
    assert "unpruned" in (tmp_path / "out" / "report" / "report.md").read_text()
    ColBERT(str(tmp_path / "out" / "model"), device="cpu").encode(["a text"], is_query=False, pool_factor=2)


def test_documents_are_cut_where_a_sentence_ends(model):
    tokenizer = model.tokenizer
    tokenizer.add_tokens(["!"])
    ids = tokenizer("river garden ! winter bridge copper signal", add_special_tokens=False)["input_ids"]
    [mark] = tokenizer("!", add_special_tokens=False)["input_ids"]
    end = ids.index(mark) + 1
    cut, plain = (make_cut(tokenizer, Lengths(cut=how)) for how in ("sections", "tokens"))
    assert list(cut(ids, end + 1)) == ids[:end]
    assert list(cut(ids, 2 * end + 1)) == ids[: 2 * end + 1]  # too little would be left
    assert list(cut(ids, len(ids))) == ids
    assert list(plain(ids, end + 1)) == ids  # whoever frames it cuts it


@pytest.mark.parametrize(
    ("pieces", "kept"),
    [
        # Byte-level: white space is known.
        (["self", ".", "first", "Ġthen"], 3),
        (["self", ".", "Ġthen", "first"], 2),
        (["self", "Ċ", "first", "Ġthen"], 2),
        # WordPiece: it is not, but a number is a number.
        (["3", ".", "14", "next"], 3),
        (["done", ".", "next", "word"], 2),
        (["好", "。", "天", "气"], 2),
    ],
)
def test_a_point_is_not_always_an_end(pieces, kept):
    class Words:
        truncation_side = "right"

        def get_vocab(self):
            return {piece: number for number, piece in enumerate(pieces)}

    cut = make_cut(Words(), Lengths(cut="sections"))  # type: ignore[arg-type]
    assert list(cut(range(4), 3)) == list(range(kept))


def test_the_recipe_of_reason_moderncolbert_runs_in_miniature(tmp_path):
    """Its file as it is, but for what only a GPU can hold: ReasonIR, BRIGHT, ModernBERT."""
    from core.spec.files import read_spec
    from tests.data.reasonir_mini import write_bright, write_reasonir
    from tests.tiny import make_model, make_modernbert

    configs = Path(__file__).parents[2] / "configs"
    reasonir, bright = write_reasonir(tmp_path / "reasonir"), write_bright(tmp_path / "BRIGHT")
    prepare = read_spec(configs / "prepare_reasonir_hq.yaml")
    prepare["source"] = {"ref": f"file:{reasonir / 'hq.jsonl'}", "corpus": f"file:{bright}"}
    prepare["max_reject_share"] = 0.9
    result, _ = run(prepare, tmp_path / "prepared")
    assert result.state == "succeeded", result.end_reason
    base = make_modernbert(tmp_path / "modernbert", make_model(tmp_path / "words"))
    spec = read_spec(configs / "reason_moderncolbert.yaml")
    spec |= {
        "base_model": f"file:{base}",
        "dataset": f"file:{tmp_path / 'prepared' / 'dataset'}",
        "lengths": {"query": 32, "document": 96},
        "batch_size": 2,
        "micro_batch_tokens": 256,
        "resources": {"gpus": 0},
        "evaluation": {
            "datasets": [{"ref": f"file:{bright}", "split": "biology", "name": "biology"}],
            "metrics": ["ndcg@10"],
        },
    }
    result, _ = run(spec, tmp_path / "out")
    assert result.state == "succeeded", result.end_reason
    assert 0 <= result.metrics["finetuned"]["biology"]["ndcg@10"] <= 1
    ColBERT = pytest.importorskip("pylate.models").ColBERT  # noqa: N806

    again = ColBERT(str(tmp_path / "out" / "model"), device="cpu")
    assert (again.query_length, again.document_length, again.skiplist_words) == (32, 96, [])
