"""Every family, saved by 5.3, 5.4 and 6.2 of sentence-transformers: read, evaluated, trained, written, read
again by the version that it came from. Each cell of the table is run.

Run as ``python -m benchmarks.versions``, with the interpreter of either stack; the other one must be
installed as well (``make install`` and ``make install STACK=st6``). Rows of the stack that runs it are
replaced in the report, those of the other stay.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.report import REPORTS, write_report
from benchmarks.versions_peer import FAMILIES, QUERY, TEXTS
from core.process.local import run_local
from core.runtime.reporter import RecordingReporter
from core.stack import installed, stack_name
from tests.tiny import WORDS, make_model

_ROOT = Path(__file__).parents[1]
_TOLERANCE = 1e-5
_STEPS = ("read", "evaluated", "trained", "written", "read again")


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_model(folder / "base")
        base = folder / "base-bare"  # of transformers alone: each version can begin with it
        pairs = _write_pairs(folder / "pairs.jsonl")
        rows = []
        for version, command in _interpreters(folder).items():
            made = folder / version
            _run([*command, "make", str(base), str(made)])
            for family in FAMILIES:
                rows.append(_row(family, version, command, made / family, pairs, folder))
                print(rows[-1], flush=True)
    path = REPORTS / "versions.json"
    before = json.loads(path.read_text())["stacks"] if path.exists() else {}
    stacks = {**before, stack_name(): {"libraries": installed(), "rows": rows}}
    results = {"tolerance": _TOLERANCE, "stacks": stacks}
    write_report("versions", results, lambda where: to_markdown(results, where))
    if any(cell != "ok" for row in rows for step in _STEPS if (cell := row[step]) != "-"):
        sys.exit(1)


def _interpreters(folder: Path) -> dict[str, list[str]]:
    """By version, the command that runs `benchmarks.versions_peer` with it."""
    default, newer = (_ROOT / place / "bin" / "python" for place in (".venv", ".venv-st6"))
    if not (default.exists() and newer.exists()):
        raise SystemExit("both stacks are needed: make install, and make install STACK=st6")
    between = folder / "libraries"
    package = "sentence-transformers==5.4.1"
    _run([str(default), "-m", "pip", "install", "-q", "--no-deps", "--target", str(between), package])
    peer = ["-m", "benchmarks.versions_peer"]
    return {
        "5.3": [str(default), *peer],
        "5.4": ["env", f"PYTHONPATH={between}{os.pathsep}{_ROOT}", str(default), *peer],
        "6.2": [str(newer), *peer],
    }


def _row(
    family: str, version: str, command: Sequence[str], model: Path, pairs: Path, folder: Path
) -> dict[str, Any]:
    row: dict[str, Any] = {"family": family, "saved by": version, **dict.fromkeys(_STEPS, "-")}
    if not model.exists():
        row["note"] = f"{version} does not know the family"
        return row
    ours = _ours(family, model, folder)
    theirs = json.loads(_run([*command, "read", family, str(model)]))
    row["read"] = _compare(ours, theirs)
    data = {"datasets": [{"ref": f"file:{pairs}", "name": "pairs"}], "metrics": ["ndcg@10"]}
    of_family = "dense" if family == "static" else family
    asked = {"ref": f"file:{model}", "name": "it", "family": of_family}
    place = folder / f"{version}-{family}"
    row["evaluated"] = _job({"kind": "evaluate", "models": [asked], **data}, place / "evaluated")
    spec = {
        "kind": "train",
        "family": of_family,
        "base_model": f"file:{model}",
        "dataset": f"file:{pairs}",
        "max_steps": 2,
        "batch_size": 8,
        "learning_rate": 0.01,
    }
    row["trained"] = _job(spec, place / "trained")
    if row["trained"] != "ok":
        return row
    saved = place / "trained" / "model"
    ours = _ours(family, saved, folder)
    row["written"] = "ok" if ours is not None else "no"
    row["read again"] = _compare(ours, json.loads(_run([*command, "read", family, str(saved)])))
    return row


def _ours(family: str, model: Path, folder: Path) -> Any:
    """What the library's own `read` gives, by this service's code."""
    from core.data.sources.inputs import make_context
    from core.engine.batching import Packing
    from core.families import cross_encoder, dense, late_interaction
    from core.families.prompts import prompts_of
    from core.jobs.protocol import RunRequest

    request = RunRequest(
        job_id="job", attempt=1, spec={}, checkpoints=folder, cache=folder / "cache", offline=True
    )
    context = make_context(request, folder, RecordingReporter())
    reference, packing = f"file:{model}", Packing(256)
    if family == "cross_encoder":
        scorer = cross_encoder.load_model(context, reference, "cpu")
        score = cross_encoder.score_with(scorer, packing, context.check_stop)
        return score([(QUERY, text) for text in TEXTS]).tolist()
    prompts = prompts_of(reference, context)
    if family == "late_interaction":
        tokens = late_interaction.make_encode(
            late_interaction.load_model(context, reference, "cpu"), packing, context.check_stop
        )
        both = []
        for role, prompt in (("query", prompts.query), ("document", prompts.document)):
            found = tokens([(prompt or "") + text for text in TEXTS], role)  # type: ignore[arg-type]
            both.append([found.text(number).tolist() for number in range(len(TEXTS))])
        return both
    encode = dense.make_encode(
        dense.load_model(context, reference, "cpu"), prompts, packing, context.check_stop
    )
    return [encode(TEXTS, role).detach().numpy().tolist() for role in ("query", "document")]  # type: ignore[arg-type]


def _compare(ours: Any, theirs: Any) -> str:
    """``ok``, or what differs."""
    one, other = _flat(ours), _flat(theirs)
    if len(one) != len(other):
        return f"{len(one)} numbers for {len(other)}"
    difference = float(np.abs(np.array(one) - np.array(other)).max())
    return "ok" if difference < _TOLERANCE else f"differs by {difference:.1e}"


def _flat(values: Any) -> list[float]:
    return [number for value in values for number in _flat(value)] if isinstance(values, list) else [values]


def _job(spec: dict[str, Any], out: Path) -> str:
    result = run_local(spec, out, RecordingReporter())
    return "ok" if result.state == "succeeded" else result.end_reason.message


def _write_pairs(path: Path) -> Path:
    rows = [
        {"query": f"what is {word}", "positive": f"{word} is document {n}"} for n, word in enumerate(WORDS)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def _run(command: Sequence[str]) -> str:
    """The last line of its output. Raises `RuntimeError` with its errors."""
    done = subprocess.run(command, cwd=_ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr[-2000:]}")
    return done.stdout.strip().rpartition("\n")[2]


def to_markdown(results: dict[str, Any], where: str) -> list[str]:
    about = (
        "A tiny model of each family is saved by a version of sentence-transformers (late interaction: by "
        "PyLate 1.6 on 5.3, by `MultiVectorEncoder` on 6.2), read here, evaluated, trained for two steps, "
        "written, and read again by the version that it came from. `ok` under read and read again: "
        f"vectors or scores, prompts included, equal to {results['tolerance']:g}."
    )
    lines = [
        "# Models of other versions",
        "",
        f"Run on {where}, by `python -m benchmarks.versions` in each stack.",
        "",
        about,
    ]
    for stack, found in sorted(results["stacks"].items()):
        libraries = ", ".join(f"{name} {release}" for name, release in found["libraries"].items())
        lines += ["", f"## Stack `{stack}`", "", f"{libraries}.", ""]
        lines += [f"| family | saved by | {' | '.join(_STEPS)} |", f"|---|---|{'---|' * len(_STEPS)}"]
        for row in found["rows"]:
            cells = [row["family"], row["saved by"], *(row[step] for step in _STEPS)]
            lines.append(f"| {' | '.join(cells)} |")
    return [*lines, "", "A line of dashes: that version has no class for the family."]


if __name__ == "__main__":
    main()
