"""Texts that say nearly the same: MinHash over runs of three words, in bands so that few are compared.

Broder 1997 (resemblance of documents). The sketches are rensa's; what their bands bring together is measured
on the smallest hashes of both (Beyer et al. 2007), which is exact for texts of up to 512 runs. Sketches lie
on disk: a text takes some tens of bytes of memory, whatever its length.
"""

import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO

import numpy as np
import rensa

from core.data.dedup.mixing import mix
from core.data.rows.hashing import WordHashes, text_hash

_PERMUTATIONS = 128
_HIGH = 0.7
_IN_BAND = {True: 4, False: 2}
"""Numbers of a sketch in a band, by whether the threshold is high. A pair of resemblance 0.7 shares one of 32
bands of four with a probability of 99.98 %, one of 0.5 one of 64 bands of two with 99.999 %."""

_SMALLEST = 512
_ASCII_WORDS = re.compile(r"\w+")
# Scripts without spaces (Thai, Lao, Burmese, Khmer, Japanese, Chinese): a letter stands for a word.
_UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
_UNSPACED += "\U00020000-\U0002fa1f"
_WORDS = re.compile(rf"[{_UNSPACED}]|(?:(?![{_UNSPACED}])\w)+")
_RUN = 3
_COMPARED = 32
"""Of the texts that share a band, each is compared with so many before it, and with the first."""

_READ_ROWS = 1 << 16
_ODD = (0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9)


def _words(text: str) -> list[str]:
    return (_ASCII_WORDS if text.isascii() else _WORDS).findall(text)


_PARTS = ("rows", "names", "bands", "hashes", "counts")
"""``rows`` points from each text to its sketch, which texts that come together share."""


