"""Triplets on disk: WebDataset shards with an index for random access.

Layout: :mod:`~clipgs_plugin.triplets.layout`. Any tar tool or ``webdataset`` reads the shards; nothing is pickled.
"""
from __future__ import annotations

import io
import json
import os
import tarfile
from collections import Counter, OrderedDict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from clipgs_plugin.io.files import write_whole
from clipgs_plugin.structures import GaussianCloud
from clipgs_plugin.triplets.codecs import DTYPES, decode_gaussians, decode_view, to_json, views_array
from clipgs_plugin.triplets.layout import (
    FORMAT,
    FORMAT_VERSION,
    FRAME,
    GAUSSIANS,
    INDEX,
    RECORD,
    SETTINGS,
    list_shards,
    shard_path,
)
from clipgs_plugin.triplets.samples import Sample, encode_sample, indexed


def read_settings(root: str | Path) -> dict:
    """``dataset.json``, its format checked."""
    path = Path(root) / SETTINGS
    if not path.is_file():
        raise FileNotFoundError(f'{path} not found: {root} is not a folder of triplets; make one with '
                                'tools/make_toy_world.py, or of your own data with tools/make_triplets.py '
                                'or clipgs_plugin.triplets.ShardWriter')
    settings = json.loads(path.read_text(encoding='utf-8'))
    if settings.get('format') != FORMAT or settings.get('version') != FORMAT_VERSION:
        raise ValueError(f'{path}: format {settings.get("format")!r} version {settings.get("version")!r}, this release '
                         f'reads {FORMAT!r} version {FORMAT_VERSION}; use the release that wrote it')
    return settings


def differing(found: dict, wanted: dict) -> str:
    """Which settings that are wanted are not found, in words."""
    return '; '.join(f'{name}: {_short(there)} there, {_short(value)} wanted'
                     for name, there, value in _differing(found, wanted))


def _short(value) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f'{text[:57]}...'


def _differing(found: dict, wanted: dict, prefix: str = '') -> Iterator[tuple[str, Any, Any]]:
    for key, value in wanted.items():
        there = found.get(key)
        if isinstance(there, dict) and isinstance(value, dict):
            yield from _differing(there, {**dict.fromkeys(there), **value}, f'{prefix}{key}.')
        elif there != value:
            yield f'{prefix}{key}', there, value


# Index

