"""How many passages have each word: whether a query's words can single out one passage."""

import math
import re
from collections.abc import Sequence

import numpy as np

from core.data.rows.hashing import WordHashes, text_hash

_SLOTS = 1 << 22
"""Words are counted by their hash. Two words that share a slot look a little more common than they are."""

_WORD = re.compile(r"\w+(?:[+#]+(?!\w))?")
"""C++ and C# are other words than C."""


def distinct_words(text: str) -> tuple[str, ...]:
    """The different words of a text in lower case, in alphabetical order."""
    return tuple(sorted(set(_WORD.findall(text.lower()))))


def words_key(text: str) -> int:
    """64 bits that two queries share if they have the same words, whatever their order and marks."""
    words = distinct_words(text)
    return text_hash(" ".join(words) if words else text.strip())


class CorpusWords:
    """Document frequencies of all words, in 16 MB."""

    def __init__(self) -> None:
        self.passages = 0
        self._counts = np.zeros(_SLOTS, np.uint32)
        self._hashes = WordHashes()

    def add(self, texts: Sequence[str]) -> None:
        """The next passages, each with its titles."""
        found = [self._slot(word) for text in texts for word in distinct_words(text)]
        np.add.at(self._counts, np.array(found, np.int64), 1)
        self.passages += len(texts)

    def _slot(self, word: str) -> int:
        return self._hashes[word] % _SLOTS

    def rarity(self, word: str) -> float:
        """The inverse document frequency ``log(N / n)``; that of a word in one passage for an unknown one."""
        return math.log(max(1, self.passages) / max(1, int(self._counts[self._slot(word)])))

    def is_specific(self, text: str) -> bool:
        """Whether, if words were independent, at most one passage would be expected to have them all."""
        return sum(map(self.rarity, distinct_words(text))) >= math.log(max(1, self.passages)) - 1e-9
