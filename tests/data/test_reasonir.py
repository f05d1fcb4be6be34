"""ReasonIR's rows with BRIGHT's documents: what is kept, mapped and refused, counted exactly."""

import json

import pytest

from core.data.training_rows.reasonir import looks_like_an_id
from core.errors import InvalidRequest
from core.spec import parse_spec
from tests.data.reasonir_mini import INSTRUCTION, write_bright, write_reasonir
from tests.data.running import facts, prepare, rows


@pytest.fixture
def made(tmp_path):
    reasonir, bright = write_reasonir(tmp_path / "reasonir"), write_bright(tmp_path / "BRIGHT")
    result = prepare(
        tmp_path / "out",
        {"ref": f"file:{reasonir / 'hq.jsonl'}", "corpus": f"file:{bright}"},
        task="reasonir_hq",
        max_reject_share=0.9,
    )
    assert result.state == "succeeded", result.end_reason
    return tmp_path / "out"


def test_hq_counts(made):
    found = facts(made)
    assert found["kept"] == 5
    assert found["unreadable"] == 6
    assert found["pairs"] == {
        "ids with several texts": 1,
        "negative: an empty text": 1,
        "negative: a NoneType where a pair is needed": 1,
        "negative: a str where a pair is needed": 1,
        "negative: is a positive": 1,
        "negative: mapped from an id": 2,
        "negative: not two texts": 1,
        "negative: text kept": 5,
        "positive: an id of an empty document": 1,
        "positive: an id of no document": 1,
        "positive: an id of several documents": 1,
        "positive: mapped from an id": 5,
        "positive: not exactly two elements": 2,
    }
    reasons = [json.loads(line) for line in (made / "dataset" / "rejects.jsonl").read_text().splitlines()]
    assert [(line["line"], line["reason"]) for line in reasons] == [
        (3, "no positive is left"),
        (4, "no positive is left"),
        (7, "no positive is left"),
        (8, "the query is empty"),
        (9, "a query is a text or [instruction, text], not \"{'text': 'x'}\""),
        (10, "no positive is left"),
    ]
    assert "noncommercial" in found["licence"].lower() or "NC" in found["licence"]


def test_hq_rows_are_text_alone(made):
    first, money, odd, cells, spot = rows(made)
    assert first["query"] == f"{INSTRUCTION} How do insects form an image?"
    assert first["instruction"] == INSTRUCTION
    assert first["positive"] == "Flies see with compound eyes of many small lenses."
    assert first["positive_id"] == "fly_eyes/compound_0.txt"
    assert first["negatives"] == ["Camera lenses are ground from glass."]
    assert money["query"] == "Why does printing money hurt?"
    assert (money["positive"], odd["positive"]) == (
        "Prices rise when money is printed faster than goods are made.",
        "The sum of the first n odd numbers is n squared.",
    )
    # The negative that names a document is its text; the one that is a positive is gone.
    assert money["negatives"] == odd["negatives"] == ["Each lens of a compound eye sees one spot."]
    assert money["negative_ids"] == ["fly_eyes/compound_1.txt"]
    assert (cells["positive"], cells["category"]) == ("In biology this page is about cells.", "biology")
    assert spot["negatives"] == ["A negative that can be used."]


def test_the_user_is_warned(tmp_path):
    from core.process.local import run_local
    from core.runtime.reporter import RecordingReporter

    bright, reasonir = write_bright(tmp_path / "b"), write_reasonir(tmp_path / "r")
    reporter = RecordingReporter()
    spec = {
        "kind": "prepare",
        "task": "reasonir_hq",
        "source": {"ref": f"file:{reasonir / 'hq.jsonl'}", "corpus": f"file:{bright}"},
        "max_reject_share": 1,
    }
    assert run_local(spec, tmp_path / "out", reporter).state == "succeeded"
    said = " ".join(event.data.message for event in reporter.events if event.type == "notice")
    assert "noncommercial" in said
    assert "BRIGHT's corpus" in said
    assert "an id of no document 1" in said


def test_vl_has_its_texts_inside(tmp_path):
    reasonir = write_reasonir(tmp_path / "reasonir")
    result = prepare(tmp_path / "out", f"file:{reasonir / 'vl.jsonl'}", max_reject_share=0.5)
    assert result.state == "succeeded", result.end_reason
    rainbow, bees = rows(tmp_path / "out")
    assert rainbow["query"] == "Explain how rainbows come to be."
    assert rainbow["instruction"] is None
    assert bees["query"] == "Find a passage. How do bees dance?"
    assert bees["positive"].startswith("Represent the passage. Bees dance")
    assert facts(tmp_path / "out")["pairs"] == {
        "negative: text kept": 3,
        "positive: a label of one word": 1,
        "positive: text kept": 2,
    }


