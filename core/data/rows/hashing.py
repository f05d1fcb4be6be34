"""Texts as 64-bit numbers. The server imports this: no numpy here."""

import hashlib


def text_hash(text: str) -> int:
    """64 bits of a text."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")
