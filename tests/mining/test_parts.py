"""A corpus among several jobs: what the last one makes is what one job would have made."""

import json

import pytest

from core.process.local import run_local
from core.retrieval import encode as encode_room
from core.runtime.reporter import RecordingReporter
from core.spec import parse_spec
from tests.mining.running import FREE, made, mine, page


@pytest.fixture(autouse=True)
def small_shards(monkeypatch):
    monkeypatch.setattr(encode_room, "SHARD", 4)
    monkeypatch.setattr("core.mining.finders.dense.SHARD", 4)


@pytest.mark.parametrize("of", [2, 3, 10])
@pytest.mark.parametrize("own_corpus", [False, True])
def test_parts_make_what_one_job_makes(rows_file, tiny_model, tmp_path, of, own_corpus):
    fields = {"filters": {"range_max": 9}}
    if own_corpus:
        texts = [{"_id": f"c{number}", "text": f"the {number} of violin and river"} for number in range(9)]
        corpus = tmp_path / "corpus.jsonl"
        corpus.write_text("".join(json.dumps(text) + "\n" for text in texts))
        fields["corpus"] = f"file:{corpus}"
    dataset, model = f"file:{rows_file}", f"file:{tiny_model}"
    whole = mine(tmp_path / "whole", dataset, model, **fields)
    assert whole.state == "succeeded", whole.end_reason
    parts = []
    for number in range(1, of + 1):
        out = tmp_path / f"part-{number}"
        result = mine(out, dataset, model, **fields, part={"number": number, "of": of})
        assert result.state == "succeeded", result.end_reason
        assert set(result.outputs) == {"candidates"}
        parts.append(f"file:{out / 'candidates'}")
    # In any order.
    result = mine(tmp_path / "all", dataset, model, **fields, candidates=[*parts[1:], parts[0]])
    assert result.state == "succeeded", result.end_reason
    assert made(tmp_path / "all") == made(tmp_path / "whole")
    one, many = page(tmp_path / "whole"), page(tmp_path / "all")
    assert many["mining"].pop("parts") == of
    assert one["mining"] == many["mining"]
    for missing in (parts[1:], [*parts, parts[0]]):
        result = mine(tmp_path / "short", dataset, model, **fields, candidates=missing)
        assert result.end_reason.code == "bad_data"
        assert "all are needed" in result.end_reason.message


def test_what_was_searched_otherwise_is_not_brought_together(rows_file, tiny_model, tmp_path):
    dataset, model = f"file:{rows_file}", f"file:{tiny_model}"
    for number, filters in ((1, FREE), (2, {**FREE, "range_max": 5})):
        part = {"number": number, "of": 2}
        mine(tmp_path / f"{number}", dataset, model, filters=filters, part=part)
    candidates = [f"file:{tmp_path / str(number) / 'candidates'}" for number in (1, 2)]
    result = mine(tmp_path / "out", dataset, model, filters=FREE, candidates=candidates)
    assert result.end_reason.code == "bad_data"
    assert "part 2 has searched other data" in result.end_reason.message
    result = mine(tmp_path / "out", dataset, model, candidates=[dataset])
    assert result.end_reason.code == "bad_data"
    assert "not what a part of a mine job makes" in result.end_reason.message


def test_without_a_service_parts_are_one_job(rows_file, tiny_model, tmp_path):
    fields = {"kind": "mine", "dataset": f"file:{rows_file}", "model": f"file:{tiny_model}"}
    for parts in (1, 3):
        result = run_local({**fields, "parts": parts}, tmp_path / str(parts), RecordingReporter())
        assert result.state == "succeeded", result.end_reason
    assert made(tmp_path / "1") == made(tmp_path / "3")


def test_how_a_job_is_divided():
    spec = parse_spec({"kind": "mine", "dataset": "file:x", "parts": 2, "labels": {"a": "b"}, "priority": 3})
    last, parts = spec.divided("job_last", ["job_1", "job_2"])
    assert last.candidates == ["job:job_1/candidates", "job:job_2/candidates"]
    assert list(last.references()) == ["dataset.ref", "model", "candidates.0", "candidates.1"]
    assert [part.part.number for part in parts.values()] == [1, 2]
    for part in parts.values():
        again = parse_spec(part.model_dump(mode="json"))
        assert again.labels == {"a": "b", "part_of": "job_last"}
        assert again.priority == 3
    assert parse_spec(last.model_dump(mode="json")) == last
