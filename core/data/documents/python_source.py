"""A real retrieval dataset from Python code: a docstring's first line asks for the function's source.

Run as ``python -m core.data.documents.python_source OUT`` on the standard library of the running interpreter.
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

SKIPPED_FOLDERS = {
    "test",
    "tests",
    "idlelib",
    "lib2to3",
    "site-packages",
    "turtledemo",
    "__pycache__",
    "ensurepip",
}
_MIN_QUERY_CHARACTERS = 15
_MIN_SOURCE_CHARACTERS = 60


@dataclass(frozen=True)
class Function:
    """A function's source, dedented, and the first paragraph of its docstring. ``path``: the classes it is
    in."""

    name: str
    path: tuple[str, ...]
    summary: str | None
    source: str
    line: int
    last_line: int


@dataclass(frozen=True)
class SourcePair:
    """A docstring summary and the source that it sums up, without the docstring. ``group`` is the module."""

    query: str
    positive: str
    group: str


def functions(tree: ast.AST, text: str, *, keep_docstring: bool = False) -> Iterator[Function]:
    """Every function of a module that is long enough to be looked for, in the order of `ast.walk`."""
    lines = text.splitlines()
    inside: dict[ast.AST, tuple[str, ...]] = {tree: ()}
    for node in ast.walk(tree):
        path = below = inside[node]
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            below = (*path, node.name)
        for child in ast.iter_child_nodes(node):
            inside[child] = below
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        docstring = ast.get_docstring(node)
        summary = " ".join(docstring.strip().partition("\n\n")[0].split()) if docstring else None
        if docstring and len(node.body) < 2:
            continue  # nothing but words
        first, last = node.body[0], node.body[-1]
        kept = lines[node.lineno - 1 : last.end_lineno]
        if docstring and not keep_docstring:
            kept = lines[node.lineno - 1 : first.lineno - 1] + lines[first.end_lineno : last.end_lineno]
        source = textwrap.dedent("\n".join(kept)).strip()
        if len(source) >= _MIN_SOURCE_CHARACTERS:
            if summary is not None and len(summary) < _MIN_QUERY_CHARACTERS:
                summary = None
            yield Function(node.name, path, summary, source, node.lineno, last.end_lineno or node.lineno)


def source_pairs(root: Path) -> Iterator[SourcePair]:
    """One pair a documented function below ``root``, in the order of files and lines; distinct texts only."""
    seen: set[str] = set()
    for path in sorted(root.rglob("*.py")):
        relative = path.relative_to(root)
        if SKIPPED_FOLDERS & set(relative.parts):
            continue
        try:
            text = path.read_text(encoding="utf-8")
            tree = ast.parse(text)
        except (SyntaxError, UnicodeDecodeError, ValueError):
            continue  # files that are broken on purpose, for the interpreter's own tests
        for found in functions(tree, text):
            if found.summary and not seen & {found.summary, found.source}:
                seen |= {found.summary, found.source}
                yield SourcePair(found.summary, found.source, relative.as_posix())


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
