"""The page of an evaluation's queries: filters, order, and reports of older versions."""

import json

import pytest

from tests.outputs import with_output

SPEC = {"kind": "evaluate", "models": ["o/m"], "datasets": ["file:/d"]}


def line(number: int, dataset: str = "test", **fields) -> dict:
    values = {"new": {"ndcg@10": number / 10, "mrr@10": 0.5}, "base": {"ndcg@10": 0.5, "mrr@10": 0.5}}
    document = {"id": f"d{number}", "text": f"text {number}", "grade": None, "score": 1.0}
    line = {"dataset": dataset, "query_id": f"q{number}", "query": f"what is {number} <b>", "values": values}
    first = {"new": document, "base": None}
    return {**line, "first": first, "category": "even" if number % 2 == 0 else "odd", **fields}


@pytest.fixture
def page(http, settings):
    """Makes a report of these lines, and returns a function that fetches its page."""

    def publish(lines: list[dict]):
        folder = settings.data_dir / "report"
        folder.mkdir(parents=True)
        report = {
            "leading": "ndcg@10",
            "models": {"new": {}, "base": {}},
            "datasets": {"test": {}, "other": {}},
            "scores": {"new": {"test": {"ndcg@10": 0.5, "mrr@10": 0.5}}},
        }
        (folder / "report.json").write_text(json.dumps(report))
        (folder / "queries.jsonl").write_text("".join(json.dumps(one) + "\n" for one in lines))
        job = with_output(http.app.state.store, settings, SPEC, folder, "report", {"name": "mine"})
        [artifact] = http.get(f"/jobs/{job}/artifacts").json()["items"]
        assert "Every query, won and lost" in http.get(f"/ui/artifacts/{artifact['id']}").text
        return lambda **asked: http.get(f"/ui/artifacts/{artifact['id']}/queries", params=asked)

    return publish


def order(text: str, numbers: range) -> list[int]:
    found = {number: text.find(f"what is {number} ") for number in numbers}
    return sorted((number for number, place in found.items() if place >= 0), key=found.__getitem__)


def test_what_was_lost_most_comes_first_and_filters_narrow(page):
    shown = page([line(number) for number in range(11)])
    text = shown().text
    assert order(text, range(11)) == list(range(11))
    assert "<b>" not in text.split("what is 1 ")[1][:10]
    assert order(shown(show="won").text, range(11)) == [10, 9, 8, 7, 6]
    assert order(shown(show="lost", category="odd").text, range(11)) == [1, 3]
    assert order(shown(search="Q7").text, range(11)) == [7]
    assert order(shown(dataset="other").text, range(11)) == []
    assert "11 queries" in shown(metric="mrr@10").text
    assert order(shown(model="base", baseline="new", show="won").text, range(11)) == [0, 1, 2, 3, 4]
    assert shown(search="nothing like this").status_code == 200


def test_many_queries_come_in_pages(page):
    shown = page([line(number) for number in range(120)])
    assert order(shown().text, range(120)) == list(range(50))
    assert order(shown(page=3).text, range(120)) == list(range(100, 120))
    assert "More queries" in shown(page=2).text
    assert "More queries" not in shown(page=3).text


def test_reports_of_older_versions_have_no_first_documents(page):
    old = [{name: value for name, value in line(1).items() if name not in ("first", "category")}]
    answer = page(old)()
    assert answer.status_code == 200
    assert "not stored" in answer.text


def test_what_is_no_report_has_no_such_page(http, settings):
    folder = settings.data_dir / "model"
    folder.mkdir(parents=True)
    (folder / "x").write_text("x")
    job = with_output(http.app.state.store, settings, SPEC, folder, "report", {})
    [artifact] = http.get(f"/jobs/{job}/artifacts").json()["items"]
    assert http.get(f"/ui/artifacts/{artifact['id']}/queries").status_code == 404