@pytest.mark.parametrize("text", ["a/b_3.txt", "12345", "page_7", "notes.txt"])
def test_what_looks_like_an_id(text):
    assert looks_like_an_id(text)
    assert not looks_like_an_id(f"the page {text}")


def test_bright_as_a_retrieval_set(tmp_path):
    bright = write_bright(tmp_path / "BRIGHT")
    result = prepare(tmp_path / "out", f"file:{bright}", task="retrieval")
    assert result.state == "succeeded", result.end_reason
    found = facts(tmp_path / "out")
    assert (found["type"], found["documents"], found["queries"], found["splits"]) == (
        "retrieval",
        8,
        3,
        {"test": 4},
    )

    from core.data.sources.retrieval import read_retrieval

    dataset = read_retrieval(tmp_path / "out" / "dataset")
    # Ids that two domains share are two documents.
    assert dataset.corpus["biology/shared/clash_0.txt"] != dataset.corpus["economics/shared/clash_0.txt"]
    assert dataset.qrels["biology/0"] == {
        "biology/fly_eyes/compound_0.txt": 1,
        "biology/fly_eyes/compound_1.txt": 1,
    }
    assert dataset.excluded == {"economics/0": {"economics/shared/clash_0.txt"}}
    assert dataset.categories["theoremqa_questions/7"] == "theoremqa_questions"
    # Read as it lies it is the same.
    direct = read_retrieval(bright)
    assert (direct.corpus, direct.qrels, direct.excluded) == (dataset.corpus, dataset.qrels, dataset.excluded)


def test_brights_long_documents_and_one_domain(tmp_path):
    bright = write_bright(tmp_path / "BRIGHT")
    source = {"ref": f"file:{bright}", "format": "bright_long", "split": "economics"}
    assert prepare(tmp_path / "long", source, task="retrieval").state == "succeeded"
    from core.data.sources.retrieval import read_retrieval

    dataset = read_retrieval(tmp_path / "long" / "dataset")
    assert dataset.qrels == {"0": {"whole_page": 1}}
    result = prepare(tmp_path / "no", {"ref": f"file:{bright}", "split": "magic"}, task="retrieval")
    assert "no domain 'magic'; it has" in result.end_reason.message


def test_reasonir_means_brights_documents_unless_said(tmp_path):
    spec = parse_spec({"kind": "prepare", "task": "reasonir_hq", "source": "hf:reasonir/reasonir-data:hq"})
    assert spec.references() == {
        "source.ref": "hf:reasonir/reasonir-data:hq",
        "source.corpus": "hf:xlangai/BRIGHT:documents",
    }
    with pytest.raises(InvalidRequest, match="source"):
        parse_spec({"kind": "prepare", "task": "reasonir_hq"})


def test_the_command_and_what_it_makes_trains(tmp_path, tiny_model, monkeypatch, capsys):
    from core.cli import prepare as prepare_cli
    from core.cli import train as train_cli

    monkeypatch.chdir(tmp_path)
    reasonir, bright = write_reasonir(tmp_path / "reasonir"), write_bright(tmp_path / "BRIGHT")
    arguments = ["--reasonir", str(reasonir / "hq.jsonl"), "--bright", str(bright)]
    assert prepare_cli.main([*arguments, "--max_reject_share", "0.05"]) == 1  # strict
    capsys.readouterr()
    assert prepare_cli.main([*arguments, "--overwrite"]) == 0  # by default they are skipped, and told
    made = facts(tmp_path / "data" / "prepared_reasonir_hq")
    lines = (reasonir / "hq.jsonl").read_text().splitlines()
    assert (made["kept"], made["lines"]) == (5, len(lines))
    share = f"{made['unreadable']} of {len(lines)} lines ({made['unreadable'] / len(lines):.1%})"
    assert share in capsys.readouterr().err
    trained = ["--base_model", str(tiny_model), "--batch_size", "2", "--cpu", "--output_dir", "out"]
    assert train_cli.main(trained) == 0
    assert (tmp_path / "out" / "final" / "model.safetensors").exists()
