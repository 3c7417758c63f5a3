"""Split of Objaverse for few-shot tests, a rule on uids.

No published list divides Objaverse-LVIS, so few-shot results on it need a split of their own. Here it is a function of
the uid alone: sets that hold the same object agree on its part, whatever else they hold, and no list has to be kept.
"""
from __future__ import annotations

import hashlib
from collections.abc import Iterable

PARTS = 10
TEST, VAL = (0, 1), (2,)  # residues; the other seven tenths are train


def split_of_uid(uid: str) -> str:
    """Return ``'train'``, ``'val'`` or ``'test'`` of an object.

    The first 8 bytes of the SHA-256 of the uid (UTF-8), as a big-endian integer modulo 10: 0 and 1 are test, 2 is val,
    3 to 9 are train.
    """
    residue = int.from_bytes(hashlib.sha256(uid.encode()).digest()[:8], 'big') % PARTS
    return 'test' if residue in TEST else 'val' if residue in VAL else 'train'


def hash_of_uids(uids: Iterable[str]) -> str:
    """Return the SHA-256 of a list of uids, sorted and joined by newlines, to be quoted with results."""
    return hashlib.sha256('\n'.join(sorted(uids)).encode()).hexdigest()
