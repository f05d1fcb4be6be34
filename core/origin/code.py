"""One hash of the code that a kind of job runs."""

import ast
import hashlib
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

import core

_ROOT = Path(core.__file__).parent.parent
_DISPATCH = "core.process.dispatch"
_INPUTS = "core.data.sources.inputs"
_KINDS = "core.kinds."


@cache
def code_sha256(kind: str) -> str:
    """The SHA-256 of all modules of this project that a job of the kind can reach by imports.

    Comments, docstrings and the layout of the code do not count. Modules of other kinds do not either.
    """
    digest = hashlib.sha256()
    for name in sorted(reached_modules(kind)):
        digest.update(f"{name}\n{_module_sha256(name)}\n".encode())
    return digest.hexdigest()


@cache
def _module_sha256(name: str) -> str:
    """Of one module, which several kinds may reach."""
    digest = hashlib.sha256(ast.dump(_without_docstrings(_parse(name))).encode())
    for other in _other_files(name):
        digest.update(f"{other.name}\n".encode() + other.read_bytes())
    return digest.hexdigest()


def _other_files(name: str) -> list[Path]:
    """Of a package, what lies beside its modules: a template."""
    path = _file(name)
    if path is None or path.name != "__init__.py":
        return []
    return sorted(
        file for file in path.parent.iterdir() if file.is_file() and file.suffix not in (".py", ".pyc")
    )


@cache
def _state() -> str:
    """Sizes and times of all files of the project's code, when first asked for."""
    return _look()


def _look() -> str:
    files = sorted(file for file in (_ROOT / core.__name__).rglob("*.*") if file.suffix != ".pyc")
    return repr([(str(file), (state := file.stat()).st_size, state.st_mtime_ns) for file in files])


def remember_code(kinds: Iterable[str]) -> None:
    """Take the code as it is now, when it is loaded, for that which runs."""
    _state()
    for kind in kinds:
        code_sha256(kind)


def is_code_unchanged() -> bool:
    """Whether the files are still those that were loaded: after an upgrade in place they are not."""
    try:
        return _state() == _look()
    except OSError:  # files are just being replaced
        return False


def reached_modules(kind: str) -> set[str]:
    """The modules that code which does a job of the kind can import, from its process's first lines on."""
    found = set[str]()
    waiting = [name for name in _imports(_DISPATCH) if not name.startswith(_KINDS)]
    waiting += [_INPUTS, f"{_KINDS}{kind}"]
    while waiting:
        if (name := waiting.pop()) not in found:
            found.add(name)
            waiting += _imports(name)
    return found


@cache
def _imports(name: str) -> set[str]:
    """The project's modules that a module imports, anywhere in it, and the packages that they are in."""
    found: set[str] = set()
    for node in ast.walk(_parse(name)):
        if isinstance(node, ast.Import):
            named = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            named = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        else:
            continue
        for module in named:
            if module.split(".")[0] == core.__name__:
                found.update(_with_packages(module))
    return found


def _with_packages(module: str) -> Iterator[str]:
    parts = module.split(".")
    for length in range(1, len(parts) + 1):
        name = ".".join(parts[:length])
        if _file(name) is not None:  # else it is a name in a module
            yield name


@cache
def _file(name: str) -> Path | None:
    place = _ROOT.joinpath(*name.split("."))
    return next((path for path in (place.with_suffix(".py"), place / "__init__.py") if path.is_file()), None)


@cache
def _parse(name: str) -> ast.Module:
    path = _file(name)
    assert path is not None, name
    return ast.parse(path.read_bytes())


def _without_docstrings(tree: ast.Module) -> ast.Module:
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            node.body = [part for part in node.body if not _is_text(part)]
    return tree


def _is_text(node: ast.stmt) -> bool:
    """A text that stands alone: a docstring, or one below a constant."""
    return (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    )
