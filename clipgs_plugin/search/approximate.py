"""Candidates of a search in a large index: lists of short codes beside it, by faiss.

Vectors are rotated onto their principal axes, assigned to the nearest of many centres, and their difference from it is
a product-quantised code (Jegou et al., "Product quantization for nearest neighbor search", 2011) of 4 bits a part, for
which tables stay in registers (Andre et al., "Cache locality is not enough", 2015). A search reads the codes of the
centres nearest to the query. The files hold plain numbers and are checked before faiss sees them.
"""
from __future__ import annotations

import hashlib
import io
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from torch import Tensor

from clipgs_plugin.io.arrays import read_npz_of
from clipgs_plugin.search.card import Shard
from clipgs_plugin.search.exact import nearest, rank
from clipgs_plugin.search.layout import CODES, RECORD, TABLES
from clipgs_plugin.search.record import REMEDY, Record, read_record, refuse_missing_codes
from clipgs_plugin.search.vectors import Vectors

EXTRA = 'approximate search needs faiss 1.13 or newer: pip install -U faiss-cpu'
OLDEST = 1, 13  # of faiss; before, a search after one with a condition returned other rows
LENGTH = 2.     # of a query. Texts lie far from objects: distances from a unit vector along the axes would tell more
#                 of the lengths of rows there than of their cosines
CENTROIDS = 16  # of a part of a code, which has 4 bits
LARGE = 1_000_000  # rows, of which an exact search takes a second and more
_ARRAYS = dict(axes=('f', 2), mean=('f', 1), centers=('f', 2), codebooks=('f', 3), sizes=('i', 1))


@dataclass(frozen=True)
class Tables:
    """Numbers that make a code of a vector."""

    axes: np.ndarray       # (d, E) principal axes
    mean: np.ndarray       # (E,)
    centers: np.ndarray    # (L, d)
    codebooks: np.ndarray  # (M, 16, d/M)
    sizes: np.ndarray      # (L,) codes of each list

    def project(self, vectors: np.ndarray) -> np.ndarray:
        """Rotate vectors (n, E) onto the principal axes, (n, d)."""
        return np.ascontiguousarray((vectors - self.mean) @ self.axes.T, np.float32)

    def empty(self):
        """Return the index of faiss without any codes."""
        faiss = import_faiss()
        d, m = self.centers.shape[1], len(self.codebooks)
        quantizer = faiss.IndexFlatL2(d)
        quantizer.add(self.centers)
        index = faiss.IndexIVFPQ(quantizer, d, len(self.centers), m, 4)
        index.own_fields = True
        quantizer.this.disown()
        faiss.copy_array_to_vector(self.codebooks.astype(np.float32).ravel(), index.pq.centroids)
        index.is_trained = True
        return index


class Approximate:
    """Codes of an index, read into memory in the order that processors compare them in.

    Args:
        folder: Folder of the index.
        shards: Its shards.
        vectors: Its vectors.

    Raises:
        FileNotFoundError: A file is missing.
        ImportError: faiss is not installed.
        ValueError: A file is damaged.
    """

    def __init__(self, folder: Path, shards: tuple[Shard, ...], vectors: Vectors) -> None:
        self.record, self.vectors, self.path = read_record(folder), vectors, folder / CODES
        refuse_missing_codes(folder)
        same = np.array([before == now for before, now in zip(self.record.shards, shards)]
                        + [False] * (len(shards) - len(self.record.shards)), dtype=bool)[:len(shards)]
        lengths = [shard.rows for shard in shards]
        moved = np.cumsum([0, *lengths])[:-1] != np.cumsum([0, *(s.rows for s in self.record.shards),
                                                           *lengths[len(self.record.shards):]])[:len(shards)]
        self.covered = np.repeat(same & ~moved, lengths)  # of positions
        kept = np.ones(vectors.total, dtype=bool) if vectors.kept is None else np.isin(
            np.arange(vectors.total), vectors.kept, assume_unique=True)
        self.open = self.covered & kept
        self._bits = None if self.open.all() else np.packbits(self.open, bitorder='little')
        self.rest = vectors.rows(np.flatnonzero(kept & ~self.covered))  # rows that are searched exactly
        self.tables = _read_tables(folder, vectors.width)
        self._mapped = _mapped(self.path, self.tables)  # has the centres of the other
        self._index = import_faiss().IndexIVFPQFastScan(self._mapped)

    @property
    def share(self) -> float:
        """Part of the rows that it covers."""
        return float(self.open.sum()) / max(len(self.vectors), 1)

    def nearest(self, query: Tensor, k: int, chosen: np.ndarray | None = None) -> tuple[np.ndarray, Tensor]:
        """Return rows (m,) and cosines (m,) of the ``k`` nearest vectors, probably, best first.

        Args:
            query: Unit vector (E,).
            k: Number of neighbours.
            chosen: Ascending rows to search; all by default.
        """
        wanted = min(k, len(self.vectors) if chosen is None else len(chosen))
        rest = self.rest if chosen is None else np.intersect1d(self.rest, chosen, assume_unique=True)
        found = self.candidates(query, k, chosen)
        if len(rest):
            found = np.concatenate([found, nearest(self.vectors, query, k, rest)[0]])
        if len(found) < wanted:
            return nearest(self.vectors, query, k, chosen)
        return rank(self.vectors, query, found, k)

    def candidates(self, query: Tensor, k: int, chosen: np.ndarray | None = None) -> np.ndarray:
        """Return rows that include the ``k`` nearest with the stated recall.

        Args:
            query: Unit vector (E,).
            k: Number of neighbours that are wanted.
            chosen: Ascending rows to search; all by default.
        """
        faiss = import_faiss()
        allowed, bits, probes = self.open, self._bits, self.record.probes
        if chosen is not None:
            allowed = np.zeros_like(self.open)
            allowed[self.vectors.positions(chosen)] = True
            allowed &= self.open
            bits = np.packbits(allowed, bitorder='little')
            probes = int(probes * min(8, len(self.vectors) / max(len(chosen), 1)))
        settings = faiss.SearchParametersIVF(
            nprobe=min(probes, len(self.tables.centers)),
            sel=None if bits is None else faiss.IDSelectorBitmap(len(bits), faiss.swig_ptr(bits)))
        _, found = self._index.search(self.tables.project(LENGTH * query[None].numpy()),
                                      max(self.record.candidates, 4 * k), params=settings)
        positions = found[0][found[0] >= 0]
        if len(positions) and (positions.max() >= self.vectors.total or not allowed[positions].all()):
            raise ValueError(f'{self.path} names rows that do not exist; it is damaged, {REMEDY}')
        return self.vectors.rows(np.unique(positions))


