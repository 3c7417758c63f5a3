"""Writing of triplet datasets."""
from __future__ import annotations

import io
import json
import os
import tarfile
from contextlib import ExitStack
from pathlib import Path

from clipgs_plugin.io.lock import folder_lock
from clipgs_plugin.structures import GaussianCloud
from clipgs_plugin.triplets.codecs import DTYPES, to_json
from clipgs_plugin.triplets.index import rows_table, scan_shards, views_per_object, write_index
from clipgs_plugin.triplets.layout import (
    FORMAT,
    FORMAT_VERSION,
    FRAME,
    INDEX,
    OPEN,
    SETTINGS,
    SHARDS,
    list_shards,
    open_shard_path,
    shard_path,
)
from clipgs_plugin.triplets.samples import Sample, encode_sample
from clipgs_plugin.triplets.settings import describe_differences, read_settings, write_settings


class ShardWriter:
    """Resumable writer of a triplet dataset.

    A shard is written under a temporary name and renamed when it is complete, so a killed run repeats at most the open
    shard. The same objects in the same order give the same bytes, interrupted or not. A dataset takes one writer at a
    time, which holds the lock of its folder until it is closed; :func:`~clipgs_plugin.triplets.rebuild_index` joins
    datasets that were written separately. ::

        with ShardWriter(out, generator=dict(name='my_objects', version='1')) as writer:
            for item in items:
                if item.uid not in writer:
                    writer.write(item.uid, cloud, views, captions=['a red chair'], category='chair')

    Leaving the block by an exception drops the open shard; the next run repeats it.

    Args:
        out_dir: Folder of the dataset. An existing dataset is continued if its settings agree.
        sh_degree: SH degree of every object; lower degrees are filled with zeros, higher degrees are cut.
        frame: Description of the coordinate frame.
        render: Settings of the views (size, cameras, background, ...), kept in ``dataset.json``.
        generator: Name and version of the program that made the data, kept in ``dataset.json``.
        dtype: ``'float16'`` (error bounds at :func:`~clipgs_plugin.triplets.codecs.encode_gaussians`) or
            ``'float32'``, exact.
        webp_quality: WebP quality of the views, 0 to 100; None stores them losslessly.
        objects_per_shard: Number of objects in a full shard.

    Raises:
        ValueError: An argument is invalid, or the folder contains a dataset with other settings.
        FolderInUse: Another writer is open.
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
        (self.root / SHARDS).mkdir(parents=True, exist_ok=True)
        with ExitStack() as stack:
            stack.enter_context(folder_lock(self.root))
            self._resume()
            self._lock = stack.pop_all()

    def _resume(self) -> None:
        """Continue from the complete shards of the last run."""
        self._check_folder()
        for leftover in (self.root / SHARDS).glob(f'*{OPEN}'):
            leftover.unlink()
        # Until the run ends, the folder must not read as a complete dataset.
        (self.root / INDEX).unlink(missing_ok=True)
        write_settings(self.root, self.settings)
        shards = list_shards(self.root)
        self._tables = scan_shards(self.root)
        self._uids = {uid for table in self._tables for uid in table['uid'].to_pylist()}
        self._shard = shards[-1] + 1 if shards else 0
        self._num_views = views_per_object(self._tables[0]) if shards else None

    def _check_folder(self) -> None:
        """Check that a dataset in the folder has these settings."""
        if (self.root / SETTINGS).is_file():
            found = read_settings(self.root)
            expected = json.loads(to_json(self.settings))
            if any(found.get(key) != expected[key] for key in expected):
                raise ValueError(f'{self.root} contains triplets with other settings '
                                 f'({describe_differences(found, expected)}); write to another folder, or delete this '
                                 'one')
        elif list_shards(self.root):
            raise ValueError(f'{self.root} contains shards but no {SETTINGS}; write to another folder')

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

    def write(self, uid: str, gaussians: GaussianCloud, views=(), **fields) -> None:
        """Add an object.

        Args:
            uid: Unique name in the dataset.
            gaussians: Gaussians of the object, in the dataset's frame.
            views: sRGB images, (V, H, W, 3) uint8; V is the same for all objects of a dataset.
            fields: ``captions``, at least one, and optionally ``category``, ``split``, ``source``, ``quality``,
                ``attributes`` and ``cameras``; see :func:`~clipgs_plugin.triplets.samples.encode_sample`.

        Raises:
            ValueError: A name, shape or value does not fit the format.
        """
        stored = {name: self.settings[name] for name in ('sh_degree', 'dtype', 'webp_quality')}
        self.add(encode_sample(uid, gaussians, views, **fields, **stored))

    def add(self, sample: Sample) -> None:
        """Add an object encoded with the ``sh_degree``, ``dtype`` and ``webp_quality`` of this dataset.

        Raises:
            ValueError: The dataset contains the uid already, or its other objects have another number of views.
        """
        uid, num_views = sample.row['uid'], len(sample.row['view_sizes'])
        if uid in self:
            raise ValueError(f'uid {uid!r} is in {self.root} already; skip objects for which `uid in writer`')
        if self._num_views not in (None, num_views):
            raise ValueError(f'{uid}: {num_views} views, the objects before it have {self._num_views}; all objects of '
                             'a dataset need the same number')
        if self._file is None:
            self._file = open(open_shard_path(self.root, self._shard), 'wb')  # noqa: SIM115
        self._open_rows.append(sample.row_in(self._shard, self._file.tell()))
        self._file.write(sample.data)
        self._uids.add(uid)
        self._num_views = num_views
        if len(self._open_rows) == self.settings['objects_per_shard']:
            self._commit()

    def _commit(self) -> None:
        """Write the tar end mark of the open shard and give the file its final name."""
        if self._file is None:
            return
        end = 2 * tarfile.BLOCKSIZE
        self._file.write(bytes(end + -(self._file.tell() + end) % tarfile.RECORDSIZE))
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        final = shard_path(self.root, self._shard)
        if final.exists():
            raise FileExistsError(f'{final} appeared during the run: another run writes to {self.root}; stop one')
        os.replace(open_shard_path(self.root, self._shard), final)
        self._tables.append(rows_table(self._open_rows))
        self._file, self._open_rows, self._shard = None, [], self._shard + 1

    def abort(self) -> None:
        """Drop the open shard; complete shards stay, and the dataset can be continued."""
        if self._file is not None:
            self._file.close()
            open_shard_path(self.root, self._shard).unlink()
        self._uids -= {row['uid'] for row in self._open_rows}
        self._file, self._open_rows = None, []
        self._lock.close()

    def close(self) -> None:
        """Complete the open shard and write the index and the counts."""
        with self._lock:
            self._commit()
            write_index(self.root, self.settings, self._tables)
