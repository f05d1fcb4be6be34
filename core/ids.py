"""Identifiers that sort by the time they were made."""

import secrets
import time

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"  # Crockford's base 32: nothing that reads as something else


def new_id(prefix: str) -> str:
    """A unique id such as ``job_01k9zq...``: 48 bits of milliseconds, then 80 random bits.

    Ids of one prefix sort by creation time, so a list ordered by id needs no other column to page over.
    """
    value = (time.time_ns() // 1_000_000) << 80 | secrets.randbits(80)
    digits = [_ALPHABET[(value >> shift) & 31] for shift in range(125, -1, -5)]
    return f"{prefix}_{''.join(digits)}"


def new_ids(prefix: str, count: int) -> list[str]:
    """So many, in rising order."""
    return sorted(new_id(prefix) for _ in range(count))
