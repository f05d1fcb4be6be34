"""Public retrieval benchmarks by name, fetched from a hub into folders that the readers here understand.

``beir:NAME`` (Thakur et al. 2021, arXiv 2104.08663), ``nanobeir:NAME``, ``bright:DOMAIN`` (Su et al. 2024,
arXiv 2407.12883), and ``mteb:TASK``, whose place the package mteb knows.
"""

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from core.artifacts import staged
from core.errors import BadSpec
from core.spec.parts.refs import Ref

Load = Callable[..., Any]
"""`datasets.load_dataset`, or what stands in for it: (repository, configuration) -> rows by split."""

CONVERSION = 1
"""Version of the folders written here: raise it with any change of what is in them."""

NANO_BEIR = (
    "ArguAna",
    "ClimateFEVER",
    "DBPedia",
    "FEVER",
    "FiQA2018",
    "HotpotQA",
    "MSMARCO",
    "NFCorpus",
    "NQ",
    "QuoraRetrieval",
    "SCIDOCS",
    "SciFact",
    "Touche2020",
)


def fetch_benchmark(ref: Ref, folder: Path, load: Load) -> None:
    """Writes the benchmark into ``folder``, which is not there yet; half of one is never left.

    Raises `BadSpec` for a name that is not known, and what ``load`` raises.
    """
    with staged(folder) as staging:
        staging.mkdir(parents=True)
        _write_benchmark(ref, staging, load)


def _write_benchmark(ref: Ref, staging: Path, load: Load) -> None:
    match ref.scheme:
        case "beir":
            _write_beir(
                staging,
                load(f"BeIR/{ref.target}", "corpus"),
                load(f"BeIR/{ref.target}", "queries"),
                load(f"BeIR/{ref.target}-qrels"),
            )
        case "nanobeir":
            repository = f"zeta-alpha-ai/Nano{_nano_name(ref.target)}"
            qrels = {"test": _only(load(repository, "qrels"))}
            _write_beir(staging, load(repository, "corpus"), load(repository, "queries"), qrels)
        case "bright":
            _write_bright(staging, ref.target, load)
        case "mteb":
            repository, revision = _place_of_task(ref.target)
            corpus, queries = (load(repository, part, revision=revision) for part in ("corpus", "queries"))
            try:
                qrels = load(repository, "default", revision=revision)
            except ValueError:  # there is no such configuration
                qrels = load(repository, "qrels", revision=revision)
            _write_beir(staging, corpus, queries, qrels)


def _nano_name(name: str) -> str:
    known = {nano.lower(): nano for nano in NANO_BEIR}
    if name.lower() not in known:
        raise BadSpec(f"nanobeir:{name}: there is no such set; there are {', '.join(NANO_BEIR)}")
    return known[name.lower()]


def _place_of_task(name: str) -> tuple[str, str | None]:
    """(repository, revision)"""
    try:
        import mteb
    except ImportError as error:
        raise BadSpec(f"mteb:{name} needs the package mteb where the job runs (pip install mteb)") from error
    try:
        task = mteb.get_task(name)
    except (KeyError, ValueError) as error:
        raise BadSpec(f"mteb:{name}: {error}") from error
    if "Retriev" not in str(task.metadata.type):
        raise BadSpec(f"mteb:{name} is a task of {task.metadata.type}, not of retrieval")
    place = task.metadata.dataset
    return str(place["path"]), place.get("revision")


def _only(splits: Any) -> Iterable[dict[str, Any]]:
    """The rows of the one split that there is."""
    return next(iter(splits.values()))


def _write_beir(folder: Path, corpus: Any, queries: Any, qrels: Any) -> None:
    for name, splits in (("corpus", corpus), ("queries", queries)):
        with (folder / f"{name}.jsonl").open("w", encoding="utf-8") as file:
            for row in _only(splits):
                known = {key: row[key] for key in ("title", "text") if row.get(key)}
                line = {"_id": str(row.get("_id", row.get("id"))), **known}
                file.write(json.dumps(line, ensure_ascii=False) + "\n")
    (folder / "qrels").mkdir()
    for split, rows in qrels.items():
        with (folder / "qrels" / f"{split}.tsv").open("w", encoding="utf-8") as file:
            file.write("query-id\tcorpus-id\tscore\n")
            for row in rows:
                file.write(f"{row['query-id']}\t{row['corpus-id']}\t{int(row.get('score', 1))}\n")


def _write_bright(folder: Path, domain: str, load: Load) -> None:
    for name in ("documents", "examples"):
        splits = load("xlangai/BRIGHT", name)
        if domain != "all" and domain not in splits:
            raise BadSpec(f"bright:{domain}: there is no such domain; there are {', '.join(splits)}")
        (folder / name).mkdir()
        for split, rows in splits.items():
            if domain in ("all", split):
                with (folder / name / f"{split}.jsonl").open("w", encoding="utf-8") as file:
                    for row in rows:
                        file.write(json.dumps(dict(row), ensure_ascii=False) + "\n")