def import_faiss():
    """Import faiss.

    Raises:
        ImportError: It is not installed, or too old; the message tells how to install it.
    """
    try:
        import faiss
    except ImportError as error:
        raise ImportError(EXTRA) from error
    if tuple(map(int, faiss.__version__.split('.')[:2])) < OLDEST:
        raise ImportError(f'{EXTRA} (this is {faiss.__version__})')
    return faiss


def advice(folder: Path, rows: int) -> str | None:
    """Return a note on an index of many rows that does not have codes, or None."""
    if rows <= LARGE or (folder / RECORD).is_file():
        return None
    return (f'note: {folder} has {rows:,} objects and no codes, so a search compares the query with each of them; make '
            f'it fast with tools/search.py {folder} --build-approximate')


def files_of(record: Record, tables: Tables, index) -> Iterator[tuple[str, Iterable[bytes]]]:
    """Yield the files of codes with their content, for a commit, and last the record with their hashes."""
    buffer = io.BytesIO()
    np.savez(buffer, axes=tables.axes, mean=tables.mean, centers=tables.centers, codebooks=tables.codebooks,
             sizes=tables.sizes)
    digest = hashlib.sha256()
    yield TABLES, [buffer.getbuffer()]
    yield CODES, _lists(index, tables.sizes, digest)
    hashes = (TABLES, hashlib.sha256(buffer.getbuffer()).hexdigest()), (CODES, digest.hexdigest())
    yield RECORD, [replace(record, sha256=hashes).content()]


def _lists(index, sizes: np.ndarray, digest) -> Iterator[bytes]:
    """Yield the codes and then the positions of each list, of which a digest takes all bytes."""
    from faiss.contrib.inspect_tools import get_invlist
    for i, size in enumerate(sizes.tolist()):
        if size:
            positions, codes = get_invlist(index.invlists, i)
            for part in (codes.tobytes(), positions.astype('<i8').tobytes()):
                digest.update(part)
                yield part


def _read_tables(folder: Path, width: int) -> Tables:
    """Read the tables and check that they agree with each other and with the file of codes."""
    path = folder / TABLES
    arrays = read_npz_of(path, _ARRAYS)
    axes, mean, centers, codebooks, sizes = found = [arrays[name] for name in _ARRAYS]
    d, m, lists, held = len(axes), len(codebooks), len(sizes), (folder / CODES).stat().st_size
    shapes = [(d, width), (width,), (lists, d), (m, CENTROIDS, d // max(m, 1)), (lists,)]
    sound = 1 <= d <= width and 1 <= m <= 256 and d % m == 0 and lists and sizes.dtype == np.int64
    if not sound or [array.shape for array in found] != shapes or sizes.min() < 0 or sizes.max() > held or (
            sum(sizes.tolist()) * ((m + 1) // 2 + 8) != held):
        raise ValueError(f'{path} does not agree with {CODES} or the width {width} of the index; {REMEDY}')
    if not all(np.isfinite(array).all() for array in (axes, mean, centers, codebooks)):
        raise ValueError(f'{path} holds numbers that are not finite; {REMEDY}')
    return Tables(*(np.ascontiguousarray(array, np.float32) for array in (axes, mean, centers, codebooks)), sizes)


def _mapped(path: Path, tables: Tables):
    """Return the index of faiss over the file of codes."""
    faiss = import_faiss()
    index = tables.empty()
    width = index.code_size
    offsets = np.cumsum([0, *(tables.sizes * (width + 8)).tolist()])
    lists = faiss.OnDiskInvertedLists()
    lists.nlist, lists.code_size, lists.filename = len(tables.sizes), width, str(path)
    lists.read_only, lists.totsize = True, int(offsets[-1])
    lists.lists.clear()
    for size, offset in zip(tables.sizes.tolist(), offsets.tolist()):
        entry = faiss.OnDiskOneList()
        entry.size, entry.capacity, entry.offset = size, size, offset
        lists.lists.push_back(entry)
    if lists.totsize:
        lists.do_mmap()
    index.replace_invlists(lists, True)
    lists.this.disown()
    index.ntotal = int(tables.sizes.sum())
    return index


def sample_rows(vectors: Vectors, number: int, seed: int) -> np.ndarray:
    """Return up to ``number`` random rows, ascending."""
    rng = np.random.default_rng(seed)
    return np.sort(rng.choice(len(vectors), min(number, len(vectors)), replace=False))