def scan_shard(path: str | Path) -> list[dict]:
    """The index rows of one shard, read from the shard itself.

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
                uid, _, suffix = member.name.partition('.')
                row = rows.setdefault(uid, dict(uid=uid, shard=int(path.stem), view_offsets=[], view_sizes=[]))
                if suffix == GAUSSIANS:
                    row.update(gaussians_offset=member.offset_data, gaussians_size=member.size)
                elif suffix == RECORD:
                    file.seek(member.offset_data)
                    row.update(record_offset=member.offset_data, record_size=member.size,
                               **indexed(json.loads(file.read(member.size))))
                elif suffix.endswith('.webp'):
                    row['view_offsets'].append(member.offset_data)
                    row['view_sizes'].append(member.size)
    except (tarfile.TarError, json.JSONDecodeError) as error:
        raise ValueError(f'{path} is not a whole tar file ({error}); {_MEND}') from error
    # A tar ends in two blocks of zeros, which a file cut between two members lacks.
    if path.stat().st_size < end + 2 * tarfile.BLOCKSIZE:
        raise ValueError(f'{path} is truncated: {path.stat().st_size} bytes, its last member ends at {end} and an end '
                         f'mark should follow; {_MEND}')
    for uid, row in rows.items():
        missing = {'gaussians_offset', 'record_offset'} - set(row)
        if missing:
            raise ValueError(f'{path}: sample {uid} lacks its {sorted(missing)[0].split("_")[0]}; {_MEND}')
    return list(rows.values())


_MEND = 'download it again, or delete it and resume the run that made it'


def _table(rows: Sequence[dict]):
    """Index rows as an Arrow table, a small part of their size as dicts."""
    import pyarrow as pa
    return pa.Table.from_pylist(list(rows), pa.schema([
        ('uid', pa.string()), ('shard', pa.int32()),
        ('gaussians_offset', pa.int64()), ('gaussians_size', pa.int64()),
        ('view_offsets', pa.list_(pa.int64())), ('view_sizes', pa.list_(pa.int64())),
        ('record_offset', pa.int64()), ('record_size', pa.int64()),
        ('category', pa.string()), ('split', pa.string()), ('quality', pa.float64()),
        ('num_gaussians', pa.int64()), ('num_captions', pa.int64()),
    ]))


def _finish(root: Path, settings: dict, tables: Sequence) -> None:
    """Write the index, one table a shard, then the counts."""
    import pyarrow as pa
    import pyarrow.parquet as pq
    table = pa.concat_tables([_table([]), *tables]).combine_chunks()
    repeated = [uid for uid, count in Counter(table['uid'].to_pylist()).items() if count > 1]
    if repeated:
        raise ValueError(f'{root} holds {len(repeated)} objects more than once, the first {repeated[0]!r}; remove '
                         'one of the shards that hold it')
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression='zstd')
    write_whole(root / INDEX, [sink.getvalue()])
    counts = dict(
        objects=len(table), shards=len(tables), views_per_object=_num_views(table),
        gaussians=sum(table['num_gaussians'].to_pylist()), captions=sum(table['num_captions'].to_pylist()),
        splits=dict(Counter(table['split'].to_pylist())),
        categories=len(set(table['category'].to_pylist()) - {None}))
    write_whole(root / SETTINGS, [to_json({**settings, 'counts': counts}, indent=2)])


def _num_views(table) -> int:
    """Views of each object of an index."""
    return len(table['view_sizes'][0]) if len(table) else 0


def rebuild_index(root: str | Path) -> int:
    """Make ``index.parquet`` and the counts anew from the shards alone.

    Also the way to join folders that several machines wrote with the same settings: move the shards into one folder
    under new numbers (and the files of their features likewise), then rebuild.

    Returns:
        The number of objects.

    Raises:
        ValueError: A shard is damaged, or an object is there twice.
    """
    root = Path(root)
    tables = [_table(scan_shard(shard_path(root, shard))) for shard in list_shards(root)]
    _finish(root, read_settings(root), tables)
    return sum(map(len, tables))


# Writing

class ShardWriter:
    """Writes triplets as shards; killed and started again it goes on after the last whole shard.

    A shard is written under a temporary name and renamed when whole, so at most the open shard is done twice. The
    same objects in the same order give the same bytes, interrupted or not. One writer to a folder; folders written
    apart are joined by :func:`rebuild_index`. ::

        with ShardWriter(out, generator=dict(name='my_objects', version='1')) as writer:
            for item in items:
                if item.uid not in writer:
                    writer.write(item.uid, cloud, views, captions=['a red chair'], category='chair')

    Leaving the block by an exception drops the open shard; the next run does it again.

    Args:
        out_dir: Folder of the dataset; an existing one is continued if its settings agree.
        sh_degree: SH degree of every object; lower ones are filled with zeros, higher ones are cut.
        frame: The frame of the Gaussians, in words.
        render: How views were made (size, cameras, background, ...), kept in ``dataset.json``.
        generator: What made the data and its version, kept in ``dataset.json``.
        dtype: ``'float16'`` (error bound at :func:`~clipgs_plugin.triplets.codecs.encode_gaussians`) or
            ``'float32'``, exact.
        webp_quality: WebP quality of views, 0 to 100; None stores them without loss.
        objects_per_shard: Objects in a full shard.

    Raises:
        ValueError: The folder holds a dataset with other settings.
    """

    def __init__(self, out_dir: str | Path, *, sh_degree: int = 0, frame: str = FRAME, render: dict | None = None,
                 generator: dict | None = None, dtype: str = 'float16', webp_quality: int | None = 90,
                 objects_per_shard: int = 128) -> None:
        if dtype not in DTYPES:
            raise ValueError(f'dtype={dtype!r}: expected one of {sorted(DTYPES)}')
        if objects_per_shard < 1:
            raise ValueError(f'objects_per_shard={objects_per_shard}: expected at least 1')
        self.root = Path(out_dir)
        self.settings = dict(
            format=FORMAT, version=FORMAT_VERSION, frame=frame, sh_degree=sh_degree, dtype=dtype,
            webp_quality=webp_quality, objects_per_shard=objects_per_shard, render=render or {},
            generator=generator or {})
        self._file: io.BufferedWriter | None = None
        self._open_rows: list[dict] = []
        self._continue()

    def _continue(self) -> None:
        """Take up the folder as the last run left it."""
        (self.root / 'shards').mkdir(parents=True, exist_ok=True)
        if (self.root / SETTINGS).is_file():
            found = read_settings(self.root)
            wanted = json.loads(to_json(self.settings))
            if any(found.get(key) != wanted[key] for key in wanted):
                raise ValueError(f'{self.root} holds triplets with other settings ({differing(found, wanted)}); '
                                 'write to another folder, or delete this one')
        elif list_shards(self.root):
            raise ValueError(f'{self.root} holds shards but no dataset.json; write to another folder')
        for leftover in (self.root / 'shards').glob('*.tmp'):
            leftover.unlink()
        # Until the run ends the folder must not read as whole.
        (self.root / INDEX).unlink(missing_ok=True)
        write_whole(self.root / SETTINGS, [to_json(self.settings, indent=2)])
        shards = list_shards(self.root)
        self._tables = [_table(scan_shard(shard_path(self.root, shard))) for shard in shards]
        self._uids = {uid for table in self._tables for uid in table['uid'].to_pylist()}
        self._shard = shards[-1] + 1 if shards else 0
        self._num_views = _num_views(self._tables[0]) if shards else None

    def __contains__(self, uid: str) -> bool:
        return uid in self._uids

    def __len__(self) -> int:
        return len(self._uids)

    def __enter__(self) -> ShardWriter:
        return self

    def __exit__(self, exc_type, exc, traceback) -> None:
        if exc_type is None:
            self.close()
        else:
            self.abort()

    def write(self, uid: str, gaussians: GaussianCloud, views=(), **described) -> None:
        """Add one object.

        Args:
            uid: Unique in the dataset.
            gaussians: The object, in the dataset's frame.
            views: sRGB images, (V, H, W, 3) uint8; V is the same for all objects of a dataset.
            described: ``captions``, at least one, and as wanted ``category``, ``split``, ``source``, ``quality``,
                ``attributes`` and ``cameras``, as :func:`~clipgs_plugin.triplets.samples.encode_sample` takes them.

        Raises:
            ValueError: A name, shape or value that the format cannot hold.
        """
        stored = {name: self.settings[name] for name in ('sh_degree', 'dtype', 'webp_quality')}
        self.add(encode_sample(uid, gaussians, views, **described, **stored))

    def add(self, sample: Sample) -> None:
        """Add an object that was encoded with the ``sh_degree``, ``dtype`` and ``webp_quality`` of this dataset.

        Raises:
            ValueError: It is in the dataset already, or has another number of views than the objects before it.
        """
        uid, num_views = sample.row['uid'], len(sample.row['view_sizes'])
        if uid in self:
            raise ValueError(f'uid {uid!r} is in {self.root} already; skip objects for which `uid in writer`')
        if self._num_views not in (None, num_views):
            raise ValueError(f'{uid}: {num_views} views, the objects before it have {self._num_views}; all objects of '
                             'a dataset need the same number')
        if self._file is None:
            self._file = open(self._temporary(), 'wb')  # noqa: SIM115
        self._open_rows.append(sample.row_in(self._shard, self._file.tell()))
        self._file.write(sample.data)
        self._uids.add(uid)
        self._num_views = num_views
        if len(self._open_rows) == self.settings['objects_per_shard']:
            self._commit()

    def _temporary(self) -> Path:
        return Path(f'{shard_path(self.root, self._shard)}.tmp')

    def _commit(self) -> None:
        """End the open shard as tar files end, and give it its final name."""
        if self._file is None:
            return
        end = 2 * tarfile.BLOCKSIZE
        self._file.write(bytes(end + -(self._file.tell() + end) % tarfile.RECORDSIZE))
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        final = shard_path(self.root, self._shard)
        if final.exists():
            raise FileExistsError(f'{final} has appeared meanwhile: another run writes to {self.root}; stop one')
        os.replace(self._temporary(), final)
        self._tables.append(_table(self._open_rows))
        self._file, self._open_rows, self._shard = None, [], self._shard + 1

    def abort(self) -> None:
        """Drop the open shard; whole shards stay and the folder can be continued."""
        if self._file is not None:
            self._file.close()
            self._temporary().unlink()
        self._uids -= {row['uid'] for row in self._open_rows}
        self._file, self._open_rows = None, []

    def close(self) -> None:
        """Finish the open shard and write the index and the counts."""
        self._commit()
        _finish(self.root, self.settings, self._tables)


# Reading

def _read_at(file: io.FileIO, offset: int, size: int) -> bytes:
    """Read without moving the file's position, which forked processes share."""
    if hasattr(os, 'pread'):
        return os.pread(file.fileno(), size, offset)
    file.seek(offset)  # Windows, which knows no fork
    return file.read(size)


