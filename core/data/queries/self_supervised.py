"""Queries that are parts of their passages, for texts whose authors give no titles.

``inverse_cloze``: a sentence asks for the passage without it (Lee et al. 2019, arXiv 1906.00300). ``crops``:
a run of words asks for the passage that it is from (Contriever, Izacard et al. 2021, arXiv 2112.09118).
"""

import random
import re
from collections.abc import Iterator, Sequence

from core.data.documents.chunking import sentences
from core.data.documents.drafts import one_line
from core.data.documents.passage import Draft, Passage

_OF_EACH = 2
"""Drafts of each kind for a passage."""

_KEPT = 0.1
"""How often the sentence stays in the passage, so that matching words count too (Lee et al. 2019)."""

_WORDS = (5, 40)
"""Fewest and most words of a sentence that asks."""

_CROP = (6, 24)
_SHORTEST = 40
"""A passage of fewer words is not cropped."""

_WORD = re.compile(r"\S+")


def drafts_of_itself(passage: Passage, kinds: Sequence[str], seed: int) -> Iterator[Draft]:
    """Up to two drafts of each kind, drawn from the passage. The same passage and seed give the same."""
    if not kinds:
        return
    generator = random.Random(f"{seed} {passage.id}")  # noqa: S311 - a seeded draw, not a secret
    if "inverse_cloze" in kinds:
        spans = [
            (start, end)
            for start, end in sentences(passage.text)
            if _WORDS[0] <= len(passage.text[start:end].split()) <= _WORDS[1]
            and "```" not in passage.text[start:end]
        ]
        if len(spans) >= _OF_EACH + 1:
            for start, end in sorted(generator.sample(spans, _OF_EACH)):
                hidden = () if generator.random() < _KEPT else ((start, end),)
                yield Draft("inverse_cloze", (one_line(passage.text[start:end]),), hidden)
    if "crops" in kinds:
        words = [match.span() for match in _WORD.finditer(passage.text)]
        if len(words) >= _SHORTEST:
            for _ in range(_OF_EACH):
                count = generator.randint(*_CROP)
                first = generator.randrange(len(words) - count)
                start, end = words[first][0], words[first + count - 1][1]
                yield Draft("crops", (one_line(passage.text[start:end]),))
