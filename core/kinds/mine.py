"""A mine job: rows and a corpus -> the same rows with negatives, and a page on where they come from."""

import shutil

from core.artifacts import fresh_folder
from core.mining.finders.parts import publish_candidates
from core.mining.mine_rows import RowSearch
from core.mining.output import publish_mined, write_mined
from core.mining.read_input import gather
from core.runtime.context import RunContext
from core.spec.mine import MineSpec


def mine(spec: MineSpec, context: RunContext) -> None:
    """Read, encode, search, filter, publish. Raises `Stopped` or a `JobFailure`."""
    context.phase("preparing")
    work = fresh_folder(context.folder / "work")
    gathered = gather(spec, context, context.dataset_path(spec.dataset.ref), work)
    search = RowSearch(spec, context, gathered)
    if spec.part is not None:
        publish_candidates(spec, context, gathered, search.found, search.facts)
    else:
        context.phase("publishing")
        publish_mined(spec, context, write_mined(spec, context, gathered, search.found, *search.chosen()))
    shutil.rmtree(work)
