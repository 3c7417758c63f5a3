"""Opening of an index in a folder."""
from __future__ import annotations

from pathlib import Path

import numpy as np

from clipgs_plugin.io.arrays import read_npy
from clipgs_plugin.io.files import sha256_of
from clipgs_plugin.search.card import IndexCard, Shard, read_card
from clipgs_plugin.search.layout import CARD, REMEDY, REMOVED, metadata_name, vectors_name
from clipgs_plugin.search.metadata import ShardMetadata, TableMetadata
from clipgs_plugin.search.vectors import Vectors, map_vectors

IN_MEMORY = 1_000_000     # rows whose metadata are read at once
VERIFIED_BYTES = 1 << 26  # of the files of shards that are compared with their hashes whenever an index is opened


def open_folder(
    folder: Path, verify: bool = False,
) -> tuple[IndexCard, tuple[Shard, ...], Vectors, TableMetadata | ShardMetadata]:
    """Map the vectors of an index into memory, and read its metadata, or open that of more than a million rows.

    Args:
        folder: Folder of the index.
        verify: True compares the files of shards of any size with their hashes, False those of a small index.

    Raises:
        FileNotFoundError: A file is missing.
        ValueError: A file is damaged, or does not agree with the card.
    """
    card, shards, removed_sha256 = read_card(folder)
    refuse_missing(folder, shards)
    blocks = [map_vectors(folder / vectors_name(i), shard.rows, card.width) for i, shard in enumerate(shards)]
    removed = read_removed(folder, sum(shard.rows for shard in shards), removed_sha256)
    vectors = Vectors(blocks, card.width, removed, str(folder))
    paths = [folder / metadata_name(i) for i in range(len(shards))]
    metadata = ShardMetadata(paths, [shard.rows for shard in shards], vectors.kept)
    files = [*paths, *(folder / vectors_name(i) for i in range(len(shards)))]
    if verify or sum(path.stat().st_size for path in files) <= VERIFIED_BYTES:
        refuse_others(folder, shards)
    return card, shards, vectors, TableMetadata(metadata.table()) if vectors.total <= IN_MEMORY else metadata


def refuse_missing(folder: Path, shards: tuple[Shard, ...]) -> None:
    """Check that the files of every shard exist.

    Raises:
        FileNotFoundError: One does not.
    """
    for i in range(len(shards)):
        for name in (vectors_name(i), metadata_name(i)):
            if not (folder / name).is_file():
                raise FileNotFoundError(f'{folder / name} does not exist, one of {len(shards)} shards of the index; '
                                        f'{REMEDY}')


def refuse_others(folder: Path, shards: tuple[Shard, ...]) -> None:
    """Check that the files of every shard are those that were written, whose rows belong to each other.

    Raises:
        ValueError: The hash of one differs.
    """
    for i, shard in enumerate(shards):
        _refuse_other(folder, vectors_name(i), shard.sha256)
        if shard.metadata_sha256:  # not of an earlier version
            _refuse_other(folder, metadata_name(i), shard.metadata_sha256)


def _refuse_other(folder: Path, name: str, expected: str) -> None:
    with (folder / name).open('rb') as file:
        if sha256_of(file) != expected:
            raise ValueError(f'{folder / name} is not the file that was written, its SHA-256 is not that of {CARD}; '
                             f'{REMEDY}')


def read_removed(folder: Path, total: int, sha256: str | None) -> np.ndarray:
    """Read the positions of rows that are superseded or gone, ascending.

    Args:
        folder: Folder of an index.
        total: Rows of its shards.
        sha256: Hash of the file, empty if there is none, None if that is not known.

    Raises:
        FileNotFoundError: The file is missing, without which rows that are gone would return.
        ValueError: The file is damaged, or another one than was written.
    """
    path = folder / REMOVED
    if not path.is_file():
        if sha256:
            raise FileNotFoundError(f'{path} does not exist, which tells the rows that are gone; {REMEDY}')
        return np.empty(0, np.int64)
    removed = read_npy(path)
    if removed.dtype != np.int64 or removed.ndim != 1 or (len(removed) and (
            removed[0] < 0 or removed[-1] >= total or (np.diff(removed) <= 0).any())):
        raise ValueError(f'{path} holds {removed.shape} of {removed.dtype}, expected ascending int64 positions below '
                         f'{total}; {REMEDY}')
    if sha256 is not None:
        _refuse_other(folder, REMOVED, sha256)
    return removed
