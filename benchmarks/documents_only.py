"""Documents without queries: what the recipes make of them, judged by real queries.

Run: ``python -m benchmarks.documents_only MODEL --data FOLDER [--corpora scifact cranfield] [--arms ...]
[--seeds 0 1 2] [--llm URL] [--cross-encoder FOLDER]``. FOLDER has retrieval sets in BEIR's layout. Their
documents become a folder of Markdown (title and text, nothing else); their test queries and judgments only
judge.

Each arm is a list of stages, as a recipe expands it, run by `run_local`. The report is written after every
run, and runs that it has are not made again (``--again`` makes all), so that a benchmark of hours may be
interrupted. Arms:

- ``earlier``: titles as they stand, one mined negative, one epoch: the recipe before queries were specific;
- ``documents``: the recipe as it is;
- ``llm``: the same, with queries of a language model (``--llm``: its endpoint;
  benchmarks/language_model/server.mjs);
- ``gpl``: the recipe gpl with the same queries (``--cross-encoder``: the teacher).
"""

import argparse
import json
import re
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.report import REPORTS, write_report
from core.data.uploads.upload import inspect
from core.process.local import run_local
from core.runtime.reporter import RecordingReporter
from core.spec.pipelines.recipe_facts import DataFacts, RecipeInputs, Stages, Surroundings
from core.spec.pipelines.recipes import expand

NAME = "documents_only"
METRICS = ["ndcg@10", "recall@100"]
TRAINED = ("prepare", "mine_words", "mine", "train")
"""Stages of a recipe that lead to the model. What they are measured on is ours."""

ARMS = ("earlier", "documents", "llm", "gpl")


def write_documents(corpus: Path, folder: Path) -> tuple[int, float]:
    """A Markdown file for each document. Returns how many, and their mean length in characters."""
    folder.mkdir(parents=True)
    lengths = []
    for line in corpus.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        title, text = row.get("title", "").strip(), row["text"].strip()
        if text.lower().startswith(title.lower()):  # Cranfield repeats its titles
            text = text[len(title) :].strip()
        page = f"# {title}\n\n{text}\n" if title else f"{text}\n"
        if title or text:
            (folder / f"{row['_id']}.md").write_text(page, encoding="utf-8")
            lengths.append(len(page))
    return len(lengths), statistics.mean(lengths)


def stages_of(arm: str, inputs: dict[str, Any], facts: DataFacts, llm: dict[str, Any] | None) -> Stages:
    """The stages of a recipe that lead to its model."""
    if arm in ("llm", "gpl") and llm is not None:
        inputs = {**inputs, "llm": llm}
    recipe = "gpl" if arm == "gpl" else "documents"
    found = expand(recipe, RecipeInputs(**inputs), facts, Surroundings())
    stages = {name: spec for name, spec in found.stages.items() if name in TRAINED}
    if arm == "earlier":
        stages["prepare"]["queries"] = {
            "of": ["titles", "description", "docstring", "first_sentence"],
            "filters": {"ambiguous": "keep", "boilerplate": None},
        }
        train = stages.pop("train")
        mine = {"kind": "mine", "dataset": train["dataset"], "num_negatives": 1, "seed": inputs["seed"]}
        train |= {"epochs": 1, "learning_rate": 5e-5, "dataset": "stage:mine/dataset"}
        del train["merge"]
        stages |= {"mine": mine, "train": train}
    return stages


def run_stage(spec: dict[str, Any], out: Path, cache: Path) -> dict[str, Any]:
    """The metrics of a job. Raises `AssertionError` if it does not succeed."""
    result = run_local(spec, out, RecordingReporter(), cache=cache, overwrite=True)
    assert result.state == "succeeded", result.end_reason
    return result.metrics


def placed(spec: Any, made: dict[str, Path]) -> Any:
    """A spec whose references to stages are the folders that these have made."""
    if isinstance(spec, dict):
        return {name: placed(value, made) for name, value in spec.items()}
    if isinstance(spec, list):
        return [placed(value, made) for value in spec]
    if isinstance(spec, str) and (found := re.fullmatch(r"stage:(\w+)/(\w+)", spec)):
        return f"file:{made[found[1]] / found[2]}"
    return spec


def run_arm(stages: Stages, judged: Path, base: str, work: Path, cache: Path) -> dict[str, Any]:
    """Run the stages, and compare the model with its base on the real queries."""
    made: dict[str, Path] = {}
    seconds = {}
    for name, spec in stages.items():
        begun = time.monotonic()
        made[name] = work / name
        run_stage(placed(spec, made), made[name], cache)
        seconds[name] = round(time.monotonic() - begun, 1)
    evaluation = {
        "kind": "evaluate",
        "models": [
            {"ref": f"file:{made['train'] / 'model'}", "name": "trained"},
            {"ref": base, "name": "base"},
        ],
        "datasets": [{"ref": f"file:{judged}", "split": "test", "name": "test"}],
        "metrics": METRICS,
        "resources": {"gpus": 0},
    }
    run_stage(evaluation, work / "compare", cache)
    report = json.loads((work / "compare" / "report" / "report.json").read_text())
    prepared = json.loads((made["prepare"] / "dataset" / "dataset.json").read_text())
    asking = prepared["asking"]
    return {
        "report": report,
        "seconds": seconds,
        "queries": asking["made"],
        "left_out": asking["left_out"],
        "shown": asking["shown"],
        "stages": stages,
    }


