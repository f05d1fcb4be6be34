"""Prepare jobs: what comes in, what comes out, and what is said of the rest."""

import json

import pytest

from benchmarks.prepare import run, write_rows
from core.artifacts.folders import is_whole
from core.data.training_rows.dataset import read_split
from core.errors import InvalidRequest
from core.process.local import run_local
from core.runtime.reporter import RecordingReporter
from core.spec import parse_spec
from tests.data.running import facts, prepare, rows, write


def test_every_record_is_accounted_for(tmp_path):
    source = write(
        tmp_path / "rows.jsonl",
        [
            {
                "query": " what is a river ",
                "positive": "Water that flows.",
                "negatives": ["A rock.", "A rock.", "."],
            },
            {"query": "what is a river", "positive": "Water that flows."},
            {"query": "what is a hill", "positive": "no"},
            {"query": "same", "positive": "same"},
            {
                "query": "what is a sea",
                "positive": ["Salt water.", "Much water."],
                "category": "water",
                "group": 7,
            },
            "not json",
        ],
    )
    result = prepare(
        tmp_path / "out",
        f"file:{source}",
        cleaning={"min_document": 3},
        max_reject_share=0.5,
        licence="CC BY 4.0",
    )
    assert result.state == "succeeded", result.end_reason
    found = facts(tmp_path / "out")
    assert (found["read"], found["kept"], found["unreadable"]) == (7, 3, 1)
    assert found["left_out"] == {"said before": 1, "positive too short": 1, "the positive is the query": 1}
    assert found["read"] == found["kept"] + found["unreadable"] + sum(found["left_out"].values())
    assert found["dropped_negatives"] == 2
    assert found["licence"] == "CC BY 4.0"
    first, *sea = rows(tmp_path / "out")
    assert (first["query"], first["negatives"]) == ("what is a river", ["A rock."])
    assert [(row["positive"], row["category"], row["group"]) for row in sea] == [
        ("Salt water.", "water", "7"),
        ("Much water.", "water", "7"),
    ]
    assert found["statistics"]["categories"] == {"water": 2}
    assert found["statistics"]["characters"]["query"]["longest"] == len("what is a river")
    rejects = (tmp_path / "out" / "dataset" / "rejects.jsonl").read_text().splitlines()
    assert len(rejects) == 4
    assert is_whole(tmp_path / "out" / "dataset")


def test_scores_stay_with_their_negatives(tmp_path):
    row = {"query": "q", "positive": "p", "negatives": ["b", "", "a", "b", "p"], "scores": [9, 2, 1, 2, 9]}
    row["negatives"].remove("")
    source = write(tmp_path / "rows.jsonl", [row])
    assert prepare(tmp_path / "out", f"file:{source}").state == "succeeded"
    [found] = rows(tmp_path / "out")
    assert (found["negatives"], found["scores"]) == (["b", "a"], [9, 2, 1])


def test_columns_of_other_names_and_sources_with_a_category(tmp_path):
    one = write(tmp_path / "one.jsonl", [{"ask": "a?", "text": "A.", "query": "id 7", "page": "p1"}])
    two = tmp_path / "two.csv"
    two.write_text("question,answer\nb?,B.\n")
    result = prepare(
        tmp_path / "out",
        [
            {"ref": f"file:{one}", "columns": {"query": "ask", "positive": "text", "group": "page"}},
            {"ref": f"file:{two}", "category": "second"},
        ],
    )
    assert result.state == "succeeded", result.end_reason
    found = [(row["query"], row["positive"], row["category"], row["group"]) for row in rows(tmp_path / "out")]
    assert found == [("a?", "A.", None, "p1"), ("b?", "B.", "second", None)]


def test_groups_stay_whole_and_the_same_seed_gives_the_same_bytes(tmp_path):
    lines = [{"query": f"q{row}", "positive": f"p{row}", "group": f"g{row % 20}"} for row in range(200)]
    source = write(tmp_path / "rows.jsonl", lines)
    fields = {"split": {"dev": 0.1, "test": 0.2, "by": "group"}}
    for name in ("one", "two"):
        assert prepare(tmp_path / name, f"file:{source}", **fields).state == "succeeded"
    assert facts(tmp_path / "one")["splits"] == {"train": 140, "dev": 20, "test": 40}
    groups = [{row["group"] for row in rows(tmp_path / "one", split)} for split in ("train", "dev", "test")]
    assert sum(len(found) for found in groups) == len(set.union(*groups)) == 20
    for path in (tmp_path / "one" / "dataset").glob("*.parquet"):
        assert path.read_bytes() == (tmp_path / "two" / "dataset" / path.name).read_bytes()


def test_what_cannot_be_split_says_why(tmp_path):
    lines = [{"query": f"q{row}", "positive": "the same for all", "group": "g"} for row in range(10)]
    source = write(tmp_path / "rows.jsonl", lines)
    result = prepare(tmp_path / "out", f"file:{source}", split={"test": 0.2})
    assert result.end_reason.code == "bad_data"
    assert "up to 10 rows" in result.end_reason.message
    result = prepare(tmp_path / "none", f"file:{source}", split={"test": 0.2, "by": "category"})
    assert "a row has no category" in result.end_reason.message


