"""Negatives for the rows of a dataset: gathered, searched for, chosen, written."""

from pathlib import Path

from core.data.dedup.alike import Alike
from core.mining.choose import Mined, choose_negatives
from core.mining.finders import choose_finder
from core.mining.known_answers import Answers
from core.mining.output import Written, write_mined
from core.mining.read_input import Gathered, gather
from core.ranking.negatives.filters import depth_beyond_answers
from core.retrieval.system_facts import SystemFacts
from core.runtime.context import RunContext
from core.spec.mine import MineSpec


def mine_rows(spec: MineSpec, context: RunContext, work: Path) -> Written:
    """Mine within another job, and publish nothing. ``work``: an empty folder, in which everything stays.

    The dataset has one split, ``train``. Raises `Stopped` or a `JobFailure`.
    """
    gathered = gather(spec, context, context.dataset_path(spec.dataset.ref), work)
    search = RowSearch(spec, context, gathered)
    return write_mined(
        spec, context, gathered, search.found, *search.chosen(), split="train", other_splits=False
    )


class RowSearch:
    """What was found for the queries of some rows, and what of it is taken."""

    def __init__(self, spec: MineSpec, context: RunContext, gathered: Gathered) -> None:
        self._spec, self._context, self._gathered = spec, context, gathered
        self._alike = Alike(gathered.documents)
        self._answers = Answers(spec.filters, gathered, self._alike, context.check_stop)
        finder = choose_finder(spec, context)
        depth = depth_beyond_answers(spec.filters, self._answers.most, gathered.candidates)
        self.found = finder.find(gathered, depth)
        self.facts = finder.facts

    def chosen(self) -> tuple[Mined, SystemFacts]:
        """The negatives, and how the candidates were found."""
        mined = choose_negatives(
            self._spec, self._context, self._gathered, self._answers, self._alike, self.found
        )
        return mined, self.facts
