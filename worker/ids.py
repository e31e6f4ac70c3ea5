"""Owns the making of ids: nobody can guess one, and no other deployment makes the same."""

import random

_bits = random.SystemRandom().getrandbits


def new_id(prefix: str) -> str:
    """Make an id, behind a prefix that says what it is of."""
    return f"{prefix}{_bits(128):032x}"


def new_rev() -> str:
    """Make a rev for a change of a record."""
    return f"{_bits(64):016x}"
