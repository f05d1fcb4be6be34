"""Texts into the tokens that BM25 counts.

Scripts that put spaces between words give words. Scripts that do not, and Hangul, whose words carry their
particles, give single characters and pairs of neighbours (Nie et al. 2000, "On the use of words and n-grams
for Chinese information retrieval"; Lucene's CJKBigramFilter makes the same pairs).
"""

import unicodedata
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import regex
from bm25s.tokenization import Tokenizer

TOKENIZER = "words of 2 or more characters; 1-grams and 2-grams of scripts without spaces (version 2)"
"""Reports and keys of caches state it. The version changes with the tokens."""

_UNSPACED = (
    r"[[\p{scx=Han}\p{scx=Hiragana}\p{scx=Katakana}\p{sc=Hangul}\p{Line_Break=SA}]&&[\p{L}\p{M}\p{Nl}]]"
)
"""Han, kana, Hangul; Thai, Lao, Khmer, Burmese and their neighbours (line breaking class SA)."""

_WORD = r"[\w\p{No}]"
_WORDS = regex.compile(rf"{_WORD}+")
_HAS_UNSPACED = regex.compile(rf"(?V1){_UNSPACED}|[\uff00-\uffef]")  # and forms of their width
_RUNS = regex.compile(rf"(?V1)(?P<unspaced>{_UNSPACED}+)|(?:(?!{_UNSPACED}){_WORD})+")
_CHARACTERS = regex.compile(r"\X")  # with the marks that belong to them


def words_of(text: str) -> list[str]:
    """The tokens of a text: the same for documents and queries.

    Words of one character are tokens only in a text that has no others (in English they are mostly articles
    and initials), and other marks only in a text without letters and digits. Only a blank text has no tokens.
    """
    lower = unicodedata.normalize("NFC", text.lower())
    tokens: list[str] = []
    if not lower.isascii() and _HAS_UNSPACED.search(lower):
        words = []
        for run in _RUNS.finditer(unicodedata.normalize("NFKC", lower)):
            if run["unspaced"] is None:
                words.append(run[0])
                continue
            characters = _CHARACTERS.findall(run[0])
            tokens += characters
            tokens += map("".join, pairwise(characters))
    else:
        words = _WORDS.findall(lower)
    tokens += [word for word in words if len(word) > 1]
    return tokens or words or lower.split()


def tokenized(texts: Sequence[str]) -> Any:
    """The tokens of texts as bm25s indexes them: ``ids`` of each text, and ``vocab`` from token to id."""
    tokenizer = Tokenizer(lower=False, splitter=words_of, stopwords=None)
    return tokenizer.tokenize(texts, return_as="tuple", allow_empty=False, show_progress=False)
