"""Folds of a cross-validation, by the uids of the objects alone."""
from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np

from clipgs_plugin.triplets import caption_id


def assign_folds(uids: Sequence[str], count: int) -> np.ndarray:
    """Deal objects to folds, in the order of the hashes of their uids.

    The folds are the same on every machine and in any order of the objects. Their sizes differ by at most one.

    Args:
        uids: Distinct names, n of them.
        count: Number of folds, 2 to n.

    Returns:
        Number of the fold of each object, (n,) int64.

    Raises:
        ValueError: There are fewer objects than folds, or a single fold.
    """
    if not 2 <= count <= len(uids):
        raise ValueError(f'{count} folds of {len(uids)} objects: expected at least 2 folds, and an object in each')
    order = sorted(range(len(uids)), key=lambda i: (caption_id(uids[i]), uids[i]))
    folds = np.empty(len(uids), np.int64)
    folds[order] = np.arange(len(uids)) % count
    return folds


def splits_of_fold(uids: Sequence[str], fold: Sequence[int]) -> list[str]:
    """Return the split of each object, ``'test'`` in a fold and ``'train'`` in all others.

    Args:
        uids: Distinct names.
        fold: Number of the fold, from 0, and the number of folds.

    Raises:
        ValueError: There is no such fold.
    """
    if len(fold) != 2 or not 0 <= fold[0] < fold[1]:
        raise ValueError(f'fold={tuple(fold)}: expected the number of a fold, from 0, and the number of folds, such as '
                         '(0, 5)')
    return ['test' if number == fold[0] else 'train' for number in assign_folds(uids, fold[1])]


def splits_digest(uids: Sequence[str], splits: Sequence[str]) -> str:
    """Return the SHA-256 of the sorted lines ``UID SPLIT``, by which two machines compare their splits."""
    lines = sorted(f'{uid} {split}\n' for uid, split in zip(uids, splits))
    return hashlib.sha256(''.join(lines).encode('utf-8', 'surrogatepass')).hexdigest()
