"""Index of a triplet dataset, ``index.parquet``: one row per object, built from the shards."""
from __future__ import annotations

import tarfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from clipgs_plugin.io.files import write_whole
from clipgs_plugin.triplets.layout import GAUSSIANS, INDEX, RECORD, VIEW, list_shards, shard_path
from clipgs_plugin.triplets.parsing import parsing
from clipgs_plugin.triplets.samples import MEASURES, UID, index_fields, parse_record
from clipgs_plugin.triplets.settings import read_settings, write_settings

REBUILD = 'rebuild it with clipgs_plugin.triplets.rebuild_index'
_LISTS = 'view_offsets', 'view_sizes'
DAMAGED_SHARD = 'download it again, or delete it and resume the run that made it'


def scan_shard(path: str | Path) -> list[dict]:
    """Read the index rows of one shard from the shard itself.

    Raises:
        ValueError: The shard is truncated, or a sample lacks its Gaussians or its record.
    """
    path = Path(path)
    rows: dict[str, dict] = {}
    with parsing(path, DAMAGED_SHARD, 'is not a complete tar file'), \
            tarfile.open(path, 'r:') as tar, open(path, 'rb') as file:
        size = path.stat().st_size
        end = 0
        for member in tar:
            end = member.offset_data + member.size
            if not 0 <= member.size <= size - member.offset_data:
                raise ValueError(f'{member.name!r} ends at byte {end}, the file has {size}')
            uid, _, name = member.name.partition('.')
            if not UID.fullmatch(uid):
                raise ValueError(f'{member.name!a} is no part of an object')
            row = rows.setdefault(uid, dict(uid=uid, shard=int(path.stem), view_offsets=[], view_sizes=[]))
            if name == GAUSSIANS:
                row.update(gaussians_offset=member.offset_data, gaussians_size=member.size)
            elif name == RECORD:
                file.seek(member.offset_data)
                row.update(record_offset=member.offset_data, record_size=member.size, record=file.read(member.size))
            elif name.endswith(VIEW):
                row['view_offsets'].append(member.offset_data)
                row['view_sizes'].append(member.size)
    # A tar file ends in two blocks of zeros; a file cut between two members lacks them.
    if path.stat().st_size < end + 2 * tarfile.BLOCKSIZE:
        raise ValueError(f'{path} is truncated: {path.stat().st_size} bytes, its last member ends at byte {end}, '
                         f'expected an end mark after it; {DAMAGED_SHARD}')
    for uid, row in rows.items():
        missing = {'gaussians_offset', 'record_offset'} - set(row)
        if missing:
            raise ValueError(f'{path}: sample {uid} lacks its {sorted(missing)[0].split("_")[0]}; {DAMAGED_SHARD}')
        row.update(index_fields(parse_record(row.pop('record'), f'{path}: the record of {uid}', uid)))
    return list(rows.values())


def scan_shards(root: str | Path) -> list:
    """Read the index of every complete shard from the shards, one Arrow table per shard."""
    return [rows_table(scan_shard(shard_path(root, shard))) for shard in list_shards(root)]


def rows_table(rows: Sequence[dict]):
    """Convert index rows to an Arrow table, which takes a small part of their memory."""
    import pyarrow as pa
    return pa.Table.from_pylist(list(rows), index_schema())


def index_schema():
    """Return the Arrow schema of the index."""
    import pyarrow as pa
    return pa.schema([
        ('uid', pa.string()), ('shard', pa.int32()),
        ('gaussians_offset', pa.int64()), ('gaussians_size', pa.int64()),
        ('view_offsets', pa.list_(pa.int64())), ('view_sizes', pa.list_(pa.int64())),
        ('record_offset', pa.int64()), ('record_size', pa.int64()),
        ('category', pa.string()), ('split', pa.string()), *((name, pa.float64()) for name in MEASURES),
        ('num_gaussians', pa.int64()), ('num_captions', pa.int64()),
    ])


