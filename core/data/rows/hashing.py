"""Texts as 64-bit numbers. The server imports this: no numpy here."""

import hashlib

_KNOWN_WORDS = 1 << 20


def text_hash(text: str) -> int:
    """64 bits of a text."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


class WordHashes(dict[str, int]):
    """Remembers the hashes of words; forgets them all when they become too many."""

    def __missing__(self, word: str) -> int:
        if len(self) >= _KNOWN_WORDS:
            self.clear()
        self[word] = found = text_hash(word)
        return found
