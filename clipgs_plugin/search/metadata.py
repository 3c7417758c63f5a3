"""Metadata of an index: columns by name, and rows by number, read when they are asked for."""
from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from clipgs_plugin.search.layout import COLUMNS, REMEDY
from clipgs_plugin.triplets.parsing import parsing

if TYPE_CHECKING:
    import pyarrow as pa

GROUP_ROWS = 1024      # of a Parquet file, the least that is read for one row
CACHED_GROUPS = 256
MAX_COLUMNS = 1000


class TableMetadata:
    """Metadata in memory.

    Args:
        table: Columns.
        paths: Paths of the rows, where some are not Unicode and stand in the table with escapes.
    """

    def __init__(self, table: pa.Table, paths: Sequence[str] | None = None) -> None:
        self._paths = paths
        self.schema, self.names = table.schema, table.column_names
        self._table = table.combine_chunks()

    def table(self, names: Sequence[str] | None = None) -> pa.Table:
        """Return the columns, all by default."""
        return self._table if names is None else self._table.select(list(names))

    def take(self, rows: np.ndarray) -> list[dict]:
        """Return rows as dicts."""
        found = self._table.take(rows).to_pylist()
        if self._paths is not None:
            for row, number in zip(found, rows):
                row['path'] = self._paths[number]
        return found


class ShardMetadata:
    """Metadata of shards in Parquet files.

    Args:
        paths: Files of the shards.
        counts: Rows of each.
        kept: Positions that are rows, or None if all are.

    Raises:
        ValueError: A file is damaged, lacks a column, or has another number of rows.
    """

    def __init__(self, paths: Sequence[Path], counts: Sequence[int], kept: np.ndarray | None) -> None:
        import pyarrow as pa
        self.paths, self.kept = list(paths), kept
        self.counts, self.starts = list(counts), np.cumsum([0, *counts])
        self._files = [_identity(path) for path in self.paths]
        schemas = list(map(_checked_schema, self.paths, counts))
        with parsing(self.paths[0].parent if self.paths else 'metadata', REMEDY):
            self.schema = pa.unify_schemas([base_schema(), *schemas], promote_options='permissive')
        self.names = self.schema.names
        self._group = lru_cache(CACHED_GROUPS)(self._read_group)

    def table(self, names: Sequence[str] | None = None) -> pa.Table:
        """Return the columns, all by default."""
        import pyarrow as pa
        import pyarrow.parquet as pq
        names = self.names if names is None else list(names)
        schema = pa.schema([self.schema.field(name) for name in names])
        tables = [schema.empty_table()]
        for shard, path in enumerate(self.paths):
            with parsing(path, REMEDY), pq.ParquetFile(path) as file:
                held = set(file.schema_arrow.names)
                tables.append(_checked(file.read([name for name in names if name in held])))
            self._refuse_new(shard)
        with parsing(self.paths[0].parent if self.paths else 'metadata', REMEDY):
            joined = pa.concat_tables(tables, promote_options='permissive').select(names).cast(schema)
        return joined if self.kept is None else joined.take(self.kept)

    def take(self, rows: np.ndarray) -> list[dict]:
        """Return rows as dicts."""
        found = []
        for position in (rows if self.kept is None else self.kept[rows]).tolist():
            shard = int(np.searchsorted(self.starts, position, 'right')) - 1
            group, inside = divmod(position - int(self.starts[shard]), GROUP_ROWS)
            row = self._group(shard, group).slice(inside, 1).to_pylist()
            found.append({**dict.fromkeys(self.names), **row[0]})
        return found

    def _read_group(self, shard: int, group: int) -> pa.Table:
        import pyarrow.parquet as pq
        path = self.paths[shard]
        with parsing(path, REMEDY), pq.ParquetFile(path) as file:
            table = _checked(file.read_row_group(group))
        self._refuse_new(shard)
        return table

    def _refuse_new(self, shard: int) -> None:
        """Refuse a file that was replaced since the index was loaded, whose rows may be others."""
        if _identity(self.paths[shard]) != self._files[shard]:
            raise ValueError(f'{self.paths[shard]} was written since the index was loaded; load it again')


def _identity(path: Path) -> tuple[int, int, int]:
    found = path.stat()
    return found.st_ino, found.st_size, found.st_mtime_ns


def base_schema() -> pa.Schema:
    """Return the columns of every index."""
    import pyarrow as pa
    return pa.schema([(name, getattr(pa, 'float64' if kind == 'double' else kind)()) for name, kind in COLUMNS.items()])


def _checked(table: pa.Table) -> pa.Table:
    """Check the values of columns: text is Unicode, and every row has a path."""
    table.validate(full=True)
    if 'path' in table.column_names and table['path'].null_count:
        raise ValueError(f'{table["path"].null_count} rows do not have a path')
    return table


def _checked_schema(path: Path, rows: int) -> pa.Schema:
    """Read the columns of a shard after a check of its rows; a few bytes can promise millions."""
    import pyarrow as pa
    import pyarrow.parquet as pq
    with parsing(path, REMEDY), pq.ParquetFile(path) as file:
        footer = file.metadata
        groups = [footer.row_group(i).num_rows for i in range(footer.num_row_groups)]
        if footer.num_rows != rows or groups != [min(GROUP_ROWS, rows - i) for i in range(0, rows, GROUP_ROWS)]:
            raise ValueError(f'it has {footer.num_rows} rows, the vectors have {rows}')
        names = file.schema_arrow.names
        if len(names) > MAX_COLUMNS or len(set(names)) < len(names):
            raise ValueError(f'it has {len(names)} columns of {len(set(names))} names, expected at most {MAX_COLUMNS} '
                             'columns, each of its own name')
        for name, kind in COLUMNS.items():
            if name not in file.schema_arrow.names or str(file.schema_arrow.field(name).type) != kind:
                raise ValueError(f'its column {name!r} is absent or not of {kind}')
        for field in file.schema_arrow:
            if not (pa.types.is_string(field.type) or pa.types.is_integer(field.type)
                    or pa.types.is_floating(field.type) or pa.types.is_boolean(field.type)):
                raise ValueError(f'its column {field.name!r} is {field.type}, expected text or numbers')
        return file.schema_arrow.remove_metadata()