def read_index(root: str | Path):
    """Read ``index.parquet`` as an Arrow table.

    Early datasets index the PSNR alone, as ``quality``. Their table has it as ``psnr``, and no column
    ``psnr_foreground`` or ``ssim``; :func:`rebuild_index` adds these from the records.

    Raises:
        FileNotFoundError: The dataset has no index.
        ValueError: The index is damaged, has other columns, or promises more than the shards can hold.
    """
    import pyarrow.parquet as pq
    path = Path(root) / INDEX
    if not path.is_file():
        raise FileNotFoundError(f'{path} not found: the run that writes {root} has not finished; resume it, or use '
                                'the complete shards after clipgs_plugin.triplets.rebuild_index(root)')
    with parsing(path, REBUILD), pq.ParquetFile(path) as file:
        _check_footer(root, file.metadata)
        names = ['psnr' if name == 'quality' else name for name in file.schema_arrow.names]
        _check_columns(dict(zip(names, file.schema_arrow.types)))
        table = file.read().combine_chunks().rename_columns(names)
        table.validate(full=True)
        _check_rows(table)
    return table


def _check_footer(root: str | Path, metadata) -> None:
    """Check that a Parquet file promises no more values than the shards have room for; a few bytes can hold millions.

    Every row, and every view of a row, has a member in a shard.
    """
    held = sum(shard_path(root, shard).stat().st_size for shard in list_shards(root)) // tarfile.BLOCKSIZE
    groups = [metadata.row_group(i) for i in range(metadata.num_row_groups)]
    promised = [metadata.num_rows] + [
        sum(group.column(i).num_values for group in groups) for i in range(metadata.num_columns)]
    if not 0 <= min(promised) <= max(promised) <= held:
        raise ValueError(f'it promises {max(promised)} objects or views, the shards have room for {held}')


def _check_columns(types: dict) -> None:
    """Check the columns of an index and their types; more columns are allowed, and early ones lack some measures."""
    for field in index_schema():
        if field.name not in types and field.name in ('split', *MEASURES[1:]):
            continue
        if types.get(field.name) != field.type:
            raise ValueError(f'its column {field.name!r} is {types.get(field.name, "absent")}, expected {field.type}')


def _check_rows(table) -> None:
    """Check that every row has its values, no number is negative, and all rows have the same number of views."""
    import pyarrow.compute as pc
    for field in index_schema():
        if field.name in ('category', *MEASURES) or field.name not in table.column_names:
            continue
        column = table[field.name]
        values = pc.list_flatten(column) if field.name in _LISTS else column
        if column.null_count or values.null_count:
            raise ValueError(f'its column {field.name!r} lacks values')
        if field.type != 'string' and len(values) and pc.min(values).as_py() < 0:
            raise ValueError(f'its column {field.name!r} holds negative numbers')
        if field.name in _LISTS and len(table) and pc.any(pc.not_equal(pc.list_value_length(column),
                                                                       views_per_object(table))).as_py():
            raise ValueError(f'its column {field.name!r} has lists of different lengths')


def write_index(root: str | Path, settings: dict, tables: Sequence) -> None:
    """Write the index, given one table per shard, then ``dataset.json`` with the counts.

    Raises:
        ValueError: A uid occurs more than once.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq
    table = pa.concat_tables([rows_table([]), *tables]).combine_chunks()
    repeated = [uid for uid, count in Counter(table['uid'].to_pylist()).items() if count > 1]
    if repeated:
        raise ValueError(f'{root} contains {len(repeated)} objects more than once, the first {repeated[0]!r}; remove '
                         'one of the shards that contain it')
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression='zstd')
    write_whole(Path(root) / INDEX, [sink.getvalue()])
    counts = dict(
        objects=len(table), shards=len(tables), views_per_object=views_per_object(table),
        gaussians=sum(table['num_gaussians'].to_pylist()), captions=sum(table['num_captions'].to_pylist()),
        splits=dict(Counter(table['split'].to_pylist())),
        categories=len(set(table['category'].to_pylist()) - {None}))
    write_settings(root, {**settings, 'counts': counts})


def views_per_object(table) -> int:
    """Return the number of views of each object of an index."""
    return len(table['view_sizes'][0]) if len(table) else 0


def rebuild_index(root: str | Path) -> int:
    """Rebuild ``index.parquet`` and the counts of ``dataset.json`` from the shards alone.

    This also joins datasets written by several machines with the same settings: move all shards into one dataset
    under new numbers (and their feature files likewise), then rebuild.

    Returns:
        The number of objects.

    Raises:
        ValueError: A shard is damaged, or an object occurs twice.
    """
    tables = scan_shards(root)
    write_index(root, read_settings(root), tables)
    return sum(map(len, tables))
