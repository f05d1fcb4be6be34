"""Texts that say nearly the same: MinHash over runs of three words, in bands so that few are compared.

Broder 1997 (resemblance of documents). The bands are rensa's; what they bring together is measured on the
smallest hashes of both (Beyer et al. 2007), which is exact for texts of up to 512 runs.
"""

import hashlib
import re
import zlib

import numpy as np
import rensa

_PERMUTATIONS = 128
_BANDS = 32
"""Of four numbers each: a pair of resemblance 0.7 is met with a probability of 99.98 %, and then measured."""

_SMALLEST = 512
_WORDS = re.compile(r"\w+")
_RUN = 3


class NearDuplicates:
    """Numbers texts in the order of their coming, and knows which earlier ones are near.

    ``threshold`` is the least share of runs of three words that two texts have in common (their Jaccard
    similarity). Memory: half a kilobyte a text, and four bytes a run, at most two kilobytes.
    """

    def __init__(self, threshold: float, seed: int = 0) -> None:
        self._threshold, self._seed = threshold, seed
        self._bands = rensa.RMinHashLSH(threshold, _PERMUTATIONS, _BANDS)
        self._numbers: dict[bytes, int] = {}  # a hash of the words -> the text's number
        self._smallest: list[np.ndarray] = []  # of every text's hashes of runs, ascending

    def add(self, text: str) -> list[int]:
        """The text's number, then those of earlier texts that it is near to.

        One that differs from an earlier text in case, punctuation or white space alone has its number.
        """
        words = _WORDS.findall(text.lower())
        runs = [" ".join(words[start : start + _RUN]) for start in range(len(words) - _RUN + 1)]
        runs = runs or [" ".join(words) or text]
        sketch = rensa.RMinHash(_PERMUTATIONS, self._seed)
        sketch.update(runs)
        smallest = np.unique(np.array([zlib.crc32(run.encode()) for run in runs], np.uint32))[:_SMALLEST]
        name = hashlib.blake2b(" ".join(words).encode() or text.encode(), digest_size=12).digest()
        known = self._numbers.get(name)
        found = sorted(set(self._bands.query(sketch)) - {known})
        near = [other for other in found if self._resemblance(other, smallest) >= self._threshold]
        if known is None:
            known = self._numbers[name] = len(self._numbers)
            self._smallest.append(smallest)
            self._bands.insert(known, sketch)
        return [known, *near]

    def _resemblance(self, other: int, smallest: np.ndarray) -> float:
        """Of all different runs of both texts, the share that both have, judged by the smallest hashes."""
        of_other = self._smallest[other]
        both = np.union1d(of_other, smallest)[:_SMALLEST]
        shared = np.intersect1d(of_other, smallest, assume_unique=True)
        return float(np.isin(both, shared, assume_unique=True).mean())
