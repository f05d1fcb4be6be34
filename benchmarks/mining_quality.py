"""SciFact, train to test: does training on mined negatives harm, or help? Over several seeds.

Run as ``python -m benchmarks.mining_quality SCIFACT MODEL [--seeds 0 1 2]``. SCIFACT is the BEIR folder.
Negatives are mined from the whole corpus with the model itself and the default filters; then the same pairs
are trained on, without negatives and with them, everything else equal, and judged on test queries.
"""

import argparse
import json
import statistics
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.report import write_report

METRICS = ["ndcg@10", "mrr@10", "recall@100"]
TRAINING = {
    "epochs": 1,
    "batch_size": 32,
    "learning_rate": 2e-5,
    "lengths": {"query": 64, "document": 128},
    "resources": {"gpus": 0},
}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("scifact", type=Path)
    parser.add_argument("model", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--max-length", type=int, default=128, help="tokens of a text, everywhere")
    asked = parser.parse_args()
    pairs = {"ref": f"file:{asked.scifact.resolve()}", "split": "train"}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = f"file:{cut_model(asked.model, folder / 'model', asked.max_length)}"
        mined = run(
            {"kind": "mine", "dataset": pairs, "corpus": pairs["ref"], "model": model}, folder / "mined"
        )
        page = json.loads((folder / "mined" / "dataset" / "dataset.json").read_text())
        arms = {"without negatives": pairs, "with mined negatives": f"file:{folder / 'mined' / 'dataset'}"}
        results: dict[str, Any] = {
            "rows": page["kept"],
            "rows_by_negatives": page["rows_by_negatives"],
            "filters": page["mining"]["filters"],
            "removed": mined["dataset"]["removed"],
            "training": TRAINING,
            "max_length": asked.max_length,
            "baseline": None,
            "arms": {arm: [] for arm in arms},
        }
        for seed in asked.seeds:
            for arm, dataset in arms.items():
                spec = {
                    "kind": "train",
                    "base_model": model,
                    "dataset": dataset,
                    "evaluation": {
                        "datasets": [{"ref": pairs["ref"], "split": "test", "name": "scifact"}],
                        "metrics": METRICS,
                        "baseline": results["baseline"] is None,
                    },
                    **TRAINING,
                    "seed": seed,
                }
                found = run(spec, folder / f"{arm}-{seed}".replace(" ", "-"))
                results["baseline"] = results["baseline"] or found["baseline"]["scifact"]
                results["arms"][arm].append({"seed": seed, **found["finetuned"]["scifact"]})
                print(arm, seed, found["finetuned"], flush=True)
    write_report("mining_quality", results, lambda where: to_markdown(results, where))


def cut_model(model: Path, folder: Path, max_length: int) -> Path:
    """The same model, set to so many tokens."""
    from sentence_transformers import SentenceTransformer

    loaded = SentenceTransformer(str(model), device="cpu")
    loaded.max_seq_length = max_length
    loaded.save_pretrained(str(folder), create_model_card=False)
    return folder


def run(spec: dict[str, Any], out: Path) -> dict[str, Any]:
    """The job's metrics."""
    from core.process.local import run_local
    from core.runtime.reporter import RecordingReporter

    result = run_local(spec, out, RecordingReporter())
    if result.state != "succeeded":
        raise SystemExit(f"{spec['kind']} {result.state}: {result.end_reason}")
    return result.metrics


def to_markdown(results: dict[str, Any], where: str) -> list[str]:
    def mean(arm: str, metric: str) -> str:
        values = [found[metric] for found in results["arms"][arm]]
        spread = statistics.stdev(values) if len(values) > 1 else 0.0
        return f"{statistics.mean(values):.4f} ± {spread:.4f}"

    seeds = ", ".join(str(found["seed"]) for found in next(iter(results["arms"].values())))
    lines = [
        "# Quality with mined negatives",
        "",
        f"Measured on {where}. MiniLM, {results['max_length']} tokens, on SciFact's {results['rows']} pairs;",
        f"trained as {json.dumps(results['training'])}; judged on the test queries;",
        f"mean and standard deviation over seeds {seeds}. Negatives are mined by the model itself from the",
        f"whole corpus with the default filters; rows by negatives: {results['rows_by_negatives']}.",
        "",
        f"| trained | {' | '.join(METRICS)} |",
        f"|---|{'---:|' * len(METRICS)}",
        f"| not at all | {' | '.join(format(results['baseline'][metric], '.4f') for metric in METRICS)} |",
    ]
    return lines + [
        f"| {arm} | {' | '.join(mean(arm, metric) for metric in METRICS)} |" for arm in results["arms"]
    ]


if __name__ == "__main__":
    main()
