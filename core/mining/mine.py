"""A mine job: rows and a corpus -> the same rows with negatives, and a page on where they come from."""

import shutil

from core.artifacts import fresh_folder
from core.mining.answers import Alike, Answers
from core.mining.choose import choose_negatives
from core.mining.finders import choose_finder
from core.mining.finders.parts import publish_candidates
from core.mining.gather import gather
from core.mining.output import publish_mined
from core.run.context import RunContext
from core.spec.mine import MineSpec

_MOST_ANSWERS = 1000


def mine(spec: MineSpec, context: RunContext) -> None:
    """Read, encode, search, filter, publish. Raises `Stopped` or a `JobFailure`."""
    context.phase("preparing")
    work = fresh_folder(context.folder / "work")
    gathered = gather(spec, context, context.dataset_path(spec.dataset.ref), work)
    alike = Alike(gathered.documents)
    answers = Answers(spec.filters, gathered, alike, context.check_stop)
    finder = choose_finder(spec, context)
    # Answers stand among the nearest, and count for no rank.
    depth = max(1, min(gathered.candidates, spec.filters.range_max + min(answers.most, _MOST_ANSWERS)))
    found = finder.find(gathered, depth)
    if spec.part is not None:
        publish_candidates(spec, context, gathered, found, finder.facts)
    else:
        mined = choose_negatives(spec, context, gathered, answers, alike, found)
        publish_mined(spec, context, gathered, found, mined, finder.facts)
    shutil.rmtree(work)
