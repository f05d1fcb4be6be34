"""Where a document that is too long is cut: after so many tokens, or where a sentence or a line ends."""

from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
from transformers import PreTrainedTokenizerBase

from core.engine.tokens import Ids
from core.spec.parts.training import Lengths

_SENTENCE_ENDS = (".", "!", "?", "…", "。", "！", "？")  # noqa: RUF001
_WIDE_ENDS = ("。", "！", "？")  # noqa: RUF001 - no space follows them
_LINE_END = ("\n", "Ċ")  # as byte-level vocabularies write it
_SPACE = ("Ġ", "▁", " ")  # begins a token that stands after white space


@dataclass(frozen=True)
class Ends:
    """Kinds of tokens. All are sorted numbers."""

    sentences: np.ndarray  # a sentence ends here, if white space follows
    lines: np.ndarray  # a line, or a sentence of a script without spaces, ends here
    spaced: np.ndarray  # stands after white space; none where the vocabulary does not say
    numbers: np.ndarray  # digits alone

    def places(self, ids: np.ndarray) -> np.ndarray:
        """Where something ends. The last of ``ids`` only tells what follows the one before it."""
        end, after = ids[:-1], ids[1:]
        of_sentences = np.isin(end, self.sentences)
        if len(self.spaced):
            of_sentences &= np.isin(after, self.spaced) | np.isin(after, self.lines)
        else:  # nothing is known of white space: at least no number is cut
            before = np.concatenate([[-1], end[:-1]])
            of_sentences &= ~(np.isin(before, self.numbers) & np.isin(after, self.numbers))
        return np.flatnonzero(of_sentences | np.isin(end, self.lines))


@dataclass(frozen=True)
class Cut:
    """(token ids, room) -> what is kept."""

    ends: Ends | None = field(default=None)

    def __call__(self, ids: Ids, room: int) -> Ids:
        """At most ``room`` tokens. More than half of them: where nothing ends in the second half, the text is
        cut after the last that fits."""
        if self.ends is None or len(ids) <= room or room < 1:
            return ids
        places = self.ends.places(np.asarray(ids[: room + 1]))
        if len(places) and places[-1] + 1 > room / 2:
            return ids[: int(places[-1]) + 1]
        return ids[:room]


def make_cut(tokenizer: PreTrainedTokenizerBase, asked: Lengths) -> Cut:
    """As the spec asks. Whoever keeps a text's end instead of its beginning keeps that."""
    if asked.cut == "tokens" or tokenizer.truncation_side == "left":
        return Cut()
    return Cut(_ends_of(tokenizer))


@lru_cache(maxsize=4)
def _ends_of(tokenizer: PreTrainedTokenizerBase) -> Ends:
    words = tokenizer.get_vocab()

    def of(chosen: list[int]) -> np.ndarray:
        return np.array(sorted(chosen), np.int64)

    return Ends(
        of([number for piece, number in words.items() if piece.endswith(_SENTENCE_ENDS)]),
        of(
            [
                number
                for piece, number in words.items()
                if piece.endswith(_WIDE_ENDS) or any(end in piece for end in _LINE_END)
            ]
        ),
        of([number for piece, number in words.items() if piece.startswith(_SPACE)]),
        of([number for piece, number in words.items() if piece.removeprefix("##").isdigit()]),
    )
