"""What a saved model cuts off is what its base cut off, whatever lengths it was trained with."""

import json

import pytest
from transformers import AutoTokenizer

from core.process.local import run_local
from core.runtime.reporter import RecordingReporter
from tests.tiny import make_colbert, make_cross_encoder, make_model


@pytest.fixture(scope="module")
def bases(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bases")
    dense = make_model(folder / "dense")
    return {
        "dense": dense,
        "late_interaction": make_colbert(folder / "colbert", dense),
        "cross_encoder": make_cross_encoder(folder / "scorer", dense),
    }


def trained(base, family, pairs_file, out, **fields):
    spec = {
        "kind": "train",
        "family": family,
        "base_model": f"file:{base}",
        "dataset": f"file:{pairs_file}",
        "batch_size": 8,
        "max_steps": 1,
        **fields,
    }
    reporter = RecordingReporter()
    result = run_local(spec, out, reporter)
    assert result.state == "succeeded", result.end_reason
    return out / "model", [event.data.message for event in reporter.events if event.type == "notice"]


def lengths_of(folder, family):
    if family == "cross_encoder":
        return AutoTokenizer.from_pretrained(folder).model_max_length
    if family == "dense":
        return json.loads((folder / "sentence_bert_config.json").read_text())["max_seq_length"]
    settings = json.loads((folder / "config_sentence_transformers.json").read_text())
    return settings["query_length"], settings["document_length"]


@pytest.mark.parametrize(
    ("family", "base", "short"),
    [("dense", 64, 16), ("late_interaction", (16, 48), (16, 16)), ("cross_encoder", 64, 16)],
)
def test_the_bases_lengths_stay_unless_asked(bases, pairs_file, tmp_path, family, base, short):
    assert lengths_of(bases[family], family) == base
    folder, notices = trained(bases[family], family, pairs_file, tmp_path / "kept")
    assert lengths_of(folder, family) == base
    assert any("The saved model reads more than it is trained on, as its base" in line for line in notices)
    card = (folder / "README.md").read_text()
    expected = {"dense": (8, 16), "late_interaction": (16, 16), "cross_encoder": (8, 8)}[family]
    told = "{} tokens a query, {} tokens a document".format(*expected)
    assert f"| trained on texts up to | {told} |" in card
    asked = {"lengths": {"saved": "trained"}}
    folder, notices = trained(bases[family], family, pairs_file, tmp_path / "cut", **asked)
    assert lengths_of(folder, family) == short
    assert not any("The saved model reads more" in line for line in notices)
    assert any("The saved model reads" in line and "; its base reads" in line for line in notices)


@pytest.mark.parametrize("family", ["dense", "late_interaction", "cross_encoder"])
@pytest.mark.parametrize("lengths", [{"saved": "trained"}, {"document": 60}])
def test_the_baseline_is_the_base_in_its_own_lengths(bases, tmp_path, family, lengths):
    text = "the document of winter "
    rows = [{"query": f"what is {n}", "positive": text * (n % 7) + f"{n}"} for n in range(40)]
    pairs = tmp_path / "pairs.jsonl"
    pairs.write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = {"datasets": [{"ref": f"file:{pairs}", "name": "pairs"}], "metrics": ["ndcg@10"]}
    out, base = tmp_path / "out", f"file:{bases[family]}"
    trained(bases[family], family, pairs, out, lengths=lengths, evaluation=data)
    told = json.loads((out / "report" / "report.json").read_text())["baseline"]["pairs"]
    asked = {"ref": base, "name": "base", "family": family}
    spec = {"kind": "evaluate", "models": [asked], **data}
    alone = run_local(spec, tmp_path / "alone", RecordingReporter())
    assert told == pytest.approx(alone.metrics["scores"]["base"]["pairs"], abs=1e-6)


def test_longer_training_lengths_are_kept(bases, pairs_file, tmp_path):
    asked = {"lengths": {"query": 24, "document": 96}}
    folder, _ = trained(bases["late_interaction"], "late_interaction", pairs_file, tmp_path / "out", **asked)
    assert lengths_of(folder, "late_interaction") == (24, 96)


def test_an_encoder_becomes_late_interaction_with_its_own_length(bases, pairs_file, tmp_path):
    folder, _ = trained(bases["dense"], "late_interaction", pairs_file, tmp_path / "out")
    query, document = lengths_of(folder, "late_interaction")
    assert (query, document) == (8, 64)  # masks fill a query up to what was trained


def test_what_is_evaluated_is_what_is_saved(bases, tmp_path):
    """The word that tells documents apart stands behind the training length; the saved model reads it."""
    words = [f"{a}{b}" for a in "0123456789" for b in "0123456789"][:40]
    filler = " ".join(["the document of"] * 8)
    rows = [{"query": word, "positive": f"{filler} {word}"} for word in words]
    pairs = tmp_path / "pairs.jsonl"
    pairs.write_text("".join(json.dumps(row) + "\n" for row in rows))
    asked = {
        "lengths": {"document": 16},
        "evaluation": {"datasets": [{"ref": f"file:{pairs}", "name": "pairs"}], "metrics": ["ndcg@10"]},
    }
    scores = {}
    for saved in ("base", "trained"):
        asked["lengths"]["saved"] = saved
        out = tmp_path / saved
        folder, _ = trained(bases["late_interaction"], "late_interaction", pairs, out, **asked)
        scores[saved] = json.loads((out / "report" / "report.json").read_text())["finetuned"]["pairs"]
        spec = {
            "kind": "evaluate",
            "models": [{"ref": f"file:{folder}", "name": "base-model"}],
            "datasets": asked["evaluation"]["datasets"],
            "metrics": ["ndcg@10"],
        }
        again = run_local(spec, tmp_path / f"again-{saved}", RecordingReporter())
        assert again.metrics["scores"]["base-model"]["pairs"] == pytest.approx(scores[saved], abs=1e-6)
    assert scores["base"]["ndcg@10"] > scores["trained"]["ndcg@10"] + 0.05