def test_too_many_bad_rows_fail_with_file_and_line(tmp_path):
    source = write(
        tmp_path / "rows.jsonl", [{"query": "q", "positive": "p"}, "{", {"query": "r", "positive": "s"}]
    )
    result = prepare(tmp_path / "out", f"file:{source}")
    assert result.end_reason.code == "bad_data"
    assert "rows.jsonl, line 2" in result.end_reason.message
    assert not (tmp_path / "out" / "dataset").exists()


def test_a_prepared_dataset_trains_and_evaluates(tmp_path, tiny_model, pairs_file):
    made = prepare(tmp_path / "data", f"file:{pairs_file}", split={"test": 0.25}, licence="CC BY-NC 4.0")
    assert made.state == "succeeded", made.end_reason
    folder = tmp_path / "data" / "dataset"
    result = run_local(
        {
            "kind": "train",
            "base_model": f"file:{tiny_model}",
            "dataset": f"file:{folder}",
            "batch_size": 8,
            "evaluation": {"datasets": [f"file:{folder}"], "metrics": ["ndcg@10"]},
        },
        tmp_path / "model",
        RecordingReporter(),
    )
    assert result.state == "succeeded", result.end_reason
    assert result.metrics["finetuned"]["dataset"]["ndcg@10"] > 0
    report = json.loads((tmp_path / "model" / "report" / "report.json").read_text())
    assert report["rows"] == facts(tmp_path / "data")["splits"]["train"]
    # The licence goes wherever the data go.
    manifest = json.loads((tmp_path / "model" / "model" / "manifest.json").read_text())
    assert manifest["metadata"]["licences"] == ["CC BY-NC 4.0"]
    assert "CC BY-NC 4.0" in (tmp_path / "model" / "model" / "README.md").read_text()


@pytest.mark.parametrize(
    ("change", "path"),
    [
        ({"split": {"dev": 0.5, "test": 0.5}}, "split"),
        ({"source": []}, "source"),
        ({"source": {"ref": "file:x", "columns": {"qurey": "a"}}}, "source.columns"),
        ({"cleaning": {"min_query": 9, "max_query": 3}}, "cleaning"),
        ({"task": "magic"}, "task"),
        ({"kind": "prepair"}, "kind"),
    ],
)
def test_a_fault_is_named_by_its_path(change, path):
    with pytest.raises(InvalidRequest) as caught:
        parse_spec({"kind": "prepare", "source": "file:x", **change})
    assert any(problem.path.startswith(path) for problem in caught.value.problems), caught.value.problems


def test_memory_hardly_grows_with_the_rows(tmp_path):
    """A smaller version of benchmarks/prepare.py: the texts of 50,000 rows more are 20 MB, as objects 60."""
    peaks = []
    for count in (10_000, 60_000):
        source = tmp_path / f"{count}.jsonl"
        write_rows(source, count)
        spec = {"kind": "prepare", "source": f"file:{source}", "split": {"test": 0.02}}
        peaks.append(run(spec, tmp_path / "out", source.stat().st_size)["peak_rss_bytes"])
    assert peaks[1] - peaks[0] < 40e6, peaks


def test_a_sample_is_drawn_whatever_the_order_and_keeps_the_shares(tmp_path):
    rows = [{"query": f"what is {number}", "positive": f"it is {number}"} for number in range(400)]
    found = []
    for order in (rows, rows[::-1]):
        path = tmp_path / f"{len(found)}.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in order))
        out = tmp_path / f"out-{len(found)}"
        result = run_local(
            {
                "kind": "prepare",
                "source": f"file:{path}",
                "task": "columns",
                "sample": 100,
                "split": {"test": 0.25},
                "dedup": {"near": None},
            },
            out,
            RecordingReporter(),
        )
        assert result.state == "succeeded", result.end_reason
        page = json.loads((out / "dataset" / "dataset.json").read_text())
        assert page["left_out"] == {"not in the sample": 300}
        assert sum(page["splits"].values()) == 100
        assert 12 <= page["splits"]["test"] <= 40
        found.append(
            {split: {row.query for row in read_split(out / "dataset", split)} for split in ("train", "test")}
        )
    assert found[0] == found[1]


@pytest.mark.parametrize(("groups", "kept"), [(20, True), (1, False)])
def test_split_by_auto_keeps_groups_together_where_that_leaves_enough(tmp_path, groups, kept):
    rows = [
        {"query": f"what is {number}", "positive": f"it is {number}", "group": f"g{number % groups}"}
        for number in range(200)
    ]
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    reporter = RecordingReporter()
    spec = {
        "kind": "prepare",
        "source": f"file:{path}",
        "task": "columns",
        "split": {"test": 0.2, "by": "auto"},
        "dedup": {"near": None},
    }
    result = run_local(spec, tmp_path / "out", reporter)
    assert result.state == "succeeded", result.end_reason
    parts = {
        split: {row.group for row in read_split(tmp_path / "out" / "dataset", split)}
        for split in ("train", "test")
    }
    assert bool(parts["train"] & parts["test"]) is not kept
    told = [event.data.message for event in reporter.events if event.type == "notice"]
    assert any("split by text and not by group" in message for message in told) is not kept
