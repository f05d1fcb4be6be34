"""Who brings a query's candidates: a bi-encoder, a late-interaction model, BM25, or the jobs before this one.

One file each; they share `Finder`.
"""

from core.mining.finders.base import Finder, Found
from core.runtime.context import RunContext
from core.spec.mine import MineSpec

__all__ = ["Finder", "Found", "choose_finder"]


def choose_finder(spec: MineSpec, context: RunContext) -> Finder:
    """As the spec asks. The imports are inside: a job pays for the libraries that it uses."""
    if spec.candidates:
        from core.mining.finders.parts import PartsFinder

        return PartsFinder(spec, context)
    if spec.model == "bm25":
        from core.mining.finders.lexical import LexicalFinder

        return LexicalFinder(context)
    if spec.family == "late_interaction":
        from core.mining.finders.late_interaction import LateInteractionFinder

        return LateInteractionFinder(spec, context)
    from core.mining.finders.dense import DenseFinder

    return DenseFinder(spec, context)