class ShardReader:
    """Random access to a folder of triplets.

    Holds the index and a few open files; it may be forked, and pickling it (spawned loader workers) reopens the folder.

    Args:
        root: A folder that :class:`ShardWriter` finished.

    Attributes:
        settings: ``dataset.json``.
        uids: Unique name of each object, in the order of the shards.
        categories: Class name or None of each object.
        splits: Split of each object.
        quality: Held-out PSNR in dB of each object, NaN where it was not measured, (n,) float64.
        shards: Shard of each object, (n,) int32.
    """

    max_open_files = 64

    def __init__(self, root: str | Path) -> None:
        self._files: OrderedDict[int, io.FileIO] = OrderedDict()
        import pyarrow.parquet as pq
        self.root = Path(root)
        self.settings = read_settings(root)
        path = self.root / INDEX
        if not path.is_file():
            raise FileNotFoundError(f'{path} not found: the run that writes {root} has not ended; resume it, or use '
                                    'the whole shards after clipgs_plugin.triplets.rebuild_index(root)')
        table = pq.read_table(path).combine_chunks()
        self.uids: list[str] = table['uid'].to_pylist()
        self.categories: list[str | None] = table['category'].to_pylist()
        self.splits: list[str] = table['split'].to_pylist()
        self.quality = table['quality'].to_numpy().astype(np.float64)
        self.shards = table['shard'].to_numpy()
        self._members = {name: np.stack([table[f'{name}_offset'], table[f'{name}_size']], axis=1)
                         for name in ('gaussians', 'record')}
        self.num_views = _num_views(table)
        self._views = np.stack([table[f'view_{part}'].combine_chunks().flatten().to_numpy()
                                for part in ('offsets', 'sizes')], axis=1).reshape(len(table), self.num_views, 2)

    def __reduce__(self):
        return type(self), (self.root,)

    def __del__(self) -> None:
        self.close()

    def close(self) -> None:
        """Close the open shards; reading opens them again."""
        while self._files:
            self._files.popitem()[1].close()

    def __len__(self) -> int:
        return len(self.uids)

    def __repr__(self) -> str:
        return f'{type(self).__name__}({str(self.root)!r}: {len(self)} objects, {self.num_views} views each)'

    def _read(self, index: int, member: np.ndarray) -> bytes:
        """The bytes of one member, given its offset and size."""
        shard, (offset, size) = int(self.shards[index]), map(int, member)
        path = shard_path(self.root, shard)
        if shard not in self._files:
            if len(self._files) >= self.max_open_files:
                self._files.popitem(last=False)[1].close()
            self._files[shard] = open(path, 'rb', buffering=0)  # noqa: SIM115
        self._files.move_to_end(shard)
        data = _read_at(self._files[shard], offset, size)
        if len(data) != size:
            raise ValueError(f'{path} is truncated: {self.uids[index]} lies at bytes {offset} to {offset + size}, the '
                             f'file ends at {path.stat().st_size}; {_MEND}')
        return data

    def read_gaussians(self, index: int) -> GaussianCloud:
        """The Gaussians of an object, float32 on the CPU."""
        return decode_gaussians(self._read(index, self._members['gaussians'][index]))

    def read_views(self, index: int, which: Sequence[int] | None = None) -> np.ndarray:
        """Some views, or all, of an object, (K, H, W, 3) uint8 sRGB."""
        members = self._views[index] if which is None else self._views[index][list(which)]
        return views_array([decode_view(self._read(index, member)) for member in members])

    def read_record(self, index: int) -> dict:
        """Captions, category, source, quality and the rest, as :meth:`ShardWriter.write` took them."""
        return json.loads(self._read(index, self._members['record'][index]))

    def features(self, teacher: str):
        """The cached features of a teacher, a :class:`~clipgs_plugin.triplets.features.ShardFeatures`."""
        from clipgs_plugin.triplets.features import ShardFeatures
        return ShardFeatures(self, teacher)