class Sketches:
    """Of a column of texts, in the order of their coming."""

    def __init__(self, folder: Path, name: str, threshold: float, seed: int = 0) -> None:
        self._threshold, self._seed = threshold, seed
        self._in_band = _IN_BAND[threshold >= _HIGH]
        self._bands = _PERMUTATIONS // self._in_band
        self._paths = {part: folder / f"{name}.{part}" for part in _PARTS}
        self._files: dict[str, IO[bytes]] = {part: path.open("wb") for part, path in self._paths.items()}
        self._words = WordHashes()
        self._sketched = 0

    def add(self, texts: Sequence[str]) -> None:
        """The next texts. A few thousand at once are best."""
        if not texts:
            return
        numbers = {text: number for number, text in enumerate(dict.fromkeys(texts), self._sketched)}
        rows = np.array([numbers[text] for text in texts], np.uint32)
        texts = list(numbers)
        self._sketched += len(texts)
        words = [_words(text.lower()) or [text] for text in texts]
        names = [text_hash(" ".join(found)) for found in words]
        hashes, bounds = _distinct(*self._runs(words))
        matrix = rensa.RMinHash.digest_matrix_from_flat_token_hashes(
            hashes, bounds.astype(np.uint64), _PERMUTATIONS, self._seed
        )
        bands = np.array(matrix.to_rows(), np.uint32).view(np.uint64)  # [texts, permutations / 2]
        if self._in_band == 4:
            bands = mix(bands[:, 0::2] * np.uint64(_ODD[0]) + mix(bands[:, 1::2]))
        counts = np.diff(bounds)
        place = np.arange(len(hashes)) - np.repeat(bounds[:-1], counts)
        smallest = (hashes[place < _SMALLEST] >> np.uint64(32)).astype(np.uint32)
        parts = {"names": np.array(names, np.uint64), "bands": bands, "hashes": smallest}
        for part, values in {**parts, "counts": counts.astype(np.uint32), "rows": rows}.items():
            self._files[part].write(np.ascontiguousarray(values).tobytes())

    def _runs(self, words: list[list[str]]) -> tuple[np.ndarray, np.ndarray]:
        """Hashes of all runs of words, and where each text's begin."""
        lengths = np.array([max(len(found), _RUN) for found in words])
        flat = np.zeros(lengths.sum(), np.uint64)
        starts = np.concatenate([[0], np.cumsum(lengths)])
        for found, start in zip(words, starts.tolist(), strict=False):
            flat[start : start + len(found)] = [self._words[word] for word in found]
        runs = sum(flat[i : len(flat) - _RUN + 1 + i] * np.uint64(_ODD[i]) for i in range(_RUN))
        inside = np.ones(len(flat), bool)
        for back in range(1, _RUN):
            inside[starts[1:] - back] = False
        runs = mix(np.asarray(runs))[inside[: len(flat) - _RUN + 1]]
        return runs, np.concatenate([[0], np.cumsum(lengths - _RUN + 1)])

    def near(self, check_stop: Callable[[], None] = lambda: None) -> tuple[np.ndarray, np.ndarray]:
        """Which texts say the same, and which nearly. Nothing can be added afterwards.

        Returns for every text the number of the first that has the same words in the same order [texts], and
        pairs of such first ones whose runs have at least the threshold in common (Jaccard) [pairs, 2], the
        earlier one first.
        """
        for file in self._files.values():
            file.close()
        names = np.fromfile(self._paths["names"], np.uint64)
        _, firsts, inverse = np.unique(names, return_index=True, return_inverse=True)
        pairs = self._measured(self._candidates(np.sort(firsts), check_stop), check_stop)
        rows = np.fromfile(self._paths["rows"], np.uint32)
        first_row = np.unique(rows, return_index=True)[1].astype(np.int64)
        return first_row[firsts[inverse[rows]]], first_row[pairs]

    def _candidates(self, chosen: np.ndarray, check_stop: Callable[[], None]) -> np.ndarray:
        """Pairs of texts that have a band in common, as one number each: the earlier << 32 | the later."""
        found = np.empty(0, np.uint64)
        for band in range(self._bands):
            check_stop()
            column = self._band(band)[chosen]
            order = np.argsort(column, kind="stable")
            ordered, texts = column[order], chosen[order].astype(np.uint64)
            pairs = []
            for step in range(1, _COMPARED):
                equal = ordered[step:] == ordered[:-step]
                if not equal.any():
                    break
                pairs.append(texts[:-step][equal] << np.uint64(32) | texts[step:][equal])
            else:
                begin = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]]))
                sizes = np.diff(np.concatenate([begin, [len(ordered)]]))
                first = np.repeat(texts[begin], sizes)
                pairs.append((first << np.uint64(32) | texts)[first != texts])
            if pairs:
                found = np.sort(np.concatenate([found, *pairs]))
                found = found[np.concatenate([[True], found[1:] != found[:-1]])]
        return found

    def _band(self, band: int) -> np.ndarray:
        column = np.empty(self._sketched, np.uint64)
        begin = 0
        with self._paths["bands"].open("rb") as file:
            while block := file.read(_READ_ROWS * self._bands * 8):
                part = np.frombuffer(block, np.uint64).reshape(-1, self._bands)[:, band]
                column[begin : begin + len(part)] = part
                begin += len(part)
        return column

    def _measured(self, encoded: np.ndarray, check_stop: Callable[[], None]) -> np.ndarray:
        one = (encoded >> np.uint64(32)).astype(np.int64)
        two = (encoded & np.uint64(0xFFFFFFFF)).astype(np.int64)
        counts = np.fromfile(self._paths["counts"], np.uint32)
        # No text of half the runs can have most of them in common.
        able = np.minimum(counts[one], counts[two]) >= self._threshold * np.maximum(counts[one], counts[two])
        pairs = np.stack([one[able], two[able]], axis=1)
        if not len(pairs):
            return pairs
        kept = np.minimum(counts, _SMALLEST).astype(np.int64)
        bounds = np.concatenate([[0], np.cumsum(kept)])
        with self._paths["hashes"].open("rb") as file:

            def of(text: int) -> np.ndarray:
                # Read, and not mapped: what was read counts as nobody's memory.
                begin, end = 4 * int(bounds[text]), 4 * int(bounds[text + 1])
                return np.frombuffer(os.pread(file.fileno(), end - begin, begin), np.uint32)

            is_near = np.empty(len(pairs), bool)
            for number, (one, two) in enumerate(pairs.tolist()):
                if number % _READ_ROWS == 0:
                    check_stop()
                is_near[number] = _resemblance(of(one), of(two)) >= self._threshold
        return np.asarray(pairs[is_near])


def _resemblance(one: np.ndarray, two: np.ndarray) -> float:
    """Of all different runs of both texts, the share that both have, judged by the smallest hashes."""
    both = np.concatenate([one, two])
    both.sort()
    shared = both[1:] == both[:-1]
    distinct = len(both) - int(np.count_nonzero(shared))
    if distinct > _SMALLEST:
        number = np.cumsum(np.concatenate([[True], ~shared]))  # of distinct values, up to each
        shared = shared[number[1:] <= _SMALLEST]
        distinct = _SMALLEST
    return int(np.count_nonzero(shared)) / distinct


def _distinct(runs: np.ndarray, bounds: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Each text's different runs, ascending, and where they begin."""
    owner = np.repeat(np.arange(len(bounds) - 1), np.diff(bounds))
    order = np.lexsort((runs, owner))
    runs = runs[order]
    new = np.ones(len(runs), bool)
    new[1:] = (runs[1:] != runs[:-1]) | (owner[1:] != owner[:-1])
    counts = np.bincount(owner[new], minlength=len(bounds) - 1)
    return runs[new], np.concatenate([[0], np.cumsum(counts)])
