"""Public benchmarks by name: fetched once, written as folders that the readers know. The hub is a stand-in
with the columns and splits that its repositories have."""

import sys
from types import SimpleNamespace

import datasets
import pytest

from core.data.fetching.hub import fetch_dataset
from core.data.sources.retrieval import read_retrieval
from core.errors import BadData, BadSpec, InvalidRequest
from core.spec import parse_spec
from core.spec.parts.refs import parse_ref

CORPUS = [{"_id": "d1", "title": "One", "text": "first"}, {"_id": "d2", "title": "", "text": "second"}]
QUERIES = [{"_id": "q1", "text": "which"}, {"_id": "q2", "text": "what"}]
QRELS = [{"query-id": "q1", "corpus-id": "d2", "score": 2}, {"query-id": "q2", "corpus-id": "d1", "score": 1}]


@pytest.fixture
def hub(monkeypatch):
    """(repository, configuration) -> splits; what is asked for is written down."""
    known, asked = {}, []

    def load(repository, config=None, **options):
        asked.append((repository, config, options.get("revision")))
        if config == "default" and (repository, "qrels") in known:
            raise ValueError("BuilderConfig 'default' not found")
        if (repository, config) not in known:
            raise FileNotFoundError(f"{repository} is not on the hub")
        return datasets.DatasetDict(
            {split: datasets.Dataset.from_list(rows) for split, rows in known[repository, config].items()}
        )

    monkeypatch.setattr(datasets, "load_dataset", load)
    return SimpleNamespace(known=known, asked=asked)


def fetch(text, folder):
    return fetch_dataset(parse_ref(text), folder, offline=False)


def check(folder, split="test"):
    found = read_retrieval(folder, split)
    assert found.corpus == {"d1": "One\nfirst", "d2": "second"} or found.corpus["d1"].startswith("One")
    assert found.queries == {"q1": "which", "q2": "what"}
    return found.qrels


def test_beir(hub, tmp_path):
    hub.known |= {
        ("BeIR/scifact", "corpus"): {"corpus": CORPUS},
        ("BeIR/scifact", "queries"): {"queries": QUERIES},
        ("BeIR/scifact-qrels", None): {"train": QRELS[:1], "test": QRELS},
    }
    folder = fetch("beir:scifact", tmp_path)
    assert check(folder) == {"q1": {"d2": 2}, "q2": {"d1": 1}}
    assert read_retrieval(folder, "train").qrels == {"q1": {"d2": 2}}
    count = len(hub.asked)
    assert fetch("beir:scifact", tmp_path) == folder
    assert len(hub.asked) == count  # it is here


def test_nanobeir_has_no_grades(hub, tmp_path):
    bare = [{name: row[name] for name in ("query-id", "corpus-id")} for row in QRELS]
    for config, rows in (("corpus", CORPUS), ("queries", QUERIES), ("qrels", bare)):
        hub.known["zeta-alpha-ai/NanoSciFact", config] = {"train": rows}
    assert check(fetch("nanobeir:scifact", tmp_path)) == {"q1": {"d2": 1}, "q2": {"d1": 1}}
    with pytest.raises(BadSpec, match="there are ArguAna"):
        fetch("nanobeir:unknown", tmp_path)


def test_bright_by_domain_or_whole(hub, tmp_path):
    def example(name):
        return {
            "id": f"{name}-0",
            "query": f"about {name}",
            "reasoning": "",
            "excluded_ids": ["N/A"],
            "gold_ids": [f"{name}-doc"],
            "gold_ids_long": [],
        }

    domains = ("biology", "economics")
    hub.known |= {
        ("xlangai/BRIGHT", "documents"): {
            name: [{"id": f"{name}-doc", "content": name}, {"id": "other", "content": "x"}]
            for name in domains
        },
        ("xlangai/BRIGHT", "examples"): {name: [example(name)] for name in domains},
    }
    found = read_retrieval(fetch("bright:biology", tmp_path))
    assert found.qrels == {"biology-0": {"biology-doc": 1}}
    whole = read_retrieval(fetch("bright:all", tmp_path))
    assert whole.categories == {"biology/biology-0": "biology", "economics/economics-0": "economics"}
    with pytest.raises(BadSpec, match="there are biology, economics"):
        fetch("bright:astrology", tmp_path)


@pytest.mark.parametrize("judgments", ["default", "qrels"])
def test_mteb_knows_where_its_tasks_lie(hub, tmp_path, monkeypatch, judgments):
    def get_task(name):
        if name != "SciFact":
            raise KeyError(name)
        return SimpleNamespace(
            metadata=SimpleNamespace(type="Retrieval", dataset={"path": "mteb/scifact", "revision": "0228b5"})
        )

    monkeypatch.setitem(sys.modules, "mteb", SimpleNamespace(get_task=get_task))
    for config, splits in (
        ("corpus", {"corpus": CORPUS}),
        ("queries", {"queries": QUERIES}),
        (judgments, {"test": QRELS}),
    ):
        hub.known["mteb/scifact", config] = splits
    assert check(fetch("mteb:SciFact", tmp_path)) == {"q1": {"d2": 2}, "q2": {"d1": 1}}
    assert {revision for *_, revision in hub.asked} == {"0228b5"}
    with pytest.raises(BadSpec, match="mteb:Unknown"):
        fetch("mteb:Unknown", tmp_path)


def test_without_mteb_it_is_said_how_to_have_it(hub, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "mteb", None)
    with pytest.raises(BadSpec, match="pip install mteb"):
        fetch("mteb:SciFact", tmp_path)


def test_a_hub_without_it_leaves_nothing_half(hub, tmp_path):
    hub.known["BeIR/scifact", "corpus"] = {"corpus": CORPUS}
    for _ in range(2):
        with pytest.raises(BadData, match="beir:scifact cannot be had from the hub"):
            fetch("beir:scifact", tmp_path)
    assert not list((tmp_path / "hub-datasets").rglob("*beir-scifact*"))


def test_a_benchmark_is_no_model():
    with pytest.raises(InvalidRequest, match="names a dataset where a model is needed"):
        parse_spec({"kind": "evaluate", "models": ["beir:scifact"], "datasets": ["beir:scifact"]})
    spec = parse_spec({"kind": "evaluate", "models": ["bm25"], "datasets": ["beir:scifact"]})
    assert spec.references() == {"datasets.0.ref": "beir:scifact"}
