"""Random access to triplet datasets."""
from __future__ import annotations

import io
import os
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from clipgs_plugin.structures import GaussianCloud
from clipgs_plugin.triplets.codecs import decode_gaussians, decode_view, views_array
from clipgs_plugin.triplets.index import DAMAGED_SHARD, read_index, views_per_object
from clipgs_plugin.triplets.layout import shard_path
from clipgs_plugin.triplets.parsing import parsing
from clipgs_plugin.triplets.samples import MEASURES, parse_record
from clipgs_plugin.triplets.settings import read_settings


class ShardReader:
    """Random access to the objects of a triplet dataset.

    Members are read at the byte offsets of the index, because tarfile and webdataset read a tar file from its start.
    The reader holds the index and a few open files. It may be forked; pickling it (spawned loader workers) reopens the
    files.

    Args:
        root: Folder of a complete dataset.

    Attributes:
        settings: Contents of ``dataset.json``.
        uids: Unique name of each object, in the order of the shards.
        categories: Class name or None of each object.
        splits: Split of each object; all are in train if the index has no splits.
        psnr: PSNR on held-out views in dB, NaN if not measured, (n,) float64.
        psnr_foreground: The same over foreground pixels. NaN if an early dataset does not index it;
            :func:`~clipgs_plugin.triplets.rebuild_index` does.
        ssim: SSIM on held-out views, likewise.
        shards: Shard number of each object, (n,) int32.
        num_views: Number of views of each object.

    Raises:
        FileNotFoundError: The folder has no complete dataset.
        ValueError: A file is damaged; parts of shards are checked when they are read.
    """

    max_open_files = 64

    def __init__(self, root: str | Path) -> None:
        self._files: OrderedDict[int, io.FileIO] = OrderedDict()
        self.root = Path(root)
        self.settings = read_settings(root)
        table = read_index(root)
        self.uids: list[str] = table['uid'].to_pylist()
        self.categories: list[str | None] = table['category'].to_pylist()
        self.splits: list[str] = table['split'].to_pylist() if 'split' in table.column_names else ['train'] * len(table)
        self.psnr, self.psnr_foreground, self.ssim = (_measured(table, name) for name in MEASURES)
        self.shards = table['shard'].to_numpy()
        self._members = {name: np.stack([table[f'{name}_offset'], table[f'{name}_size']], axis=1)
                         for name in ('gaussians', 'record')}
        self.num_views = views_per_object(table)
        self._views = np.stack([table[f'view_{part}'].combine_chunks().flatten().to_numpy()
                                for part in ('offsets', 'sizes')], axis=1).reshape(len(table), self.num_views, 2)

    def __reduce__(self):
        return type(self), (self.root,)

    def __del__(self) -> None:
        self.close()

    def close(self) -> None:
        """Close the open shards; the next read opens them again."""
        while self._files:
            self._files.popitem()[1].close()

    def __len__(self) -> int:
        return len(self.uids)

    def __repr__(self) -> str:
        return f'{type(self).__name__}({str(self.root)!r}: {len(self)} objects, {self.num_views} views each)'

    def _read(self, index: int, member: np.ndarray) -> bytes:
        """Read one member, given its offset and size."""
        shard, (offset, size) = int(self.shards[index]), map(int, member)
        path = shard_path(self.root, shard)
        if shard not in self._files:
            if len(self._files) >= self.max_open_files:
                self._files.popitem(last=False)[1].close()
            self._files[shard] = open(path, 'rb', buffering=0)  # noqa: SIM115
        self._files.move_to_end(shard)
        held = os.fstat(self._files[shard].fileno()).st_size
        if offset + size > held:
            raise ValueError(f'{path} is truncated: {self.uids[index]} lies at bytes {offset} to {offset + size}, the '
                             f'file ends at {held}; {DAMAGED_SHARD}')
        return _read_at(self._files[shard], offset, size)

    def _name(self, index: int, part: str) -> str:
        """Return the name of a part of an object in errors."""
        return f'{shard_path(self.root, int(self.shards[index]))}: the {part} of {self.uids[index]}'

    def read_gaussians(self, index: int) -> GaussianCloud:
        """Read the Gaussians of an object, float32 on the CPU."""
        data = self._read(index, self._members['gaussians'][index])
        with parsing(self._name(index, 'Gaussians'), DAMAGED_SHARD):
            return decode_gaussians(data).validate('values')

    def read_views(self, index: int, which: Sequence[int] | None = None) -> np.ndarray:
        """Read all or the chosen views of an object, (K, H, W, 3) uint8 sRGB."""
        members = self._views[index] if which is None else self._views[index][list(which)]
        views = [self._read(index, member) for member in members]
        with parsing(self._name(index, 'views'), DAMAGED_SHARD):
            return views_array(list(map(decode_view, views)))

    def read_record(self, index: int) -> dict:
        """Read the record of an object: captions, category, source, quality and the rest, as written."""
        data = self._read(index, self._members['record'][index])
        return parse_record(data, self._name(index, 'record'), self.uids[index])


def _measured(table, name: str) -> np.ndarray:
    """Return a column of measurements, (n,) float64, NaN where it is null or absent."""
    if name not in table.column_names:
        return np.full(len(table), np.nan)
    return table[name].to_numpy().astype(np.float64)


def _read_at(file: io.FileIO, offset: int, size: int) -> bytes:
    """Read without moving the file position, which forked processes share."""
    if hasattr(os, 'pread'):
        return os.pread(file.fileno(), size, offset)
    file.seek(offset)  # Windows, which does not fork
    return file.read(size)