def scores_of(found: dict[str, Any]) -> tuple[dict[str, float], dict[str, float], float]:
    """Means of the trained model and of its base, and the p value of the difference in nDCG@10."""
    means = {name: scores["test"] for name, scores in found["report"]["scores"].items()}
    [compared] = [item for item in found["report"]["comparisons"] if item["metric"] == METRICS[0]]
    return means["trained"], means["base"], compared["p_value"]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("model", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--corpora", nargs="+", default=["scifact", "cranfield"])
    parser.add_argument("--arms", nargs="+", default=["earlier", "documents"], choices=ARMS)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--llm", help="endpoint of a language model")
    parser.add_argument("--llm-sample", type=int, default=None)
    parser.add_argument("--cross-encoder", type=Path)
    parser.add_argument("--again", action="store_true")
    parser.add_argument("--keep", type=Path, help="folder for caches and outputs, kept")
    asked = parser.parse_args()
    path = REPORTS / f"{NAME}.json"
    known = json.loads(path.read_text())["runs"] if path.exists() and not asked.again else {}
    with tempfile.TemporaryDirectory() as scratch:
        folder = asked.keep or Path(scratch)
        for corpus in asked.corpora:
            documents = folder / f"{corpus}-documents"
            shutil.rmtree(documents, ignore_errors=True)
            count, characters = write_documents(asked.data / corpus / "corpus.jsonl", documents)
            queries = round(inspect(documents).statistics.queries)
            facts = DataFacts("documents", count, characters, queries=queries)
            for seed in asked.seeds:
                for arm in asked.arms:
                    key = f"{corpus} {arm} {seed}"
                    if key in known:
                        continue
                    inputs = {"data": f"file:{documents}", "base_model": f"file:{asked.model.resolve()}"}
                    inputs |= {"test": f"file:{asked.data / corpus}", "seed": seed}
                    if arm == "gpl":
                        inputs["cross_encoder"] = f"file:{asked.cross_encoder.resolve()}"
                    llm = None
                    if asked.llm:
                        llm = {
                            "endpoint": asked.llm,
                            "model": "benchmark",
                            "per_passage": 2,
                            "concurrency": 1,
                        }
                        llm |= {"sample": asked.llm_sample, "timeout_seconds": 600, "seed": 0}
                    stages = stages_of(arm, inputs, facts, llm)
                    work = folder / key.replace(" ", "-")
                    found = run_arm(stages, asked.data / corpus, inputs["base_model"], work, folder / "cache")
                    trained, base, p_value = scores_of(found)
                    known[key] = {
                        "trained": trained,
                        "base": base,
                        "p_value": p_value,
                        **{name: found[name] for name in ("seconds", "queries", "left_out")},
                        "shown": found["shown"] if seed == asked.seeds[0] else [],
                        "stages": placed_away(found["stages"], folder, asked.data),
                    }
                    print(key, known[key]["trained"], known[key]["base"], found["seconds"], flush=True)
                    write_report(NAME, {"runs": known}, to_markdown(known))
                    shutil.rmtree(work)


def placed_away(stages: Any, folder: Path, data: Path) -> Any:
    """Stages without the paths of this machine."""
    text = json.dumps(stages).replace(str(folder), "WORK").replace(str(data), "DATA")
    return json.loads(re.sub(r"file:/[^\"]*/model", "file:MODEL", text))


def to_markdown(runs: dict[str, Any]) -> Callable[[str], list[str]]:
    def page(where: str) -> list[str]:
        what = "nDCG@10 on the real test queries, all-MiniLM-L6-v2, mean over seeds (lowest to highest)"
        lines = [
            "# From documents alone",
            "",
            f"{where}. {what}.",
            "",
            "| corpus | arm | seeds | base | trained | change | recall@100 | minutes |",
            "|---|---|---:|---:|---:|---:|---:|---:|",
        ]
        for key in dict.fromkeys(name.rpartition(" ")[0] for name in runs):
            found = [run for name, run in runs.items() if name.rpartition(" ")[0] == key]
            corpus, _, arm = key.partition(" ")
            after = [run["trained"][METRICS[0]] for run in found]
            before = found[0]["base"][METRICS[0]]
            recall = statistics.mean(run["trained"][METRICS[1]] - run["base"][METRICS[1]] for run in found)
            minutes = statistics.mean(sum(run["seconds"].values()) for run in found) / 60
            lines.append(
                f"| {corpus} | {arm} | {len(found)} | {before:.4f} | {statistics.mean(after):.4f} "
                f"({min(after):.4f} to {max(after):.4f}) | {statistics.mean(after) - before:+.4f} "
                f"| {recall:+.4f} | {minutes:.1f} |"
            )
        for key, run in runs.items():
            if run["shown"]:
                lines += ["", f"## Twenty queries: {key}", "", "| kind | query | passage |", "|---|---|---|"]
                lines += [
                    f"| {said['kind']} | {_cell(said['query'])} | {_cell(said['text'][:120])} |"
                    for said in run["shown"]
                ]
        return lines

    return page


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    main()
