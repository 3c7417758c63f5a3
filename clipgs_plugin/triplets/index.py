"""Index of a triplet dataset, ``index.parquet``: one row per object, built from the shards."""
from __future__ import annotations

import json
import tarfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from clipgs_plugin.io.files import write_whole
from clipgs_plugin.triplets.layout import GAUSSIANS, INDEX, RECORD, VIEW, list_shards, shard_path
from clipgs_plugin.triplets.samples import MEASURES, index_fields
from clipgs_plugin.triplets.settings import read_settings, write_settings

DAMAGED_SHARD = 'download it again, or delete it and resume the run that made it'


def scan_shard(path: str | Path) -> list[dict]:
    """Read the index rows of one shard from the shard itself.

    Raises:
        ValueError: The shard is truncated, or a sample lacks its Gaussians or its record.
    """
    path = Path(path)
    rows: dict[str, dict] = {}
    try:
        with tarfile.open(path, 'r:') as tar, open(path, 'rb') as file:
            end = 0
            for member in tar:
                end = member.offset_data + member.size
                uid, _, name = member.name.partition('.')
                row = rows.setdefault(uid, dict(uid=uid, shard=int(path.stem), view_offsets=[], view_sizes=[]))
                if name == GAUSSIANS:
                    row.update(gaussians_offset=member.offset_data, gaussians_size=member.size)
                elif name == RECORD:
                    file.seek(member.offset_data)
                    row.update(record_offset=member.offset_data, record_size=member.size,
                               **index_fields(json.loads(file.read(member.size))))
                elif name.endswith(VIEW):
                    row['view_offsets'].append(member.offset_data)
                    row['view_sizes'].append(member.size)
    except (tarfile.TarError, json.JSONDecodeError) as error:
        raise ValueError(f'{path} is not a complete tar file ({error}); {DAMAGED_SHARD}') from error
    # A tar file ends in two blocks of zeros; a file cut between two members lacks them.
    if path.stat().st_size < end + 2 * tarfile.BLOCKSIZE:
        raise ValueError(f'{path} is truncated: {path.stat().st_size} bytes, its last member ends at byte {end}, '
                         f'expected an end mark after it; {DAMAGED_SHARD}')
    for uid, row in rows.items():
        missing = {'gaussians_offset', 'record_offset'} - set(row)
        if missing:
            raise ValueError(f'{path}: sample {uid} lacks its {sorted(missing)[0].split("_")[0]}; {DAMAGED_SHARD}')
    return list(rows.values())


def scan_shards(root: str | Path) -> list:
    """Read the index of every complete shard from the shards, one Arrow table per shard."""
    return [rows_table(scan_shard(shard_path(root, shard))) for shard in list_shards(root)]


def rows_table(rows: Sequence[dict]):
    """Convert index rows to an Arrow table, which takes a small part of their memory."""
    import pyarrow as pa
    return pa.Table.from_pylist(list(rows), pa.schema([
        ('uid', pa.string()), ('shard', pa.int32()),
        ('gaussians_offset', pa.int64()), ('gaussians_size', pa.int64()),
        ('view_offsets', pa.list_(pa.int64())), ('view_sizes', pa.list_(pa.int64())),
        ('record_offset', pa.int64()), ('record_size', pa.int64()),
        ('category', pa.string()), ('split', pa.string()), *((name, pa.float64()) for name in MEASURES),
        ('num_gaussians', pa.int64()), ('num_captions', pa.int64()),
    ]))


def read_index(root: str | Path):
    """Read ``index.parquet`` as an Arrow table.

    Early datasets index the PSNR alone, as ``quality``. Their table has it as ``psnr``, and no column
    ``psnr_foreground`` or ``ssim``; :func:`rebuild_index` adds these from the records.

    Raises:
        FileNotFoundError: The dataset has no index.
    """
    import pyarrow.parquet as pq
    path = Path(root) / INDEX
    if not path.is_file():
        raise FileNotFoundError(f'{path} not found: the run that writes {root} has not finished; resume it, or use '
                                'the complete shards after clipgs_plugin.triplets.rebuild_index(root)')
    table = pq.read_table(path).combine_chunks()
    return table.rename_columns(['psnr' if name == 'quality' else name for name in table.column_names])


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
