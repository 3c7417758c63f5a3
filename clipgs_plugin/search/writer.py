"""Writer of an index in a folder, which appends, replaces and drops rows."""
from __future__ import annotations

import hashlib
import io
import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from clipgs_plugin.io.lock import LOCK, folder_lock
from clipgs_plugin.search.card import IndexCard, Shard, read_card, write_card
from clipgs_plugin.search.commit import commit, finish, is_pending, own_files
from clipgs_plugin.search.folder import open_folder
from clipgs_plugin.search.layout import CARD, PENDING, REMOVED, is_index, metadata_name, vectors_name
from clipgs_plugin.search.metadata import GROUP_ROWS, base_schema
from clipgs_plugin.search.rows import joined, joined_schema, storable, table_of

if TYPE_CHECKING:
    import pyarrow as pa

ROWS_PER_SHARD = 8192
FLUSH_ROWS, FLUSH_SECONDS = 256, 30.
_UNIT = 1e-3           # largest deviation of a length from 1


class IndexWriter:
    """Context that adds rows to an index, which it creates if there is none.

    Rows are written every ``flush_rows``, every half minute and at the end, several files at once or none, so that a
    reader sees one state or the next, and a kill loses no more than the rows since. A second writer is refused while
    one is at work.

    Example:
        >>> with IndexWriter('work_dirs/index', IndexCard('clipgs_toy', 64)) as index:
        ...     for path in index.outdated(files):
        ...         index.add(path, embed(path), category='chair')
        ...     index.drop_missing(['splats'])

    Args:
        folder: Folder of the index; a new or an empty one starts an index.
        card: Origin of the vectors.
        rows_per_shard: Most rows of a pair of files.
        flush_rows: Rows that a kill may lose.

    Raises:
        ValueError: The index was made with another model, weights or options, one of its files is not the one that was
            written, or the folder holds something else.
    """

    def __init__(self, folder: str | os.PathLike, card: IndexCard, rows_per_shard: int = ROWS_PER_SHARD,
                 flush_rows: int = FLUSH_ROWS) -> None:
        if min(rows_per_shard, flush_rows) < 1:
            raise ValueError(f'rows_per_shard={rows_per_shard}, flush_rows={flush_rows}: expected at least 1')
        self.folder, self.card, self.rows_per_shard, self.flush_rows = Path(folder), card, rows_per_shard, flush_rows
        self._stack = ExitStack()

    def __enter__(self) -> IndexWriter:
        started = is_index(self.folder) or is_pending(self.folder)
        if not started and self.folder.is_dir() and set(os.listdir(self.folder)) - {PENDING, LOCK}:
            raise ValueError(f'{self.folder} holds files and is not an index; name a new or an empty folder')
        self.folder.mkdir(parents=True, exist_ok=True)
        with ExitStack() as stack:
            stack.enter_context(folder_lock(self.folder))
            finish(self.folder)
            self._open()
            self._stack = stack.pop_all()
        return self

    def __exit__(self, kind, error, trace) -> None:
        with self._stack:
            self.flush()

    def __len__(self) -> int:
        return len(self._places)

    def outdated(self, paths: Iterable[str | os.PathLike]) -> list[str]:
        """Return the files, as absolute paths, that are not in the index or have another size or time than there.

        Raises:
            FileNotFoundError: A file does not exist.
        """
        found = []
        for path in map(os.path.abspath, paths):
            known = self._stats[path] = _stat(path)
            place = self._places.get(path)
            if place is None or self._known[place] != known:
                found.append(path)
        return found

    def add(self, path: str | os.PathLike, embedding: Tensor, **metadata: object) -> None:
        """Add a row, which takes the place of an earlier one of the same path.

        Args:
            path: File of the object.
            embedding: Unit vector (E,).
            metadata: Values of columns: texts, numbers, truth values, or None. By default ``size`` and ``mtime_ns``
                are those that :meth:`outdated` found, so that a later change is seen.

        Raises:
            ValueError: The embedding has another width or is not a unit vector, or a value is of another type.
        """
        path = os.path.abspath(path)
        if embedding.shape != (self.card.width,) or not abs(float(embedding.norm()) - 1) < _UNIT:
            raise ValueError(f'{path}: an embedding of shape {tuple(embedding.shape)} and length '
                             f'{float(embedding.norm()):.4g}, expected a unit vector of {self.card.width}')
        known = 'size' in metadata and 'mtime_ns' in metadata
        size, mtime_ns = (0, 0) if known else self._stats.get(path) or _stat(path)
        row = dict(image_path=path, caption='', path=path, size=size, mtime_ns=mtime_ns) | metadata
        types = tuple((name, type(value)) for name, value in row.items())
        if types not in self._types or not storable(row):  # wrong values are refused before the row is kept
            self._schema = joined_schema(self._schema, table_of([row], path).schema, path)
            self._types.add(types)
        self._remove(path)
        self._places[path] = self._total + len(self._new_rows)
        self._known[self._places[path]] = (row['size'], row['mtime_ns'])
        self._new_rows.append(row)
        self._new_vectors.append(embedding.detach().cpu().numpy().astype(np.float16))
        if len(self._new_rows) >= self.flush_rows or time.monotonic() - self._flushed >= FLUSH_SECONDS:
            self.flush()

    def drop_missing(self, inputs: Sequence[str | os.PathLike]) -> list[str]:
        """Drop the rows of files that lie in folders, or are files, of ``inputs`` and no longer exist.

        Returns:
            Their paths.

        Raises:
            FileNotFoundError: A folder does not exist, whose disk may not be mounted.
        """
        gone = []
        for entry in map(os.path.abspath, inputs):
            if entry not in self._places and not os.path.exists(entry):
                raise FileNotFoundError(f'{entry} does not exist; the rows of its files are kept until it does')
            below = os.path.join(entry, '')
            gone += [path for path in self._places
                     if (path == entry or path.startswith(below)) and not _exists(path)]
        for path in gone:
            self._remove(path)
        return gone

    def drop(self, paths: Iterable[str | os.PathLike]) -> None:
        """Drop the rows of paths; those that are not in the index are ignored."""
        for path in map(os.path.abspath, paths):
            self._remove(path)

    def fill(self, column: str, values: Mapping[str, str]) -> int:
        """Write what was added, and give rows that have no value in a column theirs; the vectors stay as they are.

        Args:
            column: Name of the column, which may be new.
            values: Values by path; other rows are left alone.

        Returns:
            Number of rows that were given a value.

        Raises:
            ValueError: The column is not one of texts.
        """
        import pyarrow as pa
        self.flush()
        schema, shards = joined_schema(self._schema, pa.schema([(column, pa.string())]), str(self.folder)), []
        counts: list[int] = []
        files = self._filled(column, values, shards, counts)
        first = next(files)
        if sum(counts):
            commit(self.folder, chain([first], files))
            self._shards, self._schema = shards, schema
        return sum(counts)

    def flush(self) -> None:
        """Write what was added and dropped since the last time."""
        if not self._new_rows and not self._dropped and is_index(self.folder):
            return
        shards = list(self._shards)
        removed = np.union1d(self._removed, np.array(sorted(self._dropped), np.int64))

        def files() -> Iterator[tuple[str, list]]:
            if self._new_rows:
                yield from self._grown(shards)
            if len(removed):
                yield REMOVED, [_npy(removed)]
            yield self._card(shards, removed)

        commit(self.folder, files())
        self._total += len(self._new_rows)
        self._shards, self._removed = shards, removed
        self._dropped, self._new_rows, self._new_vectors = set(), [], []
        self._flushed = time.monotonic()

    def compact(self) -> None:
        """Write the index without the rows that are superseded or gone, which other programs would read."""
        self.flush()
        if not len(self._removed):
            return
        _, _, vectors, metadata = open_folder(self.folder)
        table = metadata.table()

        def parts() -> Iterator[tuple[np.ndarray, pa.Table]]:
            for start in range(0, len(table), self.rows_per_shard):
                rows = np.arange(start, min(start + self.rows_per_shard, len(table)))
                stored = torch.cat([block for _, block in vectors.steps(rows)]).half().numpy()
                yield stored, table.slice(start, self.rows_per_shard)

        left = -(-len(table) // self.rows_per_shard)
        gone = [name(i) for i in range(left, len(self._shards)) for name in (vectors_name, metadata_name)]
        commit(self.folder, _all_files(self.card, parts()), [*gone, REMOVED])
        self._open()

    def _open(self) -> None:
        """Read what the index has."""
        self._shards: list[Shard] = []
        self._removed = np.empty(0, np.int64)
        self._flushed = time.monotonic()
        self._dropped: set[int] = set()              # positions
        self._new_rows: list[dict] = []
        self._new_vectors: list[np.ndarray] = []
        self._schema = base_schema()
        self._types: set[tuple] = set()              # of the values of rows that the schema has room for
        self._places: dict[str, int] = {}            # position of each path
        self._known: dict[int, tuple[int, int]] = {}  # size and time by position
        self._stats: dict[str, tuple[int, int]] = {}  # found by outdated
        if is_index(self.folder):
            read_card(self.folder)[0].refuse_other(self.card, self.folder)
            _, shards, vectors, metadata = open_folder(self.folder, verify=True)
            self._shards = list(shards)
            if vectors.kept is not None:
                self._removed = np.setdiff1d(np.arange(vectors.total), vectors.kept, assume_unique=True)
            columns = metadata.table(['path', 'size', 'mtime_ns'])
            positions = vectors.positions(np.arange(len(vectors))).tolist()
            paths, sizes, times = (columns[name].to_pylist() for name in columns.column_names)
            self._places = dict(zip(paths, positions))
            self._known = dict(zip(positions, zip(sizes, times)))
            self._schema = metadata.schema
        self._total = sum(shard.rows for shard in self._shards)

    def _remove(self, path: str) -> None:
        place = self._places.pop(path, None)
        if place is not None:
            self._dropped.add(place)
            del self._known[place]

    def _filled(self, column: str, values: Mapping[str, str], shards: list[Shard],
                counts: list[int]) -> Iterator[tuple[str, list]]:
        """Yield the metadata of shards that gain values and the card; list all shards and the values of each."""
        import pyarrow as pa
        import pyarrow.compute as pc
        import pyarrow.parquet as pq
        start = 0
        for i, shard in enumerate(self._shards):
            table = pq.read_table(self.folder / metadata_name(i), partitioning=None)
            if column not in table.column_names:
                table = table.append_column(column, pa.nulls(len(table), pa.string()))
            new = pa.array([values.get(path) if old is None and self._places.get(path) == position else None
                            for position, path, old in zip(range(start, start + len(table)), table['path'].to_pylist(),
                                                           table[column].to_pylist())], pa.string())
            start += len(table)
            counts.append(len(new) - new.null_count)
            if counts[-1]:
                place = table.column_names.index(column)
                metadata = _parquet(table.set_column(place, column, pc.coalesce(table[column], new)))
                shard = replace(shard, metadata_sha256=hashlib.sha256(metadata).hexdigest())
            shards.append(shard)
            if counts[-1]:
                yield metadata_name(i), [metadata]
        yield self._card(shards, self._removed)

    def _card(self, shards: Sequence[Shard], removed: np.ndarray) -> tuple[str, list]:
        """Return the file of the card."""
        return CARD, [write_card(self.card, shards, hashlib.sha256(_npy(removed)).hexdigest() if len(removed) else '')]

    def _grown(self, shards: list[Shard]) -> Iterator[tuple[str, list]]:
        """Yield the files of the new rows, the first of which join the last shard, and list their shards."""
        import pyarrow.parquet as pq
        vectors, tables = list(self._new_vectors), [table_of(self._new_rows, str(self.folder))]
        if shards and shards[-1].rows < self.rows_per_shard:
            last = len(shards) - 1
            vectors = [*np.load(self.folder / vectors_name(last), allow_pickle=False), *vectors]
            tables.insert(0, pq.read_table(self.folder / metadata_name(last), partitioning=None))
            shards.pop()
        table = joined(tables)
        for start in range(0, len(table), self.rows_per_shard):
            part = slice(start, start + self.rows_per_shard)
            yield from _shard(shards, np.stack(vectors[part]), table.slice(start, self.rows_per_shard))


def empty_index(folder: str | os.PathLike, card: IndexCard) -> None:
    """Take all rows out of an index, also of one with another card, which this one replaces.

    Raises:
        FileNotFoundError: The folder is no index.
        OSError: The system cannot write, or another process writes the index.
    """
    folder = Path(folder)
    with folder_lock(folder):
        finish(folder)
        if not is_index(folder):
            raise FileNotFoundError(f'{folder} is not an index: {CARD} does not exist in it')
        commit(folder, [(CARD, [write_card(card, ())])], [name for name in own_files(folder) if name != CARD])


def write_parts(folder: str | os.PathLike, card: IndexCard,
                parts: Iterable[tuple[np.ndarray, pa.Table]]) -> None:
    """Write a new index of any size from parts that are made as they are written, one a shard.

    Args:
        folder: Folder that is new or empty.
        card: Origin of the vectors.
        parts: Unit vectors (rows, E) and their metadata, with the columns that every index has.

    Raises:
        ValueError: The folder holds something.
    """
    with IndexWriter(folder, card) as index:
        if len(index):
            raise ValueError(f'{folder} is an index already; name a new folder')
        commit(index.folder, _all_files(card, ((vectors.astype(np.float16), table) for vectors, table in parts)))


def _all_files(card: IndexCard, parts: Iterable[tuple[np.ndarray, pa.Table]]) -> Iterator[tuple[str, list]]:
    """Yield the files of shards from the first one on, and the card."""
    shards = []
    for vectors, table in parts:
        yield from _shard(shards, vectors, table)
    yield CARD, [write_card(card, shards)]


def _shard(shards: list[Shard], vectors: np.ndarray, table) -> Iterator[tuple[str, list]]:
    """Yield the files of a shard, and append it to the list."""
    data, metadata = _npy(vectors), _parquet(table)
    yield vectors_name(len(shards)), [data]
    yield metadata_name(len(shards)), [metadata]
    shards.append(Shard(len(vectors), hashlib.sha256(data).hexdigest(), hashlib.sha256(metadata).hexdigest()))


def _stat(path: str) -> tuple[int, int]:
    """Return size and time of a file, zeros for an object within an archive."""
    if not os.path.exists(path) and _exists(path):
        return 0, 0
    found = os.stat(path)
    return found.st_size, found.st_mtime_ns


def _exists(path: str) -> bool:
    """Return True if a file exists, or the archive that the path leads into."""
    return os.path.exists(path) or os.path.isfile(os.path.dirname(path))


def _npy(array: np.ndarray) -> memoryview:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getbuffer()


def _parquet(table):
    import pyarrow as pa
    import pyarrow.parquet as pq
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, row_group_size=GROUP_ROWS, compression='zstd')
    return memoryview(sink.getvalue())
