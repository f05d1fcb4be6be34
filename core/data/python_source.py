"""A real retrieval dataset from Python code: a docstring's first line asks for the function's source.

Run as ``python -m core.data.python_source OUT`` on the standard library of the running interpreter.
"""

import ast
import json
import random
import sys
import sysconfig
import textwrap
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

_SKIPPED = {"test", "tests", "idlelib", "lib2to3", "site-packages", "turtledemo", "__pycache__", "ensurepip"}
_MIN_QUERY_CHARACTERS = 15
_MIN_SOURCE_CHARACTERS = 60


@dataclass(frozen=True)
class SourcePair:
    """A docstring summary and the source that it sums up, without the docstring. ``group`` is the module."""

    query: str
    positive: str
    group: str


def source_pairs(root: Path) -> Iterator[SourcePair]:
    """One pair a documented function below ``root``, in the order of files and lines; distinct texts only."""
    seen: set[str] = set()
    for path in sorted(root.rglob("*.py")):
        relative = path.relative_to(root)
        if _SKIPPED & set(relative.parts):
            continue
        try:
            text = path.read_text(encoding="utf-8")
            tree = ast.parse(text)
        except (SyntaxError, UnicodeDecodeError, ValueError):
            continue  # files that are broken on purpose, for the interpreter's own tests
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                pair = _pair(node, text, relative.as_posix())
                if pair and not seen & {pair.query, pair.positive}:
                    seen |= {pair.query, pair.positive}
                    yield pair


def _pair(node: ast.FunctionDef | ast.AsyncFunctionDef, text: str, group: str) -> SourcePair | None:
    docstring = ast.get_docstring(node)
    if not docstring or len(node.body) < 2:
        return None
    summary = " ".join(docstring.strip().partition("\n\n")[0].split())
    lines = text.splitlines()
    first, last = node.body[0], node.body[-1]
    kept = lines[node.lineno - 1 : first.lineno - 1] + lines[first.end_lineno : last.end_lineno]
    source = textwrap.dedent("\n".join(kept)).strip()
    if len(summary) < _MIN_QUERY_CHARACTERS or len(source) < _MIN_SOURCE_CHARACTERS:
        return None
    return SourcePair(summary, source, group)


def write_dataset(
    root: Path, out: Path, train: int | None, test: int | None, seed: int = 42
) -> dict[str, int]:
    """Writes ``train.jsonl`` and ``test.jsonl``, split by module so that no module is in both.

    ``train`` and ``test`` limit the number of pairs; None takes all of the split (a third is for testing).
    """
    pairs = list(source_pairs(root))
    groups = sorted({pair.group for pair in pairs})
    random.Random(seed).shuffle(groups)  # noqa: S311 - a seeded split, not a secret
    held_out = set(groups[: len(groups) // 3])
    parts = {
        "train": [pair for pair in pairs if pair.group not in held_out],
        "test": [pair for pair in pairs if pair.group in held_out],
    }
    out.mkdir(parents=True, exist_ok=True)
    counts = {}
    for (name, chosen), limit in zip(parts.items(), (train, test), strict=True):
        random.Random(seed).shuffle(chosen)  # noqa: S311
        lines = [json.dumps(asdict(pair), ensure_ascii=False) for pair in chosen[:limit]]
        (out / f"{name}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
        counts[name] = len(lines)
    return counts


if __name__ == "__main__":
    out, *limits = sys.argv[1:]
    train, test = (int(limit) if limit != "all" else None for limit in limits or ("all", "all"))
    print(json.dumps(write_dataset(Path(sysconfig.get_paths()["stdlib"]), Path(out), train, test)))
